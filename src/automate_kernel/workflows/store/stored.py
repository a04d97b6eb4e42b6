"""Executions as the database has them: their rows, changes from outside, and their wake-up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes, TemplateError, UnknownHereError
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import MAX_GROUP
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.codec import NULL
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import DEFINITION, EXECUTION, OUTBOX, STEP, WAIT
from automate_kernel.storage.values import storable
from automate_kernel.workflows.decide.record import in_order
from automate_kernel.workflows.decide.waits import ADVANCE, RESUMED, Arrived, OpenWait
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.store.statistics import note_ends

logger: logging.Logger = get_logger(__name__)

PENDING, RUNNING, PAUSED = (
    ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value, ExecutionStatus.PAUSED.value
)  # fmt: skip
GOING = (PENDING, RUNNING, PAUSED)
"""The statuses of an execution that has not ended, and is not being cancelled."""

# So many workers may die over one execution before it is given up.
_MAX_CRASHES = 10


@dataclass(frozen=True, slots=True)
class Loaded:
    """An execution with its steps, the seconds until some of them are due, and the time of it."""

    execution: Execution
    waits: dict[StepKey, float]
    now: datetime
    open: Mapping[StepKey, OpenWait] = field(default_factory=dict)
    """The waits that go on, without those for a time."""
    arrived: Mapping[StepKey, Arrived] = field(default_factory=dict)
    """The signals that have come for them."""
    new: bool = False
    """True if it was begun a moment ago, by who drives it: it is RUNNING, and nothing is saved."""
    sorts_keys: bool = False
    """True if the database gives the keys of an object back in an order of its own."""


def stored_workflow(rows: Rows, definition_id: str) -> Workflow:
    """Return a stored definition; raise `UnknownHereError` if this version can't read it."""
    found = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
    if not found:
        raise AutomateError(
            ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
        )
    try:
        return Workflow.from_dict(found[0]["body"])
    except ValidationError as error:
        # It was read where it was saved: by a version with other fields.
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UnknownHereError(
            f"can't read the definition of workflow {found[0]['name']!r}:"
            f" {place or 'it'} is of another version",
            reason="UNREADABLE_DEFINITION",
            hint="update automate-kernel here",
        ) from None


def unreadable(name: str, error: TemplateError) -> UnknownHereError:
    """Return *error* as the reason why this version can't read a definition of workflow *name*."""
    # With a filter, say, that it doesn't have: it was checked where it was saved.
    text = f"can't read the definition of workflow {name!r}: {error}"
    return UnknownHereError(text, reason="UNREADABLE_DEFINITION")


def change_status(rows: Rows, execution: Execution, status: ExecutionStatus) -> bool:
    """Set the status and the error of an execution that has not ended; return False if it had."""
    code, error, group = stored_error(execution)
    changes: dict[str, Any] = {
        "status": status.value,
        "error_code": code,
        "error": error,
        "error_group": group,
        "updated_at": Now(),
    }
    if status.finished:
        changes |= {"completed_at": Now(), "output": NULL}
    where = [Where("id", "eq", execution.id), Where("status", "in", LIVE)]
    changed = bool(rows.update(EXECUTION, where, changes))
    if changed:
        execution.status = status
    return changed


def cleaning_up(rows: Rows, found: Iterable[Row]) -> list[Row]:
    """
    Return those of *found*, rows of executions, that go on and must clean up once cancelled.

    So may those whose definition is of another version: a worker that can read it will know.
    """
    going: dict[str, list[Row]] = {}
    for row in found:
        if row["status"] in GOING:
            going.setdefault(row["definition_id"], []).append(row)
    return [row for each, its in going.items() if _cleans_up(rows, each, its) for row in its]


def _cleans_up(rows: Rows, definition_id: str, its: Sequence[Row]) -> bool:
    try:
        return stored_workflow(rows, definition_id).cleans_up
    except UnknownHereError:
        return True
    except AutomateError as error:
        for row in its:
            logger.warning("execution %s can't be cleaned up: %s", row["id"], error)
        return False


def begin_cancelling(rows: Rows, found: Sequence[Row]) -> int:
    """Let the executions of *found*, which are locked, clean up, and then be CANCELLED."""
    if not found:
        return 0
    cancelling = {"status": ExecutionStatus.CANCELLING.value, "updated_at": Now()}
    able = [Where("id", "in", [row["id"] for row in found]), Where("status", "in", LIVE)]
    return rows.update(EXECUTION, able, cancelling)


