"""Workers are killed, and their database is restarted, while they drive executions."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fault_orders
import pytest
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP, WAIT
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from fault_scene import Process, Scene, until
from fault_server import Server
from leases import pass_leases

SEED = 20261125
WORKERS = 4
# Executions that are under way at once. The fewer, the further each comes before a kill.
UNDER_WAY = 60
# So much of the work may be done before its faults are.
AHEAD = 30
# The steps but the refund, with the elements, the parcels, and the two steps of each of those.
STEPS = 12 + fault_orders.ELEMENTS + 3 * fault_orders.PARCELS
NAMES = ("orders", "awaited-orders")


@dataclass(frozen=True)
class Faults:
    """How much goes wrong, and in how many executions."""

    executions: int
    kills: int
    restarts: int
    sessions: int
    freezes: int

    def in_order(self, choose: random.Random) -> list[tuple[float, str]]:
        """When each happens, as a part of all the work."""
        names = ["kill"] * self.kills + ["session"] * self.sessions + ["freeze"] * self.freezes
        names += [["fast", "immediate", "kill the server"][n % 3] for n in range(self.restarts)]
        return sorted((choose.uniform(0.01, 0.95), name) for name in names)


class Frozen:
    """Workers that are stopped for longer than their leases last, and don't know it."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._until = scene, dict[Process, float]()
        self.pids: set[int] = set()
        """All that were frozen."""

    def awake(self) -> list[Process]:
        """The others."""
        return [each for each in self._scene.processes if each not in self._until]

    def add(self, process: Process) -> None:
        process.send(signal.SIGSTOP)
        self.pids.add(process.pid)
        self._until[process] = time.monotonic() + self._scene.lease_seconds * 1.5

    def thaw(self) -> bool:
        """Let those go on whose time has come; return True if none is left."""
        for process, until_ in list(self._until.items()):
            if until_ <= time.monotonic():
                if process.alive:  # it may have been about to end when it was stopped
                    process.send(signal.SIGCONT)
                del self._until[process]
        return not self._until


class Orders:
    """Events that are emitted bit by bit, and how far the executions are that they started."""

    def __init__(self, scene: Scene, count: int, choose: random.Random) -> None:
        self.scene, self._count, self._choose = scene, count, choose
        self.events: list[str] = []
        self._paid = set[str]()

    def reach(self, place: float) -> bool:
        """Return True if *place*, a part of all the work, is reached; emit what that needs."""
        done = self._count_of(f"{EXECUTION} WHERE workflow IN {NAMES} AND")
        self.emit(min(done + UNDER_WAY, int(place * self._count) + AHEAD))
        self.pay()
        saved = self._count_of(f"{STEP} WHERE")
        return saved >= place * self._count * STEPS

    def pay(self, share: float = 0.2) -> bool:
        """Pay some orders, before or after they wait for it; return True if all are paid."""
        sql = f"SELECT id, event FROM {EXECUTION} WHERE workflow IN {NAMES}"
        for row in self.scene.rows(sql):
            if str(row.id) in self._paid or self._choose.random() > share:
                continue
            self._paid.add(str(row.id))
            paid = {"n": row.event["payload"]["n"]}
            if paid["n"] % 2:
                self.scene.kernel.signal(str(row.id), fault_orders.PAID, paid)
            else:
                self.scene.kernel.emit(fault_orders.PAID, paid)
        return len(self._paid) == self._count

    def emit(self, most: int) -> None:
        """Emit until there are *most*, or all."""
        for n in range(len(self.events), min(self._count, most)):
            self.events.append(
                self.scene.kernel.emit(fault_orders.EVENT, {"n": n}, idempotency_key=f"order-{n}")
            )

    def _count_of(self, what: str) -> int:
        sql = f"SELECT count(*) AS n FROM {what} completed_at IS NOT NULL"
        return self.scene.rows(sql)[0].n


