"""
Probes and metrics over HTTP, from a thread of a worker.

============  ===============================================================
``/healthz``  200 while no thread is stuck, else 503: start it again
``/readyz``   200 while it works, else 503 and why
``/metrics``  the outbox in Prometheus's text format
============  ===============================================================
"""

from __future__ import annotations

import http.server
import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from automate_kernel.errors import ConfigError
from automate_kernel.monitoring.prometheus import CONTENT_TYPE, Exporter
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from typing_extensions import Self

    from automate_kernel.kernel import Kernel
    from automate_kernel.monitoring.health import Probe

__all__ = ["Page", "ProbeServer", "Probes"]

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    status: int
    text: str
    content_type: str = "application/json"


class ProbeServer:
    """Serves *pages* by their paths on a thread, until it is closed."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]], host: str, port: int) -> None:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server(family, (host, port), pages)
        except OSError as error:
            raise ConfigError(
                f"can't listen on {host}:{port}: {error.strerror or error}",
                hint="choose another port, or 0 for a free one",
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="automate-probes", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Probes:
    """
    The pages about *kernel* and *probe*, on the ports that are given; a context manager.

    On *health_port* there are ``/healthz`` and ``/readyz``, on *metrics_port* ``/metrics``; they
    may be one. 0 takes a free port, None none. On another *host* than this machine's own whoever
    can reach it can ask.
    """

    def __init__(
        self,
        kernel: Kernel,
        probe: Probe | None = None,
        *,
        health_port: int | None = None,
        metrics_port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.servers: list[ProbeServer] = []
        self._kernel, self._probe, self._host = kernel, probe, host
        self._ports = (health_port if probe is not None else None, metrics_port)
        self._closing = ExitStack()

    @property
    def urls(self) -> list[str]:
        """Where the pages are."""
        return [server.url for server in self.servers]

    def __enter__(self) -> Self:
        self._asker = _Asker()
        self._closing.callback(self._asker.close)
        health_port, metrics_port = self._ports
        health, metrics = self._health_pages(), self._metrics_pages()
        try:
            if health_port is not None and health_port == metrics_port and health_port:
                self._serve({**health, **metrics}, health_port)
                return self
            if health_port is not None:
                self._serve(health, health_port)
            if metrics_port is not None:
                self._serve(metrics, metrics_port)
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def _serve(self, pages: Mapping[str, Callable[[], Page]], port: int) -> None:
        server = ProbeServer(pages, self._host, port)
        self._closing.callback(server.close)
        self.servers.append(server)

    def _health_pages(self) -> dict[str, Callable[[], Page]]:
        probe = self._probe
        if probe is None:
            return {}
        return {
            "/healthz": lambda: _verdict("ok", probe.live()),
            "/readyz": lambda: _verdict("ready", self._asker.ask(probe.ready, ["no answer"])),
        }

    def _metrics_pages(self) -> dict[str, Callable[[], Page]]:
        exporter = Exporter(self._kernel)

        def metrics() -> Page:
            text = self._asker.ask(exporter.render, "")
            return Page(200 if text else 503, text, CONTENT_TYPE)

        return {"/metrics": metrics}


class _Asker:
    """
    Asks the database, on one thread: it has one connection, however many ask us.

    No executor of the standard library's: those wait at the program's end for a database that may
    never answer.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="automate-probe", daemon=True).start()

    def ask(self, work: Callable[[], T], otherwise: T) -> T:
        """What *work* gives, or *otherwise* if that takes too long."""
        future: Future[T] = Future()
        self._queue.put((future, work))
        try:
            return future.result(_ANSWER_SECONDS)
        except FutureTimeoutError:
            future.cancel()  # it waits for one that the database does not answer
            return otherwise

    def close(self) -> None:
        """End the thread, once it is through with what it does."""
        self._queue.put(None)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, work = entry
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)


def _verdict(word: str, problems: list[str]) -> Page:
    if not problems:
        return Page(200, json.dumps({"status": word}))
    return Page(503, json.dumps({"status": f"not {word}", "problems": problems}))


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(
        self,
        family: socket.AddressFamily,
        address: tuple[str, int],
        pages: Mapping[str, Callable[[], Page]],
    ) -> None:
        self.address_family = family
        self.pages = pages
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks a name server who we are.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a probe was cut off: %s", sys.exc_info()[1])


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # for a client that sends nothing
    request_seconds = 30.0  # for one that sends a byte now and then, or doesn't read
    disable_nagle_algorithm = True  # else an answer's body may wait for its head's arrival

    def handle(self) -> None:
        """Answer, and give up on a client that takes too long over it."""
        timer = threading.Timer(self.request_seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            super().handle()
        finally:
            timer.cancel()

    def _cut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            self._send(Page(404, json.dumps({"error": "there is nothing here"})))
            return
        try:
            page = make()
        except Exception:
            logger.exception("%s failed", self.path.partition("?")[0])
            page = Page(500, json.dumps({"error": "it failed; the log says why"}))
        self._send(page)

    do_HEAD = do_GET  # noqa: N815

    def _send(self, page: Page) -> None:
        body = page.text.encode()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "automate"

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
