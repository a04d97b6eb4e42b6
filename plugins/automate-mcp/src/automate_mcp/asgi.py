"""The server over streamable HTTP, as an ASGI application."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings

from automate_kernel import Kernel
from automate_kernel.errors import ConfigError
from automate_kernel.secrets.logs import get_logger
from automate_mcp.server import mcp_server
from automate_mcp.settings import Caller, ServeSettings, TokenTable

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

    Each request needs a bearer token: one of the settings, or one for which *find_caller* returns
    a `Caller`. That is called on a thread. Requests with another ``Host`` or ``Origin`` than the
    settings allow are refused. The lifespan of the server has to reach it. The kernel stays the
    caller's to close. Raises `ConfigError` if there is no token at all.
    """
    if find_caller is None:
        table = TokenTable(settings.tokens, kernel.secrets.get)
        if not len(table):
            raise ConfigError(
                "the HTTP server has no tokens, so nobody could use it",
                hint='add [[commands.mcp.tokens]] with name, token = "$secret:KEY" and scopes',
            )
        find_caller = table.caller
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
    return BearerApp(app, find_caller)


class BearerApp:
    """Lets requests with a valid bearer token through to *app*, with the caller in their scope."""

    def __init__(self, app: Any, find_caller: FindCaller) -> None:
        self._app = app
        self._find_caller = find_caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass the lifespan on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        import anyio.to_thread

        token = _token_in(scope)
        caller = None
        if token is not None:
            caller = await anyio.to_thread.run_sync(self._find_caller, token)
        if caller is None:
            await _refuse(send)
            return
        # Sessions belong to who began them: the SDK compares this.
        # Of two tenants' callers with one name, neither may go on with the other's.
        client = json.dumps([caller.tenant_id, caller.name])
        user = AuthenticatedUser(AccessToken(token="", client_id=client, scopes=[]))
        await self._app({**scope, _CALLER: caller, "user": user}, receive, send)


def _token_in(scope: Scope) -> str | None:
    found = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def _refuse(send: Send) -> None:
    body = json.dumps({"error": "invalid_token", "error_description": "The token is not valid."})
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


def _caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    caller = ctx.request.scope.get(_CALLER) if ctx.request is not None else None
    if not isinstance(caller, Caller):
        raise PermissionError("a request without a caller")
    return caller
