"""An event loop in a thread of its own, which leaves nothing behind when it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from automate_kernel.secrets.logs import log_loop_errors

# How long generators may take to close once the tasks have used up their time. So long, too, may
# run what a cancelled task leaves behind.
_CLOSE_SECONDS = 1.0


class LoopThread:
    """A running event *loop*, in a daemon thread *name*."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        log_loop_errors(self.loop)
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()  # the machine has no more threads
            raise

    def runs_here(self) -> bool:
        """Return whether the caller is on the loop's thread."""
        return threading.current_thread() is self._thread

    def end(self, seconds: float) -> bool:
        """
        Cancel all tasks, close all asynchronous generators, and end the loop and its thread.

        Returns False if something blocks the loop for *seconds*, of which the tasks have half; it
        is left behind then.
        """
        end = self._end(seconds / 2)
        asyncio.run_coroutine_threadsafe(end, self.loop)
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
