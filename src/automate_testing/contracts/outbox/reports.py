"""Failures, labels, and the reports of workers."""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter
from typing import Any

import pytest

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox import (
    ExecutorUse,
    ItemStatus,
    NewItem,
    OutboxStore,
    Outcome,
    WorkerInfo,
)
from automate_kernel.outbox.item import OutboxItem, OutcomeRecorded, Result
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.worker.in_flight import Task
from automate_kernel.worker.reporter import ActivityLog
from automate_testing.clock import FakeClock
from automate_testing.contracts.outbox.hooks import (
    LONG_SECONDS,
    UNKNOWN_ID,
    ControlledStore,
    StoreHooks,
)
from automate_testing.contracts.values import each_case

_CHARGE = "KeyError in shop.charge"
_SHIP = "KeyError in shop.ship"


class ReportsContract(StoreHooks):
    """Tests of the list of workers, and of what they have done."""

    _needs = ("reports",)

    def worker_info(self, worker_id: str = "worker", **changes: object) -> WorkerInfo:
        """Make the report of a worker."""
        about = {"kinds": ("a", "b"), "slots": 10, "in_flight": 3, **changes}
        return WorkerInfo(worker_id, "host", 77, None, None, **about)  # type: ignore[arg-type]

    def ended(self, item: OutboxItem, seconds: float) -> Task:
        """Make a task for *item* whose handler began at once and took *seconds*."""
        task = Task(item, 100.0)
        task.started_at, task.ended_at = 100.0, 100.0 + seconds
        return task

    def test_workers(self, store: OutboxStore, clock: FakeClock) -> None:
        """A worker is on the list from its first report until it leaves."""
        assert store.workers() == []
        store.report(self.worker_info(), ActivityLog())
        store.report(self.worker_info("other", kinds=(), stopping=True), ActivityLog())
        store.report(self.worker_info(in_flight=7), ActivityLog())
        one, other = sorted(store.workers(), key=lambda each: each.id, reverse=True)
        assert (one.id, one.host, one.pid) == ("worker", "host", 77)
        assert (one.slots, one.in_flight, one.lost) == (10, 7, False)
        assert (one.kinds, other.kinds) == (("a", "b"), ())
        assert (one.stopping, other.stopping) == (False, True)
        assert one.started_at is not None and one.seen_at is not None
        assert one.started_at <= one.seen_at
        assert one.executors == ()
        uses = (ExecutorUse("gpu", 2, 40, "UNAVAILABLE: \x00 ü", None), ExecutorUse("mail"))
        store.report(self.worker_info(executors=uses), ActivityLog())
        (one,) = (each for each in store.workers() if each.id == "worker")
        assert one.executors[1] == uses[1]
        assert (one.executors[0].name, one.executors[0].ended, one.kinds) == ("gpu", 40, ("a", "b"))
        assert "UNAVAILABLE" in str(one.executors[0].error)
        store.remove_worker("worker")
        store.remove_worker("nobody")
        assert [each.id for each in store.workers()] == ["other"]

    def test_lost_workers(self, store: OutboxStore, time: FakeClock) -> None:
        """A worker that is not heard of any more is lost, and forgotten after a day."""
        store.report(self.worker_info("dead"), ActivityLog())
        time.advance(50)
        store.report(self.worker_info("alive"), ActivityLog())
        time.advance(50)
        assert {each.id: each.lost for each in store.workers()} == {"dead": True, "alive": False}
        assert store.purge_reports() == 0
        time.advance(86_400 - 60)
        assert store.purge_reports() == 1
        assert [each.id for each in store.workers()] == ["alive"]
        store.report(self.worker_info("dead"), ActivityLog())
        assert {each.id: each.lost for each in store.workers()} == {"dead": False, "alive": True}

    def test_activity(self, store: OutboxStore) -> None:
        """Outcomes are counted per kind; lost outcomes are not."""
        store.enqueue_many([NewItem(kind) for kind in "aaaaabb"])
        items = store.claim_batch("worker", 7)
        a, b = ([item for item in items if item.kind == kind] for kind in "ab")
        log = ActivityLog()
        ends = ["COMPLETED", "RETRY", "FAILED", "COMPLETED", "PENDING"]
        results: list[Result] = [
            Outcome(item.id, ItemStatus(end))
            for item, end in zip([*a[:4], b[0]], ends, strict=True)
        ]
        results += [None, OutcomeRecorded()]
        tasks = [self.ended(item, 0.5) for item in (*a[:4], b[0], a[4], b[1])]
        log.add(list(zip(tasks, results, strict=True)), {a[3].id})
        store.report(self.worker_info(), log)
        found = total_by_kind(store.activity())
        counts = attrgetter("completed", "retried", "failed", "lost", "total")
        assert counts(found["a"]) == (1, 1, 1, 0, 3)
        assert counts(found["b"]) == (1, 0, 0, 0, 1)
        assert found["a"].run_seconds == pytest.approx(2.5)
        assert found["a"].run_percentile(0.95) == pytest.approx(0.5, rel=0.15)
        assert found["a"].wait_percentile(0.5) is not None

    def test_activity_by_the_minute(self, store: OutboxStore, time: FakeClock) -> None:
        """The activity of several workers adds up per minute and kind, without old minutes."""
        log, other = ActivityLog(), ActivityLog()
        for _ in range(3):
            for worker_id, each in (("worker", log), ("other", other)):
                item = self.claimed(store, worker_id)
                each.add([(self.ended(item, 0.001), Outcome(item.id))], ())
                store.report(self.worker_info(worker_id), each)
            time.advance(60)
        store.report(self.worker_info(), log)
        found = store.activity()
        assert [one.completed for one in found] == [2, 2, 2]
        minute = timedelta(minutes=1)
        assert [one.at - found[0].at for one in found] == [minute * 0, minute, minute * 2]
        assert all(one.at.second == 0 and one.at.tzinfo is not None for one in found)
        late = [one.at for one in store.activity(seconds=61)]
        assert found[2].at in late and found[0].at not in late
        time.advance(120)
        assert store.activity(seconds=1) == []

    def test_activity_is_counted_once(self, store: OutboxStore) -> None:
        """A report that is written twice, for want of a reply, counts once."""
        store.enqueue_many([NewItem("k")] * 2)
        log = ActivityLog()
        for item in store.claim_batch("worker"):
            log.add([(self.ended(item, 0.001), Outcome(item.id))], ())
            log.saved = lambda: None  # type: ignore[method-assign]  # the reply is lost
            store.report(self.worker_info(), log)
            del log.saved
            store.report(self.worker_info(), log)
        assert total_by_kind(store.activity())["k"].completed == 2

    def test_reaped_items_are_lost(self, store: OutboxStore, time: FakeClock) -> None:
        """A lease that ended before its worker did counts as lost; given up, as failed too."""
        store.enqueue_many([NewItem("k"), NewItem("k", max_attempts=1)])
        store.claim_batch("worker")
        log = ActivityLog()
        log.reaped(self.lapse(store, time))
        store.report(self.worker_info(), log)
        (found,) = store.activity()
        assert (found.lost, found.failed, found.completed) == (2, 1, 0)

    def test_old_activity_is_forgotten(self, store: OutboxStore, time: FakeClock) -> None:
        """Activity goes after a time."""
        log, item = ActivityLog(), self.claimed(store)
        log.add([(self.ended(item, 1.0), Outcome(item.id))], ())
        store.report(self.worker_info(), log)
        time.advance(1000)
        assert store.purge_reports(older_than_seconds=2000) == 0
        assert len(store.activity()) == 1
        assert store.purge_reports(older_than_seconds=900) >= 1
        assert store.activity() == []


