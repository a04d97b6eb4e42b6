"""Faults at points that a seed chooses: deaths, frozen workers, lost replies, wrong clocks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automate_kernel.base.errors import AutomateError
from automate_testing.simulation.fibers import Fiber
from automate_testing.simulation.storage import connection_lost

if TYPE_CHECKING:
    from automate_testing.simulation.world import WorkerProcess, World

# A worker that dies or stops is replaced after so many seconds at most.
_REPLACED_SECONDS = 8.0
# The first of a seed's faults comes within so many points of the workers, the next so many later.
_WITHIN_POINTS = 600


@dataclass(frozen=True)
class Fault:
    """A fault of this *kind*, *after* some further points of workers; *size* is from 0 to 1."""

    after: int
    kind: str
    size: float


def chosen(rng: random.Random, most: int, kinds: tuple[str, ...]) -> list[Fault]:
    """Return up to *most* faults, of some of *kinds*: not each seed has each kind."""
    names = kinds or tuple(KINDS)
    some = rng.sample(names, rng.randint(1, min(4, len(names))))
    count = rng.randint(0, most)
    # As often early as late: half of them within a few points of each other.
    return [
        Fault(int(_WITHIN_POINTS ** rng.random()), rng.choice(some), rng.random())
        for _ in range(count)
    ]


class Faults:
    """Counts the points of the workers, and makes each fault happen in its place."""

    def __init__(self, world: World, faults: list[Fault]) -> None:
        self._world = world
        self._left = list(faults)
        self._count = self._left[0].after if self._left else 0
        self._pending: list[Fault] = []

    def give_up(self) -> None:
        """Let none happen any more: there is nothing left to disturb."""
        self._left.clear()
        self._pending.clear()

    def at_point(self, what: str, fiber: Fiber) -> None:
        """Let the faults happen whose turn it is; *what* is the kind of this point."""
        if self._pending:
            self._happen(what, fiber)
        if not self._left or fiber.process is self._world.application:
            return
        self._count -= 1
        if self._count > 0:
            return
        self._pending.append(self._left.pop(0))
        self._count = self._left[0].after if self._left else 0
        self._happen(what, fiber)

    def _happen(self, what: str, fiber: Fiber) -> None:
        for fault in list(self._pending):
            entry = next((one for one in self._world.workers if one.process is fiber.process), None)
            points, act = KINDS[fault.kind]
            if points and what not in points:
                continue
            if (entry is None or entry.worker is None) and fault.kind not in _ANYWHERE:
                continue
            self._pending.remove(fault)
            self._world.faults_met.append(fault.kind)
            act(self._world, entry, fault.size)


def _replace(world: World, size: float) -> None:
    def later() -> None:
        world.scheduler.sleep(size * _REPLACED_SECONDS)
        world.add_worker()

    world.aside("supervisor", later)


def _kill(world: World, entry: WorkerProcess, size: float) -> None:
    world.tell("dies")
    _replace(world, size)
    world.storage.abort(entry.process)
    world.scheduler.kill(entry.process)


def _stop(world: World, entry: Any, size: float) -> None:
    world.tell("is asked to stop")
    _replace(world, size)
    entry.worker.stop(abandon=size < 0.3)


def _freeze(world: World, entry: WorkerProcess, size: float) -> None:
    if world.storage.held_by(entry.process):
        # A frozen process that holds the only writer's lock would stop the whole world.
        _kill(world, entry, size)
        return
    seconds = 3 * size * world.scenario.lease_seconds
    world.tell(f"is frozen for {seconds:.1f} s")
    world.scheduler.freeze(entry.process, seconds)


def _cut(world: World, entry: WorkerProcess | None, size: float) -> None:
    world.tell("loses its connection: the transaction is rolled back")
    raise connection_lost()


def _lost_reply(world: World, entry: WorkerProcess | None, size: float) -> None:
    world.tell("does not hear that its transaction was committed")
    raise connection_lost()


def _slow(world: World, entry: WorkerProcess, size: float) -> None:
    seconds = 1.5 * size * world.scenario.lease_seconds
    if world.storage.held_by(entry.process):
        seconds = min(seconds, 5.0)
    world.tell(f"stands still for {seconds:.1f} s, in one thread")
    world.scheduler.sleep(seconds)


def _clock(world: World, entry: WorkerProcess, size: float) -> None:
    entry.process.clock_offset += (size - 0.5) * 7200
    world.tell(f"has another time: {entry.process.clock_offset:+.0f} s")


def _deaf(world: World, entry: WorkerProcess | None, size: float) -> None:
    world.tell(f"notices are lost for {size * 20:.1f} s", "database")
    world.storage.deaf_until = world.now + size * 20


def _deploy(world: World, entry: WorkerProcess, size: float) -> None:
    version = f"2.{len(world.workers)}"
    world.tell(f"version {version} is deployed", "operator")
    old = world.live_workers()

    def deploy() -> None:
        world.add_worker(version)
        world.scheduler.sleep(size * 3)
        for one in old:
            if one.worker is not None:
                one.worker.stop()

    world.aside("deploy", deploy)


def _operate(act: Callable[[World, float], None]) -> Callable[[World, Any, float], None]:
    def operate(world: World, entry: Any, size: float) -> None:
        def work() -> None:
            try:
                world.insist(lambda: act(world, size))
            except AutomateError as error:
                world.tell(f"is refused: {error}", "operator")

        world.aside("operator", work)

    return operate


def _pause(world: World, size: float) -> None:
    kinds = sorted(world.kernel.kinds)
    kind = kinds[int(size * len(kinds))]
    world.tell(f"pauses {kind}", "operator")
    world.kernel.outbox.pause(kind)

    def resume() -> None:
        world.scheduler.sleep(size * 30)
        world.insist(lambda: world.kernel.outbox.resume(kind))
        world.tell(f"resumes {kind}", "operator")

    world.aside("operator", resume)


def _purge(world: World, size: float) -> None:
    world.tell("purges what has ended", "operator")
    world.kernel.purge(older_than_seconds=0)


_ANYWHERE = ("deaf", "pause", "purge")
INTERRUPTS = ("kill", "stop", "freeze", "slow", "cut", "lost reply")
"""The faults after which a call may be made again that went well."""

KINDS: dict[str, tuple[tuple[str, ...], Callable[[Any, Any, float], None]]] = {
    "kill": ((), _kill),
    "stop": ((), _stop),
    "freeze": ((), _freeze),
    "cut": (("begin", "statement", "commit"), _cut),
    "lost reply": (("committed",), _lost_reply),
    "slow": ((), _slow),
    "clock": ((), _clock),
    "deaf": ((), _deaf),
    "deploy": ((), _deploy),
    "pause": ((), _operate(_pause)),
    "purge": ((), _operate(_purge)),
}
"""Each kind of fault, with the points at which it may happen, all if there are none."""
