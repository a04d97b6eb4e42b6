"""A Stripe that does what it is asked, and remembers each idempotency key, as Stripe's does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

STARTS = {
    "products": {"id": "prod_1", "active": True},
    "prices": {"id": "price_1", "active": True},
    "subscriptions": {
        "id": "sub_1", "status": "active", "cancel_at_period_end": False,
        "items": {"object": "list", "data": [{"id": "si_1", "quantity": 1}], "has_more": False},
    },
    "invoices": {
        "id": "in_1", "status": "draft", "currency": "eur", "total": 1_050, "amount_due": 1_050,
        "amount_paid": 0,
    },
    "invoiceitems": {"id": "ii_1"},
}  # fmt: skip
STATUS = {"finalize": "open", "send": "open", "pay": "paid", "void": "void"}


class RememberingStripe:
    """What was done, in its order, and the answers to each key."""

    def __init__(self) -> None:
        self.done: list[str] = []
        """Each request that has changed something: its path, without those that were repeated."""
        self.asked: list[str] = []
        """Each request that should change something: with those that were repeated."""
        self._answers: dict[str, tuple[bytes, bytes]] = {}
        self._lock = threading.Lock()

    def answer(self, path: str, key: str | None, body: bytes) -> tuple[int, bytes]:
        """Do what is asked, if its key is new. Another body under a key is refused."""
        with self._lock:
            self.asked.append(path)
            if key is not None and key in self._answers:
                asked, answered = self._answers[key]
                if asked != body:
                    return 400, b'{"error": {"type": "idempotency_error", "message": "other"}}'
                return 200, answered
            self.done.append(path)
            answer = json.dumps(_made(path, dict(parse_qsl(body.decode())))).encode()
            if key is not None:
                self._answers[key] = body, answer
            return 200, answer


def _made(path: str, fields: dict[str, str]) -> dict[str, Any]:
    """Return the object after a request to *path*."""
    kind, *rest = path.removeprefix("/v1/").split("/")
    numbers = {
        name: int(fields[name]) for name in ("amount", "unit_amount", "quantity") if name in fields
    }
    flat = {name: value for name, value in fields.items() if "[" not in name and name != "active"}
    status = {"status": STATUS[rest[1]]} if len(rest) > 1 else {}
    return {"customer": "cus_1", **flat, **numbers, **STARTS[kind], **status}


@contextmanager
def remembering_stripe() -> Iterator[tuple[str, RememberingStripe]]:
    """Run it on this machine, and give its URL."""
    stripe = RememberingStripe()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = stripe.answer(self.path, self.headers.get("Idempotency-Key"), body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", stripe
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
