"""The bulk commands for executions: the filter that they take, and what one resumes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID, uuid5

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
_ENDED = tuple(each.value for each in ExecutionStatus if each.finished)
_STATUSES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "resume": (_FAILED, _FAILED),
    "cancel": (GOING, GOING),
    "pause": ((PENDING, RUNNING), (PENDING, RUNNING)),
    "unpause": ((PAUSED,), (PAUSED,)),
    "fork": (_ENDED, _FAILED),
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
    "executions", EXECUTION, ("created_at", "id"), 50, _STATUSES, ExecutionStatus,
    ("resume", "fork"), _conditions,
)  # fmt: skip
"""The executions as the target of bulk actions."""


def copy_event(action: BulkAction, execution_id: str) -> str:
    """
    Return the id of the event of the copy that a bulk fork begins of an execution.

    It is the same one each time: a batch that is repeated after a crash begins no second copy.
    """
    return str(uuid5(UUID(execution_id), f"fork {action.began_at} {action.step}"))


def copy_or_leave(copy: Callable[[], object], execution_id: str) -> bool:
    """Begin a copy of an execution; if that can't be, log it and return False."""
    try:
        copy()
    except AutomateError as error:
        if error.retryable:
            raise
        logger.warning("execution %s can't be copied: %s", execution_id, error)
        return False
    return True


def due_times(action: BulkAction, ids: Sequence[str]) -> dict[str, datetime | None]:
    """Return when each of the next executions *ids* of a bulk action is due; None is at once."""
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
