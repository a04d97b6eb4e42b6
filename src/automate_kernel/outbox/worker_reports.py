"""What workers tell of themselves, as operators see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.outbox.item import OutboxItem, storable
from automate_kernel.outbox.statistics import ActivityLog, ActivityRow, Times, percentile
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import ACTIVITY, OUTBOX, WORKER

__all__ = [
    "Activity",
    "Registry",
    "WorkerInfo",
]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """
    A worker, as it last told of itself.

    It does so every few seconds while it lives, and takes itself off the list when it ends. One
    that is *lost* has not told for a minute: it was killed, or it is cut off from the database.
    Times are on the database's clock.

    One with a *problem* does no work: it ends again and again before it can begin, and whoever
    starts it tells why. It has no slots.
    """

    id: str
    host: str
    pid: int
    started_at: datetime | None
    seen_at: datetime | None
    kinds: tuple[str, ...] = ()
    slots: int = 0
    in_flight: int = 0
    stopping: bool = False
    lost: bool = False
    problem: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it works, as far as anybody knows."""
        return not self.lost and self.problem is None


@dataclass(frozen=True, slots=True)
class Activity:
    """
    What all workers together did to items of one *kind* in the minute that begins *at*.

    *completed*, *retried* and *failed* count outcomes that were recorded; *lost* counts leases that
    ended before their worker did, and were taken back. *run_seconds* is how long handlers ran in
    all, *wait_seconds* how long items were due before theirs began. The buckets are histograms of
    both: see `automate_kernel.outbox.percentile`.
    """

    at: datetime
    kind: str
    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    run_seconds: float = 0.0
    wait_seconds: float = 0.0
    run_buckets: Mapping[int, int] = field(default_factory=dict)
    wait_buckets: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All outcomes."""
        return self.completed + self.retried + self.failed

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""
        return not (self.total or self.lost or self.run_buckets)

    def run_percentile(self, share: float) -> float | None:
        """Within how many seconds a *share* of the handlers ended; None if none ran."""
        return percentile(self.run_buckets, share)

    def wait_percentile(self, share: float) -> float | None:
        """Within how many seconds a *share* of the items were begun once due; None if none was."""
        return percentile(self.wait_buckets, share)

    def __add__(self, other: Activity) -> Activity:
        """Both together, with the later of their minutes."""
        return self._with(other, 1)

    def __sub__(self, other: Activity) -> Activity:
        """What came since *other*, an earlier look at the same."""
        return self._with(other, -1)

    def _with(self, other: Activity, sign: int) -> Activity:
        return Activity(
            max(self.at, other.at),
            self.kind,
            self.completed + sign * other.completed,
            self.retried + sign * other.retried,
            self.failed + sign * other.failed,
            self.lost + sign * other.lost,
            self.run_seconds + sign * other.run_seconds,
            self.wait_seconds + sign * other.wait_seconds,
            _with(self.run_buckets, other.run_buckets, sign),
            _with(self.wait_buckets, other.wait_buckets, sign),
        )


def _with(one: Mapping[int, int], other: Mapping[int, int], sign: int) -> dict[int, int]:
    both = {b: one.get(b, 0) + sign * other.get(b, 0) for b in {*one, *other}}
    return {bucket: count for bucket, count in both.items() if count}


# Several times as long as workers go without telling.
_LOST_SECONDS = 60.0
_WORKER_SECONDS = 86_400.0
_COUNTED = ("completed", "retried", "failed", "lost")
_READ = ("at", "kind", *_COUNTED, "run_times", "wait_times")


class Registry:
    """The part of `RowsOutboxStore` in which workers tell of themselves."""

    storage: Storage

    def report(self, worker: WorkerInfo, activity: ActivityLog) -> None:
        """Write down that *worker* lives, and what it did; see `OutboxStore.report`."""
        with self.storage.begin() as rows:
            self._write_worker(rows, worker)
            minute = rows.now().replace(second=0, microsecond=0)
            for row in activity.unsaved(minute):
                _write_activity(rows, worker.id, row)
        activity.saved()

    def _write_worker(self, rows: Rows, worker: WorkerInfo) -> None:
        changes: dict[str, Any] = {
            "seen_at": Now(),
            "in_flight": worker.in_flight,
            "stopping": int(worker.stopping),
            "problem": storable(worker.problem) if worker.problem else None,
        }
        if rows.update(WORKER, [Where("id", "eq", worker.id)], changes):
            return
        about = {
            "id": worker.id,
            "host": storable(worker.host, 200),
            "pid": worker.pid,
            "started_at": worker.started_at or Now(),
            "kinds": list(worker.kinds),
            "slots": worker.slots,
        }
        rows.insert(WORKER, [{**about, **changes}])

    def leave(self, worker_id: str) -> None:
        """Take a worker that has ended off the list."""
        with self.storage.begin(atomic=False) as rows:
            rows.delete(WORKER, [Where("id", "eq", worker_id)])

    def now(self) -> datetime:
        """The database's clock."""
        with self.storage.begin(atomic=False) as rows:
            return rows.now()

    def workers(self) -> list[WorkerInfo]:
        """The workers there are; see `OutboxStore.workers`."""
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(WORKER, order_by=("started_at", "id"))
            now = rows.now()
        return [_worker(row, now) for row in found]

    def activity(self, *, seconds: float = 3600.0) -> list[Activity]:
        """What was done of late; see `OutboxStore.activity`."""
        # The minute that has begun by then counts whole.
        with self.storage.begin(atomic=False) as rows:
            since = (rows.now() - timedelta(seconds=seconds)).replace(second=0, microsecond=0)
            found = rows.select(
                ACTIVITY, [Where("at", "ge", since)], order_by=("at", "kind"), columns=_READ
            )
        groups: dict[tuple[datetime, str], list[Row]] = {}
        for row in found:
            groups.setdefault((row["at"], row["kind"]), []).append(row)
        return [_activity(at, kind, group) for (at, kind), group in groups.items()]

    def running(self, *, limit: int = 50) -> list[OutboxItem]:
        """Items under lease; see `OutboxStore.running`."""
        where = [Where("lease_expires_at", "ne", None)]
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(OUTBOX, where, order_by=("updated_at", "id"), limit=limit)
        return [OutboxItem.from_row(row) for row in found]

    def purge_reports(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Forget old activity and workers that are long gone; see `OutboxStore.purge_reports`."""
        gone = max(_LOST_SECONDS, min(older_than_seconds, _WORKER_SECONDS))
        with self.storage.begin() as rows:
            purged = rows.delete(ACTIVITY, [Where("at", "lt", Now(-older_than_seconds))])
            return purged + rows.delete(WORKER, [Where("seen_at", "lt", Now(-gone))])


def _write_activity(rows: Rows, worker_id: str, row: ActivityRow) -> None:
    changes: dict[str, Any] = {
        "completed": row.completed,
        "retried": row.retried,
        "failed": row.failed,
        "lost": row.lost,
        "run_times": row.run.to_json(),
        "wait_times": row.wait.to_json(),
    }
    # Nobody else writes this row, so there is no race between the two.
    if not rows.update(ACTIVITY, [Where("id", "eq", row.id)], changes):
        about = {"id": row.id, "at": row.at, "worker_id": worker_id, "kind": row.kind}
        rows.insert(ACTIVITY, [{**about, **changes}])


def _worker(row: Row, now: datetime) -> WorkerInfo:
    age = (now - row["seen_at"]).total_seconds()
    about = {**row, "kinds": tuple(row["kinds"]), "stopping": bool(row["stopping"])}
    return WorkerInfo(**about, lost=age > _LOST_SECONDS)


def _activity(at: datetime, kind: str, group: Sequence[Row]) -> Activity:
    """What all workers did, of a row for each of them."""
    # Summed up in place: a day of a busy outbox is some ten thousand rows.
    run, wait = Times(), Times()
    for row in group:
        run.merge_json(row["run_times"])
        wait.merge_json(row["wait_times"])
    completed, retried, failed, lost = (sum(row[name] for row in group) for name in _COUNTED)
    return Activity(
        at, kind, completed, retried, failed, lost, run.seconds, wait.seconds, run.buckets,
        wait.buckets,
    )  # fmt: skip
