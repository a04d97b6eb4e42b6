"""Worker reports: which workers are alive, and what they did to items, minute by minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from automate_kernel.outbox.statistics import (
    MinuteRow,
    Minutes,
    MinuteTable,
    MinuteTotal,
    Times,
    percentile,
)
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import ACTIVITY, WORKER
from automate_kernel.storage.values import storable


@dataclass(frozen=True, slots=True)
class ExecutorUse:
    """
    A worker's use of the executor *name*, which makes calls for it.

    *in_flight* calls have no outcome yet, and *ended* counts the outcomes. *error* is the error of
    the last outcome, if it failed. *problem* is the reason why tasks can't be done.
    """

    name: str
    in_flight: int = 0
    ended: int = 0
    error: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """
    A worker, as it last reported.

    A worker reports every few seconds while it lives, and takes itself off the list when it ends. A
    *lost* worker has not reported for a minute: it was killed, or it is cut off from the database.
    Times are on the database's clock.

    A worker with a *problem* does no work: it ends again and again before it can begin, and the
    process that starts it reports why. It has no slots.

    *version* is its application's version, if there is any. *workflows* are marks of the workflows
    that events start there: equal marks mean equal workflows. *executors* are the other places
    where its calls run.
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
    version: str | None = None
    workflows: tuple[str, ...] = ()
    executors: tuple[ExecutorUse, ...] = ()

    @property
    def alive(self) -> bool:
        """True if the worker works, as far as anybody knows."""
        return not self.lost and self.problem is None


@dataclass(frozen=True, slots=True)
class Activity(MinuteTotal):
    """
    Work of all workers together on items of one *kind*, in the minute that begins *at*.

    *completed*, *retried* and *failed* count outcomes that were recorded; *lost* counts leases that
    ended before their worker did, and were taken back. *run_seconds* is the sum of the handlers'
    run times. *wait_seconds* is the sum of the times for which items were due before their handler
    began. The buckets are histograms of both: see `automate_kernel.outbox.percentile`.
    """

    retried: int = 0
    failed: int = 0
    lost: int = 0
    run_seconds: float = 0.0
    wait_seconds: float = 0.0
    run_buckets: Mapping[int, int] = field(default_factory=dict)
    wait_buckets: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of all outcomes."""
        return self.completed + self.retried + self.failed

    def run_percentile(self, share: float) -> float | None:
        """Return the seconds within which a *share* of the handlers ended; None if none ran."""
        return percentile(self.run_buckets, share)

    def wait_percentile(self, share: float) -> float | None:
        """Return the seconds within which a *share* of due items began; None if none did."""
        return percentile(self.wait_buckets, share)


# In the list of kinds, among which a worker of another version ignores them.
_VERSION, _WORKFLOWS, _EXECUTOR = "@version ", "@workflows ", "@executor "
_LONGEST_PROBLEM = 300
# Several times as long as workers go without a report.
_LOST_SECONDS = 60.0
_WORKER_SECONDS = 86_400.0
ITEM_STATISTICS = MinuteTable(
    ACTIVITY, "kind", ("completed", "retried", "failed", "lost"), ("run", "wait")
)


@dataclass(slots=True)
class ActivityRow(MinuteRow):
    """Counts of one worker for items of one kind in one minute."""

    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    run: Times = field(default_factory=Times)
    wait: Times = field(default_factory=Times)


def write_report(rows: Rows, worker: WorkerInfo, activity: Minutes[ActivityRow]) -> None:
    """Write that *worker* lives, and its statistics; see `OutboxStore.report`."""
    changes: dict[str, Any] = {
        "seen_at": Now(),
        "in_flight": worker.in_flight,
        "stopping": int(worker.stopping),
        "problem": storable(worker.problem) if worker.problem else None,
        "kinds": [*worker.kinds, *_marks(worker)],
    }
    if not rows.update(WORKER, [Where("id", "eq", worker.id)], changes):
        about = {
            "id": worker.id,
            "host": storable(worker.host, 200),
            "pid": worker.pid,
            "started_at": worker.started_at or Now(),
            "slots": worker.slots,
        }
        rows.insert(WORKER, [{**about, **changes}])
    ITEM_STATISTICS.write(rows, worker.id, activity)


def read_workers(rows: Rows) -> list[WorkerInfo]:
    """Return all workers; see `OutboxStore.workers`."""
    found = rows.select(WORKER, order_by=("started_at", "id"))
    now = rows.now()
    return [_worker(row, now) for row in found]


def _worker(row: Row, now: datetime) -> WorkerInfo:
    age = (now - row["seen_at"]).total_seconds()
    kinds, executors, about = [], [], {**row, "stopping": bool(row["stopping"])}
    for kind in row["kinds"]:
        if kind.startswith(_VERSION):
            about["version"] = kind[len(_VERSION) :]
        elif kind.startswith(_WORKFLOWS):
            about["workflows"] = tuple(kind[len(_WORKFLOWS) :].split())
        elif kind.startswith(_EXECUTOR):
            executors.append(ExecutorUse(**json.loads(kind[len(_EXECUTOR) :])))
        else:
            kinds.append(kind)
    about |= {"kinds": tuple(kinds), "executors": tuple(executors)}
    return WorkerInfo(**about, lost=age > _LOST_SECONDS)


def _marks(worker: WorkerInfo) -> list[str]:
    marks = [] if worker.version is None else [_VERSION + worker.version]
    if worker.workflows:
        marks.append(_WORKFLOWS + " ".join(worker.workflows))
    for each in worker.executors:
        texts = {
            name: storable(text, _LONGEST_PROBLEM)
            for name, text in (("error", each.error), ("problem", each.problem))
            if text is not None
        }
        marks.append(_EXECUTOR + json.dumps({**asdict(each), **texts}))
    return marks


def purge_reports(rows: Rows, older_than_seconds: float) -> int:
    """Delete old statistics, and workers that are long gone; see `OutboxStore.purge_reports`."""
    gone = max(_LOST_SECONDS, min(older_than_seconds, _WORKER_SECONDS))
    purged = rows.delete(ACTIVITY, [Where("at", "lt", Now(-older_than_seconds))])
    return purged + rows.delete(WORKER, [Where("seen_at", "lt", Now(-gone))])
