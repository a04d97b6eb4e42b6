"""The world of one simulation: a database, the application, its workers, and a story."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from automate_kernel import hookimpl
from automate_kernel.base.errors import StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.context import Call
from automate_kernel.worker import Worker
from automate_testing.simulation.fibers import Process, Scheduler
from automate_testing.simulation.stand_ins import START, Thread
from automate_testing.simulation.storage import SimulatedStorage, TrailEntry

_TRY_SECONDS = 0.5


class Scenario:
    """
    An application to simulate, and what it does. Subclass it.

    `set_up` gives each kernel its actions and workflows, `act` runs in the application, and `check`
    looks at how it ended. Each seed has a new instance, whose attributes the actions may share:
    they outlive the workers.
    """

    workers: int = 2
    """The number of workers at the start."""
    faults: int = 3
    """The most faults of one seed."""
    kinds_of_faults: tuple[str, ...] = ()
    """The kinds of faults, of `automate_testing.simulation.faults.KINDS`; all by default."""
    seconds: float = 7200.0
    """The simulated seconds within which everything has to end."""
    points: int = 200_000
    """The most points of one seed: far more are an endless loop."""
    lease_seconds: float = 10.0
    """The lease of a worker's items."""

    def set_up(self, kernel: Kernel, world: World) -> None:
        """Give *kernel* its actions and workflows; it is called for each process."""
        raise NotImplementedError

    def act(self, world: World) -> None:
        """Do what the application does: emit events, start workflows, send signals."""
        raise NotImplementedError

    def over(self, world: World) -> bool:
        """Return True once the seed may end; by default when nothing waits or runs."""
        return world.is_quiet()

    def check(self, world: World) -> None:
        """Raise `AssertionError` if it did not end as it should."""

    def changed(self, world: World, entry: TrailEntry) -> None:
        """Look at a change that is about to be committed; an `AssertionError` is a problem."""

    def expected(self, workflow: str) -> bool:
        """Return True if an execution of *workflow* may still wait at the end."""
        return False


@dataclass
class Made:
    """One call of an action, as the world saw it begin."""

    operation: str
    key: str | None
    went_well: bool = False


@dataclass
class WorkerProcess:
    """A process with a kernel and a worker."""

    process: Process
    worker: Worker | None = None
    """None until it has begun."""
    ended: bool = False

    @property
    def takes_work(self) -> bool:
        """True while it takes work, or soon will."""
        stopping = self.worker is not None and self.worker.liveness.stopping
        return not (self.process.dead or self.ended or stopping)


