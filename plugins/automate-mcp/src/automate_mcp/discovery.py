"""
The authorization server of an MCP server: found, and this client registered there.

The specification of MCP says how: the server's 401 or its protected-resource metadata (RFC 9728)
names an authorization server, whose own metadata (RFC 8414) has the rest. What a stranger names is
asked through the guard, which keeps requests out of private networks.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import httpx2
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    extract_field_from_www_auth,
    get_client_metadata_scopes,
    issuers_match,
)
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    ProtectedResourceMetadata,
)
from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url
from pydantic import AnyUrl, BaseModel

from automate_http import AddressPolicy, Guard, GuardedTransport, OAuthServer, Reply
from automate_http.exchange import Bounds, exchange
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.hosts import check_encrypted, is_loopback
from automate_mcp.config import OAuthSettings

M = TypeVar("M", bound=BaseModel)

_BOUNDS = Bounds(timeout_seconds=15.0, max_bytes=262_144, max_redirects=0)
_ASKED = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_GRANTS = ["authorization_code", "refresh_token"]
_LONGEST = 200


def find_server(url: str, settings: OAuthSettings, redirect_uri: str) -> OAuthServer:
    """
    Return the authorization server of the MCP server at *url*, with a client for *redirect_uri*.

    Blocks, on a thread without an event loop. Raises `AutomateError` that says what is missing.
    """
    return asyncio.run(_Discovery(url, settings).find(redirect_uri))


class _Discovery:
    def __init__(self, url: str, settings: OAuthSettings) -> None:
        self._url, self._settings = url, settings
        self._guard = Guard(AddressPolicy.parse(settings.networks_for(url)))

    async def find(self, redirect_uri: str) -> OAuthServer:
        transport = GuardedTransport(self._guard)
        try:
            return await self._find(transport, redirect_uri)
        finally:
            await transport.aclose()

    async def _find(self, transport: httpx.AsyncBaseTransport, redirect_uri: str) -> OAuthServer:
        asked = await _send(transport, "POST", self._url, _ASKED)
        # The SDK's readers take its own kind of response.
        refusal = httpx2.Response(asked.status, headers=dict(asked.headers))
        told = extract_field_from_www_auth(refusal, "resource_metadata")
        resource = await self._resource(transport, told if asked.status == 401 else None)
        server = await self._metadata(transport, resource)
        if "S256" not in (server.code_challenge_methods_supported or ()):
            raise _unfit(f"{_place(server.issuer)} doesn't say that it supports PKCE with S256")
        for endpoint in (server.token_endpoint, server.authorization_endpoint):
            self._require_https(str(endpoint))
        asked_scope = extract_field_from_www_auth(refusal, "scope")
        scope = get_client_metadata_scopes(asked_scope, resource, server, _GRANTS)
        scopes = tuple(self._settings.scopes or (scope or "").split())
        client_id = self._settings.client_id
        if client_id is None:
            client_id = await _registered(transport, server, redirect_uri, scopes)
        return OAuthServer(
            token_url=str(server.token_endpoint),
            client_id=client_id,
            authorize_url=str(server.authorization_endpoint),
            scopes=scopes,
            issuer=str(server.issuer),
            names_itself=bool(server.authorization_response_iss_parameter_supported),
            resource=str(resource.resource)
            if resource
            else resource_url_from_server_url(self._url),
        )

    def _require_https(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise _unfit(f"{_place(url)} is not https")
        try:
            check_encrypted(url, allow_plain_http=self._settings.allow_plain_http)
        except ValueError as error:
            raise _unfit(f"{_place(url)} is not https", str(error)) from None

    async def _resource(
        self, transport: httpx.AsyncBaseTransport, told: str | None
    ) -> ProtectedResourceMetadata | None:
        """Return the metadata of the MCP server; None for one of before RFC 9728."""
        for url in build_protected_resource_metadata_discovery_urls(told, self._url):
            found = _read(await _send(transport, "GET", url), ProtectedResourceMetadata)
            if found is None:
                continue
            mine = resource_url_from_server_url(self._url)
            # Or a server could have our token for another made out, and sent to it.
            if not check_resource_allowed(mine, str(found.resource)):
                raise _unfit("its metadata is about another resource than this server")
            return found
        return None

    async def _metadata(
        self, transport: httpx.AsyncBaseTransport, resource: ProtectedResourceMetadata | None
    ) -> OAuthMetadata:
        named = str(resource.authorization_servers[0]) if resource is not None else None
        parts = urlsplit(self._url)
        expected = named or f"{parts.scheme}://{parts.netloc}"
        for url in build_oauth_authorization_server_metadata_discovery_urls(named, self._url):
            found = _read(await _send(transport, "GET", url), OAuthMetadata)
            if found is None:
                continue
            if not issuers_match(str(found.issuer), expected):
                raise _unfit("the metadata of its authorization server is another's")
            return found
        raise _unfit("it names no authorization server whose metadata can be read")


async def _registered(
    transport: httpx.AsyncBaseTransport,
    server: OAuthMetadata,
    redirect_uri: str,
    scopes: tuple[str, ...],
) -> str:
    """Return the id of a new client. It is public: a secret would have to be kept somewhere."""
    by_hand = "register a client there by hand, and give oauth.client_id in the config"
    if server.registration_endpoint is None:
        raise _unfit(f"{_place(server.issuer)} lets no client register itself", by_hand)
    about = OAuthClientMetadata(
        redirect_uris=[AnyUrl(redirect_uri)],
        client_name="automate-kernel",
        token_endpoint_auth_method="none",  # noqa: S106 - no password
        application_type="native" if is_loopback(urlsplit(redirect_uri).hostname) else "web",
        scope=" ".join(scopes) or None,
    ).model_dump(mode="json", exclude_none=True)
    reply = await _send(transport, "POST", str(server.registration_endpoint), about)
    client = _read(reply, OAuthClientInformationFull, status=(200, 201))
    if client is None:
        raise _unfit(f"{_place(server.issuer)} registered no client: {_reason(reply)}", by_hand)
    if client.token_endpoint_auth_method not in (None, "none") or (
        client.token_endpoint_auth_method is None and client.client_secret is not None
    ):
        raise _unfit(f"{_place(server.issuer)} registers no public clients", by_hand)
    return client.client_id


async def _send(
    transport: httpx.AsyncBaseTransport, method: str, url: str, body: Any = None
) -> Reply:
    headers = {"accept": "application/json, text/event-stream", "accept-encoding": "identity"}
    request = httpx.Request(method, url, headers=headers, json=body)
    return await exchange(transport, request, _BOUNDS)


def _read(reply: Reply, model: type[M], *, status: tuple[int, ...] = (200,)) -> M | None:
    if reply.status not in status:
        return None
    try:
        return model.model_validate_json(reply.content)
    except ValueError:
        return None


def _reason(reply: Reply) -> str:
    try:
        told = json.loads(reply.content)
        text = str(told.get("error_description") or told.get("error") or "")
    except (ValueError, RecursionError, AttributeError):
        text = ""
    shown = "".join(each if each.isprintable() else " " for each in text)[:_LONGEST]
    return f"status {reply.status}" + (f", {shown}" if shown else "")


def _place(url: Any) -> str:
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.netloc}"


def _unfit(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.FAILED_PRECONDITION, problem, hint=hint)
