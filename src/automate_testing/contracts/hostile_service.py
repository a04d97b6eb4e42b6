"""A service on this machine that answers as badly as services do."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["HostileService", "hostile_service"]

_CHUNK = b" " * 65_536
_HUGE_BYTES = 256 * 1024 * 1024
_UNPACKED_BYTES = 192 * 1024 * 1024
_DRIP_SECONDS = 0.05
_CONTINUES = 10
_ELSEWHERE = "127.0.0.2"
WAIT_SECONDS = 120
"""The wait that the service asks for."""

Answer = Callable[["_AnyRequest"], None]


@dataclass(eq=False)
class HostileService:
    """
    A server of HTTP whose next answers are one of `ANSWERS`, by its name.

    *answer_to* returns the right answer to a method and a path: what JSON is made of, or bytes,
    which are sent as they are, as *content_type*.
    """

    answer_to: Callable[[str, str], Any]
    content_type: str = "application/json"
    manner: str = "right"
    well: int = 0
    """The number of requests that are answered right before its manner begins."""
    url: str = ""
    elsewhere: str = ""
    """The URL of a server at another private address; empty where this machine has none."""
    paths: list[str] = field(default_factory=list)
    """The requests that came, with their queries."""
    cookies: list[str] = field(default_factory=list)
    """The cookies that came."""
    reached: list[str] = field(default_factory=list)
    """The requests that came to *elsewhere*."""
    stopping: threading.Event = field(default_factory=threading.Event)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    service: HostileService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is what is tested."""


class _AnyRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service = self.server.service
        service.paths.append(self.path)
        service.cookies.extend(self.headers.get_all("Cookie", []))
        ANSWERS[service.manner if len(service.paths) > service.well else "right"](self)

    def __getattr__(self, name: str) -> Any:
        # The standard library asks for do_GET and the like.
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response_only(status)
        headers.setdefault("Date", self.date_time_string())
        headers.setdefault("Content_Type", self.server.service.content_type)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, **headers: str) -> None:
        """Fail, and repeat what was sent, as some services do."""
        sent = f"{self.path} {' '.join(self.headers.values())}"
        body = {"message": f"refused: {sent}", "error": {"message": sent, "code": status}}
        self.send(status, json.dumps(body).encode(), Content_Type="application/json", **headers)

    def right_answer(self) -> bytes:
        found = self.server.service.answer_to(self.command, self.path)
        return found if isinstance(found, bytes) else json.dumps(found).encode()

    def end_connection(self) -> None:
        self.close_connection = True


class _Elsewhere(_AnyRequest):
    def handle_any(self) -> None:
        self.server.service.reached.append(self.path)
        self.send(200, b'{"internal": true}')


def _right(handler: _AnyRequest) -> None:
    handler.send(200, handler.right_answer())


