"""What is cancelled while it runs stops soon, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from workers import running, working
from waiting import PATIENCE, Gate, until
from automate_kernel import Kernel, signals
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, RowsOutboxStore
from automate_kernel.worker import threads as worker_threads
from automate_kernel.worker import Snooze, Worker, cancelling, should_stop
from automate_kernel.worker.failure_notices import FailureNotices
from automate_kernel.worker.handler import Handler
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import DEFINITION
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import ExecutionStatus
from defined import define, see


@pytest.fixture
def store() -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage())


def heard(worker: Worker) -> int:
    """How many of its items the worker knows to be cancelled."""
    return sum(task.asked for task in list(worker._in_flight.tasks.values()))


def status(store: RowsOutboxStore, item_id: str) -> ItemStatus:
    found = store.get(item_id)
    assert found is not None
    return found.status


def test_an_async_handler_is_cancelled(store: RowsOutboxStore) -> None:
    """It gets the CancelledError where it waits, and its cleaning up is waited for."""
    begun, cleaned = Gate(), Gate()

    async def handle(item: OutboxItem) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    item_id = store.enqueue("k", ordering_key="key")
    following = store.enqueue("k", ordering_key="key", priority=-1)
    with running(Worker(store, [Handler("k", handle)], poll_seconds=0.05)) as worker:
        begun.pass_()
        begun.clear()
        assert store.cancel([item_id]) == 1
        until(lambda: status(store, item_id) is ItemStatus.CANCELLED)
        assert cleaned.is_set()
        begun.pass_()
        assert status(store, following) is ItemStatus.RUNNING
        store.cancel([following])
        until(lambda: worker.stats.cancelled == 2)
    assert (worker.stats.lost, worker.stats.failed, worker.stats.completed) == (0, 0, 0)


def test_an_async_handler_that_won_t_be_cancelled(store: RowsOutboxStore) -> None:
    """One that swallows the cancellation and succeeds has succeeded."""
    begun = Gate()

    async def handle(item: OutboxItem) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            assert cancelling()

    item_id = store.enqueue("k")
    with running(Worker(store, [Handler("k", handle)], poll_seconds=0.05)):
        begun.pass_()
        store.cancel([item_id])
        until(lambda: status(store, item_id) is ItemStatus.COMPLETED)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (lambda: Snooze(60), ItemStatus.CANCELLED),
        (lambda: None, ItemStatus.COMPLETED),
        (lambda: (_ for _ in ()).throw(ValueError("stopped")).__next__(), ItemStatus.CANCELLED),
    ],
    ids=["pauses", "succeeds", "raises"],
)
def test_a_plain_handler_looks_by_itself(
    store: RowsOutboxStore, ends: Callable[[], Any], expected: ItemStatus
) -> None:
    """Nothing stops a thread; it sees that it should stop, and how it ends decides."""
    begun, saw = Gate(), []

    def handle(item: OutboxItem) -> Any:
        begun.set()
        until(should_stop)
        saw.append(cancelling())
        return ends()

    item_id = store.enqueue("k", max_attempts=1)
    with running(Worker(store, [Handler("k", handle)], poll_seconds=0.05)):
        begun.pass_()
        store.cancel([item_id])
        until(lambda: status(store, item_id) is expected)
    assert saw == [True]


def test_only_the_cancelled_item_stops(store: RowsOutboxStore) -> None:
    """Another item of the same worker runs on."""
    begun, go = [Gate(), Gate()], Gate()
    saw: list[bool] = []

    def handle(item: OutboxItem) -> None:
        begun[item.payload].set()
        if item.payload:
            until(cancelling)
        else:
            go.pass_()
            saw.append(should_stop())

    other, cancelled = store.enqueue_many([NewItem("k", 0), NewItem("k", 1)])
    with running(Worker(store, [Handler("k", handle)], poll_seconds=0.05)):
        for gate in begun:
            gate.pass_()
        store.cancel([cancelled])
        until(lambda: status(store, cancelled) is ItemStatus.COMPLETED)
        go.set()
        until(lambda: status(store, other) is ItemStatus.COMPLETED)
    assert saw == [False]


def test_an_item_that_has_not_begun_never_does(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was claimed ahead of its slot is dropped from the line."""
    # However late the cancel is: what waits for long is handed back, and waits in no line.
    monkeypatch.setattr(worker_threads, "LATE_SECONDS", PATIENCE)
    go, calls = Gate(), []

    def handle(item: OutboxItem) -> None:
        calls.append(item.id)
        go.pass_()

    store.enqueue_many(NewItem("k") for _ in range(30))
    worker = Worker(store, [Handler("k", handle)], slots=10, poll_seconds=0.05)
    with running(worker):
        until(lambda: len(calls) == 10 and worker.in_flight > 10)
        ahead = sorted(set(worker._in_flight.held()) - set(calls))
        assert store.cancel(ahead) == len(ahead)
        until(lambda: heard(worker) == len(ahead))
        go.set()
        until(lambda: {status(store, item_id) for item_id in ahead} == {ItemStatus.CANCELLED})
    assert not set(ahead) & set(calls)


