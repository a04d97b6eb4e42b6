"""What a worker still has to save when another has its item by now is saved nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from suites.executions import executions_in
from automate_kernel.base.errors import LeaseLostError, UnknownHereError
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome, RowsOutboxStore
from automate_kernel.outbox.item import new_id
from automate_kernel.storage import Storage
from automate_kernel.storage.checkpoint import Saved
from automate_kernel.storage.tables import TABLES, WAIT
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.steer.listener import ExecutionListener
from automate_kernel.workflows.decide.turn import Turn
from automate_kernel.workflows.decide.waits import OpenWait, Wait
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)

WORKFLOW = Workflow.from_dict(
    {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "x.y"}]}
)
Begun = tuple[OutboxItem, Execution]


@pytest.fixture
def store(storage: Storage) -> ExecutionStore:
    outbox = RowsOutboxStore(storage, lease_seconds=30.0)
    outbox.listen(ExecutionListener())
    return executions_in(storage, outbox)


def begin(store: ExecutionStore) -> Begun:
    """An execution that runs, and its claimed item."""
    event = Event.from_json({"id": new_id(), "name": "e"})
    with store.storage.begin() as rows:
        ((item, loaded),) = store.starts.start_claimed(rows, [(WORKFLOW, event, 0)], "worker")
    assert save(store, (item, loaded.execution), Turn(), stored=False).items
    loaded.execution.status = ExecutionStatus.RUNNING
    return item, loaded.execution


def run(one: Begun, status: StepStatus = StepStatus.COMPLETED, **values: Any) -> StepRun:
    known = {"step_id": "a", "attempts": 1, "status": status, **values}
    return StepRun(execution_id=one[1].id, **known)


def saved_as(one: Begun, turn: Turn, *, stored: bool = True, waiting: Sequence[Any] = ()) -> Save:
    return Save(one[0], one[1], turn, {}, stored, waiting)


def save(store: ExecutionStore, one: Begun, turn: Turn, *, stored: bool = True) -> Saved:
    return store.checkpoints.save([saved_as(one, turn, stored=stored)])


def put_back(store: ExecutionStore, item: OutboxItem, worker_id: str = "worker") -> None:
    outcome = Outcome(item.id, ItemStatus.PENDING, 0, token=item.lease_token)
    assert store.outbox.acknowledge(worker_id, [outcome]) == set()


def taken(store: ExecutionStore) -> tuple[Begun, Begun]:
    """An execution as the worker knows it that lost its item, and as the one that has it now."""
    before = begin(store)
    put_back(store, before[0])
    (item,) = store.outbox.claim_batch("another")
    loaded = store.checkpoints.load(before[1].id)
    assert loaded is not None
    return before, (item, loaded.execution)


def waits(one: Begun) -> Turn:
    """A turn that ends with a wait for a signal."""
    waiting = run(one, StepStatus.WAITING)
    return Turn(saves=[waiting], waits=[Wait(waiting, "signal", "the key")], wait=60.0)


def rows_of(store: ExecutionStore, table: str) -> list[Any]:
    with store.storage.begin() as rows:
        return rows.select(table, [], columns=[TABLES[table].columns[0].name])


def test_an_end_is_told_by_the_worker_that_made_it(store: ExecutionStore) -> None:
    """The other hears that its lease is lost, though the execution has ended as it would have."""
    before, now = taken(store)
    end = Turn(end=ExecutionStatus.COMPLETED)
    assert save(store, now, end).items == {now[0].id}
    assert save(store, now, end).items == {now[0].id}, "its reply was lost: it is asked again"
    assert save(store, before, end).items == set()


def test_progress_after_its_own_end_is_lost(store: ExecutionStore) -> None:
    """Only the last save of a claim may come twice."""
    one = begin(store)
    assert save(store, one, waits(one)).items == {one[0].id}
    assert save(store, one, Turn(saves=[run(one)])).items == set()


def test_nothing_is_written_beside_it(store: ExecutionStore) -> None:
    """No wait begins, no label is set and no failed attempt is kept."""
    before, _ = taken(store)
    turn, failed = waits(before), run(before, StepStatus.RETRY, error_code="INTERNAL", error="no")
    turn.labels, turn.failures = {"order": "7"}, [failed.failed_attempt()]
    assert save(store, before, turn).items == set()
    assert rows_of(store, WAIT) == []
    found = store.get(before[1].id)
    assert found is not None
    assert (found.labels, found.steps) == ({}, [])
    assert store.failed_attempts(before[1].id) == []


@pytest.mark.parametrize("how", ["retries", "waits", "ends", "hands it over"])
def test_the_others_of_its_group_are_saved(store: ExecutionStore, how: str) -> None:
    """One that was lost takes none along, whichever way its turn would have ended."""
    (before, now), other = taken(store), begin(store)
    lost = {
        "retries": Turn(wait=60.0),
        "waits": waits(before),
        "ends": Turn(end=ExecutionStatus.COMPLETED),
        "hands it over": Turn(lack=UnknownHereError("has no x.y"), wait=0.0),
    }[how]
    waiting = [OpenWait("the key", "signal", {})] if how == "waits" else []
    group = [saved_as(before, lost, waiting=waiting), saved_as(other, Turn(saves=[run(other)]))]
    assert store.checkpoints.save(group).items == {other[0].id}
    found, item = store.get(other[1].id), store.outbox.get(now[0].id)
    assert found is not None
    assert [each.step_id for each in found.steps] == ["a"]
    assert item is not None
    assert (item.status, item.lease_owner) == (ItemStatus.RUNNING, "another")


def test_a_wait_whose_reply_was_lost_is_held(store: ExecutionStore) -> None:
    """The worker asks again, and learns that it was saved."""
    one = begin(store)
    deferred = saved_as(one, waits(one), waiting=[OpenWait("the key", "signal", {})])
    assert store.checkpoints.save([deferred]).items == {one[0].id}
    assert store.checkpoints.save([deferred]).items == {one[0].id}


def test_no_note_of_a_handover_is_left(store: ExecutionStore) -> None:
    """Who lost the item can't hand it over, and the note of who has it stays."""
    before, now = taken(store)
    lack = UnknownHereError("has no x.y")
    with pytest.raises(LeaseLostError):
        store.checkpoints.hand_over(before[0], lack)
    item = store.outbox.get(now[0].id)
    assert item is not None
    assert item.headers == now[0].headers


def test_no_pause_is_told_of_it(store: ExecutionStore) -> None:
    """Who lost an item that it would have let wait for a resume leaves it to the other."""
    before, now = taken(store)
    store.checkpoints.defer(*before)
    assert store.outbox.release_requests("another") == {}
    assert store.checkpoints.holds(now[0])
