"""Causes of failures: when each was seen first, kept for longer than what failed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from automate_kernel.storage.query import Now, Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemStatus
from automate_kernel.storage.tables import CAUSE, EXECUTION, OUTBOX

_FAILED = Where("status", "eq", ItemStatus.FAILED.value)
# A cause that is still there is noted again after a day, and forgotten a year after the last time.
_AGAIN = timedelta(days=1)
_KEPT_SECONDS = 365 * 86_400.0


class FailureColumns(NamedTuple):
    """The columns of a table whose rows may be FAILED: their kind, cause, and order in time."""

    about: str
    kind: str
    group: str
    order: str


COLUMNS: dict[str, FailureColumns] = {
    OUTBOX: FailureColumns("item", "kind", "last_error_group", "id"),
    EXECUTION: FailureColumns("execution", "workflow", "error_group", "created_at"),
}
"""The tables of which failures are grouped."""


def note_causes(rows: Rows) -> int:
    """Note what has failed for a cause that wasn't known; return the number of new causes."""
    rows.delete(CAUSE, [Where("last_at", "lt", Now(-_KEPT_SECONDS))])
    return sum(_note(rows, table, columns) for table, columns in COLUMNS.items())


def _note(rows: Rows, table: str, of: FailureColumns) -> int:
    counted = rows.count(table, (of.kind, of.group), [_FAILED], ends=of.order)
    found = {_key(of.about, row[of.kind], row[of.group]): row for row in counted if row[of.group]}
    about = [Where("about", "eq", of.about)]
    known = {row["id"]: row for row in rows.select(CAUSE, about, columns=("id", "last_at"))}
    now = rows.now()
    again = [key for key in found if key in known and known[key]["last_at"] < now - _AGAIN]
    rows.update(CAUSE, [Where("id", "in", sorted(again))], {"last_at": now})
    new = [(key, row) for key, row in found.items() if key not in known]
    oldest = rows.select_parts(
        table, [Portion(same_group(of, row, "least"), 1) for _, row in new], order_by=(of.order,),
        columns=(of.order, "completed_at"),
    )  # fmt: skip
    made = [
        {
            "id": key, "about": of.about, "kind": row[of.kind], "error_group": row[of.group],
            "first_at": (first[0]["completed_at"] if first else None) or now, "last_at": now,
        }
        for (key, row), first in zip(new, oldest, strict=True)
    ]  # fmt: skip
    return rows.insert(CAUSE, made)


def same_group(of: FailureColumns, row: Row, end: str) -> list[Where]:
    """Return the conditions on the first or last failure of a group that was counted in *row*."""
    its = [Where(name, "eq", row[name]) for name in (of.kind, of.group)]
    return [_FAILED, *its, Where(of.order, "eq", row[end])]


def first_seen(
    rows: Rows, about: str, groups: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], datetime]:
    """Return when causes were seen first, by kind and group, as far as they were noted."""
    keys = {_key(about, *each): each for each in groups}
    ids = [Where("id", "in", sorted(keys))]
    found = rows.select(CAUSE, ids, columns=("id", "first_at"))
    return {keys[row["id"]]: row["first_at"] for row in found}


def _key(about: str, kind: str, group: str) -> str:
    return hashlib.sha256(f"{about}\n{kind}\n{group}".encode()).hexdigest()
