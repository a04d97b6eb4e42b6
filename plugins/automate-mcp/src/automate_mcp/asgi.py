"""The server over streamable HTTP, as an ASGI application."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from mcp.server import ServerRequestContext
from mcp.server.auth.handlers.metadata import ProtectedResourceMetadataHandler
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, cors_middleware
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.auth import ProtectedResourceMetadata
from pydantic import AnyHttpUrl

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.secrets.logs import get_logger
from automate_mcp.server import mcp_server
from automate_mcp.settings import SCOPES, Authorization, Caller, ServeSettings, TokenTable

logger: logging.Logger = get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
FindCaller = Callable[[str], "Caller | None"]

_CALLER = "automate.caller"
_HERE = ("127.0.0.1", "localhost", "[::1]")
# Beside the arguments of a call: the rest of the message.
_MORE_BYTES = 100_000


def mcp_app(
    kernel: Kernel,
    settings: ServeSettings,
    *,
    path: str = "/mcp",
    find_caller: FindCaller | None = None,
) -> BearerApp:
    """
    Return the ASGI application that offers *settings* of *kernel* at *path*.

    Each request needs a bearer token: one of the settings, one of the authorization server that
    they name, or one for which *find_caller*, in place of the settings' tokens, returns a `Caller`.
    That is called on a thread. With an authorization server the metadata of this resource is served
    too, below ``/.well-known/oauth-protected-resource``. Requests with another ``Host`` or
    ``Origin`` than the settings allow are refused. The lifespan of the server has to reach it. The
    kernel stays the caller's to close. Raises `ConfigError` if there is no token at all.
    """
    finders = [find_caller or _token_finder(kernel, settings)]
    if settings.authorization is not None:
        from automate_mcp.access_tokens import AccessTokens

        finders.append(AccessTokens(settings.authorization).caller)

    def find(token: str) -> Caller | None:
        return next((found for each in finders if (found := each(token)) is not None), None)

    app = mcp_server(kernel, settings, _caller_of).streamable_http_app(
        streamable_http_path=path,
        max_request_body_size=settings.max_input_bytes + _MORE_BYTES,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[*_HERE, *(f"{host}:*" for host in _HERE), *settings.allowed_hosts],
            allowed_origins=[
                *(f"http://{host}{port}" for host in _HERE for port in ("", ":*")),
                *settings.allowed_origins,
            ],
        ),
    )
    return BearerApp(app, find, settings.authorization)


def _token_finder(kernel: Kernel, settings: ServeSettings) -> FindCaller:
    table = TokenTable(settings.tokens, kernel.secrets.get)
    if not len(table) and settings.authorization is None:
        raise ConfigError(
            "the HTTP server has no tokens, so nobody could use it",
            hint='add [[commands.mcp.tokens]] with name, token = "$secret:KEY" and scopes,'
            " or [commands.mcp.authorization]",
        )
    return table.caller


class BearerApp:
    """
    Lets requests with a valid bearer token through to *app*, with the caller in their scope.

    With an *authorization* server it serves the metadata of this resource, which needs no token.
    """

    def __init__(
        self, app: Any, find_caller: FindCaller, authorization: Authorization | None = None
    ) -> None:
        self._app = app
        self._find_caller = find_caller
        self._metadata_path, self._metadata_url, self._metadata = "", "", None
        if authorization is not None:
            self._metadata = _metadata_of(authorization)
            self._metadata_url = str(
                build_resource_metadata_url(AnyHttpUrl(authorization.resource))
            )
            self._metadata_path = urlsplit(self._metadata_url).path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass the lifespan on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        import anyio.to_thread

        if self._metadata is not None and scope["path"] == self._metadata_path:
            await self._metadata(scope, receive, send)
            return
        token = _token_in(scope)
        caller = None
        try:
            if token is not None:
                caller = await anyio.to_thread.run_sync(self._find_caller, token)
        except AutomateError as error:
            if not error.retryable:
                raise
            # Not 401: a client would ask its person to log in again.
            await _answer(send, 503, "temporarily_unavailable", "Tokens can't be checked now.")
            return
        if caller is None:
            await self._refuse(send, is_wrong=token is not None)
            return
        # Sessions belong to who began them: the SDK compares this.
        # Two tenants' callers may have one name: neither may go on with the other's.
        client = json.dumps([caller.tenant_id, caller.name])
        user = AuthenticatedUser(AccessToken(token="", client_id=client, scopes=[]))
        await self._app({**scope, _CALLER: caller, "user": user}, receive, send)

    async def _refuse(self, send: Send, *, is_wrong: bool) -> None:
        told = ['error="invalid_token"'] if is_wrong else []
        if self._metadata is not None:
            told.append(f'resource_metadata="{self._metadata_url}"')
        challenge = f"Bearer {', '.join(told)}".strip()
        await _answer(send, 401, "invalid_token", "The token is not valid.", challenge)


def _metadata_of(authorization: Authorization) -> Any:
    """Return the application that answers with the metadata of this resource (RFC 9728)."""
    # Of text, not of URL objects: those would add a slash, and clients compare the issuer exactly.
    told = ProtectedResourceMetadata.model_validate(
        {
            "resource": authorization.resource,
            "authorization_servers": [authorization.issuer],
            "scopes_supported": list(SCOPES),
        }
    )
    return cors_middleware(ProtectedResourceMetadataHandler(told).handle, ["GET", "OPTIONS"])


def _token_in(scope: Scope) -> str | None:
    found = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def _answer(send: Send, status: int, error: str, text: str, challenge: str = "") -> None:
    body = json.dumps({"error": error, "error_description": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if challenge:
        headers.append((b"www-authenticate", challenge.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    caller = ctx.request.scope.get(_CALLER) if ctx.request is not None else None
    if not isinstance(caller, Caller):
        raise PermissionError("a request without a caller")
    return caller
