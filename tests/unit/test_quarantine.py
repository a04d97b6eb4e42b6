"""Items whose workers died: when they begin is written down, and the last attempt is alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from workers import running, working
from waiting import until
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import Backoff, ItemStatus, NewItem, OutboxItem, RowsOutboxStore
from automate_kernel.outbox.item import EXPIRED
from automate_kernel.storage import MemoryStorage
from automate_kernel.worker.handler import Handler
from automate_kernel.worker.in_flight import Task
from automate_kernel.worker.quarantine import Quarantine
from automate_kernel.worker.worker import Worker
from automate_kernel.workflows.execution import ExecutionStatus
from hypothesis import given
from hypothesis import strategies as st


class Noting(RowsOutboxStore):
    """Notes which items were said to begin, and loses those in *losing*."""

    def __init__(self, **options: Any) -> None:
        super().__init__(MemoryStorage(), **options)
        self.begun: list[str] = []
        self.losing: set[str] = set()

    def begin(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        self.begun += item_ids
        return self.losing.intersection(item_ids) | super().begin(item_ids, worker_id)


@pytest.fixture
def store() -> Noting:
    return Noting()


def work(store: Noting, *handlers: Handler, ids: Sequence[str]) -> None:
    """Let a worker do all there is."""
    with running(Worker(store, handlers, poll_seconds=0.02)):
        until(lambda: all(status(store, one).value in ("COMPLETED", "FAILED") for one in ids))


def status(store: RowsOutboxStore, item_id: str) -> ItemStatus:
    found = store.get(item_id)
    assert found is not None
    return found.status


@pytest.mark.parametrize("style", ["plain", "async"])
def test_only_last_attempts_and_suspects_cost_a_statement(store: Noting, style: str) -> None:
    """The begin of nearly all items is not written down; that of a last attempt is, beforehand."""
    seen: dict[str, bool] = {}

    def plain(item: OutboxItem) -> None:
        seen[item.id] = item.id in store.begun

    async def asynchronous(item: OutboxItem) -> None:
        await asyncio.sleep(0)
        plain(item)

    several = store.enqueue_many(NewItem("k") for _ in range(50))
    once = store.enqueue_many(NewItem("k", max_attempts=1) for _ in range(5))
    handler = Handler("k", plain if style == "plain" else asynchronous)
    work(store, handler, ids=[*several, *once])
    assert seen == {**dict.fromkeys(several, False), **dict.fromkeys(once, True)}
    assert sorted(store.begun) == sorted(once)


@pytest.mark.parametrize("style", ["plain", "async"])
def test_what_is_lost_at_its_begin_does_not_run(store: Noting, style: str) -> None:
    """Another worker has it by then."""
    ran: list[str] = []

    def plain(item: OutboxItem) -> None:
        ran.append(item.id)

    async def asynchronous(item: OutboxItem) -> None:
        ran.append(item.id)

    lost, kept = (store.enqueue("k", max_attempts=1) for _ in range(2))
    store.losing.add(lost)
    work(store, Handler("k", plain if style == "plain" else asynchronous), ids=[kept])
    assert ran == [kept]


def test_the_begin_of_an_execution_is_written_down_before_its_first_step() -> None:
    """After a death of its worker it counts from then on, and not while it waits for a thread."""
    store = Noting(lease_seconds=0.05)
    with Kernel(store.storage, outbox=store, discover=False) as kernel:
        seen: list[bool] = []

        @kernel.action("look")
        def look() -> None:
            seen.append(bool(store.begun))

        @kernel.action("alook")
        async def alook() -> None:
            seen.append(bool(store.begun))

        for name in ("look", "alook"):
            steps = [{"id": "one", "action": name}]
            kernel.add_workflow({"name": name, "trigger": {"type": "manual"}, "steps": steps})
            store.begun.clear()
            execution_id = kernel.start(name)
            (item,) = store.claim_ahead("dead")
            until(lambda: store.reap().retried)
            store.lease_seconds = 30.0
            with working(kernel):
                until(lambda one=execution_id: ended(kernel, one))
            assert store.begun == [item.id]
            store.lease_seconds = 0.05
        assert seen == [True, True]


def ended(kernel: Kernel, execution_id: str) -> bool:
    execution = kernel.executions.get(execution_id)
    return execution is not None and execution.status is ExecutionStatus.COMPLETED


# -- who is beside whom ----------------------------------------------------------------------------

ITEM = RowsOutboxStore(MemoryStorage())
ITEM.enqueue("k")
(CLAIMED,) = ITEM.claim_batch("w")


def task(attempt: int, of: int, code: str | None) -> Task:
    item = replace(CLAIMED, attempt_count=attempt, max_attempts=of, last_error_code=code)
    return Task(item, time.monotonic())


TASKS = st.builds(
    task, st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, "ERROR", EXPIRED])
)


def dies(each: Task) -> bool:
    """Return True for one whose last worker died."""
    return each.item.last_error_code == EXPIRED and each.item.attempt_count > 1


def is_last(each: Task) -> bool:
    """Return True for one that has its last attempt after deaths."""
    return dies(each) and each.item.attempt_count >= max(3, each.item.max_attempts)


@given(st.lists(st.one_of(st.lists(TASKS, max_size=5), st.integers(0, 9)), max_size=12))
def test_a_last_attempt_after_deaths_is_alone(rounds: list[Any]) -> None:
    """Whatever comes and ends, nothing else is beside it; and nothing else ever waits."""
    quarantine, held = Quarantine(), list[Task]()
    for one in rounds:
        if isinstance(one, int):
            if held:
                quarantine.ended([(held.pop(one % len(held)), None)])
            continue
        waiting = quarantine.admit(one, beside=len(held))
        alone = [each for each in held if is_last(each)]
        assert all(alone or dies(each) for each in waiting)
        held += [each for each in one if each not in waiting]
        assert len(held) == 1 or not any(map(is_last, held))
        assert (quarantine.alone_seconds() > 0) == any(map(is_last, held))
        if waiting:
            assert len(held) > 0, "it waits for nobody"
        for (_, outcome), each in zip(quarantine.wait(waiting), waiting, strict=True):
            assert outcome.status is ItemStatus.PENDING
            assert outcome.item_id == each.item.id
            assert outcome.next_attempt <= 20.0


def test_one_that_is_to_be_alone_waits_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something always runs it begins at last, beside no other suspect."""
    quarantine, fresh, last = Quarantine(), task(1, 5, None), task(5, 5, EXPIRED)
    assert quarantine.admit([last], beside=1) == [last]
    monkeypatch.setattr("automate_kernel.base.runtime.monotonic", lambda: time_later(11.0))
    assert quarantine.admit([fresh, last], beside=1) == []
    assert quarantine.admit([task(2, 5, EXPIRED)], beside=3) != []


