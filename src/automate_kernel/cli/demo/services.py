"""The services that the demonstration's workflows call: a warehouse that fails, and a chat."""

from __future__ import annotations

import hmac
import json
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FAILURES", "Services"]

FAILURES = 2
"""How often the warehouse fails before it answers."""


class Services:
    """
    A server on a free port of this machine, while it is used as a context manager.

    The warehouse answers 503 to the first requests with an idempotency key. The chat wants *token*.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: Any, body: Any) -> tuple[HTTPStatus, dict[str, Any]]:
        """The answer to a POST."""
        if path == "/warehouse/reservations":
            return self._reserve(str(headers.get("Idempotency-Key")), body)
        if path == "/chat/messages":
            given = str(headers.get("Authorization")).encode()
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                return HTTPStatus.UNAUTHORIZED, {"error": "who are you?"}
            return HTTPStatus.OK, {"posted": body["text"]}
        return HTTPStatus.NOT_FOUND, {"error": "there is nothing here"}

    def _reserve(self, key: str, body: Any) -> tuple[HTTPStatus, dict[str, Any]]:
        with self._lock:
            self._requests[key] += 1
            number = self._requests[key]
        if number <= FAILURES:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the warehouse is counting"}
        made = {"reservation": f"W-{body['order'][-6:]}", "requests_with_this_key": number}
        return HTTPStatus.CREATED, made


def _handler(services: Services) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, answer = services.answer(self.path, self.headers, body)
            content = json.dumps(answer, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
