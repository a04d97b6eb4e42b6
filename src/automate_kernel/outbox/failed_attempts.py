"""Failed attempts: errors of an item, or of the steps of an execution, kept and in groups."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from automate_kernel.outbox.causes import COLUMNS, first_seen, same_group
from automate_kernel.secrets.tracebacks import MAX_GROUP, MAX_TRACE
from automate_kernel.storage.query import Now, Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import FAILURE
from automate_kernel.storage.values import storable

MOST_OF_ITEM = 20
"""The number of failed attempts that are kept of an item: the first, and the last ones."""
MOST_OF_EXECUTION = 200
"""The same for all steps of an execution together."""

_ORDER = ("failed_at", "attempt", "id")
_NAMESPACE = uuid.UUID("1b671a64-40d5-491e-99b0-da01ff1f3341")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """
    One attempt that failed: of an item, or of a step (*step_id*, *position*) of an execution.

    *attempt* counts from 1; 0 is a step that failed before its call. *error_group* is shared by
    errors of one type and place. *trace* is where it was raised: files, lines and their source.
    *started_at* is known of a step's attempt, *worker_id* is the worker that made it.
    """

    attempt: int
    error_code: str
    error_group: str
    error: str
    trace: str | None = None
    failed_at: datetime | None = None
    step_id: str | None = None
    position: int = -1
    started_at: datetime | None = None
    worker_id: str | None = None

    @property
    def duration_seconds(self) -> float | None:
        """The seconds from its beginning to its failure, or None if that is not known."""
        return seconds_between(self.started_at, self.failed_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """
    Failed items of one *kind*, or executions of one workflow, whose errors have a place in common.

    *group* names it (``KeyError in shop.actions.charge``; empty for what failed before groups were
    kept), *count* is their number, and *first_at* the time when the first of them failed: of all
    tenants' together also if that is deleted since. Of the newest,
    *latest_id* is the id, *latest_at* the time of its failure, *error_code* its code and *error*
    its text.
    """

    kind: str
    group: str
    error_code: str
    count: int
    latest_id: str
    latest_at: datetime | None
    error: str
    first_at: datetime | None = None


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from *start* to *end*, at least 0; None if one is not known."""
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())


def new_attempt(subject_id: str, claim: str, failed: FailedAttempt) -> Row:
    """
    Return the row of an attempt that has *failed*; now, unless it says when.

    *claim* is the token of the claim in which it was: recorded twice, it is one row.
    """
    about = f"{subject_id}\n{claim}\n{failed.step_id}\n{failed.position}\n{failed.attempt}"
    return {
        **asdict(failed),
        "id": str(uuid.uuid5(_NAMESPACE, about)),
        "subject_id": subject_id,
        "error_code": storable(failed.error_code, 64),
        "error_group": storable(failed.error_group or failed.error_code, MAX_GROUP),
        "error": storable(failed.error),
        "trace": storable(failed.trace, MAX_TRACE) if failed.trace else None,
        "failed_at": failed.failed_at or Now(),
    }


def keep_attempts(rows: Rows, new: Sequence[Row], most: int) -> None:
    """Store *new* rows, and drop what is beyond *most* of a subject, but for its first."""
    if not new:
        return
    rows.insert(FAILURE, new)
    subjects = sorted({row["subject_id"] for row in new})
    of_these = Where("subject_id", "in", subjects)
    for counted in rows.count(FAILURE, ("subject_id",), [of_these]):
        if counted["n"] > most:
            its = [Where("subject_id", "eq", counted["subject_id"])]
            found = rows.select(FAILURE, its, order_by=_ORDER, columns=_ORDER)
            gone = sorted(row["id"] for row in found[1 : counted["n"] - most + 1])
            rows.delete(FAILURE, [Where("id", "in", gone)])


def failed_attempts(rows: Rows, subject_id: str) -> list[FailedAttempt]:
    """Return the attempts of an item or of an execution that are kept, the earliest first."""
    its = [Where("subject_id", "eq", subject_id)]
    names = [each.name for each in fields(FailedAttempt)]
    found = rows.select(FAILURE, its, order_by=_ORDER, columns=names)
    return [FailedAttempt(**row) for row in found]


def error_groups(
    rows: Rows, table: str, where: Sequence[Where], *, everybody: bool, limit: int = 100
) -> list[ErrorGroup]:
    """
    Group the FAILED rows of *table* that match *where*, by kind and by where their error came from.

    The largest groups come first. *everybody* says that they are all tenants': then causes are
    known for longer than what failed. It is three statements.
    """
    of = COLUMNS[table]
    prefix = of.group.removesuffix("error_group")
    code, error = f"{prefix}error_code", f"{prefix}error"
    counted = rows.count(table, (of.kind, of.group), where, ends=of.order)
    counted.sort(key=lambda row: (-row["n"], row[of.kind], row[of.group] or ""))
    shown = counted[:limit]
    parts = [
        Portion([*where, *same_group(of, row, end)], 1)
        for row in shown
        for end in ("most", "least")
    ]
    read = tuple(dict.fromkeys(("id", "completed_at", code, error, of.order)))
    found = rows.select_parts(table, parts, order_by=(of.order,), columns=read)
    causes = [(row[of.kind], row[of.group] or "") for row in shown]
    seen = first_seen(rows, of.about, causes) if everybody else {}
    groups = []
    for cause, count, latest, oldest in zip(causes, shown, found[::2], found[1::2], strict=True):
        row: Row = latest[0] if latest else dict.fromkeys(read)
        first = [oldest[0]["completed_at"]] if oldest else []
        first += [seen[cause]] if cause in seen else []
        groups.append(
            ErrorGroup(
                kind=cause[0],
                group=cause[1],
                error_code=row[code] or "",
                count=count["n"],
                latest_id=row["id"] or "",
                latest_at=row["completed_at"],
                error=row[error] or "",
                first_at=min((at for at in first if at is not None), default=None),
            )
        )
    return groups
