"""Promises 2 to 5: leases, how they end, and several workers that want the same items."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from automate_kernel.base.errors import LeaseLostError, StorageError
from automate_kernel.outbox import (
    ItemStatus,
    NewItem,
    OutboxItem,
    OutboxStore,
    Outcome,
    controls_of,
)
from automate_kernel.worker import OutboxReaper
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox.hooks import LONG_SECONDS, UNKNOWN_ID, StoreHooks
from automate_testing.contracts.values import each_case

ERROR_TEXTS = {
    "NUL": "before \x00 after",
    "lone surrogate": "before \udfff after",
    "long": "x" * 2_000_000,
    "empty": "",
}

T = TypeVar("T")
_Step = Callable[[OutboxItem], Any]
WORKERS = 4
PATIENCE_SECONDS = 30.0


class _Crowd:
    """Counts the items that run at once, per concurrency key, and waits for the most."""

    def __init__(self, total: int, most: int) -> None:
        self.peaks: Counter[str] = Counter()
        self._left, self._most = total, most
        self._running: Counter[str] = Counter()
        self._changed = threading.Condition()

    def begin(self, item: OutboxItem) -> None:
        """Count an item that runs."""
        key = item.concurrency_key or ""
        with self._changed:
            self._running[key] += 1
            assert self._running[key] <= self._most, f"too many at once of {key!r}"
            self.peaks[key] = max(self.peaks[key], self._running[key])
            self._changed.notify_all()
            if not key:
                self._changed.wait_for(self._may_go, PATIENCE_SECONDS)

    def _may_go(self) -> bool:
        return self.peaks[""] >= self._most or self._left < self._most

    def end(self, item: OutboxItem) -> None:
        """Count it out."""
        with self._changed:
            self._running[item.concurrency_key or ""] -= 1
            self._left -= 1
            self._changed.notify_all()


class LeaseContract(StoreHooks):
    """Tests of how leased items are finished, recovered and raced for."""

    def test_success(self, store: OutboxStore) -> None:
        """A finished item is COMPLETED, and nobody gets it again."""
        item_id = self.claimed(store).id
        store.mark_success(item_id, "worker")
        item = self.see(store, item_id)
        assert (item.status, item.lease_expires_at) == (ItemStatus.COMPLETED, None)
        assert item.completed_at is not None
        assert store.claim_batch("worker") == []

    def test_a_look_tells_of_what_a_dead_worker_held(
        self, store: OutboxStore, time: FakeClock
    ) -> None:
        """Once its lease has ended; and then of when that is due."""
        assert store.look().seconds is None or store.look().seconds == 0
        self.claimed(store)
        time.advance(store.lease_seconds + 1)
        assert store.look().recoverable
        store.reap()
        due = store.look().seconds
        assert due is not None and due < 60

    def test_failure(self, store: OutboxStore) -> None:
        """An item that is given up is FAILED with its error, whatever attempts were left."""
        item_id = self.claimed(store, max_attempts=5).id
        store.mark_failed(item_id, "worker", "NOT_FOUND", "no such channel")
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.FAILED, 1)
        assert (item.last_error_code, item.last_error) == ("NOT_FOUND", "no such channel")
        assert item.completed_at is not None
        assert store.claim_batch("worker") == []

    def test_retry_after_a_delay(self, store: OutboxStore, time: FakeClock) -> None:
        """A retried item waits as RETRY with its error, and runs again once due."""
        item_id = store.enqueue("k")
        for delay in (30.0, timedelta(seconds=30), time() + timedelta(seconds=90)):
            self.claim_one(store)
            store.mark_retry(item_id, "worker", delay, "UNAVAILABLE", "try later")
            item = self.see(store, item_id)
            assert (item.status, item.last_error_code) == (ItemStatus.RETRY, "UNAVAILABLE")
            assert {item.lease_owner, item.lease_expires_at, item.completed_at} == {None}
            time.advance(29)
            assert store.claim_batch("worker") == []
            time.advance(1)
        assert self.claim_one(store).attempt_count == 4

    def test_retry_of_the_last_attempt_fails(self, store: OutboxStore) -> None:
        """An item whose attempts are spent is FAILED, and not tried again."""
        item_id = store.enqueue("k", max_attempts=2)
        for expected in ("RETRY", "FAILED"):
            self.claim_one(store)
            store.mark_retry(item_id, "worker", 0, "UNAVAILABLE", "down")
            assert self.statuses(store, [item_id]) == [expected]
        assert store.claim_batch("worker") == []
        assert self.see(store, item_id).last_error == "down"

    def test_no_error_text_is_a_hindrance(self, store: OutboxStore) -> None:
        """An error with any text finishes the item, with all or most of the text."""
        code = "CODE" * 100 + "\x00"

        def check(text: str) -> None:
            retried, failed = (self.claimed(store, max_attempts=1).id for _ in "12")
            store.mark_retry(retried, "worker", 0, code, text)
            store.mark_failed(failed, "worker", code, text)
            for item in (self.see(store, retried), self.see(store, failed)):
                assert item.status is ItemStatus.FAILED
                assert (item.last_error or "")[:6] == text[:6]

        each_case(ERROR_TEXTS, check)

    def test_snooze(self, store: OutboxStore, time: FakeClock) -> None:
        """A snoozed item waits without spending its attempt, as often as it likes."""
        item_id = store.enqueue("k", max_attempts=1)
        for _ in range(3):
            assert self.claim_one(store).attempt_count == 1
            store.snooze(item_id, "worker", 60)
            assert self.see(store, item_id).attempt_count == 0
            assert store.claim_batch("worker") == []
            time.advance(60)

    def test_release_spends_no_attempt(self, store: OutboxStore) -> None:
        """Leases that are handed back let others have the items at once, as if never claimed."""
        ids = store.enqueue_many(NewItem("k", max_attempts=1) for _ in range(3))
        store.claim_batch("worker-1")
        assert store.release(ids[1:], "worker-1") == 2
        assert self.statuses(store, ids) == ["RUNNING", "PENDING", "PENDING"]
        again = store.claim_batch("worker-2")
        assert [(item.id, item.attempt_count) for item in again] == [(ids[1], 1), (ids[2], 1)]

    def test_release_of_a_retry(self, store: OutboxStore) -> None:
        """A second attempt that is handed back is still a second attempt."""
        item_id = self.claimed(store).id
        store.mark_retry(item_id, "worker", 0, "UNAVAILABLE", "down")
        self.claim_one(store)
        assert store.release([item_id], "worker") == 1
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.RETRY, 1)
        assert item.last_error == "down"

    def test_release_keeps_the_place(self, store: OutboxStore) -> None:
        """An item that was handed back goes before later items."""
        first, second = store.enqueue("k"), store.enqueue("k")
        assert self.claim_ids(store, limit=1) == [first]
        third = store.enqueue("k")
        assert store.release([first], "worker") == 1
        assert self.claim_ids(store) == [first, second, third]

    def test_outcomes_in_a_group(self, store: OutboxStore) -> None:
        """Different outcomes of many items are recorded together."""
        ids = store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        outcomes = [
            Outcome(ids[0]),
            Outcome(ids[1], ItemStatus.FAILED, error_code="INTERNAL", error="broke"),
            Outcome(ids[2], ItemStatus.RETRY, 60.0, "UNAVAILABLE", "down"),
            Outcome(ids[3], ItemStatus.PENDING),
            Outcome(ids[4]),
        ]
        assert store.acknowledge("worker", outcomes) == set()
        assert self.statuses(store, ids) == ["COMPLETED", "FAILED", "RETRY", "PENDING", "COMPLETED"]

    def test_many_wait_again_in_a_group(self, store: OutboxStore) -> None:
        """Put back together, each for its time; one that is another's is reported."""
        ids = store.enqueue_many(NewItem("k") for _ in range(5))
        claimed = {item.id: item for item in store.claim_batch("worker")}
        theirs = UNKNOWN_ID
        tokens = [claimed[each].lease_token for each in ids[:4]] + [theirs]
        delays = [60.0, 60.0, 60.0, 3600.0, 60.0]
        outcomes = [
            Outcome(each, ItemStatus.PENDING, delay, token=token)
            for each, delay, token in zip(ids, delays, tokens, strict=True)
        ]
        for _ in range(2):  # the same once more, as if the reply had been lost
            assert store.acknowledge("worker", outcomes) == {ids[4]}
        assert self.statuses(store, ids) == ["PENDING"] * 4 + ["RUNNING"]
        due = [self.see(store, each).next_attempt_at for each in ids[:4]]
        assert due[0] == due[2] < due[3]

    def test_nothing_to_acknowledge(self, store: OutboxStore) -> None:
        """An empty group is no error."""
        assert store.acknowledge("worker", []) == set()
        assert store.extend([], "worker") == set()
        assert store.release([], "worker") == 0

    def test_success_in_the_hosts_transaction(self, store: OutboxStore) -> None:
        """Acknowledged with the handler's writes, an item is finished exactly if they commit."""
        item_id = self.claimed(store).id
        with self.rolled_back(store) as transaction:
            store.enqueue("written by the handler", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
        assert self.statuses(store, [item_id]) == ["RUNNING"]
        with self.transaction(store) as transaction:
            written = store.enqueue("written by the handler", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
        assert self.statuses(store, [item_id, written]) == ["COMPLETED", "PENDING"]

    def test_lost_lease_rolls_the_writes_back(self, store: OutboxStore, time: FakeClock) -> None:
        """A handler that lost its lease can't commit: the error rolls its writes back."""
        self.need("transactions")
        item_id = self.claimed(store).id
        self.expire(store, time)
        with pytest.raises(LeaseLostError), self.transaction(store) as transaction:
            written = store.enqueue("written by a zombie", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
        assert store.get(written) is None

    # Who may not finish an item.

    def test_only_the_holder_finishes(self, store: OutboxStore) -> None:
        """A worker that never had the item, or no item at all, loses."""
        item_id = store.enqueue("k")
        self.loses(store.mark_success, item_id, "worker-1")
        self.claim_one(store, "worker-1")
        for call in (store.mark_success, store.mark_failed):
            self.loses(call, item_id, "worker-2")
            self.loses(call, UNKNOWN_ID, "worker-1")
        assert store.release([item_id], "worker-2") == 0
        assert store.extend([item_id], "worker-2") == {item_id}
        assert self.statuses(store, [item_id]) == ["RUNNING"]
        store.mark_success(item_id, "worker-1")

    def test_reused_worker_name_is_no_key(self, store: OutboxStore, time: FakeClock) -> None:
        """A worker that lost its lease can't finish the item of a new holder with the same name."""
        new_process = self.another(store)
        item_id = self.claimed(store, "worker-1").id
        self.expire(store, time)
        self.claim_one(new_process, "worker-1")
        self.loses(store.mark_success, item_id, "worker-1")
        self.loses(store.mark_retry, item_id, "worker-1", 0)
        self.loses(store.mark_failed, item_id, "worker-1")
        self.loses(store.snooze, item_id, "worker-1", 0)
        assert store.extend([item_id], "worker-1") == {item_id}
        assert store.release([item_id], "worker-1") == 0
        assert self.statuses(store, [item_id]) == ["RUNNING"]
        new_process.mark_success(item_id, "worker-1")

    def test_token_of_an_earlier_claim_is_no_key(self, store: OutboxStore) -> None:
        """The token names the claim, within one store too."""
        old = self.claimed(store)
        store.mark_retry(old.id, "worker", 0)
        new = self.claim_one(store)
        for token in (old.lease_token, UNKNOWN_ID):
            self.loses(store.mark_success, old.id, "worker", token=token)
        store.mark_success(new.id, "worker", token=new.lease_token)

    def test_token_is_enough_in_another_process(self, store: OutboxStore) -> None:
        """A holder of the claim's token can finish the item through any store."""
        item = self.claimed(store)
        self.another(store).mark_success(item.id, "worker", token=item.lease_token)
        assert self.statuses(store, [item.id]) == ["COMPLETED"]

    def test_repeated_acknowledgement_is_no_error(self, store: OutboxStore) -> None:
        """A caller that never heard of its commit may repeat the outcome, and changes nothing."""
        done, failed = store.enqueue("k"), store.enqueue("k", max_attempts=1)
        tokens = {item.id: item.lease_token for item in store.claim_batch("worker")}
        for _ in range(3):
            store.mark_success(done, "worker", token=tokens[done])
            store.mark_retry(failed, "worker", 0, "INTERNAL", "once", token=tokens[failed])
            assert store.acknowledge("worker", [Outcome(done, token=tokens[done])]) == set()
        assert self.statuses(store, [done, failed]) == ["COMPLETED", "FAILED"]

    def test_finished_items_stay_as_they_are(self, store: OutboxStore) -> None:
        """A second, different outcome is lost, even with the right token."""
        done, failed = store.enqueue("k"), store.enqueue("k")
        tokens = {item.id: item.lease_token for item in store.claim_batch("worker")}
        store.mark_success(done, "worker", token=tokens[done])
        store.mark_failed(failed, "worker", "INTERNAL", "broke", token=tokens[failed])
        self.loses(store.mark_failed, done, "worker", token=tokens[done])
        self.loses(store.mark_retry, done, "worker", 0, token=tokens[done])
        self.loses(store.mark_success, failed, "worker", token=tokens[failed])
        self.loses(store.mark_retry, failed, "worker", 0, token=tokens[failed])
        assert store.extend([done, failed], "worker") == {done, failed}
        assert self.statuses(store, [done, failed]) == ["COMPLETED", "FAILED"]
        assert store.claim_batch("worker") == []

    def test_a_lost_item_holds_up_no_other(self, store: OutboxStore, time: FakeClock) -> None:
        """The lost items of a group are reported, and the others are finished."""
        lost, kept = store.enqueue("k"), store.enqueue("k")
        store.claim_batch("worker", 2)
        time.advance(store.lease_seconds / 2)
        assert store.extend([kept], "worker") == set()
        time.advance(store.lease_seconds / 2 + 1)
        assert [item.id for item in store.reap().retried] == [lost]
        assert store.acknowledge("worker", [Outcome(lost), Outcome(kept)]) == {lost}
        assert self.statuses(store, [lost, kept]) == ["RETRY", "COMPLETED"]

    def test_lost_claims_cancel_nothing(self, store: OutboxStore, time: FakeClock) -> None:
        """Only the claim that holds the item can say that it has stopped."""
        old = self.claimed(store)
        self.expire(store, time)
        self.claim_one(store, "worker-2")
        late = Outcome(old.id, ItemStatus.CANCELLED, token=old.lease_token)
        assert store.acknowledge("worker", [late]) == {old.id}
        assert self.statuses(store, [old.id]) == ["RUNNING"]

    # How items come back from workers that are gone.

    def test_live_lease_is_left_alone(self, store: OutboxStore, time: FakeClock) -> None:
        """Reaping takes nothing from a worker whose lease runs."""
        item_id = self.claimed(store).id
        time.advance(store.lease_seconds - 1)
        assert len(store.reap()) == 0
        store.mark_success(item_id, "worker")

    def test_extended_lease_lives_on(self, store: OutboxStore, time: FakeClock) -> None:
        """A heartbeat keeps an item for as long as it goes on."""
        item_id = self.claimed(store).id
        for _ in range(5):
            time.advance(store.lease_seconds * 0.9)
            assert store.extend([item_id], "worker") == set()
            assert len(store.reap()) == 0
        store.mark_success(item_id, "worker")

    def test_heartbeat_reports_lost_items(self, store: OutboxStore, time: FakeClock) -> None:
        """Once an item was recovered, the heartbeat reports it to the old worker."""
        item_id = self.claimed(store).id
        self.lapse(store, time)
        assert store.extend([item_id], "worker") == {item_id}
        assert self.see(store, item_id).lease_expires_at is None

    def test_ended_lease_is_recovered(self, store: OutboxStore, time: FakeClock) -> None:
        """An item whose worker died waits again, keeps its priority, and says why."""
        item_id = self.claimed(store, "worker-1", priority=4).id
        result = self.lapse(store, time)
        assert ([item.id for item in result.retried], result.failed) == ([item_id], [])
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count, item.priority) == (ItemStatus.RETRY, 1, 4)
        assert {item.lease_owner, item.lease_token, item.lease_expires_at} == {None}
        assert item.last_error_code
        time.advance(LONG_SECONDS)
        assert self.claim_one(store, "worker-2").attempt_count == 2

    def test_ended_lease_keeps_the_place(self, store: OutboxStore, time: FakeClock) -> None:
        """An item of a dead worker goes before all that came meanwhile, after its pause."""
        first = self.claimed(store).id
        later = store.enqueue_many(NewItem("k") for _ in range(3))
        self.expire(store, time)
        # As a process that begins now, which looks for what has become due.
        assert self.claim_all(self.another(store)) == [first, *later]

    def test_item_that_kills_its_workers_fails(self, store: OutboxStore, time: FakeClock) -> None:
        """Each worker that dies of an item spends an attempt, and the last one fails it."""
        item_id = self.claimed(store, max_attempts=3).id
        for _ in range(2):
            self.expire(store, time)
            self.claim_one(store)
        result = self.lapse(store, time)
        assert ([item.id for item in result.failed], result.retried) == ([item_id], [])
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.FAILED, 3)
        assert item.completed_at is not None
        assert len(store.reap()) == 0
        self.loses(store.mark_success, item_id, "worker")
        assert self.statuses(store, [item_id]) == ["FAILED"]

    def test_what_was_claimed_ahead_and_never_began(
        self, store: OutboxStore, time: FakeClock
    ) -> None:
        """The death of a worker spends no last attempt of an item that only waited in it."""
        self.need("begins")
        waiting, begun = (store.enqueue("k", max_attempts=1) for _ in range(2))
        assert {item.lease_owner for item in store.claim_ahead("worker", 2)} == {"worker"}
        assert {item.lease_owner for item in store.running()} == {"worker"}
        assert store.begin([begun], "worker") == set()
        result = self.lapse(store, time)
        assert [item.id for item in result.failed] == [begun]
        assert [item.id for item in result.retried] == [waiting]
        item = self.see(store, waiting)
        assert (item.status, item.attempt_count, item.last_error) == (ItemStatus.PENDING, 0, None)
        assert store.failed_attempts(waiting) == []
        assert [item.id for item in store.claim_batch("worker")] == [waiting]

    def test_a_second_death_counts_for_what_began(
        self, store: OutboxStore, time: FakeClock
    ) -> None:
        """After a first death each further one counts for those alone that were running."""
        self.need("begins")
        waiting, begun = (store.enqueue("k", max_attempts=5) for _ in range(2))
        for attempt in (1, 2, 3):
            claimed = store.claim_ahead("worker", 2)
            # An item that has just become due may be found by the next claim only.
            claimed += store.claim_ahead("worker", 2)
            assert {item.id for item in claimed} == {waiting, begun}
            assert store.begin([begun], "worker") == set()
            self.lapse(store, time)
            assert self.see(store, begun).attempt_count == attempt
            item = self.see(store, waiting)
            assert (item.status, item.attempt_count) == (ItemStatus.RETRY, 1)
            time.advance(LONG_SECONDS)

    def test_nobody_begins_what_is_lost(self, store: OutboxStore, time: FakeClock) -> None:
        """A worker learns that an item is another's by now before it begins."""
        self.need("begins")
        item_id = store.enqueue("k", max_attempts=1)
        store.claim_ahead("worker")
        self.expire(store, time)
        assert store.begin([item_id], "worker") == {item_id}
        assert store.begin([UNKNOWN_ID], "worker") == {UNKNOWN_ID}

    def test_what_is_claimed_ahead_is_asked_to_stop(self, store: OutboxStore) -> None:
        """Its worker hears of a cancellation whether it has begun or not."""
        self.need("begins", "controls")
        waiting, begun = (store.enqueue("k", max_attempts=1) for _ in range(2))
        tokens = {item.id: item.lease_token for item in store.claim_ahead("worker", 2)}
        store.begin([begun], "worker")
        store.cancel([waiting, begun])
        assert store.stop_requests("worker") == tokens

    def test_finished_items_are_not_reaped(self, store: OutboxStore, time: FakeClock) -> None:
        """Reaping looks at running items only, however old the others are."""
        ids = store.enqueue_many(NewItem("k") for _ in range(4))
        store.claim_batch("worker", 3)
        store.mark_success(ids[0], "worker")
        store.mark_failed(ids[1], "worker")
        store.mark_retry(ids[2], "worker", 0)
        time.advance(LONG_SECONDS)
        assert len(store.reap()) == 0
        assert self.statuses(store, ids) == ["COMPLETED", "FAILED", "RETRY", "PENDING"]

    def test_late_but_not_reaped_holder_finishes(self, store: OutboxStore, time: FakeClock) -> None:
        """Until it is recovered, the item is its holder's, even after the lease."""
        item_id = self.claimed(store).id
        time.advance(store.lease_seconds * 2)
        assert store.claim_batch("worker-2") == []
        store.mark_success(item_id, "worker")

    def test_reaping_in_small_bites(self, store: OutboxStore, time: FakeClock) -> None:
        """No more than *limit* items are recovered at a time, and each of them once."""
        ids = store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        time.advance(store.lease_seconds + 1)
        bites = [store.reap(2).retried for _ in range(4)]
        assert [len(bite) for bite in bites] == [2, 2, 1, 0]
        assert sorted(item.id for bite in bites for item in bite) == sorted(ids)

    def test_grace(self, store: OutboxStore, time: FakeClock) -> None:
        """*grace_seconds* after the lease's end pass before an item is recovered."""
        self.claimed(store)
        time.advance(store.lease_seconds + 50)
        assert len(store.reap(grace_seconds=60)) == 0
        assert len(store.reap(grace_seconds=40)) == 1

    def test_reaper_never_undercuts_the_lease(self, store: OutboxStore, time: FakeClock) -> None:
        """A stale threshold below the lease changes nothing; one above it waits longer."""
        hasty = OutboxReaper(store, stale_threshold_seconds=store.lease_seconds / 10)
        patient = OutboxReaper(store, stale_threshold_seconds=store.lease_seconds * 3)
        store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        time.advance(store.lease_seconds - 1)
        assert hasty.reap_stale_items() == 0
        time.advance(store.lease_seconds)
        assert patient.reap_stale_items() == 0
        assert hasty.reap_stale_items(batch=2) == 5

    # Four threads at once.

    def stores(self, store: OutboxStore) -> list[OutboxStore]:
        """Return a store for each thread: of two processes if there can be two."""
        try:
            other = self.another(store)
        except pytest.skip.Exception:
            other = store
        return [store, other] * (WORKERS // 2)

    def insist(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call *run* as a worker does: again after a collision."""
        waits = self.supports_waiting and self.supports_waiting_for_slots
        for _ in range(0 if waits else 20):
            try:
                return call(*arguments)
            except StorageError as error:
                if not error.retryable:
                    raise
        return call(*arguments)

    def race(self, store: OutboxStore, run: Callable[[OutboxStore, str], None]) -> None:
        """Run *run* in all threads at once, and raise the error of any."""
        start = threading.Barrier(WORKERS)

        def work(mine: OutboxStore, worker_id: str) -> None:
            start.wait(PATIENCE_SECONDS)
            run(mine, worker_id)

        with ThreadPoolExecutor(WORKERS) as pool:
            threads = [
                pool.submit(work, mine, f"worker-{number}")
                for number, mine in enumerate(self.stores(store))
            ]
        for thread in threads:
            thread.result()

    def drain(
        self, store: OutboxStore, total: int, limit: int, begin: _Step, end: _Step = id
    ) -> None:
        """Claim and finish with all threads until *total* items are done."""
        done: list[str] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(done) < total:
                assert time.monotonic() < deadline, f"only {len(done)} of {total} got done"
                items = self.insist(mine.claim_batch, worker_id, limit)
                for item in items:
                    begin(item)
                for item in items:
                    end(item)
                assert self.insist(mine.acknowledge, worker_id, self.successes(items)) == set()
                done.extend(item.id for item in items)

        self.race(store, run)

    def test_no_item_is_claimed_twice(self, store: OutboxStore) -> None:
        """Each item goes to one worker, and all of them are done."""
        ids = store.enqueue_many(NewItem("k") for _ in range(60))
        seen: list[str] = []
        self.drain(store, 60, 5, lambda item: seen.append(item.id))
        assert sorted(seen) == sorted(ids)
        assert len(store.find(status=ItemStatus.COMPLETED, limit=100)) == 60

    def test_order_holds_under_competition(self, store: OutboxStore) -> None:
        """Items of one key run one at a time and in order, though four workers want them."""
        self.need("ordering_keys")
        ids = store.enqueue_many(NewItem("k", n, ordering_key=f"key-{n % 5}") for n in range(50))
        running: list[str] = []
        order: dict[str, list[str]] = {}

        def begin(item: OutboxItem) -> None:
            key = str(item.ordering_key)
            running.append(key)
            assert running.count(key) == 1, f"two items of {key} at once"
            order.setdefault(key, []).append(item.id)

        self.drain(store, 50, 4, begin, lambda item: running.remove(str(item.ordering_key)))
        assert order == {f"key-{number}": ids[number::5] for number in range(5)}

    def test_limit_is_reached_and_never_exceeded(self, store: OutboxStore) -> None:
        """A limited kind reaches its limit, and never exceeds it."""
        self.need("controls")
        store.enqueue_many(NewItem("k") for _ in range(40))
        controls_of(store).limit("k", concurrency=3)
        crowd = _Crowd(40, 3)
        self.drain(store, 40, 1, crowd.begin, crowd.end)
        assert crowd.peaks == {"": 3}

    def test_concurrency_key_is_reached_and_never_exceeded(self, store: OutboxStore) -> None:
        """Each concurrency key reaches its limit, and no item is left to wait."""
        self.need("concurrency_keys")
        store.enqueue_many(
            NewItem(f"kind-{n % 2}", concurrency_key=f"key-{n % 3}", concurrency_limit=2)
            for n in range(60)
        )
        crowd = _Crowd(60, 2)
        # Six, so that the first claim alone has two of each key, however the threads are run.
        self.drain(store, 60, 6, crowd.begin, crowd.end)
        assert set(crowd.peaks) == {"key-0", "key-1", "key-2"}
        assert max(crowd.peaks.values()) == 2

    def test_rate_holds_under_competition(self, store: OutboxStore, time: FakeClock) -> None:
        """However many ask at once, no more start than the rate allows, and no fewer."""
        self.need("controls")
        store.enqueue_many(NewItem("k") for _ in range(60))
        controls_of(store).limit("k", rate=7, per_seconds=10)
        for _ in range(4):
            claimed: list[str] = []

            def run(mine: OutboxStore, worker_id: str, claimed: list[str] = claimed) -> None:
                for _ in range(6):
                    claimed.extend(self.insist(self.claim_ids, mine, worker_id, 2))

            self.race(store, run)
            # A worker that found the limit locked left the item to another worker.
            claimed += self.claim_ids(store, limit=20)
            assert len(claimed) == len(set(claimed)) == 7
            time.advance(10)

    def test_one_idempotency_key_gives_one_item(self, store: OutboxStore) -> None:
        """Callers who enqueue the same thing at once all get the id of the one item."""
        ids: list[tuple[int, str]] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            ids.extend((n, mine.enqueue("k", idempotency_key=f"key-{n}")) for n in range(10))

        self.race(store, run)
        assert len(ids) == WORKERS * 10
        assert len(set(ids)) == 10
        assert {item.id for item in store.find()} == {item_id for _, item_id in ids}

    def test_claims_and_cancellations_agree(self, store: OutboxStore) -> None:
        """An item is either claimed or cancelled; one that is claimed is asked to stop, once."""
        ids = store.enqueue_many(NewItem("k") for _ in range(40))
        claimed: list[str] = []
        cancelled: list[int] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            if worker_id in ("worker-0", "worker-1"):
                cancelled.extend(self.insist(mine.cancel, [item_id]) for item_id in ids[::-1])
            else:
                for _ in range(15):
                    claimed.extend(self.insist(self.claim_ids, mine, worker_id, 3))

        self.race(store, run)
        found = Counter(self.statuses(store, ids))
        assert found[ItemStatus.RUNNING] == len(claimed) == len(set(claimed))
        assert found[ItemStatus.CANCELLED] == 40 - len(claimed)
        asked = sum(item.waiting_for == "cancel" for item in store.find(status="RUNNING"))
        assert sum(cancelled) == found[ItemStatus.CANCELLED] + asked
