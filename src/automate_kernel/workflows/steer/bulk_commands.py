"""The bulk commands for executions: the filter that they take, and what one resumes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from automate_kernel.base.arguments import check_choice, check_names
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox.bulk_actions import BulkAction, BulkTarget
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Operator, Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import EXECUTION
from automate_kernel.workflows.execution import ExecutionStatus
from automate_kernel.workflows.store.stored import GOING, PAUSED, PENDING, RUNNING

logger: logging.Logger = get_logger(__name__)

Resume = Callable[[Rows, Sequence[str]], int]
"""Resumes some FAILED executions, all or none; returns how many there were."""

_FAILED = (ExecutionStatus.FAILED.value,)
_STATUSES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "resume": (_FAILED, _FAILED),
    "cancel": (GOING, GOING),
    "pause": ((PENDING, RUNNING), (PENDING, RUNNING)),
    "unpause": ((PAUSED,), (PAUSED,)),
}
_COLUMNS: Mapping[str, tuple[str, Operator]] = {
    **{name: (name, "eq") for name in ("workflow", "tenant_id", "error_code", "error_group")},
    "created_before": ("created_at", "lt"),
    "created_after": ("created_at", "ge"),
}


class BulkFilter(TypedDict, total=False):
    """
    Conditions on the executions of a bulk command; all must hold, and None is no condition.

    *status* is one status. Times may be text, as ``isoformat`` writes them. Invalid *ids* match
    nothing.
    """

    status: ExecutionStatus | str | None
    workflow: str | None
    tenant_id: str | None
    error_code: str | None
    error_group: str | None
    created_before: datetime | str | None
    created_after: datetime | str | None
    ids: Sequence[str] | None


def _conditions(rows: Rows, matching: Mapping[str, Any]) -> list[Where]:
    check_names(matching, BulkFilter.__annotations__, "executions")
    given = {name: value for name, value in matching.items() if value is not None}
    where = [
        Where(column, operator, _value(name, given[name]))
        for name, (column, operator) in _COLUMNS.items()
        if name in given
    ]
    if "status" in given:
        status = check_choice(given["status"], ExecutionStatus, "status").value
        where.append(Where("status", "eq", status))
    if "ids" in given:
        where.append(Where("id", "in", item_ids_of(given["ids"])))
    return where


def _value(name: str, value: Any) -> Any:
    # A bulk action that waits for its next turn is JSON, which has no times.
    if name.startswith("created_") and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


EXECUTIONS = BulkTarget(
    "executions", EXECUTION, ("created_at", "id"), 50, _STATUSES, ExecutionStatus, ("resume",),
    _conditions,
)  # fmt: skip
"""The executions as the target of bulk actions."""


def due_times(action: BulkAction, ids: Sequence[str]) -> dict[str, datetime | None]:
    """Return when each of the next executions *ids* of a bulk resume is due; None is at once."""
    places = enumerate(ids, action.seen)
    if action.per_second is None:
        return dict.fromkeys(ids)
    return {
        each: action.paced_from + timedelta(seconds=place / action.per_second) if place else None
        for place, each in places
    }


def resume_or_leave(rows: Rows, resume: Resume, ids: Sequence[str]) -> int:
    """Resume those of the executions *ids* that can be resumed; each other is logged and left."""
    try:
        return resume(rows, ids)
    except AutomateError as error:
        if error.retryable:
            raise
        if len(ids) == 1:
            logger.warning("execution %s can't be resumed: %s", ids[0], error)
            return 0
    # Mostly one of many is refused, and nothing of them is written by then.
    middle = len(ids) // 2
    halves = (ids[:middle], ids[middle:])
    return sum(resume_or_leave(rows, resume, half) for half in halves)
