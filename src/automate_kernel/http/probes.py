"""A small server for probes and metrics, on a thread of a process without an event loop."""

from __future__ import annotations

import http.server
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from automate_kernel.base.errors import ConfigError
from automate_kernel.http.answers import HttpAnswer, HttpError, failure_answer
from automate_kernel.http.pages import HttpPage, PageThread, health_pages, metrics_page
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import Probe
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ProbeServer", "Probes"]

logger: logging.Logger = get_logger(__name__)


class Probes:
    """
    The pages about *kernel* and *probe*, on the ports that are given; a context manager.

    On *health_port* there are ``/healthz`` and ``/readyz``, on *metrics_port* ``/metrics``; both
    may be the same port. *metrics* is another page than that of *kernel*. 0 takes a free port; with
    None there is no port. On another *host* than this machine's own whoever can reach it can ask.
    """

    def __init__(
        self,
        kernel: Kernel,
        probe: Probe | None = None,
        *,
        health_port: int | None = None,
        metrics_port: int | None = None,
        metrics: HttpPage | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.servers: list[ProbeServer] = []
        self._host, self._thread, self._closing = host, PageThread(), ExitStack()
        self._served: list[tuple[int, dict[str, HttpPage]]] = []
        if health_port is not None and probe is not None:
            self._served.append((health_port, health_pages(probe)))
        if metrics_port is not None:
            its = {"/metrics": metrics or metrics_page(kernel)}
            if self._served and health_port == metrics_port and metrics_port:
                self._served[0][1].update(its)
            else:
                self._served.append((metrics_port, its))

    @property
    def urls(self) -> list[str]:
        """The addresses of the servers."""
        return [server.url for server in self.servers]

    def __enter__(self) -> Self:
        self._closing.callback(self._thread.close)
        try:
            for port, pages in self._served:
                server = ProbeServer(pages, self._thread, self._host, port)
                self._closing.callback(server.close)
                self.servers.append(server)
                logger.info("probes and metrics on %s", server.url)
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()


class ProbeServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves *pages* by their paths on a thread, until it is closed."""

    daemon_threads = True

    def __init__(
        self, pages: Mapping[str, HttpPage], page_thread: PageThread, host: str, port: int
    ) -> None:
        self.pages: Mapping[str, HttpPage] = pages
        self.page_thread: PageThread = page_thread
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family: int = found[0][0]
            super().__init__((host, port), _ProbeHandler)
        except OSError as error:
            raise ConfigError(
                f"can't listen on {host}:{port}: {error.strerror or error}",
                hint="choose another port, or 0 for a free one",
            ) from None
        self._thread = threading.Thread(
            target=self.serve_forever, name="automate-probes", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The address that it listens on."""
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def close(self) -> None:
        """Listen no more."""
        self.shutdown()
        self.server_close()
        self._thread.join(5)

    def server_bind(self) -> None:
        """Bind the port."""
        # Not HTTPServer's own, which asks a name server who we are.
        socketserver.TCPServer.server_bind(self)
        self.server_name: str = str(self.server_address[0])
        self.server_port: int = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a client is gone."""
        logger.debug("a probe was cut off: %s", sys.exc_info()[1])


class _ProbeHandler(http.server.BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = 10.0  # for a client that sends nothing
    request_seconds = 30.0  # for a client that sends a byte now and then, or doesn't read
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
        answer = self._answer(self.path.partition("?")[0])
        headers, body = answer.encoded()
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, path: str) -> HttpAnswer:
        try:
            page = self.server.pages.get(path)
            if page is None:
                raise HttpError(404, "there is nothing here")
            return self.server.page_thread.answer(page)
        except Exception as error:
            return failure_answer(error, path)

    def version_string(self) -> str:
        return "automate"

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
