"""A checkpoint and a cancellation at once: neither leaves what the other could not know."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from suites.executions import executions_in
from automate_kernel.base import runtime
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.outbox.item import new_id, OutboxItem
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import DEBOUNCE, EXECUTION, OUTBOX, STEP
from automate_kernel.workflows.definition.admission import StartRate
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.decide.turn import Turn
from automate_kernel.workflows.decide.admission import Admission
from automate_kernel.workflows.store.start_locks import acquire_start_locks
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.decide.children import Child
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.stored import end_cancelled
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_sqlalchemy import SqlAlchemyStorage
from lock_waits import until_awaited

WORKFLOW = {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "do.it"}]}


@pytest.fixture(params=["postgresql_engine", "mariadb_engine"])
def store(request: pytest.FixtureRequest) -> ExecutionStore:
    """Executions in a database that locks rows."""
    engine: sa.Engine = request.getfixturevalue(request.param)
    storage = SqlAlchemyStorage(engine)
    return executions_in(storage, RowsOutboxStore(storage, lease_seconds=30.0))


@pytest.fixture
def begun(store: ExecutionStore) -> tuple[OutboxItem, Execution]:
    """An execution that runs, and its claimed item."""
    event = Event.from_json({"id": "01900000-0000-7000-8000-000000000001", "name": "e"})
    with store.storage.begin() as rows:
        ((item, loaded),) = store.starts.start_claimed(
            rows, [(Workflow.from_dict(WORKFLOW), event, 0)], "worker"
        )
    return item, loaded.execution


@contextmanager
def saved_behind(
    store: ExecutionStore, group: list[Save], table: str, where: Where
) -> Iterator[tuple[Rows, list[set[str]]]]:
    """A transaction that has rows locked for which a checkpoint waits; later, what that held."""
    held: list[set[str]] = []
    saving = threading.Thread(target=lambda: held.append(store.checkpoints.save(group).items))
    with store.storage.begin() as rows:
        rows.select(table, [where], lock=True)
        saving.start()
        until_awaited(rows.native)
        yield rows, held
    saving.join(20.0)


@pytest.mark.parametrize("status", [StepStatus.RUNNING, StepStatus.RETRY])
def test_a_step_of_an_execution_that_is_cancelled_meanwhile_does_not_run(
    store: ExecutionStore, begun: tuple[OutboxItem, Execution], status: StepStatus
) -> None:
    """A checkpoint that began before a cancellation leaves no step as if it ran on."""
    item, execution = begun
    run = StepRun(execution_id=execution.id, step_id="a", status=status, attempts=1)
    turn = Turn(saves=[run], delays={run.key: 5.0} if status is StepStatus.RETRY else {})
    group = [Save(item, execution, turn, {}, True)]
    with (
        saved_behind(store, group, OUTBOX, Where("id", "eq", item.id)) as (_, held),
        store.storage.begin() as others,
    ):
        its = [Where("id", "eq", execution.id)]
        assert end_cancelled(others, others.select(EXECUTION, its, lock=True))
    assert held == [set()]
    found = store.get(execution.id)
    assert found is not None
    assert found.status is ExecutionStatus.CANCELLED
    assert not found.steps


@pytest.mark.parametrize("ends", [False, True])
def test_a_checkpoint_that_waited_for_a_take_over_writes_nothing(
    store: ExecutionStore, begun: tuple[OutboxItem, Execution], *, ends: bool
) -> None:
    """The claim is looked at again once the row is free: it is another worker's by then."""
    item, execution = begun
    run = StepRun(execution_id=execution.id, step_id="a", status=StepStatus.COMPLETED, attempts=1)
    turn = Turn(saves=[run], end=ExecutionStatus.COMPLETED if ends else None)
    held: list[set[str]] = []

    def save() -> None:
        held.append(store.checkpoints.save([Save(item, execution, turn, {}, True)]).items)

    saving = threading.Thread(target=save)
    with store.storage.begin() as rows:
        rows.update(OUTBOX, [Where("id", "eq", item.id)], {"lease_token": new_id()})
        saving.start()
        until_awaited(rows.native)
    saving.join(20.0)
    assert held == [set()]
    found = store.get(execution.id)
    assert found is not None
    assert found.status is ExecutionStatus.RUNNING
    assert not found.steps


