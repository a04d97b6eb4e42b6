"""Pages about a process: its health, its readiness, and the metrics of its outbox."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from queue import SimpleQueue

from automate_kernel.base.forks import new_lock
from automate_kernel.http.answers import HttpAnswer, health_answer
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import Probe
from automate_kernel.monitoring.prometheus import CONTENT_TYPE, Exporter

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HttpPage:
    """
    A function that makes an answer.

    A page that asks the database has the answer *late*, for a database that takes too long.
    """

    make: Callable[[], HttpAnswer]
    late: HttpAnswer | None = None


def health_pages(probe: Probe) -> dict[str, HttpPage]:
    """Return the pages about *probe*, by their paths."""
    return {
        "/healthz": HttpPage(lambda: health_answer("ok", probe.live())),
        "/readyz": HttpPage(
            lambda: health_answer("ready", probe.ready()), health_answer("ready", ["no answer"])
        ),
    }


def metrics_page(kernel: Kernel) -> HttpPage:
    """Return the page of the metrics of *kernel*."""
    exporter, headers = Exporter(kernel), {"Content-Type": CONTENT_TYPE}
    return HttpPage(
        lambda: HttpAnswer(200, exporter.render(), headers), HttpAnswer(503, "", headers)
    )


class PageThread:
    """
    Makes the pages that ask the database, on one thread: it has one connection for all of them.

    No executor of the standard library's: those wait at the program's end for a database that may
    never answer.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[HttpAnswer], HttpPage] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = new_lock()

    def answer(self, page: HttpPage) -> HttpAnswer:
        """Return the answer of *page*, or its late one if that takes too long."""
        if page.late is None:
            return page.make()
        future = self._begin(page)
        try:
            return future.result(_ANSWER_SECONDS)
        except FutureTimeoutError:
            future.cancel()  # it waits behind a page that the database does not answer
            return page.late

    async def aanswer(self, page: HttpPage) -> HttpAnswer:
        """Return what `answer` returns, and let the event loop go on meanwhile."""
        if page.late is None:
            return page.make()
        try:
            future = asyncio.wrap_future(self._begin(page))
            return await asyncio.wait_for(future, _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            return page.late

    def close(self) -> None:
        """End the thread, once it is through with what it does. A later page begins another."""
        with self._lock:
            if self._thread is not None:
                self._queue.put(None)
                self._thread = None

    def _begin(self, page: HttpPage) -> Future[HttpAnswer]:
        future: Future[HttpAnswer] = Future()
        self._queue.put((future, page))
        with self._lock:
            # Not before: the process may fork before its first request.
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="automate-pages", daemon=True)
                thread.start()  # or fails: then the next page tries again
                self._thread = thread
        return future

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, page = entry
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(page.make())
                except Exception as error:
                    future.set_exception(error)
