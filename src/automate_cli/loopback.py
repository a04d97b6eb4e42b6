"""The answer of a browser that a service sends back to this machine (RFC 8252)."""

from __future__ import annotations

import threading
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.account import state_in

_PATH = "/callback"
_PAGE = b"<!doctype html><title>automate</title><p>Done. You may close this page.</p>"
_OTHER = b"<!doctype html><title>automate</title><p>This answers another question.</p>"


class LoopbackReceiver:
    """
    Waits on 127.0.0.1 for the browser's one answer.

    *port* 0 takes a free one; services that know exact redirect URIs only need a fixed one.
    Nothing is taken before `expect` has named the question's state: any page that the browser
    shows, and any program of this machine, can send a request here.
    """

    def __init__(self, port: int = 0) -> None:
        self.answered = threading.Event()
        self.answer_url = ""
        self.state = ""
        try:
            self._server = _Server(("127.0.0.1", port), _Answered)
        except OSError as error:
            hint = "choose another with --port"
            raise ConfigError(f"port {port} can't be used: {error.strerror}", hint=hint) from None
        self._server.receiver = self
        self.redirect_uri: str = f"http://127.0.0.1:{self._server.server_address[1]}{_PATH}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def expect(self, state: str) -> None:
        """Take the answer that brings *state* back, and no other."""
        self.state = state

    def wait(self, timeout_seconds: float) -> str:
        """Return the URL that the browser was sent to. Raises ``DEADLINE_EXCEEDED``."""
        if not self.answered.wait(timeout_seconds):
            raise AutomateError(
                ErrorCodes.DEADLINE_EXCEEDED,
                f"no answer came within {timeout_seconds:g} seconds",
                hint="run it again, and open the page that it prints",
            )
        return self.answer_url

    def close(self) -> None:
        """Stop waiting."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: LoopbackReceiver


class _Answered(BaseHTTPRequestHandler):
    server: _Server
    timeout: ClassVar[int] = 10

    def do_GET(self) -> None:
        """Take the answer to the question that was asked; a browser asks for an icon, too."""
        receiver = self.server.receiver
        is_callback = urlsplit(self.path).path == _PATH
        given, expected = state_in(self.path).encode(), receiver.state.encode()
        is_answer = is_callback and bool(expected) and compare_digest(given, expected)
        self.send_response(200 if is_answer else 400 if is_callback else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        # The code is in this page's URL: nobody else may learn it from there.
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(_PAGE if is_answer else _OTHER if is_callback else b"")
        if is_answer and not receiver.answered.is_set():
            receiver.answer_url = receiver.redirect_uri.replace(_PATH, self.path)
            receiver.answered.set()

    def log_message(self, *_: object) -> None:
        """Log nothing: the code is in the URL."""
