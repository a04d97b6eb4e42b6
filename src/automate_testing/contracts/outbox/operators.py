"""Operators' commands: find, cancel, requeue, discard, pause, stop; and retention."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.outbox import (
    BulkAction,
    ItemStatus,
    NewItem,
    OutboxItem,
    OutboxStore,
    Outcome,
    controls_of,
)
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox.hooks import (
    LONG_SECONDS,
    UNKNOWN_ID,
    ControlledStore,
    StoreHooks,
)


class OperatorContract(StoreHooks):
    """Tests of finding, cancelling, requeueing, purging and pausing."""

    def one_of_each(self, store: OutboxStore) -> dict[str, str]:
        """Make an item in every state: PENDING, RUNNING, RETRY, COMPLETED, FAILED, CANCELLED."""
        names = ("RUNNING", "RETRY", "COMPLETED", "FAILED")
        ids = {name: store.enqueue("k", name) for name in names}
        store.claim_batch("worker")
        store.mark_retry(ids["RETRY"], "worker", 3600)
        store.mark_success(ids["COMPLETED"], "worker")
        store.mark_failed(ids["FAILED"], "worker", "INTERNAL", "broke")
        ids["PENDING"] = store.enqueue("k", "PENDING")
        ids["CANCELLED"] = store.enqueue("k", "CANCELLED")
        assert store.cancel([ids["CANCELLED"]]) == 1
        return ids

    def test_unknown_item(self, store: OutboxStore) -> None:
        """A missing item is None, or not counted, whatever its id looks like."""
        for item_id in (UNKNOWN_ID, "no id at all", ""):
            assert store.get(item_id) is None
        assert store.cancel([UNKNOWN_ID]) == store.requeue([UNKNOWN_ID]) == 0
        assert store.cancel([]) == store.requeue([]) == 0

    def test_recall(self, store: OutboxStore) -> None:
        """Items that wait are due now; those that are finished stay so."""
        ids = self.one_of_each(store)
        later = store.enqueue("k", "LATER", delay=LONG_SECONDS)
        assert store.request_release([later, ids["COMPLETED"], UNKNOWN_ID]) <= 1
        item = store.get(later)
        assert item is not None
        if store.request_release([later]):
            assert item.waiting_for == "worker"
        finished = store.get(ids["COMPLETED"])
        assert finished is not None
        assert finished.status is ItemStatus.COMPLETED

    def test_find(self, store: OutboxStore) -> None:
        """Items are found by state, kind and tenant, the newest first."""
        wanted = [("a", "x"), ("b", "x"), ("a", "y"), ("a", None)]
        ids = store.enqueue_many(NewItem(kind, tenant_id=tenant) for kind, tenant in wanted)
        store.claim_batch("worker", 1)
        assert [item.id for item in store.find()] == ids[::-1]
        assert [item.id for item in store.find(limit=2)] == [ids[3], ids[2]]
        assert [item.id for item in store.find(limit=2, before_id=ids[2])] == [ids[1], ids[0]]
        assert [item.id for item in store.find(kind="a")] == [ids[3], ids[2], ids[0]]
        assert [item.id for item in store.find(tenant_id="x")] == [ids[1], ids[0]]
        assert [item.id for item in store.find(status="RUNNING")] == [ids[0]]
        pending = store.find(status=ItemStatus.PENDING, kind="a")
        assert [item.id for item in pending] == [ids[3], ids[2]]

    def test_running(self, store: OutboxStore, clock: FakeClock) -> None:
        """Leased items are listed with their workers, the oldest claim first."""
        first, second = store.enqueue_many([NewItem("k")] * 2)
        assert store.running() == []
        assert self.claim_ids(store, "one", 1) == [first]
        if self.supports_clock:
            clock.advance(1)
        assert self.claim_ids(store, "two", 1) == [second]
        store.enqueue("k")
        found = {item.id: item.lease_owner for item in store.running()}
        assert found == {first: "one", second: "two"}
        assert len(store.running(limit=1)) == 1
        store.mark_success(first, "one")
        assert [item.id for item in store.running()] == [second]

    def test_stats(self, store: OutboxStore) -> None:
        """Counts per kind and state."""
        self.one_of_each(store)
        store.enqueue("other")
        stats = store.stats()
        assert stats.counts == {"k": {str(s): 1 for s in ItemStatus}, "other": {"PENDING": 1}}
        assert stats.total(ItemStatus.PENDING) == 2

    def test_lateness(self, store: OutboxStore, time: FakeClock) -> None:
        """Lateness is the wait of the oldest due item; None if nothing is due."""
        assert store.stats().oldest_due_seconds is None
        store.enqueue("k", delay=10)
        assert store.stats().oldest_due_seconds is None
        time.advance(25)
        assert store.stats().oldest_due_seconds == pytest.approx(15)
        self.claim_one(store)
        assert store.stats().oldest_due_seconds is None

    def test_cancel(self, store: OutboxStore) -> None:
        """A waiting item is cancelled, a finished one stays; a worker must stop a running one."""
        ids = self.one_of_each(store)
        assert store.cancel([ids[name] for name in ids if name != "RUNNING"]) == 2
        changed = {"PENDING": "CANCELLED", "RETRY": "CANCELLED"}
        assert self.statuses(store, ids.values()) == [changed.get(name, name) for name in ids]
        assert store.claim_batch("worker") == []
        assert self.see(store, ids["PENDING"]).completed_at is not None

    def test_requeue_failed_and_cancelled_items_only(self, store: OutboxStore) -> None:
        """A failed or cancelled item starts again with all its attempts; the others stay."""
        ids = self.one_of_each(store)
        store.cancel([ids["PENDING"]])
        assert store.requeue(list(ids.values())) == 3
        again = store.claim_batch("worker-2")
        assert {item.payload for item in again} == {"PENDING", "FAILED", "CANCELLED"}
        assert {item.attempt_count for item in again} == {1}
        assert {item.completed_at for item in again} == {None}
        assert self.statuses(store, [ids["COMPLETED"]]) == ["COMPLETED"]

    def test_requeue_shuts_out_the_old_claim(self, store: OutboxStore) -> None:
        """The token of a claim before the requeue finishes nothing after it."""
        old = self.claimed(store, max_attempts=1)
        store.mark_failed(old.id, "worker", token=old.lease_token)
        store.requeue([old.id])
        self.loses(store.mark_failed, old.id, "worker", token=old.lease_token)
        self.take_turns(store, old.id)

    def test_purge(self, store: OutboxStore, time: FakeClock) -> None:
        """Finished items go once they are old enough; waiting and running items never do."""
        ids = self.one_of_each(store)
        time.advance(100)
        assert store.purge(older_than_seconds=101) == 0
        assert store.purge(older_than_seconds=99, limit=2) == 2
        assert store.purge(older_than_seconds=99) == 1
        left = {name for name, item_id in ids.items() if store.get(item_id)}
        assert left == {"PENDING", "RUNNING", "RETRY"}

    def test_purged_item_frees_its_key(self, store: OutboxStore) -> None:
        """An idempotency key may be used again once its item is purged."""
        first = store.enqueue("k", idempotency_key="key")
        store.cancel([first])
        assert store.purge(older_than_seconds=0) == 1
        assert store.enqueue("k", idempotency_key="key") != first

    def test_pause_and_resume(self, store: OutboxStore) -> None:
        """A paused kind is not claimed, the others are; after the resumption all is."""
        before = store.enqueue("slow")
        store.pause("slow", "the service is down")
        store.pause("slow")
        after, other = store.enqueue("slow"), store.enqueue("fast")
        assert store.stats().paused == ("slow",)
        assert self.claim_all(store) == [other]
        store.resume("slow")
        assert store.stats().paused == ()
        claimed = store.claim_batch("worker")
        assert [(item.id, item.attempt_count) for item in claimed] == [(before, 1), (after, 1)]

    def test_pause_lets_running_items_finish(self, store: OutboxStore) -> None:
        """A pause takes nothing from a worker."""
        item_id = self.claimed(store).id
        store.pause("k")
        assert store.extend([item_id], "worker") == set()
        store.mark_success(item_id, "worker")

    def test_resume_reaches_a_store_that_has_not_noticed(self, store: OutboxStore) -> None:
        """A worker that still thinks a kind is paused strands none of its items."""
        other = self.another(store)
        store.pause("k")
        item_id = store.enqueue("k")
        assert self.claim_ids(other) == []
        late = store.enqueue("k")
        store.resume("k")
        claimed = self.claim_ids(other)
        assert claimed + self.claim_ids(store) == [item_id, late]

    def test_cancelled_while_paused(self, store: OutboxStore) -> None:
        """An item of a paused kind can be cancelled, and stays so after the resumption."""
        store.pause("k")
        item_id = store.enqueue("k")
        assert store.claim_batch("worker") == []
        assert store.cancel([item_id]) == 1
        store.resume("k")
        assert store.claim_batch("worker") == []
        assert self.statuses(store, [item_id]) == ["CANCELLED"]


class ControlContract(StoreHooks):
    """Tests of pages, changes by filter, due times, discarding, and requests to stop."""

    _needs = ("controls",)

    def pages(self, store: ControlledStore, **options: object) -> list[str]:
        """The ids of all pages, one after the other."""
        ids: list[str] = []
        after = ""
        for _ in range(50):
            page = store.page(after=after, **options)  # type: ignore[arg-type]
            ids += [item.id for item in page.items]
            if not (after := page.after):
                return ids
        raise AssertionError("the pages never end")

    def test_pages_follow_the_index(self, store: ControlledStore, time: FakeClock) -> None:
        """Each item is on one page, in the order of what is asked for."""
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

    def test_pages_look_on(self, store: ControlledStore) -> None:
        """An item that no index leads to is found however far away, a bounded stretch at a time."""
        wanted = store.enqueue_many([NewItem("rare"), NewItem("rare")])
        store.enqueue_many(NewItem("k") for _ in range(7))
        page = store.page(kind="rare", look=3)
        assert (page.items, page.looked, bool(page.after)) == ([], 3, True)
        assert self.pages(store, kind="rare", look=3) == wanted[::-1]
        assert self.pages(store, kind="rare", look=3, limit=1) == wanted[::-1]
        assert self.pages(store, kind="rare", look=3, waiting_for="worker") == wanted
        page = store.page(kind="rare", look=3, seconds=60)
        assert [item.id for item in page.items] == wanted[::-1]

    def test_pages_without_payloads(self, store: ControlledStore) -> None:
        """Payload and headers, which may be large, are left out on request."""
        store.enqueue("k", {"n": 1}, headers={"h": 1})
        (item,) = store.page(payloads=False).items
        assert (item.kind, item.payload, item.headers) == ("k", None, {})

    def test_a_page_of_another_list_is_refused(self, store: ControlledStore) -> None:
        """The place of another list, and any other text, mean nothing."""
        store.enqueue_many(NewItem("k") for _ in range(3))
        after = store.page(limit=1).after
        for place in (after, "nowhere", "\u0000", "W10"):
            self.invalid(store.page, after=place, waiting_for="time")

    def test_filters(self, store: ControlledStore) -> None:
        """Items are found, counted and changed by what they have, and by what they lack."""
        self.need("ordering_keys", "labels")
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
        assert self.statuses(store, [second]) == ["CANCELLED"]

    def some_failed(self, store: ControlledStore, count: int, **options: object) -> list[str]:
        """So many items that are FAILED."""
        ids = store.enqueue_many(NewItem("k", **options) for _ in range(count))  # type: ignore[arg-type]
        while items := store.claim_batch("worker", count):
            outcomes = [
                Outcome(item.id, ItemStatus.FAILED, error_code="DOWN", error="the service is down")
                for item in items
            ]
            assert store.acknowledge("worker", outcomes) == set()
        return ids

    def test_requeue_what_matches(self, store: ControlledStore) -> None:
        """All that fits every condition waits again, and nothing else does."""
        ids = self.some_failed(store, 3, tenant_id="t1")
        others = self.some_failed(store, 2, tenant_id="t2")
        assert store.requeue_matching(error_code="OTHER") == 0
        assert store.requeue_matching(kind="other", status="FAILED") == 0
        assert store.requeue_matching(kind="k", tenant_id="t1", error_code="DOWN", limit=2) == 2
        assert self.statuses(store, ids) == [*["PENDING"] * 2, "FAILED"]
        assert store.requeue_matching(status="FAILED") == 3
        assert self.statuses(store, others) == ["PENDING"] * 2
        assert {item.attempt_count for item in store.claim_batch("worker")} == {1}

    def test_requeue_by_time(self, store: ControlledStore, time: FakeClock) -> None:
        """Items are selected by the time of enqueueing."""
        old = self.some_failed(store, 1)
        time.advance(60)
        noon = time()
        new = self.some_failed(store, 1)
        assert store.requeue_matching(created_after=noon + timedelta(seconds=1)) == 0
        assert store.requeue_matching(created_before=noon) == 1
        assert self.statuses(store, [*old, *new]) == ["PENDING", "FAILED"]
        assert store.requeue_matching(created_after=noon) == 1

    def test_no_filter_is_no_filter_for_all(self, store: ControlledStore) -> None:
        """A change without a filter is refused: a status names everything."""
        ids = self.some_failed(store, 1)
        for change, status in (
            (store.requeue_matching, "RUNNING"),
            (store.cancel_matching, "COMPLETED"),
            (store.discard_matching, "PENDING"),
        ):
            self.invalid(change)
            self.invalid(change, status=status)
        assert self.statuses(store, ids) == ["FAILED"]

    def test_requeue_at_a_rate(self, store: ControlledStore, time: FakeClock) -> None:
        """So many become due in a second, in the order in which they were enqueued."""
        ids = self.some_failed(store, 10)
        assert store.requeue_matching(status="FAILED", per_second=2) == 10
        due = [self.see(store, item_id).next_attempt_at for item_id in ids]
        assert [(at - time()).total_seconds() for at in due] == [n / 2 for n in range(10)]
        assert self.claim_ids(store) == ids[:1]
        time.advance(2)
        assert self.claim_ids(store) == ids[1:5]

    def test_many_are_changed_in_batches(self, store: ControlledStore) -> None:
        """Many items are each changed once, and progress is reported."""
        ids = self.some_failed(store, 450)
        counts: list[int] = []
        assert store.requeue_matching(kind="k", per_second=1000, progress=counts.append) == 450
        assert counts == sorted(counts)
        assert len(counts) > 1 and counts[-1] == 450
        due = [self.see(store, item_id).next_attempt_at for item_id in ids]
        assert due == sorted(due)
        assert store.cancel_matching(kind="k") == 450
        assert store.discard_matching(status="CANCELLED") == 450
        assert store.find() == []

    def test_a_bulk_action_is_gone_on_with(self, store: ControlledStore, time: FakeClock) -> None:
        """It comes to each item once, at its rate, in however many goes."""
        ids = self.some_failed(store, 450)
        action = BulkAction("requeue", {"status": "FAILED"}, per_second=100)
        goes = 0
        while not action.finished:
            action = BulkAction(**json.loads(json.dumps(asdict(action))))
            action = controls_of(self.another(store)).run_bulk(action, seconds=0)
            goes += 1
            time.advance(0.001)
        assert (action.seen, action.done) == (450, 450)
        assert goes > 1
        due = [self.see(store, item_id).next_attempt_at for item_id in ids]
        assert due == sorted(due)
        assert (due[-1] - due[0]).total_seconds() == pytest.approx(4.4)
        again = BulkAction("cancel", {"kind": "k"}, began_at=action.began_at)
        assert store.run_bulk(again, limit=300).done == 300
        self.invalid(store.run_bulk, BulkAction("explode", {"kind": "k"}))

    def test_what_fails_after_a_bulk_action_began_is_not_meant(
        self, store: ControlledStore, time: FakeClock
    ) -> None:
        """Though it was enqueued before; and the rate holds after nobody carried it on."""
        late = store.enqueue("k", max_attempts=1)
        (claimed,) = store.claim_batch("w")
        meant = self.some_failed(store, 2)
        began = BulkAction("requeue", {"status": "FAILED"}, per_second=1)
        action = store.run_bulk(began, limit=1)
        time.advance(600)
        store.acknowledge("w", [Outcome(claimed.id, ItemStatus.FAILED, error="broke")])
        action = controls_of(self.another(store)).run_bulk(replace(action, finished=False))
        assert (action.done, action.late) == (2, 599)
        assert self.see(store, late).status is ItemStatus.FAILED
        assert self.see(store, meant[1]).next_attempt_at == time()

    def test_a_clock_that_is_put_back_holds_no_rate(
        self, store: ControlledStore, time: FakeClock
    ) -> None:
        """The next are due as if the action had just begun."""
        ids = self.some_failed(store, 4)
        action = BulkAction("requeue", {"status": "FAILED"}, per_second=1)
        action = store.run_bulk(action, limit=2)
        time.advance(-3600)
        store.run_bulk(replace(action, finished=False))
        due = [self.see(store, each).next_attempt_at - time() for each in ids]
        assert [at.total_seconds() for at in due] == [3600, 3601, 2, 3]

    def test_reschedule_what_matches(self, store: ControlledStore) -> None:
        """Waiting items are put off."""
        store.enqueue_many(NewItem("k") for _ in range(3))
        action = store.run_bulk(BulkAction("reschedule", {"kind": "k"}, delay=60))
        assert (action.done, action.finished) == (3, True)
        assert store.count(waiting_for="time") == 3

    def test_cancel_what_matches(self, store: ControlledStore) -> None:
        """Waiting items are cancelled; running items only if the status says so."""
        ids = store.enqueue_many(NewItem("k") for _ in range(3))
        assert self.claim_ids(store, limit=1) == ids[:1]
        other = store.enqueue("other")
        assert store.cancel_matching(kind="k", limit=1) == 1
        assert store.cancel_matching(kind="k") == 1
        states = self.statuses(store, [*ids, other])
        assert states == ["RUNNING", "CANCELLED", "CANCELLED", "PENDING"]
        assert store.cancel_matching(status="RUNNING") == 1
        assert store.stop_requests("worker").keys() == {ids[0]}

    def test_cancelling_in_bulk_lets_the_next_of_a_key_go(self, store: ControlledStore) -> None:
        """Items of other kinds that wait behind cancelled items run."""
        self.need("ordering_keys")
        store.enqueue_many(NewItem("bad", ordering_key=key) for key in "ab")
        good = store.enqueue_many(NewItem("good", ordering_key=key) for key in "ab")
        assert store.claim_batch("worker", kinds=["good"]) == []
        assert store.cancel_matching(kind="bad") == 2
        assert sorted(self.claim_ids(store)) == sorted(good)

    def test_discard(self, store: ControlledStore) -> None:
        """Finished items can be deleted; waiting and running items can't."""
        done, failed, running, waiting = store.enqueue_many(NewItem("k") for _ in range(4))
        store.claim_batch("worker", 3)
        store.mark_success(done, "worker")
        store.mark_failed(failed, "worker")
        assert store.discard([done, failed, running, waiting, UNKNOWN_ID, "no id"]) == 2
        assert [item.id for item in store.find()] == [waiting, running]

    def test_discard_what_matches_spares_successes(self, store: ControlledStore) -> None:
        """Without a status failed and cancelled items are meant."""
        done = store.enqueue("k")
        self.take_turns(store, done)
        self.some_failed(store, 1)
        store.cancel([store.enqueue("k")])
        assert store.discard_matching(kind="k") == 2
        assert [item.id for item in store.find()] == [done]
        assert store.discard_matching(status="COMPLETED") == 1

    def test_reschedule(self, store: ControlledStore, time: FakeClock) -> None:
        """A waiting item is due at the new time, sooner or later, and keeps its priority."""
        soon, late = store.enqueue("k", priority=3), store.enqueue("k", delay=3600)
        assert store.reschedule([soon], delay=60) == 1
        assert store.reschedule([late, UNKNOWN_ID], run_at=time() + timedelta(seconds=90)) == 1
        for wait, due in ((0, []), (60, [soon]), (30, [late])):
            time.advance(wait)
            assert self.claim_ids(store) == due
        assert store.reschedule([soon]) == 0
        self.invalid(store.reschedule, [soon], run_at=time().replace(tzinfo=None))

    def test_reschedule_jumps_no_line(self, store: ControlledStore, time: FakeClock) -> None:
        """A new due time lets nothing jump its line or run in a paused kind."""
        self.need("ordering_keys")
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
        self.take_turns(store, second)
        time.advance(60)
        self.take_turns(store, paused)

    # Cancelling an item that runs.

    def asked(self, store: ControlledStore, **options: Any) -> OutboxItem:
        """Ask a running item to stop, and return it as it was claimed."""
        item = self.claimed(store, **options)
        assert store.cancel([item.id]) == 1
        return item

    def test_a_running_item_is_asked_to_stop(self, store: ControlledStore) -> None:
        """The item runs on until its worker gets the request; asking twice changes nothing."""
        item = self.asked(store)
        assert self.statuses(store, [item.id]) == ["RUNNING"]
        assert store.stop_requests("another") == {}
        assert self.another(store).stop_requests("worker") == {item.id: item.lease_token}
        assert store.cancel([item.id]) == 0
        assert store.extend([item.id], "worker") == set()
        assert store.acknowledge("worker", [Outcome(item.id, ItemStatus.CANCELLED)]) == set()
        ended = self.see(store, item.id)
        assert (ended.status, ended.waiting_for) == (ItemStatus.CANCELLED, None)
        assert (ended.lease_expires_at, ended.completed_at is not None) == (None, True)
        assert store.stop_requests("worker") == {}
        assert store.claim_batch("worker") == []

    def test_one_that_is_asked_to_stop_does_not_wait_with_the_others(
        self, store: ControlledStore
    ) -> None:
        """Put back together with others, it is CANCELLED alone."""
        ids = store.enqueue_many(NewItem("k") for _ in range(3))
        store.claim_batch("worker")
        assert store.cancel([ids[1]]) == 1
        assert store.acknowledge("worker", [Outcome(i, ItemStatus.PENDING) for i in ids]) == set()
        assert self.statuses(store, ids) == ["PENDING", "CANCELLED", "PENDING"]

    @pytest.mark.parametrize("status", [ItemStatus.COMPLETED, ItemStatus.FAILED])
    def test_an_end_stands(self, store: ControlledStore, status: ItemStatus) -> None:
        """If its handler finishes first, the item is COMPLETED; if it gives up, FAILED."""
        item = self.asked(store)
        assert store.acknowledge("worker", [Outcome(item.id, status)]) == set()
        ended = self.see(store, item.id)
        assert (ended.status, ended.waiting_for) == (status, None)
        assert store.stop_requests("worker") == {}

    @pytest.mark.parametrize("max_attempts", [1, 3])
    @pytest.mark.parametrize("status", [ItemStatus.RETRY, ItemStatus.PENDING])
    def test_it_does_not_wait_again(
        self, store: ControlledStore, status: ItemStatus, max_attempts: int
    ) -> None:
        """A retry or a release becomes CANCELLED; a repeated outcome is fine."""
        item = self.asked(store, max_attempts=max_attempts)
        outcome = Outcome(item.id, status, 0.0, "DOWN", "the service is down", item.lease_token)
        for _ in range(2):
            assert store.acknowledge("worker", [outcome]) == set()
            assert self.statuses(store, [item.id]) == ["CANCELLED"]
        assert self.see(store, item.id).last_error == "the service is down"
        assert store.claim_batch("worker") == []

    def test_dead_worker(self, store: ControlledStore, time: FakeClock) -> None:
        """If its worker dies it is not tried again, whatever attempts are left."""
        item = self.asked(store)
        result = self.lapse(store, time)
        assert [one.id for one in result.cancelled] == [item.id]
        assert (result.retried, result.failed) == ([], [])
        assert self.statuses(store, [item.id]) == ["CANCELLED"]
        self.loses(store.mark_success, item.id, "worker", token=item.lease_token)
        time.advance(LONG_SECONDS)
        assert store.claim_batch("worker") == []

    def test_its_keys_stay_taken(self, store: ControlledStore) -> None:
        """While it may still run, its idempotency key and its place in a line are its own."""
        self.need("ordering_keys")
        item = self.asked(store, idempotency_key="once", ordering_key="key")
        following = store.enqueue("k", ordering_key="key")
        assert store.enqueue("k", idempotency_key="once") == item.id
        assert self.claim_ids(store) == []
        store.acknowledge("worker", [Outcome(item.id, ItemStatus.CANCELLED)])
        assert store.enqueue("k", idempotency_key="once") == item.id
        assert self.claim_ids(store) == [following]

    def test_a_cancelled_item_can_be_requeued(self, store: ControlledStore) -> None:
        """It starts again, and nobody asks the new run to stop."""
        item = self.asked(store)
        store.acknowledge("worker", [Outcome(item.id, ItemStatus.CANCELLED)])
        assert store.requeue([item.id]) == 1
        again = self.claim_one(store)
        assert (again.id, again.attempt_count) == (item.id, 1)
        assert store.stop_requests("worker") == {}
        self.loses(store.mark_success, item.id, "worker", token=item.lease_token)
        store.mark_success(item.id, "worker")


