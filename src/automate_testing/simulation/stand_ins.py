"""Stand-ins for threads, locks, queues, loops and clocks, which wait in simulated time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import uuid
from asyncio.futures import _chain_future  # type: ignore[attr-defined]
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures._base import DoneAndNotDoneFutures
from contextlib import contextmanager
from datetime import datetime, timezone
from queue import Empty
from typing import Any

from automate_kernel.base import runtime
from automate_testing.simulation.fibers import Fiber, Scheduler

START = datetime(2026, 1, 5, 9, tzinfo=timezone.utc)
"""The time at which each simulation begins."""

_scheduler: Scheduler | None = None


def scheduler() -> Scheduler:
    """Return the scheduler of the simulation that runs."""
    if _scheduler is None:
        raise RuntimeError("no simulation runs")
    return _scheduler


def _me() -> Fiber:
    fiber = scheduler().current
    if fiber is None:
        raise RuntimeError("this is no fiber of the simulation")
    return fiber


def _wait_in(waiters: deque[Fiber], seconds: float | None) -> bool:
    """Wait among *waiters* until somebody wakes this fiber; return False if the time is up."""
    fiber = _me()
    waiters.append(fiber)
    if scheduler().block(seconds):
        return True
    if fiber in waiters:
        waiters.remove(fiber)
    return False


class Lock:
    """`threading.Lock`."""

    __slots__ = ("__weakref__", "_locked", "_waiters")

    def __init__(self) -> None:
        self._locked = False
        self._waiters: deque[Fiber] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        if not self._locked:
            self._locked = True
            return True
        if not blocking:
            return False
        ends_at = None if timeout < 0 else scheduler().now + timeout
        while self._locked:
            left = None if ends_at is None else ends_at - scheduler().now
            if not _wait_in(self._waiters, left) and self._locked:
                return False
        self._locked = True
        return True

    def release(self) -> None:
        """Free it."""
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        self._locked = False
        if self._waiters:
            scheduler().wake(self._waiters.popleft())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    """`threading.RLock`."""

    __slots__ = ("__weakref__", "_count", "_owner", "_waiters")

    def __init__(self) -> None:
        self._owner: Fiber | None = None
        self._count = 0
        self._waiters: deque[Fiber] = deque()

    @property
    def owner(self) -> Fiber | None:
        """The fiber that has it."""
        return self._owner

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or take it once more."""
        me = scheduler().current
        if self._count and self._owner is me:
            self._count += 1
            return True
        ends_at = None if timeout < 0 else scheduler().now + timeout
        while self._count:
            left = None if ends_at is None else ends_at - scheduler().now
            if not blocking or (not _wait_in(self._waiters, left) and self._count):
                return False
        self._owner, self._count = me, 1
        return True

    def release(self) -> None:
        """Give it back once."""
        if self._owner is not scheduler().current:
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self.set_free()

    def set_free(self) -> None:
        """Free it, whoever has it: that may be dead."""
        self._owner, self._count = None, 0
        if self._waiters:
            scheduler().wake(self._waiters.popleft())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedCondition:
    """`threading.Condition`."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self._waiters: deque[Fiber] = deque()

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is notified."""
        count = 1
        while isinstance(self._lock, RLock) and self._lock._count > 1:  # noqa: SLF001  (its own part)
            self._lock.release()
            count += 1
        self._lock.release()
        try:
            return _wait_in(self._waiters, timeout)
        finally:
            for _ in range(count):
                self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until *predicate* returns something true."""
        ends_at = None if timeout is None else scheduler().now + timeout
        while not (result := predicate()):
            left = None if ends_at is None else ends_at - scheduler().now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake *n* that wait."""
        for _ in range(min(n, len(self._waiters))):
            scheduler().wake(self._waiters.popleft())

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(len(self._waiters))


