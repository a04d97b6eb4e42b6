"""Cancelling, pausing and copying executions keep their promises on every storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from suites.executions import executions_in
from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome, RowsOutboxStore
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets.redaction import EnteringRedaction, Redactor
from automate_kernel.storage import Storage
from automate_kernel.storage.checkpoint import RELEASE
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import EXECUTION, OUTBOX
from automate_testing.contracts.values import KEPT, each_case, same
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.store import pauses
from automate_kernel.workflows.store.pauses import WorkflowPauses
from automate_kernel.workflows.decide.turn import Turn
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.steer.listener import ExecutionListener
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_sqlalchemy import SqlAlchemyStorage
from lock_waits import until_awaited
from waiting import at_once

pytestmark = pytest.mark.any_storage

WORKFLOW = Workflow.from_dict(
    {
        "name": "w",
        "trigger": {"type": "manual"},
        "steps": [
            {"id": "a", "action": "x.y", "compensate": {"action": "x.z"}},
            {"id": "b", "action": "x.y"},
            {"id": "c", "action": "x.y", "needs": []},
        ],
    }
)
DATABASES = ("postgresql_engine", "mariadb_engine")


@pytest.fixture
def store(storage: Storage) -> ExecutionStore:
    """Executions with their listener, in each kind of database."""
    return made(storage)


@pytest.fixture(params=DATABASES)
def locking_store(request: pytest.FixtureRequest) -> ExecutionStore:
    """Executions in a database that locks rows."""
    engine: sa.Engine = request.getfixturevalue(request.param)
    return made(SqlAlchemyStorage(engine))


def made(storage: Any) -> ExecutionStore:
    outbox = RowsOutboxStore(storage, lease_seconds=30.0)
    outbox.listen(ExecutionListener())
    return executions_in(storage, outbox)


def begin(store: ExecutionStore, **options: Any) -> tuple[OutboxItem, Execution]:
    """An execution that runs, and its claimed item."""
    event = Event.from_json({"id": new_id(), "name": "e", **options})
    with store.storage.begin() as rows:
        ((item, loaded),) = store.starts.start_claimed(rows, [(WORKFLOW, event, 0)], "worker")
    save(store, item, loaded.execution, [run(loaded.execution, "a", output=1)])
    loaded.execution.status = ExecutionStatus.RUNNING
    return item, loaded.execution


def run(execution: Execution, step_id: str, **values: Any) -> StepRun:
    known = {"status": StepStatus.COMPLETED, "attempts": 1, **values}
    return StepRun(execution_id=execution.id, step_id=step_id, **known)


def save(
    store: ExecutionStore,
    item: OutboxItem,
    execution: Execution,
    runs: Sequence[StepRun] = (),
    **turn: Any,
) -> bool:
    stored = execution.status is not ExecutionStatus.PENDING
    saves = [Save(item, execution, Turn(saves=list(runs), **turn), {}, stored)]
    return bool(store.checkpoints.save(saves).items)


def see(store: ExecutionStore, execution_id: str) -> Execution:
    found = store.get(execution_id)
    assert found is not None
    return found


def item_of(store: ExecutionStore, execution: Execution) -> OutboxItem:
    found = store.outbox.get(see(store, execution.id).item_id or "")
    assert found is not None
    return found


def put_back(store: ExecutionStore, item: OutboxItem, status: ItemStatus, delay: float) -> None:
    outcome = Outcome(item.id, status, delay, token=item.lease_token)
    assert store.outbox.acknowledge("worker", [outcome]) == set()


def test_what_runs_is_saved_while_it_is_cancelled(store: ExecutionStore) -> None:
    """Steps and errors are, but it keeps its status and does not end; its item is due at once."""
    item, execution = begin(store)
    assert store.cancel(execution.id)
    assert see(store, execution.id).status is ExecutionStatus.CANCELLING
    assert item_of(store, execution).waiting_for == RELEASE
    assert store.outbox.release_requests("worker") == {item.id: item.lease_token}
    turn = Turn(saves=[run(execution, "b", output=2)])
    saved = store.checkpoints.save([Save(item, execution, turn, {}, True)])
    assert (saved.items, saved.steered) == ({item.id}, {item.id})
    late = [run(execution, "c")]
    assert not save(store, item, execution, late, end=ExecutionStatus.COMPLETED)
    found = see(store, execution.id)
    assert (found.status, [each.output for each in found.steps]) == (
        ExecutionStatus.CANCELLING,
        [1, 2],
    )
    put_back(store, item, ItemStatus.PENDING, 3600)
    (again,) = store.outbox.claim_batch("worker")
    assert again.id == item.id
    loaded = store.checkpoints.load(execution.id)
    assert loaded is not None
    assert save(store, again, loaded.execution, late, end=ExecutionStatus.CANCELLED)
    assert see(store, execution.id).status is ExecutionStatus.CANCELLED
    assert item_of(store, execution).status is ItemStatus.COMPLETED


def test_an_error_is_kept_in_a_pause(store: ExecutionStore) -> None:
    """The execution stays PAUSED, and goes on as one that has failed."""
    item, execution = begin(store)
    assert store.pause(execution.id)
    execution.error_code, execution.error = "NOT_FOUND", "step 'b' failed"
    assert save(store, item, execution, failed=AssertionError())
    assert not save(store, item, execution, end=ExecutionStatus.FAILED)
    found = see(store, execution.id)
    assert (found.status, found.error) == (ExecutionStatus.PAUSED, "step 'b' failed")
    assert store.unpause(execution.id)
    found = see(store, execution.id)
    assert (found.status, found.error_code) == (ExecutionStatus.RUNNING, "NOT_FOUND")


def test_a_paused_execution_is_parked(store: ExecutionStore) -> None:
    """Its item waits to be let go, spends no attempt, and then is due."""
    item, execution = begin(store)
    store.pause(execution.id)
    paused = see(store, execution.id)
    assert store.checkpoints.is_held(paused)
    store.checkpoints.defer(item, paused)
    deferred = item_of(store, execution)
    assert (deferred.waiting_for, deferred.attempt_count) == ("resume", 0)
    assert store.outbox.claim_batch("worker") == []
    assert store.unpause(execution.id)
    (again,) = store.outbox.claim_batch("worker")
    # Let go before it was deferred: it is due.
    store.checkpoints.defer(again, paused)
    assert len(store.outbox.claim_batch("worker")) == 1


def test_a_workflow_is_paused_and_resumed(store: ExecutionStore) -> None:
    """The items of its executions wait, whatever else the outbox has."""
    (item, execution), (other, second) = begin(store, tenant_id="t1"), begin(store)
    assert store.pauses.pause("w", "because", tenant_id="t1")
    assert store.outbox.release_requests("worker") == {item.id: item.lease_token}
    found = see(store, execution.id)
    assert store.checkpoints.is_held(found)
    assert not store.checkpoints.is_held(see(store, second.id))
    store.checkpoints.defer(item, found)
    put_back(store, other, ItemStatus.PENDING, 0)
    assert [each.id for each in store.outbox.claim_batch("worker")] == [other.id]
    assert [each.reason for each in store.pauses.paused()] == ["because"]
    assert store.outbox.stats().paused == ()
    assert store.pauses.resume("w", tenant_id="t1")
    assert [each.id for each in store.outbox.claim_batch("worker")] == [item.id]


@pytest.mark.every_storage
def test_what_is_cancelled_as_it_is_parked_cleans_up_at_once(store: ExecutionStore) -> None:
    """A pause holds no clean-up: deferred with the others, nobody would have woken it again."""
    item, execution = begin(store)
    store.pauses.pause("w")
    found = see(store, execution.id)
    assert store.checkpoints.is_held(found)
    assert store.cancel(execution.id)
    store.checkpoints.defer(item, found)
    assert see(store, execution.id).status is ExecutionStatus.CANCELLING
    assert [each.id for each in store.outbox.claim_batch("worker")] == [item.id]


def test_the_pause_of_a_workflow_is_none_of_a_kind(store: ExecutionStore) -> None:
    """They are kept in one table; by a kind's name a workflow would be paused, and never woken."""
    store.pauses.pause("w")
    for command in (store.outbox.pause, store.outbox.resume):
        with pytest.raises(PayloadError, match="names a workflow") as refused:
            command("workflow:w")
        assert "automate pause workflow w" in str(refused.value.hint)
    assert [one.workflow for one in store.pauses.paused()] == ["w"]


