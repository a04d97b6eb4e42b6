"""An event loop for code that has none of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar, cast

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.interruption import mark_thread
from automate_kernel.operations.loop_thread import LoopThread

T = TypeVar("T")
# How long what runs may take over its cancellation.
_END_SECONDS = 10.0


class Portal:
    """
    One event loop in a thread of its own, started at the first use.

    One loop for all, so that a connector's connection pool, which belongs to a loop, is shared.
    """

    def __init__(self) -> None:
        self._loop: LoopThread | None = None
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the loop, whose thread is another process's."""
        self._lock = threading.Lock()
        # Not closed: its selector is shared with the parent.
        self._loop = None

    def run(self, work: Awaitable[T], timeout: float | None = None) -> T:
        """
        Return the result of *work*; blocks the calling thread for at most *timeout* seconds.

        Then it cancels the work and raises ``DEADLINE_EXCEEDED``. A call from the portal's own
        loop is refused, because it would wait for itself for ever.
        """
        with self._lock:
            loop = self._running_loop()
            # Under the lock: to a loop that has ended meanwhile it would be given in vain.
            if not (here := loop.runs_here()):
                future = asyncio.run_coroutine_threadsafe(contained(work), loop.loop)
        if here:
            if asyncio.iscoroutine(work):
                work.close()
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "invoke() was called from an async action",
                hint="await kernel.ainvoke(...) there",
            )
        try:
            result, error = future.result(timeout)
        except FutureTimeoutError:
            future.cancel()
            raise AutomateError(
                ErrorCodes.DEADLINE_EXCEEDED, f"it took longer than {timeout:g} seconds"
            ) from None
        if error is not None:
            raise error
        return cast("T", result)

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* on the loop, soon; it may create tasks there."""
        with self._lock:
            self._running_loop().loop.call_soon_threadsafe(function, *arguments)

    def _running_loop(self) -> LoopThread:
        if self._loop is None:
            self._loop = LoopThread("automate-portal")
        return self._loop

    def close(self) -> None:
        """End the loop and its thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.end(_END_SECONDS)


async def contained(work: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """
    Return the result of *work*, or the error that it raised.

    SystemExit would end the loop, and with it the work of all others. And asyncio would print the
    error of a coroutine that was cancelled after a time limit: nobody asks for its result.
    """
    try:
        return await work, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            mark_thread(error)
        return None, error