def test_a_checkpoint_leaves_concurrency_keys_in_their_order(store: ExecutionStore) -> None:
    """Whatever the order of the group: else two could wait for those that each other has woken."""
    lined = Workflow.from_dict({**WORKFLOW, "concurrency": {"limit": 1, "key": "{{ event.name }}"}})
    waiting, group = list[str](), list[Save]()
    for key in sorted(("a" * 32, "b" * 32), reverse=True):
        given = Admission(lined.concurrency, key)
        for n in range(2):
            event = Event.from_json(
                {"id": f"{key[0] * 8}-0000-7000-8000-00000000000{n}", "name": "e"}
            )
            with store.storage.begin() as rows:
                execution_id = store.starts.start(rows, lined, event, admission=given)
        for item in store.outbox.claim_batch("worker"):
            loaded = store.checkpoints.load(item.payload["execution_id"])
            assert loaded is not None
            turn = Turn(end=ExecutionStatus.COMPLETED)
            group.append(Save(item, loaded.execution, turn, {}, True))
        execution = store.get(execution_id)
        assert execution is not None
        waiting.append(str(execution.item_id))
    # Another one that has woken the item of the first key, and is about to wake the other's.
    with saved_behind(store, group, OUTBOX, Where("id", "eq", waiting[1])) as (rows, _):
        its = [Where("id", "eq", waiting[0])]
        assert rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id",))
    found = [store.outbox.get(item_id) for item_id in waiting]
    assert [item and item.waiting_for for item in found] == ["worker"] * 2


def test_a_checkpoint_passes_the_gates_of_its_sub_workflows_in_their_order(
    store: ExecutionStore, begun: tuple[OutboxItem, Execution]
) -> None:
    """Whatever the order of the steps that start them: else two could wait for each other's."""
    item, execution = begun
    child, locks = Workflow.from_dict({**WORKFLOW, "name": "child"}), ["a" * 64, "b" * 64]
    event = replace(execution.event, type="manual")
    rate = StartRate.model_validate({"limit": 10, "per": "1s"})
    turn = Turn(children=[
        Child(new_id(), child, event, False, Admission(rate_limit=rate, rate_lock=lock))
        for lock in reversed(locks)
    ])  # fmt: skip
    with store.storage.begin() as rows:
        acquire_start_locks(rows, locks)
    group = [Save(item, execution, turn, {}, True)]
    with saved_behind(store, group, DEBOUNCE, Where("id", "eq", locks[0])) as (rows, held):
        its = [Where("id", "eq", locks[1])]
        assert rows.select(DEBOUNCE, its, lock=True, skip_locked=True)
        # Nor does it hold the item of an execution that a start would cancel.
        its = [Where("id", "eq", item.id)]
        assert rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id",))
    assert held == [{item.id}]


def test_a_checkpoint_with_labels_locks_the_execution_before_its_steps(
    store: ExecutionStore, begun: tuple[OutboxItem, Execution]
) -> None:
    """As a cancellation does, which ends the steps: else the two would wait for each other."""
    item, execution = begun
    run = StepRun(execution_id=execution.id, step_id="a", status=StepStatus.RUNNING, attempts=1)
    store.checkpoints.save([Save(item, execution, Turn(saves=[run]), {}, True)])
    done = Turn(saves=[replace(run, status=StepStatus.COMPLETED)], labels={"order": "1"})
    group = [Save(item, execution, done, {}, True)]
    with saved_behind(store, group, EXECUTION, Where("id", "eq", execution.id)) as (rows, held):
        its = [Where("execution_id", "eq", execution.id)]
        assert rows.select(STEP, its, lock=True, skip_locked=True)
    assert held == [{item.id}]
    found = store.get(execution.id)
    assert found is not None
    assert found.labels == {"order": "1"}


def test_starts_lock_what_makes_room_in_the_order_of_a_checkpoint(store: ExecutionStore) -> None:
    """Whatever the order of their events: else the two would wait for each other."""
    given = {**WORKFLOW, "concurrency": {"limit": 1, "when_full": "cancel_older"}}
    alone = Workflow.from_dict(given)
    conditions = [Admission(alone.concurrency, key * 32) for key in "ab"]

    def events() -> list[Event]:
        return [Event(id=new_id(), name="e", payload=None) for _ in conditions]

    for event, admission in zip(events(), conditions, strict=True):
        with store.storage.begin() as rows:
            store.starts.start(rows, alone, event, admission=admission)
    first, second = sorted(item.id for item in store.outbox.claim_batch("worker"))
    starts = [
        (alone, event, 0, runtime.utc_now(), admission)
        for event, admission in zip(events(), reversed(conditions), strict=True)
    ]

    def start() -> None:
        with store.storage.begin() as rows:
            store.starts.start_admitted(rows, starts)

    starting = threading.Thread(target=start)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", first)], lock=True)
        starting.start()
        until_awaited(rows.native)
        its = [Where("id", "eq", second)]
        assert rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id",))
    starting.join(20.0)
    assert len(store.find(status="CANCELLED")) == len(store.find(status="PENDING")) == 2
