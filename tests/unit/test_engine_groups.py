"""Groups of checkpoints: one that is refused, fails or is large is no other's trouble."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from waiting import PATIENCE, until
from workers import working
from automate_kernel import Kernel
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_kernel.outbox import ItemStatus, Outcome
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import STEP
from automate_kernel.storage import sql
from automate_kernel.workflows.drive import flow as flow_module
from automate_kernel.workflows.drive.engine import Engine
from automate_kernel.workflows.decide.turn import CallOutcome
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from automate_sqlalchemy import SqlAlchemyStorage
from defined import define, is_over, see


# -- values that the database refuses --------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
def test_what_runs_beside_a_refused_output_is_not_made_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    """The plain call that runs ends and is saved, before another worker may go on."""
    checkpoint, go, calls = kernel.executions.checkpoints.save, threading.Event(), []

    def refuse(group: Any) -> Any:
        if any(run.output == "odd" for save in group for run in save.turn.saves):
            threading.Timer(0.2, go.set).start()
            raise StorageError("refused", code=ErrorCodes.INVALID_ARGUMENT)
        return checkpoint(group)

    @kernel.action
    def slow() -> str:
        calls.append("slow")
        assert go.wait(PATIENCE)
        return "kept"

    @kernel.action
    def odd() -> str:
        calls.append("odd")
        return "odd"

    @kernel.action
    def after() -> str:
        calls.append("after")
        return "after"

    monkeypatch.setattr(kernel.executions.checkpoints, "save", refuse)
    define(
        kernel,
        {"id": "slow", "action": "slow", "needs": []},
        {"id": "odd", "action": "odd", "needs": [], "on_failure": "continue"},
        {"id": "after", "action": "after", "needs": ["slow", "odd"]},
    )
    one = kernel.start("w")
    if inline:
        kernel.run_until_idle()
    else:
        with working(kernel):
            until(lambda: is_over(kernel, one))
    assert calls == ["slow", "odd", "after"] or calls == ["odd", "slow", "after"]
    execution = see(kernel, one)
    assert execution.status is ExecutionStatus.COMPLETED
    assert {run.step_id: (run.status, run.attempts) for run in execution.steps} == {
        "slow": (StepStatus.COMPLETED, 1),
        "odd": (StepStatus.FAILED, 1),
        "after": (StepStatus.COMPLETED, 1),
    }


def test_a_half_that_is_saved_stays_with_its_worker(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that fails after the first half of a refused group takes the second back only."""
    runner, executions = kernel._runner, kernel.executions
    checkpoint = executions.checkpoints.save

    @kernel.action
    def work(n: int) -> int:
        return n

    define(kernel, {"id": "a", "action": "work", "input": {"n": "{{ event.payload.n }}"}})
    started = [kernel.start("w", {"n": n}) for n in range(4)]
    items = kernel.outbox.claim_batch("me", 4, kinds=[ADVANCE])
    flows: list[Any] = list(runner.open(items).values())
    turns = []
    for flow in flows:
        (call,) = runner.turn(flow).calls
        runner.begin(flow, call)
        turns.append(runner.turn(flow, [CallOutcome(call, output=1)]))
    seen: list[int] = []

    def fail(group: Any) -> Any:
        seen.append(len(group))
        if len(group) == 4:
            raise StorageError("refused", code=ErrorCodes.INVALID_ARGUMENT)
        if len(seen) > 2:
            raise StorageError("the database is down", retryable=False)
        return checkpoint(group)

    monkeypatch.setattr(executions.checkpoints, "save", fail)
    saved = runner.save(list(zip(flows, turns, strict=True)), until=lambda: True)
    results = [saved[flow.item.id] for flow in flows]
    assert [isinstance(each, StorageError) for each in results] == [False, False, True, True]
    assert [is_over(kernel, one) for one in started] == [True, True, False, False]


# -- claims of the same item -----------------------------------------------------------------------


