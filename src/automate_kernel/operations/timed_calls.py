"""Timed calls of plain functions: on threads of their own, which are abandoned when time is up."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.operations.reports import CallReport
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)

_RETRY_SECONDS = 5.0


Key = tuple["str | None", ...]
"""The name of a call, which all its attempts share."""


class TimedCalls:
    """
    The calls of plain functions that have a time limit.

    Nothing stops a thread by force: one that takes too long is abandoned, and runs on. Of those
    there are at most `most_abandoned`; beyond that, calls with a time limit are refused.
    """

    def __init__(self, most_abandoned: int = 100) -> None:
        self.most_abandoned: int = most_abandoned
        """The number of abandoned calls that may run on before further ones are refused."""
        self._abandoned: dict[Future[Any], Key | None] = {}
        self._lock = threading.Lock()

    @property
    def abandoned(self) -> int:
        """The number of abandoned calls that still run."""
        return len(self._abandoned)

    def run(
        self,
        work: Callable[[], Any],
        timeout: float | None,
        *,
        key: Key | None = None,
        report: CallReport | None = None,
    ) -> Any:
        """
        Return the result of *work*, or raise ``DEADLINE_EXCEEDED`` after *timeout* seconds.

        And as soon as its *report* has been silent for too long. It does not begin before the
        abandoned calls of the same *key* have ended, and waits for them for *timeout* seconds at
        most, or for as long as it may be silent if that is less.
        """
        patience = _shortest(timeout, report.heartbeat if report is not None else None)
        if wait(self._earlier(key), patience).not_done:
            raise _overlaps(patience or 0.0)
        future = self._begin(work)
        ends_at = None if timeout is None else time.monotonic() + timeout
        if report is not None:
            report.begin()
        while not future.done():
            left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            wait([future], _shortest(left, report.until_silent() if report is not None else None))
            error = report.silence() if report is not None else None
            if error is None and ends_at is not None and time.monotonic() >= ends_at:
                error = _too_long(timeout or 0.0)
            if error is not None and self._abandon(future, key):
                raise error
        return future.result()

    async def arun(
        self, work: Callable[[], Any], timeout: float | None, *, key: Key | None = None
    ) -> Any:
        """`run` for asynchronous code. A call that is cancelled is abandoned too."""
        earlier = [_ended(one) for one in self._earlier(key)]
        if earlier and (await asyncio.wait(earlier, timeout=timeout))[1]:
            raise _overlaps(timeout or 0.0)
        future = self._begin(work)
        try:
            await asyncio.wait([_ended(future)], timeout=timeout)
        except asyncio.CancelledError:
            self._abandon(future, key)
            raise
        if self._abandon(future, key):
            raise _too_long(timeout or 0.0)
        return future.result()

    def _earlier(self, key: Key | None) -> list[Future[Any]]:
        if key is None or not self._abandoned:
            return []
        with self._lock:
            return [future for future, its in self._abandoned.items() if its == key]

    def _begin(self, work: Callable[[], Any]) -> Future[Any]:
        if len(self._abandoned) >= self.most_abandoned:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"{self.abandoned} calls that took longer than their timeouts still run",
                hint="give what they wait for a timeout of its own, write them as async def, "
                "or restart this process",
                retry_after=_RETRY_SECONDS,
            )
        future: Future[Any] = Future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                future.set_result(context.run(work))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="automate-timed", daemon=True).start()
        return future

    def _abandon(self, future: Future[Any], key: Key | None) -> bool:
        """Count a call among the abandoned ones until it ends; return False if it has."""
        with self._lock:
            if future.done():
                return False
            self._abandoned[future] = key
        future.add_done_callback(self._forget)
        logger.warning("a call took too long and runs on; %d such calls run", self.abandoned)
        return True

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._abandoned.pop(future, None)


def _ended(future: Future[Any]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when *future* is, whatever that gave."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop may be closed by then
            loop.call_soon_threadsafe(end)

    future.add_done_callback(tell)
    return ended


def _shortest(*seconds: float | None) -> float | None:
    return min((each for each in seconds if each is not None), default=None)


def _too_long(timeout: float) -> AutomateError:
    return AutomateError(ErrorCodes.DEADLINE_EXCEEDED, f"it took longer than {timeout:g} seconds")


def _overlaps(timeout: float) -> AutomateError:
    return AutomateError(
        ErrorCodes.DEADLINE_EXCEEDED,
        f"an earlier attempt still runs after another {timeout:g} seconds",
        hint="give what it waits for a timeout of its own, or write it as async def",
    )
