"""An event loop for code that has none of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar, cast

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.forks import renew_in_children
from automate_kernel.operations.interruption import mark_thread
from automate_kernel.secrets.logs import log_loop_errors

T = TypeVar("T")
_END_SECONDS = 5.0


class Portal:
    """
    One event loop in a thread of its own, started at the first use.

    One loop for all, so that a connector's connection pool, which belongs to a loop, is shared.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the loop, whose thread is another process's."""
        self._lock = threading.Lock()
        # Not closed: its selector is shared with the parent.
        self._loop = self._thread = None

    def run(self, work: Awaitable[T], timeout: float | None = None) -> T:
        """
        Return the result of *work*; blocks the calling thread for at most *timeout* seconds.

        Then it cancels the work and raises ``DEADLINE_EXCEEDED``. A call from the portal's own
        loop is refused, because it would wait for itself for ever.
        """
        loop = self._running_loop()
        if threading.current_thread() is self._thread:
            if asyncio.iscoroutine(work):
                work.close()
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "invoke() was called from an async action",
                hint="await kernel.ainvoke(...) there",
            )
        future = asyncio.run_coroutine_threadsafe(contained(work), loop)
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
        self._running_loop().call_soon_threadsafe(function, *arguments)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.new_event_loop()
                log_loop_errors(loop)
                self._thread = threading.Thread(
                    target=loop.run_forever, name="automate-portal", daemon=True
                )
                self._thread.start()
            return loop

    def close(self) -> None:
        """End the loop and its thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(lambda: loop.create_task(_end(loop)))
            self._thread.join(_END_SECONDS + 1)
            if not self._thread.is_alive():
                loop.close()


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


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    # Cancelled, so that no thread waits for a result which will not come.
    running = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=_END_SECONDS)
    loop.stop()