def test_one_with_many_attempts_is_alone_before_it_takes_executions_along() -> None:
    """An execution is given up after ten deaths: an event with fifty attempts shares nine."""
    beside = [task(9, 50, EXPIRED), task(2, 10, EXPIRED)]
    quarantine = Quarantine()
    assert quarantine.admit(beside, beside=1) == []
    late = task(10, 50, EXPIRED)
    assert quarantine.admit([late]) == [late]
    quarantine.ended([(each, None) for each in beside])
    assert quarantine.admit([late]) == []
    assert quarantine.alone_seconds() > 0


def test_one_that_takes_long_lets_others_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new begins then; what may kill, too, waits for its end."""
    quarantine, fresh, suspect = Quarantine(), task(1, 5, None), task(2, 5, EXPIRED)
    last = task(5, 5, EXPIRED)
    assert quarantine.admit([last]) == []
    assert quarantine.admit([fresh]) == [fresh]
    monkeypatch.setattr("automate_kernel.base.runtime.monotonic", lambda: time_later(11.0))
    assert quarantine.admit([fresh, suspect]) == [suspect]
    assert quarantine.cleared(last)
    assert quarantine.admit([suspect]) == []


_REAL = time.monotonic


def time_later(seconds: float) -> float:
    return _REAL() + seconds


def test_nothing_is_claimed_beside_one_that_is_alone() -> None:
    """The worker takes the rest up at its end."""
    store = Noting(backoff=Backoff(0.0, 0.0))
    ran: list[str] = []
    beside: list[ItemStatus] = []

    def handle(item: OutboxItem) -> None:
        ran.append(item.id)
        if item.id == last:
            ids.extend(store.enqueue_many(NewItem("k") for _ in range(5)))
            threading.Event().wait(0.2)  # in which a worker would begin them
            beside.extend(status(store, one) for one in ids)

    last, ids = store.enqueue("k", max_attempts=3), list[str]()
    for _ in range(2):
        store.lease_seconds = 0.01
        store.claim_ahead("dead")
        store.begin([last], "dead")
        until(lambda: store.reap().retried)
    store.lease_seconds = 30.0
    work(store, Handler("k", handle), ids=[last])
    work(store, Handler("k", handle), ids=ids)
    assert ran == [last, *ids]
    assert beside == [ItemStatus.PENDING] * 5
