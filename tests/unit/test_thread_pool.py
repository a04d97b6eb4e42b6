"""Handlers on threads: quick calls are recorded together, and a slow call takes only its slot."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, RowsOutboxStore
from automate_kernel.storage import MemoryStorage
from automate_kernel.worker.handler import Handler, cancelling, should_stop
from automate_kernel.worker.worker import Worker
from machines import no_more_threads
from waiting import PATIENCE, Gate, until


class Running:
    """A worker on a thread."""

    def __init__(self, store: RowsOutboxStore, *handlers: Handler, **options: Any) -> None:
        self.store = store
        self.worker = Worker(store, handlers, **{"poll_seconds": 0.05, **options})
        self._thread = threading.Thread(target=self.worker.run, daemon=True)
        self._thread.start()

    def do(self, *new: NewItem) -> None:
        """Have all these done."""
        ids = self.store.enqueue_many(new)
        until(lambda: all(status(self.store, each) is ItemStatus.COMPLETED for each in ids))

    def stop(self) -> Worker:
        self.worker.stop()
        return self.joined()

    def joined(self) -> Worker:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker did not stop"
        return self.worker


def handler(kind: str = "k", **doing: Callable[[], Any]) -> Handler:
    """Return a handler of *kind* that does for a payload what *doing* says."""
    return Handler(kind, lambda item: doing[str(item.payload)]() if item.payload else None)


def new(count: int, payload: str = "", kind: str = "k", **options: Any) -> list[NewItem]:
    return [NewItem(kind, payload, **options) for _ in range(count)]


def status(store: RowsOutboxStore, item_id: str) -> ItemStatus:
    found = store.get(item_id)
    assert found is not None
    return found.status


def begun(store: RowsOutboxStore, ids: Sequence[str]) -> list[str]:
    return [each for each in ids if status(store, each) is not ItemStatus.PENDING]


@pytest.fixture
def store() -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage())


def test_quick_calls_are_recorded_together(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To give each result alone costs more than such a call."""
    groups: list[int] = []
    done_all = Worker._done_all

    def noted(worker: Worker, ended: list[Any]) -> None:
        groups.append(len(ended))
        done_all(worker, ended)

    monkeypatch.setattr(Worker, "_done_all", noted)
    run = Running(store, handler(), slots=2)
    run.do(*new(3000))
    assert run.stop().stats.completed == sum(groups) == 3000
    assert len(groups) < 1000


def test_what_has_run_is_recorded_before_the_rest_is_handed_back(store: RowsOutboxStore) -> None:
    """At a stop that abandons what runs: else it would be run again."""
    slow, go, ran = threading.Semaphore(0), Gate(), list[str]()

    def handle(item: OutboxItem) -> None:
        if item.payload == "slow":
            slow.release()
            go.pass_()
        else:
            ran.append(item.id)

    run = Running(store, Handler("k", handle), slots=2)
    run.do(*new(300))
    ran.clear()
    store.enqueue_many([*new(50), *new(2, "slow")])
    slow.acquire()
    slow.acquire()
    run.worker.stop(abandon=True)
    run.joined()
    go.set()
    assert len(ran) == 50
    assert {status(store, each) for each in ran} == {ItemStatus.COMPLETED}


def test_a_machine_without_more_threads_goes_on_after_the_call(store: RowsOutboxStore) -> None:
    """What no other thread can take waits for the call; nothing waits for ever."""
    began, go = Gate(), Gate()

    def slow() -> None:
        began.set()
        go.pass_()

    with no_more_threads("automate-slot-1"):
        run = Running(store, handler(slow=slow), slots=2)
        (first,) = store.enqueue_many(new(1, "slow"))
        began.pass_()
        second = store.enqueue_many(new(3))
        until(lambda: len(begun(store, second)) > 0)
        go.set()
        until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in (first, *second)))
    run.stop()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Unprintable()], ids=repr
)
def test_whatever_is_raised_the_worker_goes_on(
    store: RowsOutboxStore, error: BaseException
) -> None:
    """The item fails, and no other."""

    def fail() -> None:
        raise error

    run = Running(store, handler(bad=fail), slots=1)
    bad, *good = store.enqueue_many([*new(1, "bad", max_attempts=1), *new(30)])
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in good))
    until(lambda: status(store, bad) is ItemStatus.FAILED)
    run.do(*new(30))
    run.stop()
    found = store.get(bad)
    assert found is not None
    assert type(error).__name__ in (found.last_error or "")