class RetentionContract(StoreHooks):
    """Tests of deleting what is finished."""

    _needs = ("retention",)

    def finished(self, store: OutboxStore) -> list[str]:
        """Make an item in each final state."""
        done, failed, cancelled = store.enqueue_many(NewItem("k") for _ in range(3))
        store.cancel([cancelled])
        store.claim_batch("worker")
        store.acknowledge("worker", [Outcome(done), Outcome(failed, ItemStatus.FAILED)])
        return [done, failed, cancelled]

    def left(self, store: OutboxStore, ids: list[str]) -> list[str]:
        """Return the states of the items that are still there."""
        return self.statuses(store, filter(store.get, ids))

    def test_kept_for_ever(self, store: OutboxStore, time: FakeClock) -> None:
        """Nothing is deleted by default."""
        ids = self.finished(store)
        time.advance(10 * 365 * 86_400)
        assert store.sweep() == 0
        assert self.left(store, ids) == ["COMPLETED", "FAILED", "CANCELLED"]

    def test_kept_for_a_time(self, store: OutboxStore, time: FakeClock) -> None:
        """Successes go first; failures have a time of their own."""
        store = self.kept(store, 60, 3600)
        ids, waiting = self.finished(store), store.enqueue("k")
        time.advance(59)
        assert store.sweep() == 0
        time.advance(1)
        assert store.sweep() == 1
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]
        time.advance(3540)
        assert store.sweep() == 2
        assert [item.id for item in store.find()] == [waiting]

    def test_failures_have_their_own_time(self, store: OutboxStore, time: FakeClock) -> None:
        """The time of successes has no effect on failures."""
        store = self.kept(store, 60)
        ids = self.finished(store)
        time.advance(86_400)
        assert store.sweep() == 1
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]

    def test_deleted_at_once(self, store: OutboxStore) -> None:
        """A success is gone when it is recorded; a failure is not."""
        store = self.kept(store, 0)
        ids = self.finished(store)
        assert self.left(store, ids) == ["FAILED", "CANCELLED"]
        assert store.stats().total(ItemStatus.COMPLETED) == 0

    def test_deleting_at_once_is_fenced(self, store: OutboxStore, time: FakeClock) -> None:
        """A worker that lost the item deletes nothing, and gets an error, even after it is gone."""
        store = self.kept(store, 0)
        lost, mine = store.enqueue("k"), store.enqueue("k")
        old = {item.id: item.lease_token for item in store.claim_batch("worker-1")}
        self.expire(store, time)
        new = {item.id: item.lease_token for item in store.claim_batch("worker-2")}
        outcomes = [Outcome(lost, token=old[lost]), Outcome(mine, token=new[mine])]
        assert store.acknowledge("worker-2", outcomes) == {lost}
        assert (store.get(lost) is None, store.get(mine) is None) == (False, True)
        store.mark_success(lost, "worker-2", token=new[lost])
        assert store.get(lost) is None
        self.loses(store.mark_success, lost, "worker-1", token=old[lost])

    def test_deleting_is_fenced_by_the_row(self, store: OutboxStore, time: FakeClock) -> None:
        """A process that remembers its own claim alone deletes nothing that another one holds."""
        late, holder = self.kept(store, 0), self.kept(self.another(store), 0)
        ids = late.enqueue_many(NewItem("k") for _ in range(2))
        old = self.successes(late.claim_batch("worker"))
        # The late one neither reaps nor claims again: only the row shows it.
        self.expire(holder, time)
        new = self.successes(holder.claim_batch("worker"))
        assert late.acknowledge("worker", old) == set(ids)
        assert self.statuses(holder, ids) == ["RUNNING"] * 2
        assert holder.acknowledge("worker", new) == set()
        assert self.left(holder, ids) == []

    def test_deleted_with_the_hosts_transaction(self, store: OutboxStore) -> None:
        """After a rollback it is still there, and its holder's."""
        store = self.kept(store, 0)
        item_id = self.claimed(store).id
        with self.rolled_back(store) as transaction:
            store.mark_success(item_id, "worker", transaction=transaction)
        assert self.statuses(store, [item_id]) == ["RUNNING"]
        store.mark_success(item_id, "worker")
        assert store.get(item_id) is None

    def test_deleted_items_leave_their_keys(self, store: OutboxStore) -> None:
        """The next of an ordering or concurrency key runs, and an idempotency key is free."""
        self.need("ordering_keys", "concurrency_keys")
        store = self.kept(store, 0)
        slot = NewItem("k", concurrency_key="b", concurrency_limit=1)
        once = store.enqueue("k", ordering_key="a", idempotency_key="once")
        slotted, *behind = store.enqueue_many([slot, NewItem("k", ordering_key="a"), slot])
        assert self.claim_all(store) == [once, slotted]
        store.acknowledge("worker", [Outcome(once), Outcome(slotted)])
        assert store.enqueue("k", idempotency_key="once", delay=60) != once
        assert self.claim_ids(store) == behind

    def test_purge_of_some_states(self, store: OutboxStore, time: FakeClock) -> None:
        """A purge may be of failures alone, or of successes."""
        ids = self.finished(store)
        time.advance(60)
        assert store.purge(older_than_seconds=60, statuses=["FAILED"]) == 1
        assert self.left(store, ids) == ["COMPLETED", "CANCELLED"]
        assert store.purge(older_than_seconds=60, statuses=[ItemStatus.COMPLETED]) == 1
        assert self.left(store, ids) == ["CANCELLED"]

    def test_purge_finds_what_ends_late(self, store: OutboxStore, time: FakeClock) -> None:
        """An old item that was passed while it waited goes once it has been finished for long."""
        old = store.enqueue("k", delay=3600)
        new = store.enqueue_many(NewItem("k") for _ in range(3))
        assert self.claim_ids(store) == new
        store.acknowledge("worker", [Outcome(item_id) for item_id in new])
        time.advance(3600)
        assert store.purge(older_than_seconds=60, limit=2) == 2
        self.take_turns(store, old)
        time.advance(60)
        assert store.purge(older_than_seconds=60) == 2
        assert store.find() == []