class FailuresContract(StoreHooks):
    """Tests of the errors of every attempt, and of errors in groups."""

    _needs = ("failures",)

    def fail(self, store: OutboxStore, error: str = "broke", **options: Any) -> str:
        """Claim the one item and let its attempt fail; it waits for the next attempt, if any."""
        item = self.claim_one(store)
        known = {"error_code": "ERROR", "token": item.lease_token, "group": _CHARGE, **options}
        outcome = Outcome(item.id, ItemStatus.RETRY, error=error, **known)
        assert store.acknowledge("worker", [outcome]) == set()
        return item.id

    def failed(self, store: OutboxStore, error: str = "broke", **options: Any) -> str:
        """Enqueue an item that fails at its only attempt; *options* are the outcome's."""
        store.enqueue("k", max_attempts=1)
        return self.fail(store, error, **options)

    def test_every_attempt_keeps_its_error(self, store: OutboxStore) -> None:
        """The first error is known after the last attempt, and after a success."""
        item_id = store.enqueue("k", max_attempts=3)
        self.fail(store, "first", trace="File a")
        self.fail(store, "second", group=_SHIP, error_code="UNAVAILABLE")
        first, second = store.failed_attempts(item_id)
        assert (first.attempt, first.error_code, first.error) == (1, "ERROR", "first")
        assert (first.trace, first.error_group) == ("File a", _CHARGE)
        assert (second.attempt, second.error_code, second.error) == (2, "UNAVAILABLE", "second")
        assert (second.trace, first.failed_at is not None) == (None, True)
        assert self.see(store, item_id).last_error_group == _SHIP
        store.mark_success(self.claim_one(store).id, "worker")
        assert [each.error for each in store.failed_attempts(item_id)] == ["first", "second"]

    def test_an_attempt_recorded_twice_is_one(self, store: OutboxStore) -> None:
        """A caller that never heard of its commit repeats the failure, and it counts once."""
        item = self.claimed(store)
        once = Outcome(item.id, ItemStatus.RETRY, 60.0, "ERROR", "broke", item.lease_token, _CHARGE)
        for _ in range(2):
            assert store.acknowledge("worker", [once]) == set()
        assert len(store.failed_attempts(item.id)) == 1

    def test_attempts_are_bounded(self, store: OutboxStore) -> None:
        """If an item is tried for ever, its first attempt is kept, and the latest attempts."""
        item_id = store.enqueue("k", max_attempts=1000)
        for number in range(1, 31):
            self.fail(store, str(number))
        kept = [each.attempt for each in store.failed_attempts(item_id)]
        assert kept[0] == 1
        assert kept[1:] == list(range(31 - len(kept) + 1, 31))
        assert 5 <= len(kept) <= 20

    def test_attempts_of_before_a_requeue_stay(self, store: OutboxStore) -> None:
        """Put back to wait, an item counts from one again, and has not forgotten."""
        item_id = store.enqueue("k", max_attempts=1)
        for _ in range(2):
            self.fail(store)
            assert store.requeue([item_id]) == 1
        assert [each.attempt for each in store.failed_attempts(item_id)] == [1, 1]

    def test_a_lost_worker_is_an_attempt(self, store: OutboxStore, time: FakeClock) -> None:
        """An item whose worker died has that as its error."""
        item_id = self.claimed(store).id
        self.expire(store, time)
        (attempt,) = store.failed_attempts(item_id)
        assert attempt.attempt == 1
        assert attempt.error_code == attempt.error_group == "LEASE_EXPIRED"

    def test_attempts_go_with_their_item(self, store: ControlledStore, clock: FakeClock) -> None:
        """They go with the item: deleted by hand, purged, or deleted at its end."""
        self.need("controls")
        gone = [self.failed(store)]
        assert store.discard(gone) == 1
        if self.supports_clock:
            gone.append(self.failed(store))
            clock.advance(LONG_SECONDS)
            assert store.purge(older_than_seconds=1) == 1
        if self.supports_retention:
            store = self.kept(store, 0)
            gone.append(store.enqueue("k"))
            self.fail(store)
            self.take_turns(store, gone[-1])
        assert [store.failed_attempts(item_id) for item_id in gone] == [[]] * len(gone)

    def test_unknown_item_has_no_attempts(self, store: OutboxStore) -> None:
        """An unknown item has no attempts, whatever its id looks like."""
        for item_id in (UNKNOWN_ID, "no id at all", ""):
            assert store.failed_attempts(item_id) == []

    def test_failed_items_in_groups(self, store: ControlledStore) -> None:
        """Groups are listed by kind and place, the largest first, each with its newest item."""
        self.need("controls")
        *_, latest = [self.failed(store, f"charge {number}") for number in range(3)]
        self.failed(store, group=_SHIP)
        store.enqueue("j", max_attempts=1, tenant_id="t")
        self.fail(store, group=_SHIP)
        groups = store.error_groups()
        found = [(each.kind, each.group, each.count) for each in groups]
        assert found == [("k", _CHARGE, 3), ("j", _SHIP, 1), ("k", _SHIP, 1)]
        assert (groups[0].latest_id, groups[0].error) == (latest, "charge 2")
        assert groups[0].first_at is not None and groups[0].latest_at is not None
        assert groups[0].first_at <= groups[0].latest_at
        assert [each.count for each in store.error_groups(kind="k", limit=1)] == [3]
        assert [each.kind for each in store.error_groups(tenant_id="t")] == ["j"]

    def test_an_error_without_a_place_has_its_code(self, store: ControlledStore) -> None:
        """An item that was marked as failed by hand is in a group too."""
        self.need("controls")
        item_id = self.claimed(store).id
        store.mark_failed(item_id, "worker", "REFUSED", "no")
        (group,) = store.error_groups()
        assert (group.group, group.error_code) == ("REFUSED", "REFUSED")

    def test_a_group_is_put_back_alone(self, store: ControlledStore) -> None:
        """Errors of one code and several places are retried, cancelled and discarded apart."""
        self.need("controls")
        charged, shipped = (self.failed(store, group=group) for group in (_CHARGE, _SHIP))
        assert store.requeue_matching(error_group=_CHARGE) == 1
        assert self.statuses(store, [charged, shipped]) == ["PENDING", "FAILED"]
        assert store.discard_matching(error_group=_SHIP) == 1
        assert store.get(shipped) is None
        assert store.cancel_matching(error_group=_CHARGE) == 1