@pytest.mark.parametrize(
    "faults",
    [
        # Each order has 38 steps: so many make the ordinary run about as long as others here.
        pytest.param(Faults(40, 15, 2, 8, 3), id="few"),
        pytest.param(Faults(300, 160, 5, 60, 15), id="many", marks=pytest.mark.long),
    ],
)
def test_workers_that_die_over_executions(
    server: Server, open_scene_at: Callable[..., Scene], faults: Faults
) -> None:
    """
    Each event has its one execution, and each execution ends as it would have without the faults.

    No step is called again after its outcome was saved, and nothing stays leased.
    """
    scene, choose = open_scene_at(server.url(), lease_seconds=3.0), random.Random(SEED)
    fault_orders.Notes(scene.url).create()
    orders = Orders(scene, faults.executions, choose)
    worker = {"slots": 16, "most_seconds": 0.04}
    for _ in range(WORKERS):
        scene.start(**worker)
    under_work, frozen = Counter[str](), Frozen(scene)
    scene.meanwhile = frozen.thaw
    for place, fault in faults.in_order(choose):
        until(
            lambda place=place: (
                frozen.thaw(), supervise(scene, worker), orders.reach(place),
            )[-1]
        )  # fmt: skip
        process = frozen.awake()[0] if fault == "freeze" else choose.choice(frozen.awake())
        under_work[fault] += scene.unfinished() > 0
        if fault == "kill":
            scene.kill(process)
            scene.start(**worker)
        elif fault == "session":
            under_work["ended"] += end_a_session(scene)
        elif fault == "freeze":
            frozen.add(process)
            scene.start(**worker)
        else:
            server.restart(fault.split()[0])
            scene.engine.dispose()
    until(frozen.thaw)
    last_fault_at = time.monotonic()
    orders.emit(faults.executions)
    until(orders.pay)
    scene.drain()
    assert time.monotonic() - last_fault_at < 60
    # One whose session was ended at its start may be about to end: those that report have started.
    until(lambda: (supervise(scene, worker), scene.all_report())[-1])
    assert all(process.alive for process in scene.processes)
    told = scene.stop_all()

    assert under_work["kill"] > faults.kills * 0.9, (
        "the work was done too soon: the test shows little"
    )
    assert under_work["ended"] > faults.sessions * 0.8, "hardly any session was there to be ended"
    assert all(one["failed"] == 0 for one in told)
    scene.check(orders.events)
    check_executions(scene, orders.events)
    check_calls(scene, frozen.pids | scene.stood_still())
    check_bookings(scene, len(orders.events))


def supervise(scene: Scene, worker: dict[str, Any]) -> None:
    """Start another for each worker that has ended by itself: it did not find its database."""
    for process in [each for each in scene.processes if not each.alive]:
        assert "in _preflight" in process.complained(), process.complained()[-3000:]
        scene.processes.remove(process)
        scene.start(**worker)


def end_a_session(scene: Scene) -> int:
    """End one session of a worker, whatever it is doing."""
    return scene.rows(
        "SELECT count(pg_terminate_backend(pid)) AS n FROM (SELECT pid FROM pg_stat_activity"
        " WHERE application_name LIKE 'worker-%%' AND datname = current_database() ORDER BY random() LIMIT 1) AS one"
    )[0].n


def check_executions(scene: Scene, events: list[str]) -> None:
    """Each event has one execution, which ended as it should."""
    # With one more for each order and each parcel, were there any.
    every = scene.kernel.executions.find(limit=len(events) * (1 + fault_orders.PARCELS) * 2)
    found = [execution for execution in every if execution.name in NAMES]
    by_event = {execution.event.id: execution for execution in found}
    assert len(found) == len(by_event) == len(events)
    assert set(by_event) == set(events)
    parcels = [execution for execution in every if execution.name == "parcel"]
    for n, event_id in enumerate(events):
        check_execution(by_event[event_id], n)
        its = [one for one in parcels if one.parent_id == by_event[event_id].id]
        numbers = range(n * 10, n * 10 + fault_orders.PARCELS)
        assert sorted(one.output for one in its) == list(numbers)
        assert {one.status for one in its} == {ExecutionStatus.COMPLETED}
    assert len(every) == len(events) * (1 + fault_orders.PARCELS)
    assert scene.rows(f"SELECT * FROM {WAIT}") == []


def check_execution(execution: Execution, n: int) -> None:
    assert execution.event.payload == {"n": n}
    assert execution.name == ("awaited-orders" if n % 2 else "orders")
    ended = {run.key: run.status for run in execution.steps}
    assert len(ended) == len(execution.steps)
    expected = {("each", position): "COMPLETED" for position in range(fault_orders.ELEMENTS)}
    expected |= {("parcels", parcel): "COMPLETED" for parcel in range(fault_orders.PARCELS)}
    plain = ("take", "left", "right", "each", "flaky", "book", "nap", "paid", "parcels")
    expected |= {(step, -1): "COMPLETED" for step in plain}
    expected["gift", -1] = "FAILED" if n % 3 == 0 else "COMPLETED"
    if fault_orders.succeeds(n):
        assert execution.status is ExecutionStatus.COMPLETED, execution.error
        assert execution.output == fault_orders.output_of(n)
        expected |= {("pay", -1): "COMPLETED", ("ship", -1): "COMPLETED"}
    else:
        assert execution.status is ExecutionStatus.FAILED
        assert execution.error_code == "FAILED_PRECONDITION"
        assert execution.error == "step 'pay' failed: no money"
        expected |= {("pay", -1): "FAILED", ("refund", -1): "COMPLETED"}
    assert ended == expected
    for run in execution.steps:
        if run.step_id == "paid":
            assert run.output["payload"] == {"n": n}
        elif run.status is StepStatus.COMPLETED:
            assert run.output == output_of_step(run.step_id, run.position, n)


