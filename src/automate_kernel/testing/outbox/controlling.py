"""What operators change in bulk, and how they stop what runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

import pytest

from automate_kernel.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox import BulkAction, ItemStatus, NewItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.finishing import UNKNOWN_ID
from automate_kernel.testing.outbox.hooks import LONG_SECONDS, StoreHooks

__all__ = ["BulkContract", "PageContract", "StoppingContract"]


class PageContract(StoreHooks):
    """Pages, counts and searches by filter."""

    def pages(self, store: OutboxStore, **options: object) -> list[str]:
        """The ids of all pages, one after the other."""
        self.need("control")
        ids: list[str] = []
        after = ""
        for _ in range(50):
            page = store.page(after=after, **options)  # type: ignore[arg-type]
            ids += [item.id for item in page.items]
            after = page.after
            if not after:
                return ids
        raise AssertionError("the pages never end")

    def test_pages_follow_the_index(self, store: OutboxStore, clock: FakeClock) -> None:
        """Each item is on one page, in the order of what is asked for."""
        self.need("control", "clock")
        late, soon = store.enqueue("k", delay=60), store.enqueue("k", delay=30)
        due = store.enqueue_many(NewItem("k") for _ in range(5))
        others = [store.enqueue("a", tenant_id=tenant) for tenant in ("t2", "t1")]
        before = [store.enqueue("a"), store.enqueue("b")]
        everything = [late, soon, *due, *others, *before]
        for limit in (1, 2, 50):
            assert self.pages(store, limit=limit) == everything[::-1]
            ready = self.pages(store, limit=limit, waiting_for="worker")
            assert ready == [before[0], before[1], *due, others[1], others[0]]
            assert self.pages(store, limit=limit, waiting_for="time") == [soon, late]
            of_tenant = {"waiting_for": "worker", "tenant_id": "t1"}
            assert self.pages(store, limit=limit, **of_tenant) == [others[1]]
        assert self.claim_ids(store, limit=50) == [*due, *others, *before]
        assert self.pages(store, status="RUNNING", kind="a") == [*others, before[0]]

    def test_pages_look_on(self, store: OutboxStore) -> None:
        """What no index leads to is found however far away, a bounded stretch at a time."""
        self.need("control")
        wanted = store.enqueue_many([NewItem("rare"), NewItem("rare")])
        store.enqueue_many(NewItem("k") for _ in range(7))
        page = store.page(kind="rare", look=3)
        assert (page.items, page.looked) == ([], 3)
        assert page.after
        assert self.pages(store, kind="rare", look=3) == wanted[::-1]
        assert self.pages(store, kind="rare", look=3, limit=1) == wanted[::-1]
        assert self.pages(store, kind="rare", look=3, waiting_for="worker") == wanted
        page = store.page(kind="rare", look=3, seconds=60)
        assert [item.id for item in page.items] == wanted[::-1]

    def test_pages_without_payloads(self, store: OutboxStore) -> None:
        """Payload and headers, which may be large, are left out on request."""
        self.need("control")
        store.enqueue("k", {"n": 1}, headers={"h": 1})
        (item,) = store.page(payloads=False).items
        assert (item.kind, item.payload, item.headers) == ("k", None, {})

    def test_a_page_of_another_list_is_refused(self, store: OutboxStore) -> None:
        """A place means nothing elsewhere, and nor does what never was one."""
        self.need("control")
        store.enqueue_many(NewItem("k") for _ in range(3))
        after = store.page(limit=1).after
        for place in (after, "nowhere", "\u0000", "W10"):
            with pytest.raises(AutomateError) as caught:
                store.page(after=place, waiting_for="time")
            assert caught.value.code == ErrorCodes.INVALID_ARGUMENT

    def test_filters(self, store: OutboxStore) -> None:
        """Items are found, counted and changed by what they have, and by what they lack."""
        self.need("control", "ordering_keys", "labels")
        first, second = store.enqueue_many(
            NewItem("k", ordering_key="o", tenant_id="t", idempotency_key=str(n)) for n in range(2)
        )
        labelled = store.enqueue("k", labels={"order": 4711})
        failed = store.enqueue("bad", max_attempts=1)
        assert len(store.claim_batch("worker")) == 3
        store.mark_failed(failed, "worker", "DOWN")
        for matching, found in (
            ({"waiting_for": "key"}, [second]),
            ({"waiting_for": ["key", "resume"], "tenant_id": "t"}, [second]),
            ({"waiting_for": "key", "tenant_id": ""}, []),
            ({"ordering_key": "o", "tenant_id": "t"}, [second, first]),
            ({"ordering_key": "o"}, []),
            ({"idempotency_key": "0", "tenant_id": "t"}, [first]),
            ({"label": "order=4711"}, [labelled]),
            ({"label": "4711", "status": "FAILED"}, []),
            ({"error_code": "DOWN"}, [failed]),
            ({"error_code": "", "tenant_id": ""}, [labelled]),
            ({"error_group": "", "status": "FAILED"}, []),
            ({"ids": [first, UNKNOWN_ID, "no id"]}, [first]),
            ({"ids": []}, []),
        ):
            assert [item.id for item in store.find(**matching)] == found, matching
            assert self.pages(store, **matching) == found, matching
            assert store.count(**matching) == len(found), matching
        assert store.count() == 4
        assert store.count(most=3) == 3
        with pytest.raises(TypeError):
            store.count(colour="red")  # type: ignore[call-arg]
        assert store.cancel_matching(waiting_for="key") == 1
        assert store.requeue_matching(label="order=4711") == 0
        assert self.statuses(store, [second]) == [ItemStatus.CANCELLED]


class BulkContract(StoreHooks):
    """Items by filter; due times; discarding."""

    def some_failed(self, store: OutboxStore, count: int, **options: object) -> list[str]:
        """So many items that are FAILED."""
        self.need("control")
        ids = store.enqueue_many(NewItem("k", **options) for _ in range(count))  # type: ignore[arg-type]
        while items := store.claim_batch("worker", count):
            for item in items:
                store.mark_failed(item.id, "worker", "DOWN", "the service is down")
        return ids

    def test_requeue_what_matches(self, store: OutboxStore) -> None:
        """All that fits every condition waits again, and nothing else does."""
        ids = self.some_failed(store, 3, tenant_id="t1")
        others = self.some_failed(store, 2, tenant_id="t2")
        assert store.requeue_matching(error_code="OTHER") == 0
        assert store.requeue_matching(kind="other", status="FAILED") == 0
        assert store.requeue_matching(kind="k", tenant_id="t1", error_code="DOWN", limit=2) == 2
        assert self.statuses(store, ids) == [*[ItemStatus.PENDING] * 2, ItemStatus.FAILED]
        assert store.requeue_matching(status="FAILED") == 3
        assert self.statuses(store, others) == [ItemStatus.PENDING] * 2
        assert {item.attempt_count for item in store.claim_batch("worker")} == {1}

    def test_requeue_by_time(self, store: OutboxStore, clock: FakeClock) -> None:
        """Items are told apart by when they were enqueued."""
        self.need("clock")
        old = self.some_failed(store, 1)
        clock.advance(60)
        noon = clock()
        new = self.some_failed(store, 1)
        assert store.requeue_matching(created_after=noon + timedelta(seconds=1)) == 0
        assert store.requeue_matching(created_before=noon) == 1
        assert self.statuses(store, [*old, *new]) == [ItemStatus.PENDING, ItemStatus.FAILED]
        assert store.requeue_matching(created_after=noon) == 1

    def test_no_filter_is_no_filter_for_all(self, store: OutboxStore) -> None:
        """Who names nothing is refused: everything is named by its status."""
        ids = self.some_failed(store, 1)
        for change in (store.requeue_matching, store.cancel_matching, store.discard_matching):
            with pytest.raises(AutomateError) as caught:
                change()
            assert caught.value.code == ErrorCodes.INVALID_ARGUMENT
        for change, status in (
            (store.requeue_matching, "RUNNING"),
            (store.cancel_matching, "COMPLETED"),
            (store.discard_matching, "PENDING"),
        ):
            with pytest.raises(AutomateError):
                change(status=status)
        assert self.statuses(store, ids) == [ItemStatus.FAILED]

    def test_requeue_at_a_rate(self, store: OutboxStore, clock: FakeClock) -> None:
        """So many become due in a second, in the order in which they were enqueued."""
        self.need("clock")
        ids = self.some_failed(store, 10)
        assert store.requeue_matching(status="FAILED", per_second=2) == 10
        due = [self.see(store, item_id).next_attempt_at for item_id in ids]
        assert [(at - clock()).total_seconds() for at in due] == [n / 2 for n in range(10)]
        assert self.claim_ids(store) == ids[:1]
        clock.advance(2)
        assert self.claim_ids(store) == ids[1:5]

    def test_many_are_changed_in_batches(self, store: OutboxStore) -> None:
        """However many they are, each is changed once, and progress is told."""
        ids = self.some_failed(store, 450)
        told: list[int] = []
        assert store.requeue_matching(kind="k", per_second=1000, progress=told.append) == 450
        assert told == sorted(told)
        assert told[-1] == 450
        assert len(told) > 1
        waiting = [self.see(store, item_id) for item_id in ids]
        assert [item.next_attempt_at for item in waiting] == sorted(
            item.next_attempt_at for item in waiting
        )
        assert store.cancel_matching(kind="k") == 450
        assert store.discard_matching(status="CANCELLED") == 450
        assert store.find() == []

    def test_a_bulk_action_is_gone_on_with(self, store: OutboxStore, clock: FakeClock) -> None:
        """It comes to each item once, at its rate, in however many goes."""
        self.need("clock")
        ids = self.some_failed(store, 450)
        action = BulkAction("requeue", {"status": "FAILED"}, per_second=100)
        goes = 0
        while not action.finished:
            action = BulkAction(**json.loads(json.dumps(asdict(action))))
            action = self.another(store).run_bulk(action, seconds=0)
            goes += 1
            clock.advance(0.001)
        assert (action.seen, action.done) == (450, 450)
        assert goes > 1
        due = [self.see(store, item_id).next_attempt_at for item_id in ids]
        assert due == sorted(due)
        assert (due[-1] - due[0]).total_seconds() == pytest.approx(4.4)
        again = BulkAction("cancel", {"kind": "k"}, began_at=action.began_at)
        assert store.run_bulk(again, limit=300).done == 300
        with pytest.raises(AutomateError):
            store.run_bulk(BulkAction("explode", {"kind": "k"}))

    def test_reschedule_what_matches(self, store: OutboxStore) -> None:
        """What waits is put off."""
        self.need("control")
        store.enqueue_many(NewItem("k") for _ in range(3))
        action = store.run_bulk(BulkAction("reschedule", {"kind": "k"}, delay=60))
        assert (action.done, action.finished) == (3, True)
        assert store.count(waiting_for="time") == 3

    def test_cancel_what_matches(self, store: OutboxStore) -> None:
        """What waits is cancelled; what runs only where that is said."""
        self.need("control")
        ids = store.enqueue_many(NewItem("k") for _ in range(3))
        assert self.claim_ids(store, limit=1) == ids[:1]
        other = store.enqueue("other")
        assert store.cancel_matching(kind="k", limit=1) == 1
        assert store.cancel_matching(kind="k") == 1
        assert [str(status) for status in self.statuses(store, [*ids, other])] == [
            "RUNNING",
            "CANCELLED",
            "CANCELLED",
            "PENDING",
        ]
        assert store.cancel_matching(status="RUNNING") == 1
        assert store.stop_requests("worker").keys() == {ids[0]}

    def test_cancelling_in_bulk_lets_the_next_of_a_key_go(self, store: OutboxStore) -> None:
        """Items of other kinds that wait behind cancelled ones run."""
        self.need("control", "ordering_keys")
        store.enqueue("bad", ordering_key="a")
        store.enqueue("bad", ordering_key="b")
        good = store.enqueue_many(NewItem("good", ordering_key=key) for key in "ab")
        assert store.claim_batch("worker", kinds=["good"]) == []
        assert store.cancel_matching(kind="bad") == 2
        assert sorted(self.claim_ids(store)) == sorted(good)

    def test_discard(self, store: OutboxStore) -> None:
        """What is finished can be deleted; what waits or runs can't."""
        self.need("control")
        done, failed, running, waiting = store.enqueue_many(NewItem("k") for _ in range(4))
        store.claim_batch("worker", 3)
        store.mark_success(done, "worker")
        store.mark_failed(failed, "worker")
        assert store.discard([done, failed, running, waiting, UNKNOWN_ID, "no id"]) == 2
        assert [item.id for item in store.find()] == [waiting, running]

    def test_discard_what_matches_spares_successes(self, store: OutboxStore) -> None:
        """Without a status what failed or was cancelled is meant."""
        self.need("control")
        done = store.enqueue("k")
        self.claim_one(store)
        store.mark_success(done, "worker")
        self.some_failed(store, 1)
        store.cancel([store.enqueue("k")])
        assert store.discard_matching(kind="k") == 2
        assert [item.id for item in store.find()] == [done]
        assert store.discard_matching(status="COMPLETED") == 1

    def test_reschedule(self, store: OutboxStore, clock: FakeClock) -> None:
        """What waits is due at the new time, sooner or later, and keeps its priority."""
        self.need("control", "clock")
        soon, late = store.enqueue("k", priority=3), store.enqueue("k", delay=3600)
        assert store.reschedule([soon], delay=60) == 1
        assert store.reschedule([late, UNKNOWN_ID], run_at=clock() + timedelta(seconds=90)) == 1
        assert self.claim_ids(store) == []
        clock.advance(60)
        assert self.claim_ids(store) == [soon]
        clock.advance(30)
        assert self.claim_ids(store) == [late]
        assert store.reschedule([soon]) == 0
        with pytest.raises(AutomateError):
            store.reschedule([soon], run_at=clock().replace(tzinfo=None))

    def test_reschedule_of_a_paused_or_waiting_key(
        self, store: OutboxStore, clock: FakeClock
    ) -> None:
        """A new due time lets nothing jump its line or run in a paused kind."""
        self.need("control", "clock", "ordering_keys")
        first, second = store.enqueue_many(NewItem("k", ordering_key="key") for _ in range(2))
        store.pause("paused")
        paused = store.enqueue("paused")
        assert self.claim_ids(store) == [first]
        assert store.reschedule([second, paused], delay=0) == 2
        assert self.claim_ids(store) == []
        assert store.reschedule([paused], delay=60) == 1
        store.resume("paused")
        assert self.claim_ids(store) == []
        store.mark_success(first, "worker")
        assert self.claim_ids(store) == [second]
        clock.advance(60)
        assert self.claim_ids(store) == [paused]


