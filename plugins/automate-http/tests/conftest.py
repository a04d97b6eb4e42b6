"""A real HTTP server on this machine, and names that lead to it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from automate_http import HttpConnector
from automate_kernel.operations.context import Call, ConnectorContext, calling

pytest.register_assert_rewrite("automate_testing")
sys.path.insert(0, str(Path(__file__).parent / "support"))

# A busy machine is no failure: no example has to be ready within a time. With `search` others come.
if hypothesis.settings.get_current_profile_name() not in {"project", "search"}:
    hypothesis.settings.register_profile("plugin", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("plugin")


@dataclass
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """What to answer, by path, and what was asked."""

    port: int = 0
    http: Any = None
    requests: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/", host: str = "public.test", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def answer(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Answer requests for *path* like this. Names of headers may have ``_`` for ``-``."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(body)

        self.answers[path] = send

    @property
    def last(self) -> Received:
        return self.requests[-1]


def serve(server: Server) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append(Received(self.command, self.path, headers, body))
            answer = server.answers.get(self.path.partition("?")[0])
            if answer is None:
                server.answer("", 404)
                answer = server.answers.pop("")
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

        def log_message(self, *args: Any) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # or the kernel makes the sixth at once wait for a second

    http = Listener(("127.0.0.1", 0), Handler)
    server.port, server.http = http.server_address[1], http
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return http


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    http = serve(state)
    yield state
    state.stopping.set()
    http.shutdown()
    http.server_close()


async def everything_is_here(host: str, port: int) -> list[str]:
    """A resolver for which every name leads to this machine."""
    return ["127.0.0.1"]


@pytest.fixture
def connect() -> Callable[..., HttpConnector]:
    """Makes a connector for which ``public.test``, at this machine, counts as public."""

    def make(
        resolver: Callable[[str, int], Awaitable[list[str]]] = everything_is_here,
        ctx: ConnectorContext | None = None,
        **config: Any,
    ) -> HttpConnector:
        config.setdefault("allow_private_networks", ["public.test"])
        return HttpConnector(config, ctx=ctx, resolver=resolver)

    return make


@pytest.fixture
def run() -> Callable[..., Any]:
    """Calls an action as the kernel does, and waits for its output."""

    def run(connector: HttpConnector, action: str, key: str | None = None, **data: Any) -> Any:
        async def call() -> Any:
            with calling(Call(f"http.{action}", idempotency_key=key)):
                try:
                    return await connector.call_action(action, data)
                finally:
                    await connector.close()

        return asyncio.run(call())

    return run