def end_cancelled(rows: Rows, found: Iterable[Row]) -> list[Execution]:
    """Cancel those of *found*, which are locked, that have not ended; return them as they are."""
    ended = [Execution.from_row(row) for row in found if row["status"] in LIVE]
    if not ended:
        return []
    changes = {
        "status": ExecutionStatus.CANCELLED.value, "output": NULL,
        "updated_at": Now(), "completed_at": Now(),
    }  # fmt: skip
    rows.update(EXECUTION, [Where("id", "in", [each.id for each in ended])], changes)
    for each in ended:
        each.status = ExecutionStatus.CANCELLED
    _close(rows, ended)
    return ended


def end_failed(rows: Rows, execution: Execution) -> bool:
    """Fail an execution that no worker ends, and its steps; return False if it had ended."""
    failed = change_status(rows, execution, ExecutionStatus.FAILED)
    if failed:
        _close(rows, [execution])
    return failed


def _close(rows: Rows, ended: Sequence[Execution]) -> None:
    """End the steps and waits of executions that no worker has ended, and count them."""
    its = Where("execution_id", "in", [each.id for each in ended])
    live = [each.value for each in StepStatus if not each.finished]
    cancelled = {"status": StepStatus.CANCELLED.value, "completed_at": Now()}
    rows.update(STEP, [its, Where("status", "in", live)], cancelled)
    rows.delete(WAIT, [its])
    note_ends(rows, ended)


def concurrency_of(rows: Rows, row: Row, known: Workflow | None = None) -> tuple[str, int] | None:
    """
    Return the concurrency key and its limit of an execution that has one.

    The limit is that of its definition, which may be *known*. Where this version can't read it, it
    is that of its wake-up so far: recovery and cancelling must not wait for a version that can.
    """
    if row["concurrency_key"] is None:
        return None
    try:
        concurrency = (known or stored_workflow(rows, row["definition_id"])).concurrency
        limit = concurrency.limit if concurrency else 1
    except UnknownHereError:
        its = [Where("id", "in", item_ids_of([row["item_id"]]))]
        limits = rows.select(OUTBOX, its, columns=("concurrency_limit",))
        limit = next((item["concurrency_limit"] for item in limits), None) or 1
    return row["concurrency_key"], limit


def wake_up(
    execution_id: str,
    workflow: str,
    item_id: str,
    tenant_id: str | None,
    priority: int = 0,
    run_at: datetime | None = None,
    concurrency: tuple[str, int] | None = None,
    *,
    resumed: bool = False,
) -> NewItem:
    """
    Return the outbox item that drives an execution of *workflow*.

    *resumed* says that it had ended.
    """
    key, limit = concurrency or (None, None)
    return NewItem(
        ADVANCE,
        {"execution_id": execution_id},
        id=item_id,
        tenant_id=tenant_id,
        priority=priority,
        run_at=run_at,
        max_attempts=_MAX_CRASHES,
        headers={RESUMED: new_id()} if resumed else {},
        concurrency_key=key,
        concurrency_limit=limit,
        # It goes on while it waits for a retry, a time or an event.
        keeps_slot=concurrency is not None,
        # No workflow's backlog holds up the executions of another.
        lane=workflow,
    )


def definition_row(workflow: Workflow) -> Row:
    """Return the row of a definition, whose id is its hash."""
    about = {"name": workflow.name, "body": workflow.body()}
    return {"id": workflow.hash(), **about, "created_at": Now()}


def stored_error(failed: Execution | StepRun) -> tuple[str | None, str | None, str | None]:
    """Return an error as columns take it: code, text and group."""
    return (
        failed.error_code,
        storable(failed.error) if failed.error else None,
        storable(failed.error_group, MAX_GROUP) if failed.error_group else None,
    )


def going_items(rows: Rows, execution_id: str) -> list[Row]:
    """Return the items, as far as a claim changes them, of an execution and its sub-workflows."""
    items: list[Row] = []
    which = Where("id", "eq", execution_id)
    columns = ("id", "status", "lease_token", "next_attempt_at", "updated_at")
    while found := rows.select(
        EXECUTION, [which, Where("status", "in", LIVE)], columns=("id", "item_id")
    ):
        its = [row["item_id"] for row in found if row["item_id"] is not None]
        items += rows.select(OUTBOX, [Where("id", "in", its)], order_by=("id",), columns=columns)
        which = Where("parent_id", "in", [row["id"] for row in found])
    return items


def step_runs(rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
    """Read the steps of executions, by the execution's id, in the order in which they began."""
    where = [Where("execution_id", "in", list(execution_ids))]
    runs: dict[str, list[StepRun]] = {}
    # Ids are made in the order in which runs begin.
    for row in rows.select(STEP, where, order_by=("id",)):
        runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
    return {execution_id: list(in_order(its)) for execution_id, its in runs.items()}