class StoppingContract(StoreHooks):
    """Cancelling an item that runs."""

    def asked(self, store: OutboxStore, **options: object) -> tuple[str, str]:
        """An item that runs and is asked to stop, and its claim's token."""
        self.need("control")
        item_id = store.enqueue("k", **options)  # type: ignore[arg-type]
        token = self.claim_one(store).lease_token
        assert store.cancel([item_id]) == 1
        assert token is not None
        return item_id, token

    def test_a_running_item_is_asked_to_stop(self, store: OutboxStore) -> None:
        """It runs on until its worker, and no other, has heard of it; asking twice is nothing."""
        item_id, token = self.asked(store)
        assert self.statuses(store, [item_id]) == [ItemStatus.RUNNING]
        assert store.stop_requests("another") == {}
        assert self.another(store).stop_requests("worker") == {item_id: token}
        assert store.cancel([item_id]) == 0
        assert store.extend([item_id], "worker") == set()
        assert store.acknowledge("worker", [Outcome(item_id, ItemStatus.CANCELLED)]) == set()
        item = self.see(store, item_id)
        assert (item.status, item.waiting_for) == (ItemStatus.CANCELLED, None)
        assert (item.lease_expires_at, item.completed_at is not None) == (None, True)
        assert store.stop_requests("worker") == {}
        assert store.claim_batch("worker") == []

    def test_success_stands(self, store: OutboxStore) -> None:
        """A handler that finishes first has finished."""
        item_id, _ = self.asked(store)
        store.mark_success(item_id, "worker")
        item = self.see(store, item_id)
        assert (item.status, item.waiting_for) == (ItemStatus.COMPLETED, None)
        assert store.stop_requests("worker") == {}

    def test_failure_stands(self, store: OutboxStore) -> None:
        """One that is given up is FAILED."""
        item_id, _ = self.asked(store)
        store.mark_failed(item_id, "worker", "BAD", "it can't be done")
        assert self.statuses(store, [item_id]) == [ItemStatus.FAILED]

    @pytest.mark.parametrize("max_attempts", [1, 3])
    @pytest.mark.parametrize("status", [ItemStatus.RETRY, ItemStatus.PENDING])
    def test_it_does_not_wait_again(
        self, store: OutboxStore, status: ItemStatus, max_attempts: int
    ) -> None:
        """What would have been a retry, or handed back, is CANCELLED; saying it twice is fine."""
        item_id, token = self.asked(store, max_attempts=max_attempts)
        outcome = Outcome(item_id, status, 0.0, "DOWN", "the service is down", token)
        for _ in range(2):
            assert store.acknowledge("worker", [outcome]) == set()
            assert self.statuses(store, [item_id]) == [ItemStatus.CANCELLED]
        assert self.see(store, item_id).last_error == "the service is down"
        assert store.claim_batch("worker") == []

    def test_dead_worker(self, store: OutboxStore, clock: FakeClock) -> None:
        """If its worker dies it is not tried again, whatever attempts are left."""
        self.need("clock")
        item_id, token = self.asked(store)
        clock.advance(store.lease_seconds + 1)
        result = store.reap()
        assert [item.id for item in result.cancelled] == [item_id]
        assert (result.retried, result.failed) == ([], [])
        assert self.statuses(store, [item_id]) == [ItemStatus.CANCELLED]
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker", token=token)
        clock.advance(LONG_SECONDS)
        assert store.claim_batch("worker") == []

    def test_its_keys_stay_taken(self, store: OutboxStore) -> None:
        """While it may still run, its idempotency key and its place in a line are its own."""
        self.need("ordering_keys")
        item_id, _ = self.asked(store, idempotency_key="once", ordering_key="key")
        following = store.enqueue("k", ordering_key="key")
        assert store.enqueue("k", idempotency_key="once") == item_id
        assert self.claim_ids(store) == []
        store.acknowledge("worker", [Outcome(item_id, ItemStatus.CANCELLED)])
        assert store.enqueue("k", idempotency_key="once") == item_id
        assert self.claim_ids(store) == [following]

    def test_a_cancelled_item_can_be_requeued(self, store: OutboxStore) -> None:
        """It starts anew, and nobody asks the new run to stop."""
        item_id, token = self.asked(store)
        store.acknowledge("worker", [Outcome(item_id, ItemStatus.CANCELLED)])
        assert store.requeue([item_id]) == 1
        again = self.claim_one(store)
        assert (again.id, again.attempt_count) == (item_id, 1)
        assert store.stop_requests("worker") == {}
        with pytest.raises(LeaseLostError):
            store.mark_success(item_id, "worker", token=token)
        store.mark_success(item_id, "worker")

    def test_lost_claims_cancel_nothing(self, store: OutboxStore, clock: FakeClock) -> None:
        """Only the claim that holds the item can say that it has stopped."""
        self.need("clock")
        item_id = store.enqueue("k")
        token = self.claim_one(store).lease_token
        self.expire(store, clock)
        self.claim_one(store, "worker-2")
        late = Outcome(item_id, ItemStatus.CANCELLED, token=token)
        assert store.acknowledge("worker", [late]) == {item_id}
        assert self.statuses(store, [item_id]) == [ItemStatus.RUNNING]
