"""
Random workflows under random crashes, signals and cancellations come to what a plain model says.

A process dies, or an operator acts, at any moment between two transactions or two statements.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.operations.context import current_call
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP, WAIT
from automate_kernel.testing.clock import FakeClock
from automate_kernel.worker import Worker
from automate_kernel.workflows.engine.executions import ADVANCE
from automate_kernel.workflows.execution import Execution
from automate_sqlalchemy import SqlAlchemyStorage
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from workflow_model import HOUR, FAILS, Made, Observed, check, families

LEASE_SECONDS = 30.0
STEERING = ["signal", "signal", "signal", "pause", "cancel"]
PATIENCE = 20.0
Act = Callable[[], None]


class Death(BaseException):
    """The end of a process: nothing catches it."""


class Mortal:
    """A storage as one process sees it, which may die at any moment, or be interrupted."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._inside = threading.local()
        self._lock = threading.Lock()
        self.moment = 0
        self.acts: dict[int, Act] = {}
        self.dies_at = 0
        self.dead: type[BaseException] | None = None
        self.death: type[BaseException] = Death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True) -> Iterator[Any]:
        depth = getattr(self._inside, "depth", 0)
        self._pass(acts=depth == 0)
        self._inside.depth = depth + 1
        try:
            with self._storage.begin(transaction, atomic=atomic) as rows:
                own = transaction is None
                if own:
                    run = rows.run
                    rows.run = lambda *given, **more: (self._pass(), run(*given, **more))[1]
                try:
                    yield rows
                finally:
                    if own:
                        del rows.run
                self._pass()
        finally:
            self._inside.depth = depth
        self._pass(acts=depth == 0)

    def _pass(self, *, acts: bool = False) -> None:
        """Let a moment pass."""
        with self._lock:
            self.moment += 1
            if self.moment == self.dies_at:
                self.dead = self.death
            act = None
            # Within a transaction nobody else can act, on a database that has one writer.
            if acts and self.acts and (first := min(self.acts)) <= self.moment:
                act = self.acts.pop(first)
        if self.dead is not None:
            raise self.dead("this process has died")
        if act is not None:
            act()


