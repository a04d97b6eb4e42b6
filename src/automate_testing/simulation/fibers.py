"""Fibers under one seed: one runs at a time, by chance, and waiting costs no time."""

from __future__ import annotations

import heapq
import random
import sys
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

# A point of no particular kind costs this much time.
_TICK = 0.000_05
_MASK = (1 << 61) - 1
# A fiber that is torn down may catch the end so often; then it is left where it is.
_MOST_ENDS = 20


class StuckError(Exception):
    """Nothing can go on any more, or a simulation takes longer than it may."""


class Process:
    """A group of fibers that live and die together, with a wall clock of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until: float | None = None
        self.clock_offset = 0.0
        self.held: list[Fiber] = []
        """Its fibers that would go on, but for its being frozen."""

    def __repr__(self) -> str:
        return f"<Process {self.name}>"


class Fiber:
    """One thread of control."""

    __slots__ = (
        "ended", "ends", "greenlet", "hooks", "loop", "name", "number", "process", "thread",
        "waits", "woken",
    )  # fmt: skip

    def __init__(self, number: int, name: str, process: Process, run: Callable[[], Any]) -> None:
        self.number, self.name, self.process = number, name, process
        self.greenlet = greenlet(run)
        self.waits = 0
        self.woken = self.ended = False
        self.ends = 0
        self.loop: Any = None
        self.hooks: Any = None
        self.thread: Any = None

    def __repr__(self) -> str:
        return f"<Fiber {self.process.name}/{self.name}>"


class Scheduler:
    """
    Runs fibers one at a time, in an order that follows from *seed* alone.

    *switches* is the share of the points at which another fiber may go on.
    """

    def __init__(self, seed: int, *, switches: float = 0.3) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.points = 0
        self.digest = seed & _MASK
        """A number that follows from all that has happened, in its order."""
        self.current: Fiber | None = None
        self.fibers: list[Fiber] = []
        self.errors: list[tuple[Fiber, BaseException]] = []
        """The errors that have ended fibers."""
        self.at_point: Callable[[str, Fiber], None] | None = None
        """Called at each point, before another fiber may go on: a fault may happen there."""
        self._chance = self.random.random
        self._switches = switches
        self._ready: list[Fiber] = []
        self._timers: list[tuple[float, int, Fiber]] = []
        self._numbers = 0
        self._hub = getcurrent()
        self._ending = False

    # -- fibers ------------------------------------------------------------------------------

    def spawn(self, name: str, target: Callable[[], Any], process: Process) -> Fiber:
        """Return a new fiber, which begins when its turn comes."""

        def run() -> None:
            try:
                target()
            except GreenletExit:
                raise
            except BaseException as error:
                if not self._ending:
                    self.errors.append((fiber, error))
            finally:
                fiber.ended = True

        self._numbers += 1
        fiber = Fiber(self._numbers, name, process, run)
        fiber.greenlet.parent = self._hub
        self.fibers.append(fiber)
        if not process.dead:
            self._make_ready(fiber)
        return fiber

    def _make_ready(self, fiber: Fiber) -> None:
        process = fiber.process
        if process.frozen_until is not None:
            process.held.append(fiber)
        else:
            self._ready.append(fiber)

    def point(self, what: str) -> None:
        """Let another fiber go on here, perhaps; a fault may happen here too."""
        fiber = self.current
        if fiber is None:
            return
        if self._ending:
            self._end_of(fiber)
        self.points += 1
        self.now += _TICK
        self.digest = (self.digest * 1_000_003 ^ (fiber.number * 31 + len(what))) & _MASK
        if self.at_point is not None:
            self.at_point(what, fiber)
        if self._chance() < self._switches:
            self._make_ready(fiber)
            self._switch(fiber)

    def block(self, seconds: float | None) -> bool:
        """Wait until `wake`, for at most *seconds*; return True if it was woken."""
        fiber = self.current
        if fiber is None:
            raise StuckError("something outside of the simulation waits for it")
        if self._ending:
            self._end_of(fiber)
        self._numbers += 1
        fiber.waits = self._numbers
        if seconds is not None:
            heapq.heappush(self._timers, (self.now + max(0.0, seconds), fiber.waits, fiber))
        self._switch(fiber)
        return fiber.woken

    def wake(self, fiber: Fiber) -> None:
        """End the wait of *fiber*."""
        if fiber.waits:
            fiber.waits, fiber.woken = 0, True
            self._make_ready(fiber)

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass for the current fiber."""
        self.block(seconds)

    def _switch(self, fiber: Fiber) -> None:
        self._hub.switch()
        if fiber.process.dead and not self._ending:
            # It was about to go on as its process died: nothing wakes it again.
            self._hub.switch()
        if self._ending:
            self._end_of(fiber)

    def _end_of(self, fiber: Fiber) -> None:
        fiber.ends += 1
        if fiber.ends > _MOST_ENDS:
            self._hub.switch()
        raise GreenletExit

    def forget(self) -> None:
        """Let go of all fibers, which have ended."""
        self.fibers.clear()
        self.errors.clear()
        self._ready.clear()
        self._timers.clear()

    # -- processes ---------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """Let none of the fibers of *process* go on, ever; no ``finally`` of theirs runs."""
        process.dead = True
        process.held.clear()
        self._ready = [fiber for fiber in self._ready if fiber.process is not process]
        if self.current is not None and self.current.process is process:
            self._hub.switch()

    def freeze(self, process: Process, seconds: float) -> None:
        """Let none of the fibers of *process* go on for *seconds*; its clocks go on."""
        process.frozen_until = self.now + seconds
        process.held += [fiber for fiber in self._ready if fiber.process is process]
        self._ready = [fiber for fiber in self._ready if fiber.process is not process]
        self.spawn("waker", lambda: self._thaw(process, seconds), Process("faults"))
        if self.current is not None and self.current.process is process:
            process.held.append(self.current)
            self._switch(self.current)

    def _thaw(self, process: Process, seconds: float) -> None:
        self.sleep(seconds)
        process.frozen_until = None
        if not process.dead:
            self._ready += process.held
        process.held.clear()

    # -- the hub -----------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], *, seconds: float, points: int) -> None:
        """
        Let fibers go on until *until* returns True.

        Raises `StuckError` after so many *seconds* of their time or so many *points*, or if each
        waits for another.
        """
        chance = self._chance
        while not until():
            if not self._ready and not self._next_due():
                raise StuckError("all that is left waits for ever")
            if self.now > seconds:
                raise StuckError(f"it goes on after {seconds:g} s")
            if self.points > points:
                raise StuckError(f"it goes on after {points} points")
            ready = self._ready
            index = int(chance() * len(ready))
            fiber = ready[index]
            last = ready.pop()
            if last is not fiber:
                ready[index] = last
            self._resume(fiber)

    def _next_due(self) -> bool:
        while self._timers:
            due, token, fiber = heapq.heappop(self._timers)
            if fiber.waits != token or fiber.process.dead:
                continue
            self.now = max(self.now, due)
            fiber.waits, fiber.woken = 0, False
            self._make_ready(fiber)
            if self._ready:
                return True
        return False

    def _resume(self, fiber: Fiber) -> None:
        self.current = fiber
        self.digest = (self.digest * 1_000_003 ^ fiber.number) & _MASK
        # What a real thread has for itself: the loop that runs there, and its hooks.
        if fiber.loop is not None:
            _set_running_loop(fiber.loop)
            sys.set_asyncgen_hooks(*fiber.hooks)
        fiber.greenlet.switch()
        self.current = None
        if (loop := _get_running_loop()) is not None:
            fiber.loop, fiber.hooks = loop, sys.get_asyncgen_hooks()
            _set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)
        else:
            fiber.loop = None

    def end(self) -> None:
        """Unwind all fibers, so that nothing of them runs when they are forgotten."""
        self._ending = True
        self.at_point = None
        for fiber in self.fibers:
            if fiber.ended or not fiber.greenlet:
                continue
            self.current = fiber
            if fiber.loop is not None:
                _set_running_loop(fiber.loop)
                sys.set_asyncgen_hooks(*fiber.hooks)
            fiber.greenlet.throw(GreenletExit)
            _set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)
        self.current = None
