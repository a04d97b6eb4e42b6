"""The servers of ``automate mcp serve``: on standard input and output, and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from mcp.server import ServerRequestContext
from mcp.server.stdio import stdio_server

from automate_cli.patient_protocol import PatientProtocol
from automate_kernel import Kernel
from automate_kernel.base.errors import ConfigError
from automate_mcp.asgi import mcp_app
from automate_mcp.server import mcp_server
from automate_mcp.settings import Caller, ServeSettings

_GRACE_SECONDS = 5


def serve_stdio(kernel: Kernel, settings: ServeSettings) -> None:
    """Serve one client on standard input and output, until it closes them."""
    caller = settings.local_caller()

    def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
        return caller

    async def run() -> None:
        server = mcp_server(kernel, settings, caller_of)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    asyncio.run(run())


def serve_http(
    kernel: Kernel,
    settings: ServeSettings,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
) -> None:
    """
    Serve clients with a token, until SIGTERM or Ctrl-C. *ready* gets a line with the address.

    Raises `ConfigError` if nobody could reach it, or it can't listen.
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not settings.allowed_hosts:
        raise ConfigError(
            f"no host is allowed by which clients reach {host}",
            hint='set allowed_hosts = ["mcp.example.com"] in [commands.mcp]',
        )
    app = mcp_app(kernel, settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from None
    shown = f"[{host}]" if ":" in host else host
    ready(f"MCP at http://{shown}:{listening.getsockname()[1]}/mcp")
    server_of(app).run(sockets=[listening])


def server_of(app: Any) -> uvicorn.Server:
    """Return a server for *app* that gives up on slow clients, most of which have no token."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=PatientProtocol,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(config)


@contextmanager
def working(kernel: Kernel, *, wanted: bool) -> Iterator[None]:
    """Run a worker on a thread during the block, if it is *wanted*."""
    if not wanted:
        yield
        return
    worker = kernel.worker()
    thread = threading.Thread(target=worker.run, name="automate-mcp-worker")
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
