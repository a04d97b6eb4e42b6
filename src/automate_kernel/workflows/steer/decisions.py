"""Decisions on approvals that were made: who decided what, kept as long as the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from automate_kernel.base.arguments import check_age, check_limit
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import DECISION
from automate_kernel.storage.values import storable

_SHOWN = 500


@dataclass(frozen=True, slots=True)
class MadeDecision:
    """
    A decision that was made: *decided_by* has *approved* or rejected what a step asked.

    *title* is the question, and *comment* the beginning of what the person wrote. *execution_id*,
    *step_id* and *position* name the step, whose execution may be deleted by now.
    """

    id: str
    execution_id: str
    step_id: str
    position: int
    workflow: str
    title: str
    approved: bool
    decided_by: str
    comment: str
    tenant_id: str | None
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class DecisionPage:
    """A page of decisions; *after* leads to the next one, and is empty at the end."""

    decisions: list[MadeDecision] = field(default_factory=list)
    after: str = ""


def keep_decision(
    rows: Rows, asked: Mapping[str, Any], decision: Mapping[str, Any], at: datetime
) -> None:
    """Keep a *decision*, redacted, in the transaction that makes it; *asked* says on what."""
    row: Row = {
        **asked, "id": new_id(), "title": storable(asked["title"], _SHOWN),
        "approved": int(decision["approved"]), "decided_by": storable(str(decision["by"]), 200),
        "comment": storable(str(decision["comment"]), _SHOWN), "decided_at": at,
    }  # fmt: skip
    rows.insert(DECISION, [row])


def read_decisions(rows: Rows, *, tenant_id: str | None, after: str, limit: int) -> DecisionPage:
    """Return a page of decisions, the latest first: a tenant's, or all."""
    its = [] if tenant_id is None else [Where("tenant_id", "eq", tenant_id)]
    ranges = [IndexRange(its, ("-decided_at", "-id"), [])]
    name = f"decisions {tenant_id}"
    found = read_page(rows, DECISION, ranges, name=name, after=after, limit=limit)
    made = [MadeDecision(**{**row, "approved": bool(row["approved"])}) for row in found.rows]
    return DecisionPage(made, found.after)


def purge_decisions(rows: Rows, *, older_than_seconds: float, limit: int = 1_000) -> int:
    """Delete up to *limit* decisions that are older, and return their number."""
    age, limit = check_age(older_than_seconds, "older_than_seconds"), check_limit(limit)
    old = [Where("decided_at", "lt", Now(-age))]
    return rows.delete_some(DECISION, old, limit, ("decided_at",))
