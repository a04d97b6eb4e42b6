"""Documents, connectors and a service that shows what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from automate_kernel.connectors import ConnectorContext
from automate_kernel.operations.portal import Portal
from automate_openapi import OpenApiConnector

HERE = Path(__file__).parent
PETSTORE = HERE / "petstore.yaml"
TOKEN = "token-never-to-be-seen-2718281828"


class Secrets:
    """Has one value under every key."""

    def get(self, key: str) -> str:
        return TOKEN

    async def aget(self, key: str) -> str:
        return TOKEN


def document(paths: Mapping[str, Any], *, version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    """Return a document with *paths*."""
    return {
        "openapi": version,
        "info": {"title": "Test", "version": "1"},
        "servers": [{"url": "https://api.example.com/v1"}],
        "paths": paths,
        **more,
    }


def operation(**more: Any) -> dict[str, Any]:
    """Return an operation that answers with anything."""
    return {"responses": {"200": {"description": "fine"}}, **more}


def connector(source: Mapping[str, Any] | Path, folder: Path, **config: Any) -> OpenApiConnector:
    """Return a connector of a document, which is written to *folder*."""
    if isinstance(source, Mapping):
        path = folder / "openapi.json"
        path.write_text(json.dumps(source))
    else:
        path = source
    return OpenApiConnector(
        {"document": str(path), **config},
        ctx=ConnectorContext(key="api", secrets=Secrets()),
    )


def specs(made: OpenApiConnector) -> Mapping[str, Any]:
    """Return the actions of a connector."""
    return asyncio.run(_own(made))


async def _own(made: OpenApiConnector) -> Mapping[str, Any]:
    return await made.own_operations()


def call(made: OpenApiConnector, name: str, values: Mapping[str, Any] | None = None) -> Any:
    """Call an action as the kernel does."""
    portal = Portal()
    try:
        return portal.run(made.call_action(name, dict(values or {})))
    finally:
        portal.close()


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


@contextmanager
def recording_service() -> Iterator[Service]:
    """Serve on this machine."""
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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
