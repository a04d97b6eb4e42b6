"""Timed calls of plain functions: on threads of their own, which are abandoned when time is up."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.interruption import on_thread
from automate_kernel.operations.reports import CallReport
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)

_RETRY_SECONDS = 5.0


Key = tuple["str | None", ...]
"""The name of a call, which all its attempts share."""


class TimedCalls:
    """
    The calls of plain functions that have a time limit.

    Nothing stops a thread by force: a thread that takes too long is abandoned, and runs on. Of
    those there are at most `most_abandoned`; beyond that, calls with a time limit are refused.
    """

    def __init__(self, most_abandoned: int = 100) -> None:
        self.most_abandoned: int = most_abandoned
        """The number of abandoned calls that may run on before further ones are refused."""
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the calls that were abandoned: they run in another process."""
        self._abandoned: dict[runtime.Future[Any], Key | None] = {}
        self._lock = runtime.Lock()

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

        The error also comes as soon as its *report* has been silent for too long. It does not begin
        before the abandoned calls of the same *key* have ended. It waits for them for *timeout*
        seconds at most, or as long as it may be silent if that is less.
        """
        limits = _Limits(timeout, report)
        if runtime.wait(self._earlier(key), limits.shortest).not_done:
            raise _overlaps(limits.shortest)
        future = self._begin(work)
        limits.begin()
        while not runtime.wait([future], limits.left()).done:
            error = limits.passed()
            if error is not None and self._abandon(future, key):
                raise error
        return future.result()

    async def arun(
        self,
        work: Callable[[], Any],
        timeout: float | None,
        *,
        key: Key | None = None,
        report: CallReport | None = None,
    ) -> Any:
        """`run` for asynchronous code. A call that is cancelled is abandoned too."""
        limits = _Limits(timeout, report)
        earlier = [_ended(one) for one in self._earlier(key)]
        if earlier and (await asyncio.wait(earlier, timeout=limits.shortest))[1]:
            raise _overlaps(limits.shortest)
        future = self._begin(work)
        limits.begin()
        ended = _ended(future)
        try:
            while not (await asyncio.wait([ended], timeout=limits.left()))[0]:
                error = limits.passed()
                if error is not None and self._abandon(future, key):
                    raise error
        except asyncio.CancelledError:
            self._abandon(future, key)
            raise
        return future.result()

    def _earlier(self, key: Key | None) -> list[runtime.Future[Any]]:
        if key is None or not self._abandoned:
            return []
        with self._lock:
            return [future for future, its in self._abandoned.items() if its == key]

    def _begin(self, work: Callable[[], Any]) -> runtime.Future[Any]:
        if len(self._abandoned) >= self.most_abandoned:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"{self.abandoned} calls that took longer than their timeouts still run",
                hint="give what they wait for a timeout of its own, write them as async def, "
                "or restart this process",
                retry_after=_RETRY_SECONDS,
            )
        future: runtime.Future[Any] = runtime.Future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                future.set_result(context.run(on_thread, work))
            except BaseException as error:
                future.set_exception(error)

        runtime.Thread(target=run, name="automate-timed", daemon=True).start()
        return future

    def _abandon(self, future: runtime.Future[Any], key: Key | None) -> bool:
        """Count a call as abandoned until it ends; return False if it has."""
        with self._lock:
            if future.done():
                return False
            self._abandoned[future] = key
        future.add_done_callback(self._forget)
        logger.warning("a call took too long and runs on; %d such calls run", self.abandoned)
        return True

    def _forget(self, future: runtime.Future[Any]) -> None:
        with self._lock:
            self._abandoned.pop(future, None)


def _ended(future: runtime.Future[Any]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when *future* is, whatever that gave."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell(_: runtime.Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop may be closed by then
            loop.call_soon_threadsafe(end)

    future.add_done_callback(tell)
    return ended


class _Limits:
    """The limits of one call: for all of it, and for its silence."""

    def __init__(self, timeout: float | None, report: CallReport | None) -> None:
        self._timeout, self._report = timeout, report
        self._ends_at: float | None = None

    @property
    def shortest(self) -> float | None:
        """The seconds of the shorter limit."""
        return _shorter(self._timeout, self._report.heartbeat if self._report else None)

    def begin(self) -> None:
        """Note that the call begins."""
        if self._timeout is not None:
            self._ends_at = runtime.monotonic() + self._timeout
        if self._report is not None:
            self._report.begin()

    def left(self) -> float | None:
        """Return the seconds until one of the limits may be passed."""
        left = None if self._ends_at is None else max(0.0, self._ends_at - runtime.monotonic())
        return _shorter(left, self._report.until_silent() if self._report else None)

    def passed(self) -> AutomateError | None:
        """Return the error of a call that has passed one of the limits."""
        if self._ends_at is not None and runtime.monotonic() >= self._ends_at:
            text = f"it took longer than {self._timeout:g} seconds"
            return AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text)
        return self._report.silence() if self._report is not None else None


def _shorter(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def _overlaps(timeout: float | None) -> AutomateError:
    return AutomateError(
        ErrorCodes.DEADLINE_EXCEEDED,
        f"an earlier attempt still runs after another {timeout or 0.0:g} seconds",
        hint="give what it waits for a timeout of its own, or write it as async def",
    )