def test_a_slow_call_holds_up_no_quick_result(store: RowsOutboxStore) -> None:
    """Nor what waits behind it, while another slot is free."""
    go, slow_began = Gate(), Gate()

    def slow() -> None:
        slow_began.set()
        go.pass_()

    run = Running(store, handler(slow=slow), slots=2)
    run.do(*new(300))
    ids = store.enqueue_many([*new(40), *new(1, "slow"), *new(200)])
    slow_began.pass_()
    until(lambda: sum(status(store, each) is ItemStatus.COMPLETED for each in ids) == 240)
    assert status(store, ids[40]) is ItemStatus.RUNNING
    go.set()
    until(lambda: status(store, ids[40]) is ItemStatus.COMPLETED)
    worker = run.stop()
    assert worker.in_flight == worker.stats.failed == 0


def test_slow_calls_in_all_slots_hold_up_no_quick_result(store: RowsOutboxStore) -> None:
    """What ended before them is recorded, though no thread ends a call for long."""
    go = Gate()
    run = Running(store, handler(slow=go.pass_), slots=2)
    run.do(*new(300))
    *quick, first, second = store.enqueue_many([*new(50), *new(2, "slow")])
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in quick))
    until(lambda: len(begun(store, [first, second])) == 2)
    go.set()
    until(lambda: status(store, second) is ItemStatus.COMPLETED)
    run.stop()


def test_what_waits_behind_calls_that_take_longer_than_before_is_given_back(
    store: RowsOutboxStore,
) -> None:
    """Another worker does it, though what was claimed ahead of it is stuck."""
    go = Gate()
    nap = handler(doze=lambda: time.sleep(0.001), stick=go.pass_)
    run = Running(store, nap, slots=2)
    run.do(*new(300, "doze"))
    ids = store.enqueue_many([*new(2, "stick"), *new(100, "doze")])
    until(lambda: begun(store, ids) == ids[:2])
    other = Running(store, nap, slots=2)
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in ids[2:]))
    assert [status(store, each) for each in ids[:2]] == [ItemStatus.RUNNING] * 2
    go.set()
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in ids))
    other.stop()
    assert run.stop().in_flight == 0
    attempts = {found.attempt_count for each in ids if (found := store.get(each)) is not None}
    assert attempts == {1}


def test_a_stop_hands_back_what_has_not_begun(store: RowsOutboxStore) -> None:
    """The call that runs ends, and nothing behind it begins."""
    saw: list[bool] = []

    def stop() -> None:
        run.worker.stop()
        saw.append(should_stop())

    run = Running(store, handler(stop=stop), slots=1)
    run.do(*new(300))
    until(lambda: run.worker.in_flight == 0)
    ids = store.enqueue_many([*new(30), *new(1, "stop"), *new(100)])
    worker = run.joined()
    assert saw == [True]
    assert begun(store, ids) == ids[:31]
    assert worker.in_flight == 0
    assert {store.get(each).attempt_count for each in ids[31:]} == {0}  # type: ignore[union-attr]


def test_a_cancelled_call_sees_it(store: RowsOutboxStore) -> None:
    """Those behind it are not cancelled with it."""
    began = Gate()

    def wait() -> None:
        began.set()
        until(cancelling)

    run = Running(store, handler(wait=wait), slots=1)
    run.do(*new(300))
    first, *others = store.enqueue_many([*new(1, "wait"), *new(50)])
    began.pass_()
    assert store.cancel([first]) == 1
    until(lambda: status(store, first) is ItemStatus.COMPLETED)
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in others))
    run.stop()


def test_the_first_claims_of_a_quick_kind_are_small(
    store: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is claimed ahead than the calls so far speak for: the mean falls by 5 % a call."""
    claims: list[int] = []
    claim_ahead = store.claim_ahead

    def noted(*arguments: Any, **options: Any) -> list[OutboxItem]:
        items = claim_ahead(*arguments, **options)
        claims.append(len(items))
        return items

    monkeypatch.setattr(store, "claim_ahead", noted)
    ids = store.enqueue_many(new(2000))
    run = Running(store, handler(), slots=2)
    until(lambda: all(status(store, each) is ItemStatus.COMPLETED for each in ids))
    run.stop()
    assert claims[0] == 2
    assert 20 < max(claims) <= 400, "it never got up to speed, or beyond its bound"
    before = 0
    for claimed in claims:
        assert claimed <= 3 + 0.5 * 0.95 ** -min(before, 500)
        before += claimed
