"""Promises 2 and 3: how an item is finished, and by whom alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["FencingContract", "FinishingContract"]

UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"
ERROR_TEXTS = {
    "NUL": "before \x00 after",
    "lone surrogate": "before \udfff after",
    "long": "x" * 2_000_000,
    "empty": "",
}


class FinishingContract(StoreHooks):
    """What the holder of an item may do with it."""

    def test_success(self, store: OutboxStore) -> None:
        """A finished item is COMPLETED, and nobody gets it again."""
        item_id = store.enqueue("k")
        self.claim_one(store)
        store.mark_success(item_id, "worker")
        item = self.see(store, item_id)
        assert item.status is ItemStatus.COMPLETED
        assert item.completed_at is not None
        assert item.lease_expires_at is None
        assert store.claim_batch("worker") == []

    def test_failure(self, store: OutboxStore) -> None:
        """An item that is given up is FAILED with its error, whatever attempts were left."""
        item_id = store.enqueue("k", max_attempts=5)
        self.claim_one(store)
        store.mark_failed(item_id, "worker", "NOT_FOUND", "no such channel")
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.FAILED, 1)
        assert (item.last_error_code, item.last_error) == ("NOT_FOUND", "no such channel")
        assert item.completed_at is not None
        assert store.claim_batch("worker") == []

    def test_retry_after_a_delay(self, store: OutboxStore, clock: FakeClock) -> None:
        """A retried item waits as RETRY with its error, and runs again once due."""
        self.need("clock")
        item_id = store.enqueue("k")
        for delay in (30.0, timedelta(seconds=30), clock() + timedelta(seconds=90)):
            self.claim_one(store)
            store.mark_retry(item_id, "worker", delay, "UNAVAILABLE", "try later")
            item = self.see(store, item_id)
            assert (item.status, item.last_error_code) == (ItemStatus.RETRY, "UNAVAILABLE")
            assert (item.lease_owner, item.lease_expires_at, item.completed_at) == (
                None,
                None,
                None,
            )
            clock.advance(29)
            assert store.claim_batch("worker") == []
            clock.advance(1)
        assert self.claim_one(store).attempt_count == 4

    def test_retry_of_the_last_attempt_fails(self, store: OutboxStore) -> None:
        """An item whose attempts are spent is FAILED, and not tried again."""
        item_id = store.enqueue("k", max_attempts=2)
        for expected in (ItemStatus.RETRY, ItemStatus.FAILED):
            self.claim_one(store)
            store.mark_retry(item_id, "worker", 0, "UNAVAILABLE", "down")
            assert self.statuses(store, [item_id]) == [expected]
        assert store.claim_batch("worker") == []
        assert self.see(store, item_id).last_error == "down"

    @pytest.mark.parametrize("name", ERROR_TEXTS)
    @pytest.mark.parametrize("finish", ["mark_retry", "mark_failed"])
    def test_no_error_text_blocks_finishing(
        self, store: OutboxStore, name: str, finish: str
    ) -> None:
        """Whatever an error's text holds, the item is finished with it, or with most of it."""
        item_id = store.enqueue("k", max_attempts=1)
        self.claim_one(store)
        code = "CODE" * 100 + "\x00"
        if finish == "mark_retry":
            store.mark_retry(item_id, "worker", 0, code, ERROR_TEXTS[name])
        else:
            store.mark_failed(item_id, "worker", code, ERROR_TEXTS[name])
        item = self.see(store, item_id)
        assert item.status is ItemStatus.FAILED
        assert (item.last_error or "")[:6] == ERROR_TEXTS[name][:6]

    def test_snooze(self, store: OutboxStore, clock: FakeClock) -> None:
        """A snoozed item waits without spending its attempt, as often as it likes."""
        self.need("clock")
        item_id = store.enqueue("k", max_attempts=1)
        for _ in range(3):
            assert self.claim_one(store).attempt_count == 1
            store.snooze(item_id, "worker", 60)
            assert self.see(store, item_id).attempt_count == 0
            assert store.claim_batch("worker") == []
            clock.advance(60)

    def test_release_spends_no_attempt(self, store: OutboxStore) -> None:
        """Leases that are handed back let others have the items at once, as if never claimed."""
        ids = store.enqueue_many(NewItem("k", max_attempts=1) for _ in range(3))
        store.claim_batch("worker-1")
        assert store.release(ids[1:], "worker-1") == 2
        assert self.statuses(store, ids) == [
            ItemStatus.RUNNING,
            ItemStatus.PENDING,
            ItemStatus.PENDING,
        ]
        again = store.claim_batch("worker-2")
        assert [(item.id, item.attempt_count) for item in again] == [(ids[1], 1), (ids[2], 1)]

    def test_release_of_a_retry(self, store: OutboxStore) -> None:
        """A second attempt that is handed back is still a second attempt."""
        item_id = store.enqueue("k")
        self.claim_one(store)
        store.mark_retry(item_id, "worker", 0, "UNAVAILABLE", "down")
        self.claim_one(store)
        assert store.release([item_id], "worker") == 1
        item = self.see(store, item_id)
        assert (item.status, item.attempt_count) == (ItemStatus.RETRY, 1)
        assert item.last_error == "down"

    def test_release_keeps_the_place(self, store: OutboxStore) -> None:
        """What was handed back goes before what was enqueued after it."""
        first, second = (store.enqueue("k") for _ in range(2))
        assert self.claim_ids(store, limit=1) == [first]
        third = store.enqueue("k")
        assert store.release([first], "worker") == 1
        assert self.claim_ids(store) == [first, second, third]

    def test_outcomes_in_a_group(self, store: OutboxStore) -> None:
        """Different outcomes of many items are recorded together."""
        ids = store.enqueue_many(NewItem("k") for _ in range(5))
        store.claim_batch("worker")
        lost = store.acknowledge(
            "worker",
            [
                Outcome(ids[0]),
                Outcome(ids[1], ItemStatus.FAILED, error_code="INTERNAL", error="broke"),
                Outcome(ids[2], ItemStatus.RETRY, 60.0, "UNAVAILABLE", "down"),
                Outcome(ids[3], ItemStatus.PENDING),
                Outcome(ids[4]),
            ],
        )
        assert lost == set()
        assert self.statuses(store, ids) == [
            ItemStatus.COMPLETED,
            ItemStatus.FAILED,
            ItemStatus.RETRY,
            ItemStatus.PENDING,
            ItemStatus.COMPLETED,
        ]

    def test_nothing_to_acknowledge(self, store: OutboxStore) -> None:
        """An empty group is no error."""
        assert store.acknowledge("worker", []) == set()
        assert store.extend([], "worker") == set()
        assert store.release([], "worker") == 0

    def test_success_in_the_hosts_transaction(self, store: OutboxStore) -> None:
        """OutcomeRecorded with the handler's writes, an item is finished exactly if they commit."""
        self.need("transactions")
        item_id = store.enqueue("k")
        self.claim_one(store)
        with pytest.raises(ZeroDivisionError), self.transaction(store) as transaction:
            store.enqueue("written by the handler", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
            raise ZeroDivisionError
        assert self.statuses(store, [item_id]) == [ItemStatus.RUNNING]
        with self.transaction(store) as transaction:
            written = store.enqueue("written by the handler", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
        assert self.statuses(store, [item_id, written]) == [
            ItemStatus.COMPLETED,
            ItemStatus.PENDING,
        ]

    def test_lost_lease_leaves_the_transaction_to_roll_back(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """A handler that lost its lease can't commit: the error rolls its writes back."""
        self.need("transactions", "clock")
        item_id = store.enqueue("k")
        self.claim_one(store)
        self.expire(store, clock)
        with pytest.raises(LeaseLostError), self.transaction(store) as transaction:
            written = store.enqueue("written by a zombie", transaction=transaction)
            store.mark_success(item_id, "worker", transaction=transaction)
        assert store.get(written) is None


class FencingContract(StoreHooks):
    """Who may not finish an item."""

    def test_only_the_holder_finishes(self, store: OutboxStore) -> None:
        """A worker that never had the item, or no item at all, loses."""
        item_id = store.enqueue("k")
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker-1")
        self.claim_one(store, "worker-1")
        for call in (store.mark_success, store.mark_failed):
            with pytest.raises(LeaseLostError):
                call(item_id, "worker-2")
            with pytest.raises(LeaseLostError):
                call(UNKNOWN_ID, "worker-1")
        assert store.release([item_id], "worker-2") == 0
        assert store.extend([item_id], "worker-2") == {item_id}
        assert self.statuses(store, [item_id]) == [ItemStatus.RUNNING]
        store.mark_success(item_id, "worker-1")

    def test_reused_worker_name_is_no_key(self, store: OutboxStore, clock: FakeClock) -> None:
        """A worker that lost its lease can't finish the item of a new holder with the same name."""
        self.need("clock")
        new_process = self.another(store)
        item_id = store.enqueue("k")
        self.claim_one(store, "worker-1")
        self.expire(store, clock)
        self.claim_one(new_process, "worker-1")
        calls: tuple[Callable[[], None], ...] = (
            lambda: store.mark_success(item_id, "worker-1"),
            lambda: store.mark_retry(item_id, "worker-1", 0),
            lambda: store.mark_failed(item_id, "worker-1"),
            lambda: store.snooze(item_id, "worker-1", 0),
        )
        for late in calls:
            with pytest.raises(LeaseLostError):
                late()
        assert store.extend([item_id], "worker-1") == {item_id}
        assert store.release([item_id], "worker-1") == 0
        assert self.see(store, item_id).status is ItemStatus.RUNNING
        new_process.mark_success(item_id, "worker-1")

    def test_token_of_an_earlier_claim_is_no_key(self, store: OutboxStore) -> None:
        """The token says which claim is meant, within one store too."""
        item_id = store.enqueue("k")
        old = self.claim_one(store).lease_token
        store.mark_retry(item_id, "worker", 0)
        new = self.claim_one(store).lease_token
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker", token=old)
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker", token=UNKNOWN_ID)
        store.mark_success(item_id, "worker", token=new)

    def test_token_is_enough_in_another_process(self, store: OutboxStore) -> None:
        """Whoever has the claim's token can finish the item through any store."""
        item_id = store.enqueue("k")
        token = self.claim_one(store).lease_token
        self.another(store).mark_success(item_id, "worker", token=token)
        assert self.statuses(store, [item_id]) == [ItemStatus.COMPLETED]

    def test_repeated_acknowledgement_is_no_error(self, store: OutboxStore) -> None:
        """A caller that never heard of its commit may say the same again, and changes nothing."""
        done, failed = store.enqueue("k"), store.enqueue("k", max_attempts=1)
        tokens = {item.id: item.lease_token for item in store.claim_batch("worker")}
        for _ in range(3):
            store.mark_success(done, "worker", token=tokens[done])
            store.mark_retry(failed, "worker", 0, "INTERNAL", "once", token=tokens[failed])
            outcomes = [Outcome(done, token=tokens[done])]
            assert store.acknowledge("worker", outcomes) == set()
        assert self.statuses(store, [done, failed]) == [ItemStatus.COMPLETED, ItemStatus.FAILED]

    def test_finished_items_stay_as_they_are(self, store: OutboxStore) -> None:
        """A different outcome after the first one is lost, even with the right token."""
        done, failed = store.enqueue("k"), store.enqueue("k")
        tokens = {item.id: item.lease_token for item in store.claim_batch("worker")}
        store.mark_success(done, "worker", token=tokens[done])
        store.mark_failed(failed, "worker", "INTERNAL", "broke", token=tokens[failed])
        calls: tuple[Callable[[], None], ...] = (
            lambda: store.mark_failed(done, "worker", token=tokens[done]),
            lambda: store.mark_retry(done, "worker", 0, token=tokens[done]),
            lambda: store.mark_success(failed, "worker", token=tokens[failed]),
            lambda: store.mark_retry(failed, "worker", 0, token=tokens[failed]),
        )
        for late in calls:
            with pytest.raises(LeaseLostError):
                late()
        assert store.extend([done, failed], "worker") == {done, failed}
        assert self.statuses(store, [done, failed]) == [ItemStatus.COMPLETED, ItemStatus.FAILED]
        assert store.claim_batch("worker") == []

    def test_one_lost_item_does_not_hold_up_its_group(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """Of a group the lost ones are told, and the others are finished."""
        self.need("clock")
        lost, kept = store.enqueue("k"), store.enqueue("k")
        store.claim_batch("worker", 2)
        clock.advance(store.lease_seconds / 2)
        assert store.extend([kept], "worker") == set()
        clock.advance(store.lease_seconds / 2 + 1)
        assert [item.id for item in store.reap().retried] == [lost]
        assert store.acknowledge("worker", [Outcome(lost), Outcome(kept)]) == {lost}
        assert self.statuses(store, [lost, kept]) == [ItemStatus.RETRY, ItemStatus.COMPLETED]
