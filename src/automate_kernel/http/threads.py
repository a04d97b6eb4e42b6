"""Threads that answer requests, without a line of them that has no end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """As many calls are under way as may be: the client comes again."""


class CallThreads:
    """Threads called *name* for *most* calls at once; *waiting* further calls wait for one."""

    def __init__(self, name: str, most: int, *, waiting: int = 0) -> None:
        self._threads = ThreadPoolExecutor(most, name)
        self._places = threading.BoundedSemaphore(most + waiting)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what *function* gives on a thread; raises `BusyError` if none gets free soon."""
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            call = self._threads.submit(function, *arguments)
        except BaseException:
            self._places.release()
            raise
        # Not as this ends: of a request that is cancelled the call goes on.
        call.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(call)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
