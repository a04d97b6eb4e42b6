"""The connector ``http``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import httpx

from automate_http.addresses import AddressPolicy, normal_host
from automate_http.body import ACCEPT_ENCODING
from automate_http.config import HttpConfig
from automate_http.content import encode_body, encode_json, response_of
from automate_http.exchange import Bounds, Reply, exchange
from automate_http.failures import failure_of
from automate_http.guard import Guard, Resolver, origin, resolve
from automate_http.headers import call_key, check_headers, checked_headers, key_as_header
from automate_http.messages import (
    GetInput,
    HttpResponse,
    PostInput,
    RequestInput,
    WebhookInput,
    WebhookResult,
)
from automate_http.redirects import REDIRECTS
from automate_http.transports import Transports
from automate_http.urls import full_url, parse_base_url
from automate_kernel import Connector, ConnectorContext, action, current_call
from automate_kernel.base.errors import AutomateError, ErrorCodes, SecretError
from automate_kernel.triggers.webhooks import StandardWebhooksSignature

_GONE = 410


class HttpConnector(Connector):
    """
    HTTP requests and signed webhooks, to public addresses unless the config says otherwise.

    Actions are asynchronous, so that many can wait for slow services at once. Each event loop that
    they run on has connections of its own.
    """

    key = "http"
    display_name = "HTTP"

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        ctx: ConnectorContext | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        super().__init__(dict(config or {}), ctx=ctx)
        self._settings: HttpConfig = self.parse_config(config)
        url = self._settings.base_url
        self._base = parse_base_url(url) if url is not None else None
        hosts = self._settings.allowed_hosts
        self._guard = Guard(
            AddressPolicy.parse(self._settings.allow_private_networks),
            None if hosts is None else frozenset(map(normal_host, hosts)),
            resolver,
        )
        self._transports = Transports(
            self._guard, ca_file=self._settings.ca_file, owner="the connector 'http'"
        )

    @classmethod
    def config_schema(cls) -> type[HttpConfig]:
        """Return the model of the config: the allowed requests, and their limits."""
        return HttpConfig

    @action
    async def request(self, data: RequestInput) -> HttpResponse:
        """Send an HTTP request and return the response."""
        return await self._respond(data.method, data)

    @action(read_only=True)
    async def get(self, data: GetInput) -> HttpResponse:
        """Get a URL."""
        return await self._respond("GET", data)

    @action
    async def post(self, data: PostInput) -> HttpResponse:
        """Send JSON, text or a form to a URL."""
        return await self._respond("POST", data)

    @action(idempotent=True)
    async def send_webhook(self, data: WebhookInput) -> WebhookResult:
        """
        Send JSON with a signature of Standard Webhooks, so that the receiver can verify its origin.

        The message's id is the same for each attempt of a step, so the receiver recognizes a
        repetition. No redirect is followed, and every status but 410 Gone is worth another attempt.
        """
        body = encode_json(data.payload)
        signed = _signed(data, body)
        # The signature's headers last: a workflow's own must not replace them.
        headers = {"content-type": "application/json", **checked_headers(data.headers), **signed}
        reply = await self._exchange(
            self._request("POST", full_url(data.url, {}, self._base), headers, body),
            self._bounds(data.timeout_seconds, None, 0),
        )
        if not 200 <= reply.status < 300:
            raise self._undelivered(reply)
        return WebhookResult(status=reply.status, message_id=signed["webhook-id"])

    async def check(self) -> str | None:
        """Check that the host of `base_url` can be found, and is at an allowed address."""
        if self._base is None:
            return None
        self._guard.check_url(self._base)
        port = self._base.port or (443 if self._base.scheme == "https" else 80)
        try:
            found = await self._guard.addresses(self._base.raw_host.decode("ascii"), port)
        except OSError:
            raise AutomateError(
                ErrorCodes.UNAVAILABLE, f"{origin(self._base)} can't be found"
            ) from None
        return f"{origin(self._base)} has {len(found)} allowed address(es)"

    async def close(self) -> None:
        """Close the connections of this event loop, and leave those of others to their loops."""
        await self._transports.aclose()

    async def _respond(self, method: str, data: GetInput) -> HttpResponse:
        content, kind = encode_body(data) if isinstance(data, PostInput) else (b"", None)
        headers = {**({"content-type": kind} if kind else {}), **checked_headers(data.headers)}
        request = self._request(
            method, full_url(data.url, data.query, self._base), headers, content
        )
        bounds = self._bounds(data.timeout_seconds, data.max_bytes, data.follow_redirects)
        reply = await self._exchange(request, bounds)
        # A redirect that was not followed is a success only if it was asked for.
        failed = reply.status >= 400 or (reply.status in REDIRECTS and data.follow_redirects != 0)
        if failed and data.raise_for_status:
            raise failure_of(reply, self.ctx.redact)
        return response_of(reply)

    def _request(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: bytes
    ) -> httpx.Request:
        check_headers(headers)
        sent = {
            "accept": "*/*",
            "user-agent": self._settings.user_agent,
            **self._own_headers(url),
            **self._idempotency(method),
            **headers,
            "accept-encoding": ACCEPT_ENCODING,
        }
        if content or method in ("POST", "PUT", "PATCH"):
            sent["content-length"] = str(len(content))
        return httpx.Request(method, url, headers=sent, content=content)

    def _own_headers(self, url: httpx.URL) -> dict[str, str]:
        if self._base is None or origin(url) != origin(self._base):
            return {}
        headers = self._settings.headers
        return {name.lower(): value.get_secret_value() for name, value in headers.items()}

    def _idempotency(self, method: str) -> dict[str, str]:
        key, name = call_key(method), self._settings.idempotency_header
        return {} if name is None or key is None else {name.lower(): key_as_header(key)}

    def _bounds(
        self, timeout_seconds: float | None, max_bytes: int | None, max_redirects: int | None
    ) -> Bounds:
        settings = self._settings
        return Bounds(
            _at_most("timeout_seconds", timeout_seconds, settings.timeout_seconds),
            int(_at_most("max_response_bytes", max_bytes, settings.max_response_bytes)),
            int(_at_most("max_redirects", max_redirects, settings.max_redirects)),
        )

    async def _exchange(self, request: httpx.Request, bounds: Bounds) -> Reply:
        return await exchange(self._transports.get(), request, bounds)

    def _undelivered(self, reply: Reply) -> AutomateError:
        error = failure_of(reply, self.ctx.redact)
        if reply.status == _GONE:
            error.hint = "the receiver wants no more of these"
        else:
            # A receiver that is being deployed answers 404 or 400 too.
            error.retryable, error.hint = True, None
        return error


def _signed(data: WebhookInput, body: bytes) -> dict[str, str]:
    secrets = data.secret if isinstance(data.secret, list) else [data.secret]
    message_id = data.message_id
    call = current_call()
    if message_id is None and call is not None and call.idempotency_key is not None:
        # Hashed, as an id has no dots.
        digest = hashlib.sha256(call.idempotency_key.encode("utf-8", "surrogatepass"))
        message_id = f"msg_{digest.hexdigest()[:32]}"
    try:
        return StandardWebhooksSignature().sign(
            body, *(secret.get_secret_value() for secret in secrets), message_id=message_id
        )
    except SecretError as error:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, error.message, hint=error.hint) from None
    except (TypeError, ValueError) as error:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, str(error)) from None


def _at_most(name: str, wanted: float | None, most: float) -> float:
    if wanted is None:
        return most
    if wanted > most:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the action asks for more than the connector's {name} of {most:g}",
            hint=f"raise {name} in the config of the connector 'http'",
        )
    return wanted
