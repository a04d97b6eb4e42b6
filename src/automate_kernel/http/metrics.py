"""Metrics as an ASGI application, to be mounted where the host's own monitoring may reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from automate_kernel.monitoring.prometheus import CONTENT_TYPE, Exporter

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["metrics_app"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def metrics_app(kernel: Kernel) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """
    An ASGI application that answers GET with the metrics of *kernel*, whatever the path.

    It asks nobody who they are: mount it behind what does, or on an address of its own. ::

        app.mount("/metrics", metrics_app(kernel))
    """
    exporter = Exporter(kernel)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _reply(send, 405, b"", [(b"allow", b"GET, HEAD")])
            return
        body = (await asyncio.to_thread(exporter.render)).encode()
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
        await _reply(send, 200, body, headers, head=scope["method"] == "HEAD")

    return app


async def _reply(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, head: bool = False
) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