def test_of_several_pauses_one_ends(store: ExecutionStore) -> None:
    """Those of other workflows, tenants and kinds stay, and each is listed for its tenant."""
    store.outbox.pause("mail")
    for workflow, tenant_id in (("w", "t1"), ("w", "t2"), ("w", None), ("v", None)):
        assert store.pauses.pause(workflow, tenant_id=tenant_id)
        assert not store.pauses.pause(workflow, tenant_id=tenant_id)
    assert store.pauses.resume("w", tenant_id="t1")
    assert not store.pauses.resume("w", tenant_id="t1")

    def paused(**options: Any) -> list[tuple[str, str | None]]:
        return [(one.workflow, one.tenant_id) for one in store.pauses.paused(**options)]

    assert paused() == [("v", None), ("w", None), ("w", "t2")]
    assert paused(tenant_id="t1") == [("v", None), ("w", None)]
    assert store.outbox.stats().paused == ("mail",)
    for workflow, tenant_id in (("w", None), ("w", "t2"), ("v", None)):
        assert store.pauses.resume(workflow, tenant_id=tenant_id)
    assert paused() == []
    assert store.outbox.stats().paused == ("mail",)


def test_a_pause_of_another_process_is_seen_within_a_second(store: ExecutionStore) -> None:
    """So is its end; between two looks the database is not asked."""
    now = [100.0]
    ours = WorkflowPauses(store.storage, store.outbox, clock=lambda: now[0])
    assert not ours.holds("w", None)
    store.pauses.pause("w")
    assert not ours.holds("w", None)
    now[0] += 1.0
    assert (ours.holds("w", None), ours.holds("w", "t1"), ours.holds("v", None)) == (
        True,
        True,
        False,
    )
    store.pauses.resume("w")
    assert ours.holds("w", None)
    now[0] += 1.0
    assert not ours.holds("w", None)