def output_of_step(step_id: str, position: int, n: int) -> Any:
    if step_id == "each":
        return position if position >= 0 else None
    if step_id == "parcels":
        return n * 10 + position if position >= 0 else None
    if step_id == "nap":
        return None
    return n + {"left": 1, "right": 2, "ship": 3}.get(step_id, 0)


def check_calls(scene: Scene, frozen: set[int]) -> None:
    """
    Every step was called, and none after its outcome was saved.

    But a thread that was frozen on its way from the last look at its lease into an action can't
    know that all has been done meanwhile.
    """
    same = "calls.execution = step.execution_id::text AND calls.step = step.step_id"
    same += " AND calls.position = step.position"
    late = scene.rows(
        f"SELECT calls.*, step.completed_at, step.attempts FROM calls JOIN {STEP} AS step ON {same}"
        " WHERE called_at > step.completed_at"
    )
    assert [call for call in late if call.process not in frozen] == []
    assert len(late) <= 10 * len(frozen)
    uncalled = scene.rows(
        f"SELECT step.* FROM {STEP} AS step WHERE NOT (step_id = 'each' AND position = -1)"
        f" AND step_id NOT IN {fault_orders.NOT_CALLED}"
        f" AND NOT EXISTS (SELECT FROM calls WHERE {same})"
    )
    assert uncalled == []
    unknown = scene.rows(
        f"SELECT calls.* FROM calls WHERE NOT EXISTS (SELECT FROM {STEP} AS step WHERE {same})"
    )
    assert unknown == []
    again = "SELECT step FROM calls WHERE step <> 'flaky' GROUP BY execution, step, position"
    assert scene.rows(f"{again} HAVING count(*) > 1"), "no kill hit a step: it shows nothing"
    assert scene.rows(f"SELECT * FROM {STEP} WHERE completed_at IS NULL") == []
    assert scene.rows(f"SELECT * FROM {OUTBOX} WHERE lease_expires_at IS NOT NULL") == []


def check_bookings(scene: Scene, count: int) -> None:
    """What a transactional step has written is there once, however often it was called."""
    written = [row.step for row in scene.rows("SELECT step FROM booked")]
    assert len(written) == len(set(written)) == count
    called = scene.rows("SELECT count(*) AS n FROM calls WHERE step = 'book'")[0].n
    assert called >= count


def test_a_death_around_each_checkpoint(open_scene: Callable[..., Scene]) -> None:
    """
    Right before a checkpoint a death costs one more call of the step whose outcome it had.

    Right after it the death costs nothing. No other step is called twice.
    """
    # Long, so that no execution is taken over before all have died.
    scene = open_scene(600.0)
    checkpoints = range(1, fault_orders.LONG + 1)
    deaths = [(side, n) for side in ("before", "after") for n in checkpoints]
    died: dict[str, tuple[str, int]] = {}
    for side, n in deaths:
        died[scene.kernel.emit("long.asked", {"n": n})] = side, n
        process = scene.start(**{f"die_{side}_checkpoint": n})
        assert scene.ended(process) == -signal.SIGKILL, process.complained()
    began = Counter(words[0] for words in scene.words("long"))
    assert sorted(began.values()) == sorted(n for _, n in deaths)

    pass_leases(scene.kernel)
    scene.outbox.reap()
    scene.start()
    scene.drain()
    [told] = scene.stop_all()
    assert told["failed"] == 0
    scene.check(died)
    calls = Counter((execution, step) for execution, step, _ in scene.words("long"))
    for execution in scene.kernel.executions.find(limit=100):
        side, n = died.pop(execution.event.id)
        assert execution.status is ExecutionStatus.COMPLETED, execution.error
        assert execution.output == fault_orders.LONG
        assert {run.status for run in execution.steps} == {StepStatus.COMPLETED}
        expected = Counter({f"step-{each}": 1 for each in checkpoints})
        if side == "before":
            expected[f"step-{n}"] += 1
        made = {step: count for (of, step), count in calls.items() if of == execution.id}
        assert made == expected, f"killed {side} checkpoint {n}"
    assert died == {}