# -- executions ------------------------------------------------------------------------------------


def kernel_with(*actions: tuple[str, Callable[..., Any]]) -> Kernel:
    kernel = Kernel(discover=False)
    for name, function in actions:
        kernel.action(name)(function)
    steps = [
        {"id": f"s{number}", "action": name, "needs": [f"s{number - 1}"] if number else []}
        for number, (name, _) in enumerate(actions)
    ]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    return kernel


@pytest.mark.parametrize("by", ["execution", "item"])
def test_a_running_execution_stops_after_its_step(by: str) -> None:
    """The step that runs ends as it will, the next doesn't begin, and both end as CANCELLED."""
    begun, go, calls = Gate(), Gate(), []

    def first() -> None:
        begun.set()
        go.pass_()
        calls.append("first")

    with kernel_with(("a.first", first), ("a.second", lambda: calls.append("second"))) as kernel:
        execution_id = kernel.start("w")
        execution = see(kernel, execution_id)
        item_id = str(execution.item_id)
        with working(kernel, poll_seconds=0.05) as worker:
            begun.pass_()
            if by == "execution":
                assert kernel.executions.cancel(execution_id)
            else:
                assert kernel.outbox.cancel([item_id]) == 1
            until(lambda: heard(worker) == 1)
            go.set()
            until(lambda: kernel.executions.get(execution_id).status.finished)  # type: ignore[union-attr]
            until(lambda: not kernel.outbox.find(status="RUNNING"))
        ended = see(kernel, execution_id)
        assert ended.status is ExecutionStatus.CANCELLED
        assert calls == ["first"]


def test_requeueing_a_failed_wake_up_resumes_its_execution() -> None:
    """The execution goes on from the step that failed, and its wake-up does not end for nothing."""
    calls: list[str] = []

    def second() -> str:
        calls.append("second")
        if len(calls) == 2:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "not yet")
        return "done"

    with kernel_with(("a.first", lambda: calls.append("first")), ("a.second", second)) as kernel:
        execution = kernel.run("w")
        assert execution.status is ExecutionStatus.FAILED
        assert kernel.outbox.requeue([str(execution.item_id)]) == 0, "its wake-up went well"
        # As if its worker had died of it too often.
        resumed = kernel.executions.resume(execution.id)
        assert resumed
        waiting = see(kernel, execution.id)
        (item,) = kernel.outbox.claim_batch("worker", kinds=["automate.advance"])
        kernel.outbox.mark_failed(item.id, "worker", "LEASE_EXPIRED", "its workers died")
        assert kernel.executions.get(execution.id).status is ExecutionStatus.FAILED  # type: ignore[union-attr]
        assert kernel.outbox.requeue([item.id]) == 1
        kernel.run_until_idle()
        ended = see(kernel, execution.id)
        assert (ended.status, ended.item_id) == (ExecutionStatus.COMPLETED, item.id)
        assert calls == ["first", "second", "second"]


