"""The errors of failed attempts: of an item, or of the steps of an execution."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from automate_kernel.outbox.item import ItemStatus, OutboxItem, storable
from automate_kernel.outbox.queries import conditions
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import FAILURE, OUTBOX
from automate_kernel.tracebacks import MAX_GROUP, MAX_TRACE

__all__ = [
    "ErrorGroup",
    "FailedAttempt",
    "Insight",
    "failed_attempts",
    "forget_attempts",
    "keep_attempts",
    "new_attempt",
]

MOST_OF_ITEM = 20
"""How many failed attempts of an item are kept: the first, and the last ones."""
MOST_OF_EXECUTION = 200
"""The same for all steps of an execution together."""

_NAMESPACE = uuid.UUID("1b671a64-40d5-491e-99b0-da01ff1f3341")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """
    One attempt that failed: of an item, or of a step (*step_id*, *position*) of an execution.

    *attempt* counts from 1; 0 is a step that failed before its call. *error_group* is what the
    error has in common with others, *trace* where it was raised: files, lines and their source.
    """

    attempt: int
    error_code: str
    error_group: str
    error: str
    trace: str | None = None
    failed_at: datetime | None = None
    step_id: str | None = None
    position: int = -1

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FailedAttempt:
        """The attempt that a row of `automate_kernel.storage.tables.FAILURE` holds."""
        return cls(**{each.name: row[each.name] for each in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """
    Failed items of one *kind*, or executions of one workflow, whose errors have a place in common.

    *group* names it (``KeyError in shop.actions.charge``; empty for what failed before groups were
    kept), *count* is how many there are. Of the newest one *latest_id* is the id, *latest_at* when
    it failed, and *error* its text.
    """

    kind: str
    group: str
    error_code: str
    count: int
    latest_id: str
    latest_at: datetime | None
    error: str


def new_attempt(
    subject_id: str,
    claim: str,
    *,
    attempt: int,
    code: str,
    group: str | None,
    error: str,
    trace: str | None,
    step_id: str | None = None,
    position: int = -1,
) -> Row:
    """
    The row of a failed attempt.

    *claim* is the token of the claim in which it was: told twice, it is one row.
    """
    about = f"{subject_id}\n{claim}\n{step_id}\n{position}\n{attempt}"
    return {
        "id": str(uuid.uuid5(_NAMESPACE, about)),
        "subject_id": subject_id,
        "step_id": step_id,
        "position": position,
        "attempt": attempt,
        "error_code": storable(code, 64),
        "error_group": storable(group or code, MAX_GROUP),
        "error": storable(error),
        "trace": storable(trace, MAX_TRACE) if trace else None,
        "failed_at": Now(),
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
            order = ("failed_at", "attempt", "id")
            found = rows.select(FAILURE, its, order_by=order, columns=order)
            _drop(rows, [row["id"] for row in found[1 : counted["n"] - most + 1]])


def failed_attempts(rows: Rows, subject_id: str) -> list[FailedAttempt]:
    """The attempts of an item or of an execution that are kept, the earliest first."""
    found = rows.select(
        FAILURE,
        [Where("subject_id", "eq", subject_id)],
        order_by=("failed_at", "attempt", "id"),
    )
    return [FailedAttempt.from_row(row) for row in found]


def forget_attempts(rows: Rows, subject_ids: Sequence[str]) -> None:
    """Forget the attempts of items or executions that are deleted."""
    # By their keys, which lock nothing beside them; mostly there are none.
    where = [Where("subject_id", "in", list(subject_ids))]
    _drop(rows, [row["id"] for row in rows.select(FAILURE, where, columns=("id",))])


def _drop(rows: Rows, ids: Sequence[str]) -> None:
    if ids:
        rows.delete(FAILURE, [Where("id", "in", sorted(ids))])


class Insight:
    """The part of `RowsOutboxStore` that tells of failures and finds by labels."""

    storage: Storage

    def labelled(
        self,
        label: str,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[OutboxItem]:
        """Items with a label; see `OutboxStore.labelled`."""
        matching = {"label": label, "status": status, "kind": kind, "tenant_id": tenant_id}
        with self.storage.begin(atomic=False) as rows:
            items = rows.select(
                OUTBOX, conditions(rows, matching), order_by=("-created_at", "-id"), limit=limit
            )
        return [OutboxItem.from_row(row) for row in items]

    def failed_attempts(self, item_id: str) -> list[FailedAttempt]:
        """The errors of an item's attempts; see `OutboxStore.failed_attempts`."""
        try:
            item_id = str(UUID(str(item_id)))
        except ValueError:
            return []
        with self.storage.begin(atomic=False) as rows:
            return failed_attempts(rows, item_id)

    def error_groups(
        self, *, kind: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """The failed items in groups; see `OutboxStore.error_groups`."""
        failed = [Where("status", "eq", ItemStatus.FAILED.value)]
        given = {"kind": kind, "tenant_id": tenant_id}
        failed += [Where(name, "eq", value) for name, value in given.items() if value is not None]
        by = ("kind", "last_error_group", "last_error_code")
        with self.storage.begin(atomic=False) as rows:
            counted = rows.count(OUTBOX, by, failed)
            counted.sort(key=lambda row: (-row["n"], row["kind"], row["last_error_group"] or ""))
            return [self._group(rows, row, failed) for row in counted[:limit]]

    def _group(self, rows: Rows, counted: Row, failed: list[Where]) -> ErrorGroup:
        names = ("kind", "last_error_group", "last_error_code")
        its = [*failed, *(Where(name, "eq", counted[name]) for name in names)]
        read = ("id", "completed_at", "last_error")
        latest = rows.select(OUTBOX, its, order_by=("-id",), limit=1, columns=read)
        row: Row = latest[0] if latest else dict.fromkeys(read)
        return ErrorGroup(
            kind=counted["kind"],
            group=counted["last_error_group"] or "",
            error_code=counted["last_error_code"] or "",
            count=counted["n"],
            latest_id=row["id"] or "",
            latest_at=row["completed_at"],
            error=row["last_error"] or "",
        )
