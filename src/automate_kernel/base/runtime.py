"""
The one source of time, threads, locks, queues, loops, ids and random numbers.

The kernel takes them from this module at each use, as ``runtime.monotonic()``. So a simulation
(`automate_testing.simulation`) can put its own in their place. Never bind a name of this module at
an import or as a default value: that keeps the real one.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Coroutine
from concurrent.futures import Future as Future
from concurrent.futures import wait as wait
from datetime import datetime, timezone
from functools import partial
from os import urandom as urandom
from queue import Empty as Empty
from queue import SimpleQueue as SimpleQueue
from threading import TIMEOUT_MAX as TIMEOUT_MAX
from threading import Condition as Condition
from threading import Event as Event
from threading import Lock as Lock
from threading import RLock as RLock
from threading import Thread as Thread
from threading import current_thread as current_thread
from threading import get_ident as get_ident
from threading import local as local
from threading import main_thread as main_thread
from time import monotonic as monotonic
from time import sleep as sleep
from time import thread_time as thread_time
from time import time as time
from time import time_ns as time_ns
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4 as uuid4

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")


class Numbers(_random.Random):
    """Numbers of our own, so that nobody's `random.seed` makes two processes count alike."""

    last_stamp: int = 0
    """The time in the last id that was made of them: the next id comes after it."""

    def renew(self) -> None:
        """Seed them again: a forked process would go on with its parent's numbers."""
        self.seed()


numbers: Numbers = Numbers()
"""Random numbers that need not be hard to guess."""


# A partial, as it is asked many times in an execution: no call of Python stands before the clock's.
utc_now: Callable[[], datetime] = partial(datetime.now, timezone.utc)
"""Return the wall time of this process, in UTC."""


def clock() -> float:
    """Return `monotonic`; a default for what takes a clock."""
    return monotonic()


def wall_clock() -> float:
    """Return `time`, the seconds since 1970; a default for what takes a clock."""
    return time()


def pause(seconds: float) -> None:
    """Call `sleep`; a default for what takes a function that waits."""
    sleep(seconds)


def chance() -> float:
    """Return a random number from 0 up to 1; a default for what takes a source of them."""
    return numbers.random()


# Not imported above: a program without async actions has no need of asyncio.
def new_event_loop() -> AbstractEventLoop:
    """Return what `asyncio.new_event_loop` returns."""
    import asyncio

    return asyncio.new_event_loop()


def run_coroutine_threadsafe(work: Coroutine[Any, Any, T], loop: AbstractEventLoop) -> Future[T]:
    """Return what `asyncio.run_coroutine_threadsafe` returns: *work* is given to *loop*."""
    import asyncio

    return asyncio.run_coroutine_threadsafe(work, loop)
