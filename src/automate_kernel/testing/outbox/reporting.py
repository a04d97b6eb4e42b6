"""What workers tell of themselves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from automate_kernel.outbox import NewItem, OutboxStore, WorkerInfo
from automate_kernel.outbox.item import ItemStatus, OutboxItem, OutcomeRecorded, Result
from automate_kernel.outbox.statistics import ActivityLog, total_by_kind
from automate_kernel.outbox.store import Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks
from automate_kernel.worker.in_flight import Task

__all__ = ["ReportingContract"]


class ReportingContract(StoreHooks):
    """The list of workers, what they have done, and what they do."""

    def told(self, worker_id: str = "worker", **changes: object) -> WorkerInfo:
        """What a worker tells of itself."""
        about = {"kinds": ("a", "b"), "slots": 10, "in_flight": 3, **changes}
        return WorkerInfo(worker_id, "host", 77, None, None, **about)  # type: ignore[arg-type]

    def ended(self, item: OutboxItem, seconds: float) -> Task:
        """A task for *item* whose handler began at once and took this long."""
        task = Task(item, 100.0)
        task.started_at, task.ended_at = 100.0, 100.0 + seconds
        return task

    def test_workers(self, store: OutboxStore, clock: FakeClock) -> None:
        """A worker is on the list from its first report until it leaves."""
        self.need("reports")
        assert store.workers() == []
        store.report(self.told(), ActivityLog())
        store.report(self.told("other", kinds=(), stopping=True), ActivityLog())
        store.report(self.told(in_flight=7), ActivityLog())
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

    def test_lost_workers(self, store: OutboxStore, clock: FakeClock) -> None:
        """A worker that is not heard of any more is lost, and forgotten after a day."""
        self.need("reports", "clock")
        store.report(self.told("dead"), ActivityLog())
        clock.advance(50)
        store.report(self.told("alive"), ActivityLog())
        clock.advance(50)
        assert {each.id: each.lost for each in store.workers()} == {"dead": True, "alive": False}
        assert store.purge_reports() == 0
        clock.advance(86_400 - 60)
        assert store.purge_reports() == 1
        assert [each.id for each in store.workers()] == ["alive"]
        store.report(self.told("dead"), ActivityLog())
        assert {each.id: each.lost for each in store.workers()} == {"dead": False, "alive": True}

    def test_activity(self, store: OutboxStore) -> None:
        """Outcomes are counted per kind, and lost ones are not."""
        self.need("reports")
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
        store.report(self.told(), log)
        found = total_by_kind(store.activity())
        assert {
            kind: (one.completed, one.retried, one.failed, one.lost, one.total)
            for kind, one in found.items()
        } == {"a": (1, 1, 1, 0, 3), "b": (1, 0, 0, 0, 1)}
        assert found["a"].run_seconds == pytest.approx(2.5)
        assert found["a"].run_percentile(0.95) == pytest.approx(0.5, rel=0.15)
        assert found["a"].wait_percentile(0.5) is not None

    def test_activity_by_the_minute(self, store: OutboxStore, clock: FakeClock) -> None:
        """What several workers did adds up per minute and kind; old minutes are left out."""
        self.need("reports", "clock")
        log, other = ActivityLog(), ActivityLog()
        for _ in range(3):
            for worker_id, each in (("worker", log), ("other", other)):
                store.enqueue("k")
                item = self.claim_one(store, worker_id)
                each.add([(self.ended(item, 0.001), Outcome(item.id))], ())
                store.report(self.told(worker_id), each)
            clock.advance(60)
        store.report(self.told(), log)
        found = store.activity()
        assert [one.completed for one in found] == [2, 2, 2]
        minute = timedelta(minutes=1)
        assert [one.at - found[0].at for one in found] == [minute * 0, minute, minute * 2]
        assert all(one.at.second == 0 and one.at.tzinfo is not None for one in found)
        late = [one.at for one in store.activity(seconds=61)]
        assert found[2].at in late and found[0].at not in late
        clock.advance(120)
        assert store.activity(seconds=1) == []

    def test_activity_is_counted_once(self, store: OutboxStore) -> None:
        """A report that is written twice, for want of a reply, counts once."""
        self.need("reports")
        store.enqueue_many([NewItem("k")] * 2)
        log = ActivityLog()
        for item in store.claim_batch("worker"):
            log.add([(self.ended(item, 0.001), Outcome(item.id))], ())
            log.saved = lambda: None  # type: ignore[method-assign]  # the reply is lost
            store.report(self.told(), log)
            del log.saved
            store.report(self.told(), log)
        assert total_by_kind(store.activity())["k"].completed == 2

    def test_reaped_items_are_lost(self, store: OutboxStore, clock: FakeClock) -> None:
        """A lease that ended before its worker did counts as lost; given up, as failed too."""
        self.need("reports", "clock")
        store.enqueue_many([NewItem("k"), NewItem("k", max_attempts=1)])
        store.claim_batch("worker")
        clock.advance(store.lease_seconds + 1)
        log = ActivityLog()
        log.reaped(store.reap())
        store.report(self.told(), log)
        (found,) = store.activity()
        assert (found.lost, found.failed, found.completed) == (2, 1, 0)

    def test_old_activity_is_forgotten(self, store: OutboxStore, clock: FakeClock) -> None:
        """Activity goes after a time."""
        self.need("reports", "clock")
        store.enqueue("k")
        log, item = ActivityLog(), self.claim_one(store)
        log.add([(self.ended(item, 1.0), Outcome(item.id))], ())
        store.report(self.told(), log)
        clock.advance(1000)
        assert store.purge_reports(older_than_seconds=2000) == 0
        assert len(store.activity()) == 1
        assert store.purge_reports(older_than_seconds=900) >= 1
        assert store.activity() == []

    def test_running(self, store: OutboxStore, clock: FakeClock) -> None:
        """What is under lease, and whose it is, the oldest claim first."""
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
