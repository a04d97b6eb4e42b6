"""The services that the workflows call, on a free port: a warehouse that fails, and a chat."""

from __future__ import annotations

import hmac
import json
import os
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAILURES = 2
"""The number of times that the warehouse fails before it answers."""
requests: Counter[str] = Counter()


def reserve(key: str, body: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
    """Answer 503 to the first requests with an idempotency key."""
    requests[key] += 1
    if requests[key] <= FAILURES:
        return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the warehouse is counting"}
    made = {"reservation": f"W-{body['order'][-6:]}", "requests_with_this_key": requests[key]}
    return HTTPStatus.CREATED, made


def say(authorization: str, body: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
    """Take a message from a client that has the token."""
    token = f"Bearer {os.environ['AUTOMATE_SECRET_CHAT_TOKEN']}"
    if not hmac.compare_digest(authorization.encode(), token.encode()):
        return HTTPStatus.UNAUTHORIZED, {"error": "who are you?"}
    return HTTPStatus.OK, {"posted": body["text"]}


class Handler(BaseHTTPRequestHandler):
    """Both services."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.path == "/warehouse/reservations":
            status, answer = reserve(str(self.headers.get("Idempotency-Key")), body)
        elif self.path == "/chat/messages":
            status, answer = say(str(self.headers.get("Authorization")), body)
        else:
            status, answer = HTTPStatus.NOT_FOUND, {"error": "there is nothing here"}
        content = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
