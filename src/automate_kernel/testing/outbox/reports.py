"""Failures, labels, and the reports of workers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from automate_kernel.errors import PayloadError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxStore, Outcome, WorkerInfo
from automate_kernel.outbox.item import OutboxItem, OutcomeRecorded, Result
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import LONG_SECONDS, StoreHooks
from automate_kernel.worker.in_flight import Task
from automate_kernel.worker.statistics import ActivityLog

_CHARGE = "KeyError in shop.charge"
_SHIP = "KeyError in shop.ship"


class ReportsContract(StoreHooks):
    """Tests of the list of workers, and of what they have done."""

    needs = ("reports",)

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
        assert (one.id, one.host, one.pid, one.slots, one.in_flight) == (
            "worker", "host", 77, 10, 7,
        )  # fmt: skip
        assert (one.kinds, other.kinds) == (("a", "b"), ())
        assert (one.stopping, other.stopping) == (False, True)
        assert not one.lost
        assert one.started_at is not None and one.seen_at is not None
        assert one.started_at <= one.seen_at
        store.leave("worker")
        store.leave("nobody")
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
        """Outcomes are counted per kind, and lost ones are not."""
        store.enqueue_many([NewItem(kind) for kind in "aaaaabb"])
        items = store.claim_batch("worker", 7)
        a, b = ([item for item in items if item.kind == kind] for kind in "ab")
        log = ActivityLog()
        outcomes: list[tuple[OutboxItem, Result]] = [
            (a[0], Outcome(a[0].id)),
            (a[1], Outcome(a[1].id, ItemStatus.RETRY)),
            (a[2], Outcome(a[2].id, ItemStatus.FAILED)),
            (a[3], Outcome(a[3].id)),
            (a[4], None),
            (b[0], OutcomeRecorded()),
            (b[1], Outcome(b[1].id, ItemStatus.PENDING)),
        ]
        log.add([(self.ended(item, 0.5), result) for item, result in outcomes], {a[3].id})
        store.report(self.worker_info(), log)
        found = total_by_kind(store.activity())
        assert {
            kind: (one.completed, one.retried, one.failed, one.lost, one.total)
            for kind, one in found.items()
        } == {"a": (1, 1, 1, 0, 3), "b": (1, 0, 0, 0, 1)}
        assert found["a"].run_seconds == pytest.approx(2.5)
        assert found["a"].run_percentile(0.95) == pytest.approx(0.5, rel=0.15)
        assert found["a"].wait_percentile(0.5) is not None

    def test_activity_by_the_minute(self, store: OutboxStore, time: FakeClock) -> None:
        """The activity of several workers adds up per minute and kind, without old minutes."""
        log, other = ActivityLog(), ActivityLog()
        for _ in range(3):
            for worker_id, each in (("worker", log), ("other", other)):
                store.enqueue("k")
                item = self.claim_one(store, worker_id)
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
        time.advance(store.lease_seconds + 1)
        log = ActivityLog()
        log.reaped(store.reap())
        store.report(self.worker_info(), log)
        (found,) = store.activity()
        assert (found.lost, found.failed, found.completed) == (2, 1, 0)

    def test_old_activity_is_forgotten(self, store: OutboxStore, time: FakeClock) -> None:
        """Activity goes after a time."""
        store.enqueue("k")
        log, item = ActivityLog(), self.claim_one(store)
        log.add([(self.ended(item, 1.0), Outcome(item.id))], ())
        store.report(self.worker_info(), log)
        time.advance(1000)
        assert store.purge_reports(older_than_seconds=2000) == 0
        assert len(store.activity()) == 1
        assert store.purge_reports(older_than_seconds=900) >= 1
        assert store.activity() == []


class FailuresContract(StoreHooks):
    """Tests of the errors of every attempt, and of errors in groups."""

    needs = ("failures",)

    def fail(
        self, store: OutboxStore, item_id: str, *, group: str = _CHARGE, **options: object
    ) -> None:
        """Claim the item and let its attempt fail; it waits for the next one."""
        (item,) = store.claim_batch("worker")
        assert item.id == item_id
        known = {"status": ItemStatus.RETRY, "error_code": "ERROR", "error": "broke", **options}
        outcome = Outcome(item_id, token=item.lease_token, group=group, **known)  # type: ignore[arg-type]
        assert store.acknowledge("worker", [outcome]) == set()

    def test_every_attempt_keeps_its_error(self, store: OutboxStore) -> None:
        """The first error is known after the last attempt, and after a success."""
        item_id = store.enqueue("k", max_attempts=3)
        self.fail(store, item_id, error="first", trace="File a")
        self.fail(store, item_id, error="second", group=_SHIP, error_code="UNAVAILABLE")
        first, second = store.failed_attempts(item_id)
        assert (first.attempt, first.error_code, first.error, first.trace, first.error_group) == (
            1, "ERROR", "first", "File a", _CHARGE,
        )  # fmt: skip
        assert (second.attempt, second.error_code, second.error, second.trace) == (
            2, "UNAVAILABLE", "second", None,
        )  # fmt: skip
        assert first.failed_at is not None
        assert self.see(store, item_id).last_error_group == _SHIP
        store.mark_success(self.claim_one(store).id, "worker")
        assert [each.error for each in store.failed_attempts(item_id)] == ["first", "second"]

    def test_an_attempt_recorded_twice_is_one(self, store: OutboxStore) -> None:
        """A caller that never heard of its commit repeats the failure, and it counts once."""
        item_id = store.enqueue("k")
        item = self.claim_one(store)
        outcome = Outcome(
            item_id, ItemStatus.RETRY, 60.0, "ERROR", "broke", item.lease_token, _CHARGE
        )
        for _ in range(2):
            assert store.acknowledge("worker", [outcome]) == set()
        assert len(store.failed_attempts(item_id)) == 1

    def test_attempts_are_bounded(self, store: OutboxStore) -> None:
        """Of an item that is tried for ever the first attempt is kept, and the latest."""
        item_id = store.enqueue("k", max_attempts=1000)
        for number in range(1, 31):
            self.fail(store, item_id, error=str(number))
        kept = [each.attempt for each in store.failed_attempts(item_id)]
        assert kept[0] == 1
        assert kept[1:] == list(range(31 - len(kept) + 1, 31))
        assert 5 <= len(kept) <= 20

    def test_attempts_of_before_a_requeue_stay(self, store: OutboxStore) -> None:
        """Put back to wait, an item counts from one again, and has not forgotten."""
        item_id = store.enqueue("k", max_attempts=1)
        for _ in range(2):
            self.fail(store, item_id)
            assert store.requeue([item_id]) == 1
        assert [each.attempt for each in store.failed_attempts(item_id)] == [1, 1]

    def test_a_lost_worker_is_an_attempt(self, store: OutboxStore, time: FakeClock) -> None:
        """An item whose worker died has that as its error."""
        item_id = self.claimed(store).id
        self.expire(store, time)
        (attempt,) = store.failed_attempts(item_id)
        assert (attempt.attempt, attempt.error_code, attempt.error_group) == (
            1, "LEASE_EXPIRED", "LEASE_EXPIRED",
        )  # fmt: skip

    def test_attempts_go_with_their_item(self, store: OutboxStore, clock: FakeClock) -> None:
        """They go with the item: deleted by hand, purged, or deleted at its end."""
        self.need("control")
        discarded, done = store.enqueue("k", max_attempts=1), ""
        self.fail(store, discarded)
        assert store.discard([discarded]) == 1
        purged = store.enqueue("k", max_attempts=1)
        self.fail(store, purged)
        if self.supports_clock:
            clock.advance(LONG_SECONDS)
            assert store.purge(older_than_seconds=1) == 1
        if self.supports_retention:
            store = self.kept(store, 0)
            done = store.enqueue("k")
            self.fail(store, done)
            store.mark_success(self.claim_one(store).id, "worker")
        for item_id in filter(None, (discarded, self.supports_clock and purged, done)):
            assert store.failed_attempts(str(item_id)) == []

    def test_unknown_item_has_no_attempts(self, store: OutboxStore) -> None:
        """An unknown item has no attempts, whatever its id looks like."""
        for item_id in ("01890000-0000-7000-8000-000000000000", "no id at all", ""):
            assert store.failed_attempts(item_id) == []

    def test_failed_items_in_groups(self, store: OutboxStore) -> None:
        """Groups are listed by kind and place, the largest first, each with its newest item."""
        for number in range(3):
            self.fail(store, store.enqueue("k", max_attempts=1), error=f"charge {number}")
        latest = store.find()[0].id
        self.fail(store, store.enqueue("k", max_attempts=1), group=_SHIP)
        self.fail(store, store.enqueue("j", max_attempts=1, tenant_id="t"), group=_SHIP)
        groups = store.error_groups()
        assert [(each.kind, each.group, each.count) for each in groups] == [
            ("k", _CHARGE, 3), ("j", _SHIP, 1), ("k", _SHIP, 1),
        ]  # fmt: skip
        assert (groups[0].latest_id, groups[0].error) == (latest, "charge 2")
        assert [each.count for each in store.error_groups(kind="k", limit=1)] == [3]
        assert [each.kind for each in store.error_groups(tenant_id="t")] == ["j"]

    def test_an_error_without_a_place_has_its_code(self, store: OutboxStore) -> None:
        """An item that was marked as failed by hand is in a group too."""
        item_id = self.claimed(store).id
        store.mark_failed(item_id, "worker", "REFUSED", "no")
        (group,) = store.error_groups()
        assert (group.group, group.error_code) == ("REFUSED", "REFUSED")

    def test_a_group_is_put_back_alone(self, store: OutboxStore) -> None:
        """Errors of one code and several places are retried, cancelled and discarded apart."""
        self.need("control")
        ids = {}
        for group in (_CHARGE, _SHIP):
            ids[group] = store.enqueue("k", max_attempts=1)
            self.fail(store, ids[group], group=group)
        assert store.requeue_matching(error_group=_CHARGE) == 1
        assert self.statuses(store, [ids[_CHARGE], ids[_SHIP]]) == ["PENDING", "FAILED"]  # fmt: skip
        assert store.discard_matching(error_group=_SHIP) == 1
        assert store.get(ids[_SHIP]) is None
        assert store.cancel_matching(error_group=_CHARGE) == 1


class LabelsContract(StoreHooks):
    """Tests of labels: the application's keys by which items are found."""

    needs = ("labels",)

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
        self.need("transactions")

        def enqueue_and_fail() -> None:
            with self.transaction(store) as transaction:
                store.enqueue("k", labels={"order": 1}, transaction=transaction)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            enqueue_and_fail()
        assert store.labelled("order=1") == []

    def test_labels_go_with_their_item(self, store: OutboxStore, time: FakeClock) -> None:
        """They go with the item: deleted by hand, purged, or deleted at its end."""
        self.need("control", "retention")
        for _ in range(2):
            item_id = store.enqueue("k", labels={"order": 1})
            store.cancel([item_id])
        assert store.discard([item_id]) == 1
        time.advance(LONG_SECONDS)
        assert store.purge(older_than_seconds=1) == 1
        store = self.kept(store, 0)
        for number in range(2):
            store.enqueue("k", number, labels={"order": 1})
        ids = self.claim_ids(store)
        assert store.acknowledge("worker", [Outcome(each) for each in ids]) == set()
        # Of what is new with the same label nothing old is left.
        again = store.enqueue("k", labels={"order": 1})
        assert [item.id for item in store.labelled("order=1", limit=1)] == [again]

    @pytest.mark.parametrize(
        "labels",
        [
            {"": "x"}, {"a b": "x"}, {"a=b": "x"}, {"x" * 65: "x"}, {"order": ""}, {"order": " "},
            {"order": " x"}, {"order": "x" * 201}, {"order": True}, {"order": 1.5},
            {"order": None}, {"order": "a\x00b"}, {"order": "\ud800"}, {1: "x"},
            {str(number): "x" for number in range(11)},
        ],
    )  # fmt: skip
    def test_what_is_no_label_is_refused(self, store: OutboxStore, labels: object) -> None:
        """An invalid label is refused before anything is written."""
        with pytest.raises(PayloadError):
            store.enqueue_many([NewItem("k"), NewItem("k", labels=labels)])  # type: ignore[arg-type]
        assert store.find() == []