def _truncated(handler: _AnyRequest) -> None:
    if handler.server.service.content_type == "application/json":
        handler.send(200, b'{"id": 7, "items": [{"na')
    else:
        answer = handler.right_answer()
        handler.send(200, answer[: len(answer) // 2])


def _refusal(status: int, **headers: str) -> Answer:
    return lambda handler: handler.refuse(status, **headers)


def _silent(handler: _AnyRequest) -> None:
    handler.server.service.stopping.wait()
    handler.end_connection()


def _dripping(handler: _AnyRequest) -> None:
    handler.send(200, b"[", Content_Length="1000000")
    while not handler.server.service.stopping.wait(_DRIP_SECONDS):
        handler.wfile.write(b" ")
    handler.end_connection()


def _dripping_headers(handler: _AnyRequest) -> None:
    # What comes before the answer, and then the answer's own: a limit for each read sees none end.
    line = b"HTTP/1.1 100 Continue\r\n\r\n"
    number = 0
    while not handler.server.service.stopping.wait(_DRIP_SECONDS):
        handler.wfile.write(line)
        number += 1
        if number > _CONTINUES:
            line = b"X-Number: %d\r\n" % number
        elif number == _CONTINUES:
            line = b"HTTP/1.1 200 OK\r\n"
    handler.end_connection()


def _endless_headers(handler: _AnyRequest) -> None:
    handler.send_response(200)
    handler.flush_headers()
    handler.end_connection()
    for number in range(_HUGE_BYTES // len(_CHUNK)):
        if handler.server.service.stopping.is_set():
            return
        handler.wfile.write(b"X-%d: %b\r\n" % (number, _CHUNK.replace(b" ", b"x")))


def _limited_until(handler: _AnyRequest) -> None:
    now = time.time()
    until = handler.date_time_string(now + WAIT_SECONDS)
    handler.refuse(429, Retry_After=until, Date=handler.date_time_string(now))


def _broken_chunks(handler: _AnyRequest) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", handler.server.service.content_type)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'7\r\n{"id": \r\n')
    # Apart, for some clients take what comes with the headers for a fault of theirs.
    handler.server.service.stopping.wait(_DRIP_SECONDS)
    handler.wfile.write(b"zz\r\n7}\r\n")
    handler.end_connection()


def _as_it_is(body: bytes) -> Answer:
    return lambda handler: handler.send(200, body)


def _cookie(handler: _AnyRequest) -> None:
    handler.send(200, handler.right_answer(), Set_Cookie="session=of-somebody-else; Path=/")


def _cut(handler: _AnyRequest) -> None:
    handler.send(200, b'{"id": ', Content_Length="1000")
    handler.end_connection()


def _redirect_elsewhere(handler: _AnyRequest) -> None:
    handler.send(302, b"", Location=f"{handler.server.service.elsewhere}/latest/meta-data")


def _redirect_for_ever(handler: _AnyRequest) -> None:
    handler.send(302, b"", Location=f"/again/{len(handler.server.service.paths)}")


def _huge(handler: _AnyRequest) -> None:
    # Without its length, so that only who counts can stop.
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.end_connection()
    for _ in range(_HUGE_BYTES // len(_CHUNK)):
        if handler.server.service.stopping.is_set():
            return
        handler.wfile.write(_CHUNK)


def _bomb(handler: _AnyRequest) -> None:
    handler.send(200, _packed(), Content_Encoding="gzip")


@lru_cache(maxsize=1)
def _packed() -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(_CHUNK) for _ in range(_UNPACKED_BYTES // len(_CHUNK))]
    return b"".join([*parts, packer.flush()])


ANSWERS: dict[str, Answer] = {
    "right": _right,
    "unauthenticated": _refusal(401),
    "expired_token": _refusal(
        401, WWW_Authenticate='Bearer error="invalid_token", error_description="it has expired"'
    ),
    "forbidden": _refusal(403),
    "not_found": _refusal(404),
    # Longer than client libraries wait by themselves.
    "rate_limited": _refusal(429, Retry_After=str(WAIT_SECONDS)),
    "rate_limited_until": _limited_until,
    "rate_limited_for_a_year": _refusal(429, Retry_After="31536000"),
    "rate_limited_before": _refusal(429, Retry_After="-5"),
    "failing": _refusal(500),
    "unavailable": _refusal(503),
    "silent": _silent,
    "dripping": _dripping,
    "dripping_headers": _dripping_headers,
    "endless_headers": _endless_headers,
    "truncated": _truncated,
    "empty": _as_it_is(b""),
    "no_text": _as_it_is(b'{"id": 7, "name": "\xff\xfe"}'),
    "nested": _as_it_is(b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "long_number": _as_it_is(b'{"id": ' + b"7" * 10_000 + b"}"),
    "other_type": lambda handler: handler.send(
        200, handler.right_answer(), Content_Type="text/html; charset=utf-16"
    ),
    "cookie": _cookie,
    "page_for_people": lambda handler: handler.send(
        200, b"<html>Please log in<br></html>", Content_Type="text/html"
    ),
    "other_shape": lambda handler: handler.send(200, b'[["nobody", {"expects": "this"}]]'),
    "cut_off": _cut,
    "broken_chunks": _broken_chunks,
    "hung_up": _AnyRequest.end_connection,
    "redirect_to_private_address": _redirect_elsewhere,
    "redirect_for_ever": _redirect_for_ever,
    "redirect_to_nowhere": _refusal(302),
    "huge": _huge,
    "bomb": _bomb,
}


@contextmanager
def hostile_service(
    answer_to: Callable[[str, str], Any], content_type: str = "application/json"
) -> Iterator[HostileService]:
    """Serve at a free port of 127.0.0.1, and at one of 127.0.0.2 where there is such an address."""
    service = HostileService(answer_to, content_type)
    listeners = [_listen(service, "127.0.0.1", _AnyRequest)]
    service.url = f"http://127.0.0.1:{listeners[0].server_address[1]}"
    try:
        listeners.append(_listen(service, _ELSEWHERE, _Elsewhere))
    except OSError:  # macOS has the one address only
        pass
    else:
        service.elsewhere = f"http://{_ELSEWHERE}:{listeners[1].server_address[1]}"
    try:
        yield service
    finally:
        service.stopping.set()
        for listener in listeners:
            listener.shutdown()
            listener.server_close()


# Whoever keeps something for an address, as the wait that a service asked for, may still keep it in
# a later test: no port is given out twice.
_given: set[int] = set()


def _listen(service: HostileService, host: str, handler: type[_AnyRequest]) -> _Listener:
    listener = _bound(host, handler)
    listener.service = service
    arguments = {"poll_interval": 0.02}
    threading.Thread(target=listener.serve_forever, kwargs=arguments, daemon=True).start()
    return listener


def _bound(host: str, handler: type[_AnyRequest]) -> _Listener:
    with ExitStack() as taken:  # a port that is let go at once may come again
        while True:
            listener = _Listener((host, 0), handler)
            if listener.server_port not in _given:
                _given.add(listener.server_port)
                return listener
            taken.callback(listener.server_close)