def test_requeueing_the_wake_up_of_before_does_nothing() -> None:
    """An execution that was resumed with another item is that item's to drive."""
    with kernel_with(("a.first", lambda: None)) as kernel:
        execution_id = kernel.start("w")
        (item,) = kernel.outbox.claim_batch("worker", kinds=["automate.advance"])
        kernel.outbox.mark_failed(item.id, "worker", "LEASE_EXPIRED", "its workers died")
        assert kernel.executions.resume(execution_id)
        assert kernel.outbox.requeue([item.id]) == 0
        assert kernel.outbox.requeue_matching(status="FAILED") == 0
        kernel.run_until_idle()
        ended = see(kernel, execution_id)
        assert ended.status is ExecutionStatus.COMPLETED


def test_requeueing_a_cancelled_wake_up_resumes_too() -> None:
    """Cancelled with its item, the execution comes back with it."""
    calls: list[str] = []
    with kernel_with(("a.first", lambda: calls.append("first"))) as kernel:
        execution_id = kernel.start("w")
        (item,) = kernel.outbox.find(kind="automate.advance")
        assert kernel.outbox.cancel([item.id]) == 1
        assert kernel.executions.get(execution_id).status is ExecutionStatus.CANCELLED  # type: ignore[union-attr]
        assert kernel.outbox.requeue_matching(status="CANCELLED") == 1
        kernel.run_until_idle()
        assert kernel.executions.get(execution_id).status is ExecutionStatus.COMPLETED  # type: ignore[union-attr]
        assert calls == ["first"]


def test_two_who_cancel_tell_of_it_once() -> None:
    """Who is told of the first one cancels another: the second one is taken meanwhile."""
    told: list[str] = []
    with kernel_with(("a.first", lambda: None)) as kernel:
        first, second, third = (kernel.start("w") for _ in range(3))
        items = {each.payload["execution_id"]: each.id for each in kernel.outbox.find()}

        def note(_: Kernel, execution: Any, **__: Any) -> None:
            told.append(execution.id)
            if len(told) == 1:
                assert kernel.outbox.cancel([items[third]]) == 1

        with signals.workflow_cancelled.connected_to(note):
            assert kernel.outbox.cancel([items[first], items[second]]) == 2
    assert sorted(told) == sorted([first, second, third])


def test_two_who_fail_for_good_are_told_of_once() -> None:
    """Who is told of the first one has the others told of: they are taken meanwhile."""
    told: list[str] = []
    with kernel_with(("a.first", lambda: None)) as kernel:

        def note(item: OutboxItem, error: AutomateError) -> None:
            told.append(item.id)
            notices.send()

        notices = FailureNotices(kernel.outbox, note)
        ids = [kernel.outbox.enqueue("k") for _ in range(2)]
        for item in kernel.outbox.claim_batch("worker", kinds=["k"]):
            kernel.outbox.mark_failed(item.id, "worker", "LEASE_EXPIRED", "its workers died")
        with kernel.storage.begin() as rows:
            for each in ids:
                notices.ended(rows, [kernel.outbox.get(each)])  # type: ignore[list-item]
        notices.send()
    assert sorted(told) == sorted(ids)


@pytest.mark.parametrize("cleans_up", [False, True])
def test_who_can_t_read_a_definition_leaves_the_clean_up_to_those_who_can(cleans_up: bool) -> None:
    """A process of the release before cancels, while the next one is rolled out."""
    clock, calls = FakeClock(), list[str]()
    storage = MemoryStorage(clock)
    old, new = (Kernel(storage, discover=False, secrets={}) for _ in range(2))

    @new.action("tidy")
    def tidy() -> None:
        calls.append("tidy")

    more = {"finally": [{"id": "tidy", "action": "tidy"}]} if cleans_up else {}
    define(new, {"id": "wait", "wait_for": {"signal": "go"}}, **more)
    one = new.start("w")
    new.run_until_idle()
    with storage.begin() as rows:
        (stored,) = rows.select(DEFINITION, [])
        rows.update(DEFINITION, [], {"body": {**stored["body"], "field_of_the_next_one": 1}})
    assert old.executions.cancel(one)
    old.run_until_idle()  # which hands it over
    clock.advance(3600)
    new.run_until_idle()
    execution = see(new, one)
    assert execution.status is ExecutionStatus.CANCELLED
    assert calls == ["tidy"] * cleans_up