def test_all_executions_of_a_workflow_go_on(
    store: ExecutionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: they are told in small batches."""
    monkeypatch.setattr(pauses, "_BATCH", 2)
    begun = [begin(store) for _ in range(5)]
    store.pauses.pause("w")
    assert len(store.outbox.release_requests("worker")) == 5
    for item, execution in begun:
        store.checkpoints.defer(item, execution)
    assert store.outbox.claim_batch("worker") == []
    store.pauses.resume("w")
    assert len(store.outbox.claim_batch("worker", limit=10)) == 5


def test_the_reason_of_a_pause_holds_no_secret(storage: Storage) -> None:
    """What the outbox takes out of payloads is taken out of it too."""
    outbox = RowsOutboxStore(storage)
    outbox.redact = EnteringRedaction(Redactor(["hunter2-and-more"]))
    store = executions_in(storage, outbox)
    store.pauses.pause("w", "its password hunter2-and-more has leaked")
    (paused,) = store.pauses.paused()
    assert "hunter2" not in paused.reason
    assert paused.reason.endswith("has leaked")


def test_the_wake_up_that_is_cancelled(store: ExecutionStore) -> None:
    """An execution that has something to undo gets another wake-up, which is cancelled for good."""
    item, execution = begin(store)
    put_back(store, item, ItemStatus.PENDING, 3600)
    store.outbox.cancel([item.id])
    found = see(store, execution.id)
    assert found.status is ExecutionStatus.CANCELLING
    assert found.item_id != item.id
    (again,) = store.outbox.claim_batch("worker")
    assert again.id == found.item_id
    put_back(store, again, ItemStatus.PENDING, 3600)
    store.outbox.cancel([again.id])
    assert see(store, execution.id).status is ExecutionStatus.CANCELLED


def test_a_fork_has_the_outputs_of_the_original(store: ExecutionStore) -> None:
    """Every value that is stored comes back equal and of the same type in the copy."""

    def check(value: Any) -> None:
        item, execution = begin(store)
        save(store, item, execution, [run(execution, "c", output=value), run(execution, "b")])
        copy = see(store, store.fork(execution.id, "b"))
        assert [each.step_id for each in copy.steps] == ["a", "c"]
        assert same(copy.steps[1].output, value)
        assert (copy.status, copy.steps[0].output) == (ExecutionStatus.PENDING, 1)

    each_case(KEPT, check)


def race(
    store: ExecutionStore, item: OutboxItem, save_it: Callable[[], Any], act: Callable[[], Any]
) -> None:
    """Have a checkpoint begin before, and go on after, what an operator does."""
    saving = threading.Thread(target=save_it)
    with store.storage.begin() as rows:
        rows.select(OUTBOX, [Where("id", "eq", item.id)], lock=True)
        saving.start()
        until_awaited(rows.native)
        # In this transaction, which has the item: as if the operator had been first by a moment.
        store.outbox.request_release([item.id], transaction=rows.native)
        its = [Where("id", "eq", item.payload["execution_id"])]
        rows.select(EXECUTION, its, lock=True)
        rows.update(EXECUTION, its, {"status": act()})
    saving.join(20.0)
    assert not saving.is_alive()


@pytest.mark.every_storage
@pytest.mark.parametrize("status", ["CANCELLING", "PAUSED"])
def test_the_end_and_an_operator_at_once(locking_store: ExecutionStore, status: str) -> None:
    """An execution that was cancelled or paused a moment earlier doesn't end; its item goes on."""
    store = locking_store
    item, execution = begin(store)
    held: list[bool] = []

    def save_it() -> None:
        held.append(save(store, item, execution, end=ExecutionStatus.COMPLETED))

    race(store, item, save_it, lambda: status)
    assert held == [False]
    assert see(store, execution.id).status == status
    assert item_of(store, execution).status is ItemStatus.RUNNING


@pytest.mark.every_storage
@pytest.mark.parametrize("status", ["CANCELLING", "PAUSED"])
def test_a_step_and_an_operator_at_once(locking_store: ExecutionStore, status: str) -> None:
    """A step that ended a moment later is saved, and the execution keeps its status."""
    store = locking_store
    item, execution = begin(store)
    execution.error_code, held = "NOT_FOUND", list[bool]()

    def save_it() -> None:
        step = [run(execution, "b", output=2)]
        held.append(save(store, item, execution, step, failed=AssertionError()))

    race(store, item, save_it, lambda: status)
    assert held == [True]
    found = see(store, execution.id)
    assert (found.status, found.error_code) == (status, "NOT_FOUND")
    assert [each.step_id for each in found.steps] == ["a", "b"]


@pytest.mark.every_storage
@pytest.mark.parametrize("step", ["cancel", "pause"])
def test_many_operators_and_a_worker_never_wait_for_each_other(
    locking_store: ExecutionStore, step: str
) -> None:
    """Locks are taken in one order: no deadlock, whatever meets."""
    store = locking_store
    begun = [begin(store) for _ in range(6)]
    problems: list[BaseException] = []

    def steer() -> None:
        try:
            for _, execution in begun:
                getattr(store, step)(execution.id)
        except BaseException as error:
            problems.append(error)

    def work() -> None:
        try:
            for number in range(10):
                store.checkpoints.save(
                    [
                        Save(item, execution, Turn(saves=[run(execution, f"s{number}")]), {}, True)
                        for item, execution in begun
                    ]
                )
        except BaseException as error:
            problems.append(error)

    at_once(steer, work, steer)
    assert problems == []
