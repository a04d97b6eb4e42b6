"""A checkpoint and a cancellation at once: neither leaves what the other could not know."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import OutboxItem
from automate_kernel.storage.rows import Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.turn import Turn
from automate_kernel.workflows.engine.admission import Admission
from automate_kernel.workflows.engine.checkpoints import Save
from automate_kernel.workflows.engine.executions import ExecutionStore
from automate_kernel.workflows.engine.stored import end_from_outside
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_sqlalchemy import SqlAlchemyStorage

WORKFLOW = {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "do.it"}]}


@pytest.fixture(params=["postgresql_engine", "mariadb_engine"])
def store(request: pytest.FixtureRequest) -> ExecutionStore:
    """Executions in a database that locks rows."""
    engine: sa.Engine = request.getfixturevalue(request.param)
    storage = SqlAlchemyStorage(engine)
    return ExecutionStore(storage, RowsOutboxStore(storage, lease_seconds=30.0))


@pytest.fixture
def begun(store: ExecutionStore) -> tuple[OutboxItem, Execution]:
    """An execution that runs, and its claimed item."""
    event = Event.from_json({"id": "01900000-0000-7000-8000-000000000001", "name": "e"})
    with store.storage.begin() as rows:
        ((item, loaded),) = store.starts.start_claimed(
            rows, [(Workflow.from_dict(WORKFLOW), event, 0)], "worker"
        )
    return item, loaded.execution


@pytest.mark.parametrize("status", [StepStatus.RUNNING, StepStatus.RETRY])
def test_a_step_of_an_execution_that_is_cancelled_meanwhile_does_not_run(
    store: ExecutionStore, begun: tuple[OutboxItem, Execution], status: StepStatus
) -> None:
    """A checkpoint that began before a cancellation leaves no step as if it ran on."""
    item, execution = begun
    run = StepRun(execution_id=execution.id, step_id="a", status=status, attempts=1)
    turn = Turn(saves=[run], delays={run.key: 5.0} if status is StepStatus.RETRY else {})
    held: list[set[str]] = []

    def save() -> None:
        held.append(store.checkpoints.save([Save(item, execution, turn, {}, True)]).items)

    saving = threading.Thread(target=save)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", item.id)], lock=True)
        saving.start()
        saving.join(0.5)
        assert saving.is_alive()
        with store.storage.begin() as others:
            assert end_from_outside(others, execution, ExecutionStatus.CANCELLED)
    saving.join(20.0)
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
        saving.join(0.5)
        assert saving.is_alive()
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
    saving = threading.Thread(target=lambda: store.checkpoints.save(group))
    with store.storage.begin() as rows:
        # Another one that has woken the item of the first key, and is about to wake the other's.
        rows.select(OUTBOX, [Where("id", "eq", waiting[1])], lock=True)
        saving.start()
        saving.join(0.5)
        assert saving.is_alive()
        its = [Where("id", "eq", waiting[0])]
        assert rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id",))
    saving.join(20.0)
    found = [store.outbox.get(item_id) for item_id in waiting]
    assert [item and item.waiting_for for item in found] == ["worker"] * 2