class LabelsContract(StoreHooks):
    """Tests of labels: the application's keys by which items are found."""

    _needs = ("labels",)

    def test_an_item_is_found_by_its_labels(self, store: OutboxStore) -> None:
        """Items are found by a label's name and value, or by its value alone."""
        first = store.enqueue("k", labels={"order": 4711, "customer": "c-9"})
        second = store.enqueue("j", labels={"order": "4711"})
        store.enqueue("k", labels={"order": "471"})
        store.enqueue("k")
        assert [item.id for item in store.labelled("order=4711")] == [second, first]
        assert [item.id for item in store.labelled("4711")] == [second, first]
        assert [item.id for item in store.labelled("c-9")] == [first]
        assert store.labelled("customer=4711") == []
        assert store.labelled("") == []
        assert [item.id for item in store.labelled("4711", kind="k")] == [first]
        assert [item.id for item in store.labelled("4711", limit=1)] == [second]
        assert store.labelled("4711", status=ItemStatus.FAILED) == []
        assert self.see(store, first).labels == {"order": "4711", "customer": "c-9"}
        assert {item.labels.get("order") for item in store.claim_batch("w")} >= {"4711", "471"}

    def test_a_tenant_finds_its_own(self, store: OutboxStore) -> None:
        """The same key of another tenant is another thing."""
        mine = store.enqueue("k", labels={"order": 1}, tenant_id="a")
        store.enqueue("k", labels={"order": 1}, tenant_id="b")
        assert [item.id for item in store.labelled("order=1", tenant_id="a")] == [mine]
        assert len(store.labelled("order=1")) == 2

    def test_what_was_there_already_is_not_labelled_anew(self, store: OutboxStore) -> None:
        """A second item with the same idempotency key changes nothing."""
        first = store.enqueue("k", idempotency_key="x", labels={"order": 1})
        assert store.enqueue("k", idempotency_key="x", labels={"order": 2}) == first
        assert store.labelled("order=2") == []
        assert [item.id for item in store.labelled("order=1")] == [first]

    def test_labels_are_the_transactions(self, store: OutboxStore) -> None:
        """Labels of a transaction that rolls back are not found."""
        with self.rolled_back(store) as transaction:
            store.enqueue("k", labels={"order": 1}, transaction=transaction)
        assert store.labelled("order=1") == []

    def test_labels_go_with_their_item(self, store: ControlledStore, time: FakeClock) -> None:
        """They go with the item: deleted by hand, purged, or deleted at its end."""
        self.need("controls", "retention")
        for _ in range(2):
            item_id = store.enqueue("k", labels={"order": 1})
            store.cancel([item_id])
        assert store.discard([item_id]) == 1
        time.advance(LONG_SECONDS)
        assert store.purge(older_than_seconds=1) == 1
        store = self.kept(store, 0)
        store.enqueue_many([NewItem("k", labels={"order": 1})] * 2)
        ids = self.claim_ids(store)
        assert store.acknowledge("worker", [Outcome(each) for each in ids]) == set()
        # A new item with the same label has nothing of the old.
        again = store.enqueue("k", labels={"order": 1})
        assert [item.id for item in store.labelled("order=1", limit=1)] == [again]

    def test_what_is_no_label_is_refused(self, store: OutboxStore) -> None:
        """An invalid label is refused before anything is written."""
        wrong: list[Any] = [
            {"": "x"}, {"a b": "x"}, {"a=b": "x"}, {"x" * 65: "x"}, {"order": ""}, {"order": " "},
            {"order": " x"}, {"order": "x" * 201}, {"order": True}, {"order": 1.5},
            {"order": None}, {"order": "a\x00b"}, {"order": "\ud800"}, {1: "x"},
            {str(number): "x" for number in range(11)},
        ]  # fmt: skip

        def check(labels: Any) -> None:
            with pytest.raises(PayloadError):
                store.enqueue_many([NewItem("k"), NewItem("k", labels=labels)])

        each_case(wrong, check)
        assert store.find() == []