def test_a_claim_that_was_lost_is_not_saved_beside_a_later_one_of_the_same_worker(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first one still calls would be taken for what the second has called."""
    checkpoint = kernel.executions.checkpoints.save
    saving, may_save = threading.Event(), threading.Event()
    gates, calls = [threading.Event() for _ in range(2)], list[str]()

    def slow_at_first(group: Any) -> Any:
        saving.set()
        assert may_save.wait(PATIENCE)
        return checkpoint(group)

    @kernel.action
    def work() -> int:
        calls.append("work")
        number = len(calls) - 1
        assert gates[number].wait(PATIENCE)
        return number

    @kernel.action
    def after() -> None:
        calls.append("after")

    @kernel.action
    def other() -> None:
        return None

    define(kernel, {"id": "a", "action": "work"}, {"id": "b", "action": "after"})
    define(kernel, {"id": "a", "action": "other"}, name="other")
    # That they take long is saved too, and the first save is to be that of the other one.
    monkeypatch.setattr("automate_kernel.workflows.drive.driver.SEEN_SECONDS", 600.0)
    one = kernel.start("w")
    with working(kernel) as worker:
        until(lambda: calls)
        (engine,) = (pool for pool in worker._pools if isinstance(pool, Engine))
        item = kernel.outbox.get(see(kernel, one).item_id)
        assert item is not None
        back = Outcome(item.id, ItemStatus.PENDING, 0, token=item.lease_token)
        assert kernel.outbox.acknowledge(worker.worker_id, [back]) == set()
        until(lambda: len(calls) == 2)
        monkeypatch.setattr(kernel.executions.checkpoints, "save", slow_at_first)
        kernel.start("other")
        assert saving.wait(PATIENCE)
        for gate in gates:
            gate.set()
        until(lambda: engine._dirty.qsize() == 2)
        may_save.set()
        until(lambda: is_over(kernel, one))
    assert calls == ["work", "work", "after"]
    assert see(kernel, one).steps[0].output == 1


# -- large outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
def test_outputs_are_saved_a_few_at_once_if_they_are_large(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    """However many large outputs come together, a group stays within a bound."""
    monkeypatch.setattr(flow_module, "MOST_TEXT", 50_000)
    monkeypatch.setattr("automate_kernel.workflows.drive.engine.MOST_TEXT", 50_000)
    checkpoint, sizes = kernel.executions.checkpoints.save, []

    def measure(group: Any) -> Any:
        sizes.append(sum(len(t) for save in group for t in save.turn.outputs.values()))
        return checkpoint(group)

    @kernel.action
    def work() -> str:
        barrier.wait(PATIENCE)
        return "x" * 20_000

    barrier = threading.Barrier(10)
    monkeypatch.setattr(kernel.executions.checkpoints, "save", measure)
    define(
        kernel,
        {"id": "a", "action": "work", "for_each": list(range(10)), "concurrency": 10},
    )
    one = kernel.start("w")
    if inline:
        kernel.run_until_idle()
    else:
        with working(kernel, slots=10):
            until(lambda: is_over(kernel, one))
    assert see(kernel, one).status is ExecutionStatus.COMPLETED
    assert len(see(kernel, one).steps) == 11
    assert max(sizes) < 90_000


@pytest.mark.parametrize("database", ["memory", "mariadb"])
def test_many_large_rows_are_several_statements(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB refuses a statement of more than 16 MB; 40 outputs of almost 1 MB are 40 MB."""
    storage = None
    if database == "mariadb":
        storage = SqlAlchemyStorage(request.getfixturevalue("mariadb_engine"))
    else:
        monkeypatch.setattr(sql, "_MOST_TEXT", 100_000)
    kernel = Kernel(storage, discover=False, secrets={})
    statements: list[int] = []
    inserted = Rows._insert

    def count(self: Rows, table: Any, rows: Any, *more: Any) -> int:
        if table.name == STEP:
            statements.append(len(rows))
        return inserted(self, table, rows, *more)

    monkeypatch.setattr(Rows, "_insert", count)

    @kernel.action
    def work() -> str:
        return '"' * (490_000 if database == "mariadb" else 10_000)

    define(kernel, {"id": "a", "action": "work"}, {"id": "b", "action": "work", "needs": []})
    started = [kernel.start("w") for _ in range(20)]
    items = kernel.outbox.claim_batch("me", 20, kinds=[ADVANCE])
    runner = kernel._runner
    group = []
    for flow in runner.open(items).values():
        assert not isinstance(flow, Exception)
        calls = runner.turn(flow).calls
        for call in calls:
            runner.begin(flow, call)
        group.append((flow, runner.turn(flow, [runner.perform(flow, call) for call in calls])))
    saved = runner.save(group, until=lambda: True)
    assert len(saved) == 20
    assert not any(isinstance(each, Exception) for each in saved.values())
    assert sum(statements) == 40
    assert len(statements) > 2
    assert all(is_over(kernel, one) for one in started)


# -- fair share ------------------------------------------------------------------------------------


def test_what_an_event_starts_does_not_pass_over_other_tenants(kernel: Kernel) -> None:
    """While another tenant's executions wait for their turn, new ones wait in the line too."""

    @kernel.action
    def work() -> None:
        pass

    define(kernel, {"id": "a", "action": "work"}, trigger={"type": "event", "event": "e"})
    for _ in range(10):
        kernel.start("w", tenant_id="small")
    kernel.emit("e", tenant_id="large")
    claimed = kernel.outbox.claim_batch("me", 4)
    (event,) = (item for item in claimed if item.kind != ADVANCE)
    begun = kernel._runner.begin_events([event])
    assert begun == []
    (one,) = kernel.executions.find(tenant_id="large")
    item = kernel.outbox.get(one.item_id or "")
    assert item is not None
    assert item.status is ItemStatus.PENDING


def test_without_other_tenants_it_begins_at_once(kernel: Kernel) -> None:
    """A backlog of its own is no reason for a claim more."""

    @kernel.action
    def work() -> None:
        pass

    define(kernel, {"id": "a", "action": "work"}, trigger={"type": "event", "event": "e"})
    for _ in range(10):
        kernel.start("w")
    kernel.emit("e")
    claimed = kernel.outbox.claim_batch("me", 4)
    (event,) = (item for item in claimed if item.kind != ADVANCE)
    assert len(kernel._runner.begin_events([event])) == 1


# -- who saves -------------------------------------------------------------------------------------


def test_an_execution_that_is_alone_is_saved_by_the_thread_of_its_turns(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other thread is woken for it; beside another one the committer saves both."""
    checkpoint, both = kernel.executions.checkpoints.save, threading.Barrier(2)
    saved: dict[str, set[str]] = {}

    def noted(group: Any) -> Any:
        for save in group:
            name = threading.current_thread().name
            saved.setdefault(save.execution.event.payload, set()).add(name)
        return checkpoint(group)

    @kernel.action
    def meet(alone: bool) -> None:
        if not alone:
            both.wait(PATIENCE)

    # That a call takes long is saved by the committer in any case.
    monkeypatch.setattr("automate_kernel.workflows.drive.driver.SEEN_SECONDS", 600.0)
    monkeypatch.setattr(kernel.executions.checkpoints, "save", noted)
    met = {"alone": "{{ event.payload == 'alone' }}"}
    define(kernel, *({"id": name, "action": "meet", "input": met} for name in "abc"))
    with working(kernel):
        alone = kernel.start("w", "alone")
        until(lambda: is_over(kernel, alone))
        for execution_id in [kernel.start("w", "together") for _ in range(2)]:
            until(lambda each=execution_id: is_over(kernel, each))  # type: ignore[misc]
    assert saved["alone"] == {"automate-engine"}
    assert "automate-committer" in saved["together"]