class World:
    """
    All that one simulation has.

    Actions let time pass with `work`, or with `asyncio.sleep`. What a test wants to count
    it notes with `note`.
    """

    def __init__(self, scenario: Scenario, scheduler: Scheduler, seed: int) -> None:
        self.scenario, self.scheduler, self.seed = scenario, scheduler, seed
        self.random: random.Random = random.Random(seed ^ 0x5EED)
        """Chance for the scenario: which events it emits, and when."""
        self.storage = SimulatedStorage(self._database_time)
        self.storage.on_change = self._changed
        self.application = Process("app")
        self.workers: list[WorkerProcess] = []
        self.calls: list[Made] = []
        self._open: dict[str | None, Made] = {}
        self._made_of: dict[str, list[Made]] = {}
        self.faults_met: list[str] = []
        """The kinds of the faults that have happened."""
        self.problems: list[str] = []
        self.story: list[str] = []
        self.notes: list[tuple[str, Any]] = []
        """The notes of the scenario, in order."""
        self.emitted: dict[str, str] = {}
        """The names of the events that `emit` has had accepted, by their ids."""
        self.finished: dict[tuple[str, str], str] = {}
        self.started: list[tuple[str, str]] = []
        """The event and the workflow of each execution that was started by an event."""
        self.outputs: dict[str, Any] = {}
        """The outputs of steps that have COMPLETED: of ``execution/step/position``."""
        self._finished_steps: set[str] = set()
        self.acted = False
        self.kernel: Kernel
        self._made = 0

    # -- for scenarios -----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The simulated seconds since the beginning."""
        return self.scheduler.now

    def work(self, seconds: float) -> None:
        """Let a plain action take simulated *seconds*."""
        self.scheduler.sleep(seconds)

    def note(self, what: str, value: Any = None) -> None:
        """Note something that a plain or asynchronous action has done."""
        self.notes.append((what, value))
        self.tell(f"{what} {value!r}")
        self.scheduler.point("note")

    def emit(self, name: str, payload: Any = None, **options: Any) -> str:
        """Have the application emit an event; it tries again until it is accepted."""
        self._made += 1
        key = options.pop("idempotency_key", f"event-{self._made}")
        event_id: str = self.insist(
            lambda: self.kernel.emit(name, payload, idempotency_key=key, **options)
        )
        self.emitted[event_id] = name
        self.tell(f"emits {name} {payload!r}")
        return event_id

    def start(self, workflow: str, payload: Any = None, **options: Any) -> str:
        """Have the application start an execution; it tries again until that is accepted."""
        self._made += 1
        key = options.pop("idempotency_key", f"start-{self._made}")
        found: str = self.insist(
            lambda: self.kernel.start(workflow, payload, idempotency_key=key, **options)
        )
        self.tell(f"starts {workflow} {payload!r}: {found}")
        return found

    def signal(self, execution_id: str, name: str, payload: Any = None) -> str:
        """Have the application send a signal; it tries again until that is accepted."""
        self._made += 1
        key = f"signal-{self._made}"
        sent: str = self.insist(
            lambda: self.kernel.signal(execution_id, name, payload, idempotency_key=key)
        )
        self.tell(f"sends {name} {payload!r} to {execution_id}")
        return sent

    def insist(self, work: Callable[[], Any]) -> Any:
        """Return the result of *work*, which is tried again while the database is away."""
        while True:
            try:
                return work()
            except StorageError as error:
                if not error.retryable:
                    raise
                self.tell(f"is told: {error}")
            self.scheduler.sleep(_TRY_SECONDS)

    def aside(self, name: str, work: Callable[[], Any]) -> None:
        """Run *work* in the application, beside `act`."""
        self.scheduler.spawn(name, work, self.application)

    # -- the parts ---------------------------------------------------------------------------

    def open(self) -> None:
        """Begin: the application's kernel, and the workers."""
        self.kernel = self._kernel()
        for _ in range(self.scenario.workers):
            self.add_worker()

    def _kernel(self, version: str | None = None) -> Kernel:
        kernel = Kernel(
            self.storage, discover=False, secrets={}, lease_seconds=self.scenario.lease_seconds,
            version=version,
        )  # fmt: skip
        kernel.register(_CallHooks(self), "hook", key="simulation")
        self.scenario.set_up(kernel, self)
        return kernel

    def add_worker(self, version: str | None = None) -> None:
        """Start a worker in a process of its own."""
        name = f"worker-{len(self.workers) + 1}"
        entry = WorkerProcess(Process(name))
        self.workers.append(entry)

        def run() -> None:
            self.tell("starts")
            kernel = self.insist(lambda: self._kernel(version))
            entry.worker = kernel.worker(worker_id=name, slots=3, grace_seconds=5.0)
            entry.worker.run()
            entry.ended = True
            kernel.close()
            self.tell("has ended")

        fiber = self.scheduler.spawn("main", run, entry.process)
        fiber.thread = Thread(name="main")

    def live_workers(self) -> list[WorkerProcess]:
        """Return the workers that take work."""
        return [one for one in self.workers if one.takes_work]

    def _database_time(self) -> datetime:
        return START + timedelta(seconds=self.scheduler.now)

    # -- what happens ------------------------------------------------------------------------

    def tell(self, text: str, who: str | None = None) -> None:
        """Add a line to the story."""
        if who is None:
            fiber = self.scheduler.current
            who = fiber.process.name if fiber is not None else "-"
        self.story.append(f"{self.scheduler.now:10.4f}  {who:<10} {text}")

    def problem(self, text: str) -> None:
        """Note that an invariant does not hold."""
        if text not in self.problems:
            self.problems.append(text)
            self.tell(f"PROBLEM: {text}")

    def _changed(self, change: TrailEntry) -> None:
        old, new = change.old or "-", change.new or "gone"
        self.tell(f"{change.what} {change.name} {change.id[-6:]}: {old} → {new}")
        if change.what == "execution" and not change.old:
            self._note_start(change)
        if change.what in ("item", "execution", "step"):
            self._judge(change)
        try:
            self.scenario.changed(self, change)
        except AssertionError as error:
            self.problem(str(error) or repr(error))

    def _note_start(self, change: TrailEntry) -> None:
        ((event, parent, chain),) = self.storage.read(
            "SELECT event, parent_id, chain_id FROM automate_execution WHERE id = ?", change.id
        )
        if parent is None and chain in (None, change.id):
            self.started.append((str(json.loads(event)["id"]), change.name))

    def _judge(self, change: TrailEntry) -> None:
        key = change.what, change.id
        was = self.finished.get(key)
        if was == "COMPLETED" and change.new:
            self.problem(f"{change.what} {change.name} had COMPLETED, and became {change.new}")
        if change.new in ("COMPLETED", "FAILED", "CANCELLED", "SKIPPED"):
            self.finished[key] = change.new
        elif not change.new and change.what == "execution" and was is None:
            self.problem(f"the execution {change.name} was deleted before its end")
        if change.what == "step":
            if change.new == "COMPLETED":
                self._finished_steps.add(change.name)
                ((output,),) = self.storage.read(
                    "SELECT output FROM automate_step WHERE id = ?", change.id
                )
                self.outputs[change.name] = None if output is None else json.loads(output)
            else:
                # An operator, or a loop's next round, has it made anew.
                self._finished_steps.discard(change.name)
                for made in self._made_of.pop(change.name, ()) if not change.new else ():
                    made.went_well = False

    def call_begins(self, call: Call) -> None:
        """Note a call that is about to be made."""
        made = Made(call.operation, call.idempotency_key)
        self.calls.append(made)
        self._open[call.idempotency_key] = made
        self.tell(f"calls {call.operation} of {call.step_id}, attempt {call.attempt}")
        step = _step_of(call)
        self._made_of.setdefault(step, []).append(made)
        if step in self._finished_steps:
            self.problem(f"{call.operation} is called again, whose step {call.step_id} has ended")
        self.scheduler.point("call")

    def call_ended(self, call: Call, error: Exception | None) -> None:
        """Note a call that has ended."""
        if (made := self._open.pop(call.idempotency_key, None)) is not None:
            made.went_well = error is None
        self.tell(f"called {call.operation} of {call.step_id}" + (f": {error}" if error else ""))
        self.scheduler.point("called")

    def forget(self) -> None:
        """Let go of the kernels, the workers and the database: only what was seen is left."""
        self.workers.clear()
        self.storage.close()
        self.storage.on_change = None
        self.scheduler.forget()
        del self.kernel, self.storage

    # -- the end -----------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Return True if no item waits or runs, and no execution is left unfinished."""
        return not self.unfinished()

    def unfinished(self) -> list[str]:
        """Return the names of the items and executions that are not at their end."""
        found = self.storage.read(
            "SELECT 'the item ' || kind || ' ' || id, status FROM automate_outbox"
            " WHERE status IN ('PENDING', 'RUNNING', 'RETRY')"
        )
        left = [f"{name} is {status}" for name, status in found]
        executions = self.storage.read(
            "SELECT workflow, id, status FROM automate_execution"
            " WHERE status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CONTINUED')"
        )
        left += [
            f"the execution {name} {id_} is {status}"
            for name, id_, status in executions
            if not self.scenario.expected(name)
        ]
        return left


def _step_of(call: Call) -> str:
    """Return the name of the step that makes *call*, as the trail has it."""
    execution, _, place = str(call.idempotency_key).partition(":")
    return f"{execution.replace('-', '')}/{place.replace(':', '/')}"


class _CallHooks:
    """The world's own hooks in each kernel."""

    def __init__(self, world: World) -> None:
        self._world = world

    @hookimpl
    def automate_before_call(self, call: Call, input: Any) -> None:
        self._world.call_begins(call)

    @hookimpl
    def automate_after_call(self, call: Call, output: Any, error: Any) -> None:
        self._world.call_ended(call, error)
