"""A service that records requests and gives the answers that a test has prepared."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Sent:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """A service that records requests. *answers* are given in turn; the last one stays."""

    url: str
    sent: list[Sent] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, content: Any = None, status: int = 200, **headers: str) -> None:
        """Add an answer: JSON, or bytes as they are."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(content, bytes):
            body = content
        else:
            body = json.dumps(content).encode()
            named = {"Content-Type": "application/json", **named}
        self.answers.append((status, named, body))

    @property
    def last(self) -> Sent:
        """The last request."""
        return self.sent[-1]

    @property
    def config(self) -> dict[str, Any]:
        """The config to call it."""
        return {"base_url": self.url, "allow_private_networks": ["127.0.0.1"]}


@pytest.fixture
def service() -> Iterator[Service]:
    """A service on this machine."""
    found: list[Service] = []

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            service = found[0]
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.sent.append(
                Sent(self.command, self.path, headers, self.rfile.read(length) if length else b"")
            )
            answers = service.answers or [(200, {"Content-Type": "application/json"}, b"{}")]
            status, named, body = answers[0]
            if len(answers) > 1:
                answers.pop(0)
            self.send_response(status)
            for name, value in named.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.append(Service(f"http://127.0.0.1:{server.server_port}"))
    # The interval is the time that the end of each test waits.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield found[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