class Machine(RuleBasedStateMachine):
    """Processes that come and go on one storage, an operator, and a clock."""

    open_storage: Callable[[FakeClock], Storage]
    by_worker = False

    @initialize(made=families())
    def begin(self, made: dict[str, Made]) -> None:
        self.made, self.clock = made, FakeClock()
        self.storage = type(self).open_storage(self.clock)
        self.operator = self.new_kernel(self.storage)
        self.roots = 0
        self.log: list[tuple[str, str]] = []
        self.calls: Counter[str] = Counter()
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self.cancelled: set[str] = set()
        self.wrong: list[str] = []
        self.new_process()
        self.start("root")

    def teardown(self) -> None:
        if not hasattr(self, "process"):
            return
        try:
            self.drain()
            self.check_all()
        finally:
            self.process.close()
            self.operator.close()

    # -- processes ---------------------------------------------------------------------------

    def new_kernel(self, storage: Any) -> Kernel:
        kernel = Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE_SECONDS)

        @kernel.action("plain")
        def plain(at: str, plan: int) -> str:
            self.called(at, plan)
            self.log.append(("end", at))
            return at

        @kernel.action("awaited")
        async def awaited(at: str, plan: int) -> str:
            self.called(at, plan)
            await asyncio.sleep(0)
            self.log.append(("end", at))
            return at

        for made in self.made.values():
            kernel.add_workflow(made.definition())
        return kernel

    def called(self, at: str, plan: int) -> None:
        call = current_call()
        assert call is not None
        position = int((call.idempotency_key or "").rpartition(":")[2])
        execution = self.operator.executions.get(call.execution_id or "")
        run = execution and execution.step(call.step_id or "", position)
        # Who had it when it was cancelled may be about to call it.
        if run is not None and run.status.finished and run.status != "CANCELLED":
            self.wrong.append(f"{at} is called, and was {run.status}")
        self.calls[at] += 1
        self.log.append(("begin", at))
        if plan == FAILS or self.calls[at] <= plan:
            self.log.append(("end", at))
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the other side is down")

    def new_process(self) -> None:
        self.mortal = Mortal(self.storage)
        self.process = self.new_kernel(self.mortal)

    def bury(self) -> None:
        """Let the leases of a process that has died run out, and start another."""
        self.mortal.dead = StorageError  # which its last words survive
        self.process.close()
        self.new_process()
        self.clock.advance(LEASE_SECONDS + 1)

    # -- what happens ------------------------------------------------------------------------

    @precondition(lambda self: self.roots < 3)
    @rule(name=st.sampled_from(["root", "root", "child"]))
    def start(self, name: str) -> None:
        self.operator.start(name, {"key": f"r{self.roots}"})
        self.roots += 1

    @rule(
        dies_at=st.just(0) | st.integers(1, 120),
        acts=st.dictionaries(
            st.integers(1, 80),
            st.tuples(st.sampled_from(STEERING), st.integers(0, 9)),
            max_size=3,
        ),
    )
    def run(self, dies_at: int, acts: dict[int, tuple[str, int]]) -> None:
        """Let a process work until nothing is due, or until it dies."""
        mortal = self.mortal
        now = mortal.moment
        mortal.dies_at = now + dies_at if dies_at else 0
        mortal.acts = {now + at: self.act(*what) for at, what in acts.items()}
        with suppress(Death):
            self.work()
        mortal.dies_at, mortal.acts = 0, {}
        if mortal.dead is not None:
            self.bury()
        else:
            self.settle()
            self.check_rest()

    def work(self) -> None:
        if not self.by_worker:
            self.process.run_until_idle()
            return
        # It dies as one does that loses its database for good: its threads end by themselves.
        self.mortal.death = StorageError
        self.operator.outbox.reap()
        worker = self.process.worker(poll_seconds=0.01, slots=4, grace_seconds=1.0)
        thread = threading.Thread(target=self.run_worker, args=(worker,), daemon=True)
        thread.start()
        for _ in range(int(PATIENCE * 200)):
            if self.mortal.dead is not None or not self.due():
                break
            threading.Event().wait(0.005)
        else:
            raise AssertionError(f"it does not come to rest: {self.due()}")
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def run_worker(self, worker: Worker) -> None:
        with suppress(StorageError):  # it died before it had begun
            worker.run()

    def due(self) -> list[dict[str, Any]]:
        """What a worker has, or is to take."""
        now = self.clock()
        return [
            row for row in self.unfinished()
            if row["status"] == "RUNNING"
            or (row["next_attempt_at"] <= now and row["waiting_for"] != "resume")
        ]  # fmt: skip

    def settle(self) -> None:
        """Work until nothing more is due: what an act has left is due only now."""
        self.work()

    def act(self, what: str, number: int) -> Act:
        def act() -> None:
            live = self.live()
            if not live:
                return
            one = live[number % len(live)]
            if what == "signal":
                self.send(one, number)
            elif what == "cancel":
                self.stop(one)
            elif not self.operator.executions.unpause(one.id):
                self.operator.executions.pause(one.id)

        return act

    @precondition(lambda self: self.roots)
    @rule(what=st.sampled_from(STEERING), number=st.integers(0, 9))
    def steer(self, what: str, number: int) -> None:
        self.act(what, number)()

    @rule(seconds=st.sampled_from([31, 61, HOUR - 1, HOUR + 1]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def send(self, one: Execution, number: int) -> None:
        """Send what a step waits for, or will; now and then it is something that doesn't fit."""
        waits = [step for step in self.made[one.name].every() if step.waits]
        if not waits:
            return
        step = waits[number % len(waits)]
        self.send_to(one, step.id, step.kind, ok=number % 4 != 3)

    def send_to(self, one: Execution, step_id: str, kind: str, *, ok: bool = True) -> None:
        at = f"{one.event.payload['key']}/{step_id}"
        if kind == "event":
            sent = self.operator.emit("go", {"at": at, "ok": ok})
        else:
            try:
                sent = self.operator.signal(one.id, step_id, {"ok": ok})
            except AutomateError:
                return  # it has ended just now
            item = self.operator.outbox.get(sent)
            assert item is not None
            sent = item.payload["event"]["id"]
        if ok:
            self.sent[at].append(sent)

    def stop(self, one: Execution) -> None:
        if one.status != "CANCELLING" and self.operator.executions.cancel(one.id):
            self.cancelled.add(one.event.payload["key"])

    def live(self) -> list[Execution]:
        return [one for one in self.all() if not one.status.finished]

    def all(self) -> list[Execution]:
        return sorted(
            self.operator.executions.find(limit=1000), key=lambda one: one.event.payload["key"]
        )

    # -- what must hold ----------------------------------------------------------------------

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.storage.begin(atomic=False) as rows:
            return rows.select(table)

    def unfinished(self) -> list[dict[str, Any]]:
        return [
            row for row in self.rows(OUTBOX) if row["status"] in ("PENDING", "RETRY", "RUNNING")
        ]

    def check_rest(self) -> None:
        """With nothing due, nothing is leased, and whatever has not ended has a reason."""
        assert self.wrong == []
        for item in self.rows(OUTBOX):
            assert item["status"] != "RUNNING", item
        waiting = set()
        # After a death it waits a moment.
        later = {row["id"]: row["kind"] for row in self.unfinished() if row["status"] == "RETRY"}
        coming = set(later.values()) - {ADVANCE}
        for one in self.live():
            key, status = one.event.payload["key"], str(one.status)
            runs = {run.key: str(run.status) for run in one.steps}
            about = f"{key} is {status} with {runs}"
            waiting |= {(one.id, *at) for at, its in runs.items() if its == "WAITING"}
            if status == "PAUSED" or one.item_id in later:
                continue
            assert "RUNNING" not in runs.values(), about
            assert {"WAITING", "RETRY"} & set(runs.values()), about
            if not coming:
                self.check_nothing_lost(one, about)
        rows = {(row["execution_id"], row["step_id"], row["position"]) for row in self.rows(WAIT)}
        assert rows <= waiting

    def check_nothing_lost(self, one: Execution, about: str) -> None:
        """What has come for a step that waits is taken, and so is a sub-workflow's end."""
        ended = {each.id for each in self.all() if each.status.finished}
        for run in one.steps:
            if str(run.status) == "WAITING" and isinstance(run.output, dict):
                assert run.output["execution_id"] not in ended, about
        for step in self.made[one.name].every():
            if not step.waits:
                continue
            runs = [run for run in one.steps if run.step_id == step.id]
            taken = {run.output["id"] for run in runs if isinstance(run.output, dict)}
            sent = self.sent[f"{one.event.payload['key']}/{step.id}"]
            if any(str(run.status) == "WAITING" for run in runs):
                assert set(sent) <= taken, f"{about}: {step.id} has missed a signal"

    def drain(self) -> None:
        """Let everything come to its end."""
        for _ in range(60):
            self.settle()
            self.check_rest()
            live = self.live()
            if not live and not self.unfinished():
                break
            for one in live:
                if one.status == "PAUSED":  # which wakes it
                    self.operator.executions.unpause(one.id)
                for run in one.steps:
                    kinds = {step.id: step.kind for step in self.made[one.name].every()}
                    kind = kinds.get(run.step_id, "")
                    if str(run.status) == "WAITING" and kind in ("signal", "event"):
                        self.send_to(one, run.step_id, kind)
            self.settle()
            self.clock.advance(HOUR / 2)
        assert [self.told(one) for one in self.live()] == []

    def told(self, one: Execution) -> str:
        runs = {run.key: str(run.status) for run in one.steps}
        return f"{one.event.payload['key']} {one.status} {runs}"

    def check_all(self) -> None:
        for item in self.rows(OUTBOX):
            assert item["status"] in ("COMPLETED", "CANCELLED"), item
        assert self.rows(WAIT) == []
        assert not [row for row in self.rows(STEP) if row["status"] in ("RUNNING", "RETRY")]
        found = self.all()
        keys = Counter(one.event.payload["key"] for one in found)
        assert set(keys.values()) <= {1}, keys
        assert {f"r{n}" for n in range(self.roots)} <= set(keys)
        seen = {one.event.payload["key"]: self.observed(one) for one in found}
        for key, one in seen.items():
            one.children = {
                other: child for other, child in seen.items() if other.startswith(f"{key}/")
            }
        by_id = {one.id: one for one in found}
        for one in found:
            parent = by_id.get(one.parent_id or "")
            if parent is not None:
                key = one.event.payload["key"]
                step_id = key[len(parent.event.payload["key"]) + 1 :].split("/")[0]
                left = [
                    run for run in parent.steps
                    if run.step_id == step_id and str(run.status) in ("FAILED", "CANCELLED")
                ]  # fmt: skip
                seen[key].cancelled |= bool(left) or str(parent.status) != "COMPLETED"
        for one in seen.values():
            check(one, self.sent, self.log)

    def observed(self, one: Execution) -> Observed:
        key = one.event.payload["key"]
        return Observed(
            key, self.made[one.name], str(one.status), one.output, one.error,
            {run.key: run for run in one.steps}, cancelled=key in self.cancelled,
        )  # fmt: skip


@pytest.fixture
def run_machine(full: bool) -> Callable[..., None]:
    """A function that runs the machine on storages, for so many examples."""

    def run_machine(
        open_storage: Callable[[FakeClock], Storage], examples: int, *, by_worker: bool = False
    ) -> None:
        given = {"open_storage": staticmethod(open_storage), "by_worker": by_worker}
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            type("Machine", (Machine,), given),
            settings=settings(
                max_examples=examples * (20 if full else 1), stateful_step_count=15,
                deadline=None, suppress_health_check=list(HealthCheck), print_blob=True,
                report_multiple_bugs=False,
            ),
        )  # fmt: skip

    return run_machine


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the long runs are wanted."""
    return bool(request.config.getoption("--full"))


@pytest.mark.timeout(1800)
def test_any_workflow_comes_to_its_end(run_machine: Callable[..., None]) -> None:
    """Its steps, their order and its end are the model's, and no finished step is called again."""
    run_machine(MemoryStorage, 40)


@pytest.mark.timeout(1800)
def test_any_workflow_comes_to_its_end_in_an_engine(run_machine: Callable[..., None]) -> None:
    """With the threads, the event loop and the grouped checkpoints of a worker."""
    run_machine(MemoryStorage, 10, by_worker=True)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("by_worker", [False, True])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_any_workflow_comes_to_its_end_in_a_database(
    database: str,
    by_worker: bool,
    request: pytest.FixtureRequest,
    emptied: Callable[[sa.Engine], sa.Engine],
    run_machine: Callable[..., None],
) -> None:
    """Where transactions and statements are the database's."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")

    def open_storage(clock: FakeClock) -> Storage:
        return SqlAlchemyStorage(emptied(engine), clock=clock)

    run_machine(open_storage, 6, by_worker=by_worker)
