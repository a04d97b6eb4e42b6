"""Event loops in threads of their own: for code that has none, and left clean at their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar, cast

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.interruption import mark_thread
from automate_kernel.secrets.logs import log_loop_errors

# How long generators may take to close once the tasks have used up their time. What a
# cancelled task leaves behind may run as long.
_CLOSE_SECONDS = 1.0


class LoopThread:
    """A running event *loop*, in a daemon thread *name*."""

    def __init__(self, name: str) -> None:
        self.loop = runtime.new_event_loop()
        log_loop_errors(self.loop)
        self._thread = runtime.Thread(target=self.loop.run_forever, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()  # the machine has no more threads
            raise

    def runs_here(self) -> bool:
        """Return whether the caller is on the loop's thread."""
        return runtime.current_thread() is self._thread

    def end(self, seconds: float) -> bool:
        """
        Cancel all tasks, close all asynchronous generators, and end the loop and its thread.

        Returns False if something blocks the loop for *seconds*, of which the tasks have half; it
        is left behind then.
        """
        end = self._end(seconds / 2)
        runtime.run_coroutine_threadsafe(end, self.loop)
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self.loop.close()
        return True

    async def _end(self, seconds: float) -> None:
        await leave_nothing(seconds)
        self.loop.stop()


async def leave_nothing(seconds: float) -> None:
    """
    Cancel all other tasks of the running loop, and close its asynchronous generators.

    So does ``asyncio.run``, which waits for ever. Tasks have *seconds*, generators a second more.
    A task that begins while another ends may give something back: it has a second, and is
    cancelled then.
    """
    loop, own = asyncio.get_running_loop(), asyncio.current_task()

    def others() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(loop) - {own}

    def cancelled() -> set[asyncio.Task[Any]]:
        found = others()
        for task in found:
            task.cancel()
        return found

    async def wait(end: float) -> None:
        while True:
            # A generator that was dropped meanwhile gets its task, which closes it.
            await asyncio.sleep(0)
            running, left = others(), end - loop.time()
            if not running or left <= 0:
                return
            await asyncio.wait(running, timeout=left)
            del running

    async def leave(tasks: set[asyncio.Task[Any]], end: float) -> None:
        while tasks and (left := end - loop.time()) > 0:
            # They may wait for tasks that they begin now: those are not cancelled before them.
            await asyncio.wait(tasks, timeout=left)
            tasks.clear()  # their errors hold generators
            await wait(min(end, loop.time() + _CLOSE_SECONDS))
            tasks = cancelled()

    # Cancelled, so that no thread waits for a result which will not come.
    end = loop.time() + seconds
    await leave(cancelled(), end)
    # A generator that was left in the middle still holds what its `finally` gives back.
    closing = loop.create_task(loop.shutdown_asyncgens())
    await leave({closing}, max(end, loop.time() + _CLOSE_SECONDS))
    await asyncio.sleep(0)  # what was cancelled last has its turn


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
        self._lock = runtime.Lock()
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
                future = runtime.run_coroutine_threadsafe(contained(work), loop.loop)
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

    async def hand_over(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of *work*, which runs on the portal's loop, from any loop."""
        with self._lock:
            loop = self._running_loop()
            here = loop.runs_here()
            if not here:
                future = runtime.run_coroutine_threadsafe(contained(work), loop.loop)
        if here:
            return await work
        result, error = await asyncio.wrap_future(future)
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