class SimulatedEvent:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._flag = False
        self._waiters: deque[Fiber] = deque()

    def is_set(self) -> bool:
        """Return True if it is set."""
        return self._flag

    def set(self) -> None:
        """Set it, and wake all that wait for it."""
        self._flag = True
        while self._waiters:
            scheduler().wake(self._waiters.popleft())

    def clear(self) -> None:
        """Take it back."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        if not self._flag:
            _wait_in(self._waiters, timeout)
        return self._flag


class SimpleQueue:
    """`queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._entries: deque[Any] = deque()
        self._waiters: deque[Fiber] = deque()

    def __class_getitem__(cls, _: Any) -> type[SimpleQueue]:
        return cls

    def put(self, entry: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put *entry* last."""
        self._entries.append(entry)
        if self._waiters:
            scheduler().wake(self._waiters.popleft())
        scheduler().point("put")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first entry."""
        ends_at = None if timeout is None else scheduler().now + timeout
        while not self._entries:
            left = None if ends_at is None else ends_at - scheduler().now
            if not block or (not _wait_in(self._waiters, left) and not self._entries):
                raise Empty
        return self._entries.popleft()

    def get_nowait(self) -> Any:
        """Take the first entry, if there is an entry."""
        return self.get(block=False)

    def empty(self) -> bool:
        """Return True if it has no entry."""
        return not self._entries

    def qsize(self) -> int:
        """Return the number of entries."""
        return len(self._entries)


class Thread:
    """`threading.Thread`."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str = "thread",
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self.name, self.daemon = name, daemon
        self.fiber: Fiber | None = None
        self._over = SimulatedEvent()

    def start(self) -> None:
        """Begin."""
        self.fiber = scheduler().spawn(self.name, self._run, _me().process)
        self.fiber.thread = self
        scheduler().point("start")

    def _run(self) -> None:
        try:
            self.run()
        finally:
            self._over.set()

    def run(self) -> None:
        """Call the target."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    @property
    def ident(self) -> int | None:
        """Its number."""
        return None if self.fiber is None else self.fiber.number

    def is_alive(self) -> bool:
        """Return True while it runs."""
        return self.fiber is not None and not self.fiber.ended and not self._over.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._over.wait(timeout)


_MAIN = object()


def _current_thread() -> Any:
    return _me().thread or _MAIN


class Future(concurrent.futures.Future):  # type: ignore[type-arg]
    """`concurrent.futures.Future`."""

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = SimulatedCondition()


def _wait(futures: Any, timeout: float | None = None) -> Any:
    futures, changed = list(futures), SimulatedEvent()
    ends_at = None if timeout is None else scheduler().now + timeout
    for future in futures:
        future.add_done_callback(lambda _: changed.set())
    while not all(future.done() for future in futures):
        left = None if ends_at is None else ends_at - scheduler().now
        if left is not None and left <= 0:
            break
        changed.clear()
        changed.wait(left)
    done = {future for future in futures if future.done()}
    return DoneAndNotDoneFutures(done, set(futures) - done)


class _Selector:
    def __init__(self) -> None:
        self._rung = SimulatedEvent()

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._rung.wait(timeout)
        self._rung.clear()
        return []

    def ring(self) -> None:
        self._rung.set()


class Loop(asyncio.BaseEventLoop):
    """An event loop without files, whose time is simulated."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()

    def time(self) -> float:
        """Return the simulated time."""
        return scheduler().now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Call *func* on a thread of its own."""
        future = Future()

        def call() -> None:
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=call, name="executor").start()
        return asyncio.wrap_future(future, loop=self)

    def call_exception_handler(self, context: Any) -> None:
        """Report an error of a callback, but for those of a simulation that has ended."""
        if _scheduler is not None:
            super().call_exception_handler(context)

    def _process_events(self, _: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        self._selector.ring()


def _run_coroutine_threadsafe(coroutine: Any, loop: Any) -> Future:
    future = Future()

    def begin() -> None:
        try:
            _chain_future(asyncio.ensure_future(coroutine, loop=loop), future)
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            raise

    loop.call_soon_threadsafe(begin)
    return future


def _wall_seconds() -> float:
    fiber = scheduler().current
    return START.timestamp() + scheduler().now + (fiber.process.clock_offset if fiber else 0.0)


def _utc_now() -> datetime:
    return datetime.fromtimestamp(_wall_seconds(), timezone.utc)


def _sleep(seconds: float) -> None:
    scheduler().sleep(seconds)


def _urandom(size: int) -> bytes:
    return scheduler().random.randbytes(size)


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=scheduler().random.getrandbits(128), version=4)


def _stand_ins(seed: int) -> dict[str, Any]:
    return {
        "Lock": Lock, "RLock": RLock, "Condition": SimulatedCondition, "Event": SimulatedEvent,
        "SimpleQueue": SimpleQueue, "Thread": Thread, "Future": Future, "wait": _wait,
        "current_thread": _current_thread, "main_thread": lambda: _MAIN,
        "get_ident": lambda: _me().number if scheduler().current else 0,
        "new_event_loop": Loop, "run_coroutine_threadsafe": _run_coroutine_threadsafe,
        "monotonic": lambda: scheduler().now, "thread_time": lambda: scheduler().now,
        "sleep": _sleep,
        "time": _wall_seconds, "time_ns": lambda: int(_wall_seconds() * 1e9), "utc_now": _utc_now,
        "urandom": _urandom, "uuid4": _uuid4,
        "numbers": runtime.Numbers(seed),
    }  # fmt: skip


@contextmanager
def given(its: Scheduler, seed: int) -> Iterator[None]:
    """Give the kernel the stand-ins for the block: all that it makes there uses them."""
    global _scheduler  # noqa: PLW0603  (one simulation runs at a time)
    if _scheduler is not None:
        raise RuntimeError("a simulation runs already")
    stand_ins = _stand_ins(seed)
    kept = {name: getattr(runtime, name) for name in stand_ins}
    _scheduler = its
    try:
        for name, value in stand_ins.items():
            setattr(runtime, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(runtime, name, value)
        _scheduler = None
