"""What a worker does with executions: begins, loads and saves them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore
from automate_kernel.outbox.failed_attempts import (
    MOST_OF_EXECUTION,
    FailedAttempt,
    keep_attempts,
)
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.labels import add_labels, label_rows
from automate_kernel.outbox.payloads import (
    MAX_PAYLOAD_BYTES,
    encode_json,
    redacted_json,
    storable,
)
from automate_kernel.storage.rows import Now, Rows, Storage, Where
from automate_kernel.storage.tables import DEFINITION, EXECUTION, STEP
from automate_kernel.tracebacks import MAX_GROUP
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.step_rows import (
    attempt_rows,
    new_step_row,
    step_row,
    unfinished,
)

__all__ = ["ADVANCE", "LIVE", "ExecutionEndedError", "ExecutionRows", "Loaded"]

ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

LIVE = (ExecutionStatus.PENDING.value, ExecutionStatus.RUNNING.value)
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
# How often the worker of one execution may die before it is given up.
_MAX_CRASHES = 10
# Accepted already, at whose limit its id may be one thing too much.
_MOST_EVENT_BYTES = 2 * MAX_PAYLOAD_BYTES


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    An execution with its steps, the seconds that its retries still wait, and when that was.
    """

    execution: Execution
    waits: dict[tuple[str, int], float]
    now: datetime


class ExecutionEndedError(AutomateError):
    """The execution was cancelled while it ran."""

    default_code = ErrorCodes.CANCELLED


class ExecutionRows:
    """
    The state of executions, as a worker writes it.

    There is no lease here: the execution's outbox item has one, and every save renews it in the
    same transaction, so that only the worker which holds the item can save.
    """

    def __init__(self, storage: Storage, outbox: OutboxStore) -> None:
        self.storage = storage
        self.outbox = outbox

    # -- beginning ---------------------------------------------------------------------------

    def start(self, rows: Rows, workflow: Workflow, event: Event, *, priority: int = 0) -> str:
        """
        Begin an execution of *workflow* for *event*, in the transaction of *rows*.

        The same event starts the same workflow only once; the id says which they were.
        """
        execution_id = str(uuid.uuid5(_NAMESPACE, f"{event.id}\n{workflow.name}"))
        definition, item_id = workflow.hash(), new_id()
        body = encode_json(workflow.to_dict(), "workflow")
        rows.insert(
            DEFINITION,
            [{"id": definition, "name": workflow.name, "body": body, "created_at": Now()}],
        )
        begun = rows.insert(
            EXECUTION,
            [
                {
                    "id": execution_id,
                    "workflow": workflow.name,
                    "definition_id": definition,
                    "status": ExecutionStatus.PENDING.value,
                    # Accepted already, at whose limit its id may be one thing too much.
                    "event": encode_json(
                        event.to_json(),
                        "payload",
                        _MOST_EVENT_BYTES,
                        inside=1,
                        redact=self.outbox.redact,
                    ),
                    "tenant_id": event.tenant_id,
                    "item_id": item_id,
                    "created_at": Now(),
                    "updated_at": Now(),
                }
            ],
        )
        if begun:
            labels = label_rows(execution_id, "execution", event.labels, event.tenant_id)
            add_labels(rows, labels)
            self._wake(rows, execution_id, item_id, event.tenant_id, priority)
        return execution_id

    def redacted(self, event: Event) -> Event:
        """*event*, or a copy without the secrets that are known here in its payload."""
        redact = self.outbox.redact
        if redact is None:
            return event
        payload = redacted_json(event.payload, "payload", redact, _MOST_EVENT_BYTES)
        return event if payload is event.payload else replace(event, payload=payload)

    def _wake(
        self,
        rows: Rows,
        execution_id: str,
        item_id: str,
        tenant_id: str | None,
        priority: int = 0,
        *,
        run_at: datetime | None = None,
    ) -> None:
        item = NewItem(
            ADVANCE,
            {"execution_id": execution_id},
            id=item_id,
            tenant_id=tenant_id,
            priority=priority,
            run_at=run_at,
            max_attempts=_MAX_CRASHES,
        )
        self.outbox.enqueue_many([item], transaction=rows.native)

    # -- working -----------------------------------------------------------------------------

    def load(self, execution_id: str) -> Loaded | None:
        """An execution as it was saved last, or None."""
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, [Where("id", "eq", execution_id)])
            if not found:
                return None
            runs = self._runs(rows, [execution_id]).get(execution_id, [])
            now = rows.now()
        waits = {
            (run.step_id, run.position): (run.next_attempt_at - now).total_seconds()
            for run in runs
            if run.status is StepStatus.RETRY and run.next_attempt_at is not None
        }
        return Loaded(Execution.from_row(found[0], runs), waits, now)

    def definition(self, definition_id: str) -> Workflow:
        """The definition that an execution is pinned to."""
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(DEFINITION, [Where("id", "eq", definition_id)])
        if not found:
            raise AutomateError(
                ErrorCodes.DATA_LOSS, f"workflow definition {definition_id[:12]} is missing"
            )
        return Workflow.from_dict(found[0]["body"])

    @contextmanager
    def holding(self, item: OutboxItem) -> Iterator[Rows]:
        """
        A transaction that commits only if *item* is still ours, and renews its lease.

        Raises `LeaseLostError`, and nothing is saved.
        """
        with self.storage.begin() as rows:
            self.outbox.renew(
                item.id,
                item.lease_owner or "",
                token=item.lease_token,
                transaction=rows.native,
            )
            yield rows

    def save(
        self,
        rows: Rows,
        execution: Execution,
        runs: Sequence[StepRun],
        delays: dict[tuple[str, int], float],
        stored: set[tuple[str, int]],
        *,
        failures: Sequence[FailedAttempt] = (),
        claim: str = "",
    ) -> None:
        """
        Write *runs*; *stored* holds the keys of those that have a row already.

        *failures* are attempts that failed since the last save, and *claim* is the token of the
        claim that they were made in.
        Raises `ExecutionEndedError` if the execution was cancelled meanwhile.
        """
        live = [
            Where("id", "eq", execution.id),
            Where("status", "in", LIVE),
            # It may have been cancelled and resumed, and then it is another item's to drive.
            Where("item_id", "eq", execution.item_id),
        ]
        changes = {"status": ExecutionStatus.RUNNING.value, "updated_at": Now()}
        if not rows.update(EXECUTION, live, changes):
            raise ExecutionEndedError(message=f"execution {execution.id} has ended")
        execution.status = ExecutionStatus.RUNNING
        new = []
        for run in runs:
            row = step_row(run, delays.get((run.step_id, run.position)))
            if (run.step_id, run.position) in stored:
                rows.update(STEP, unfinished(run), row)
            else:
                new.append(new_step_row(run, row))
        if new:
            rows.insert(STEP, new)
        keep_attempts(rows, attempt_rows(failures, execution.id, claim), MOST_OF_EXECUTION)

    def change(
        self, rows: Rows, execution: Execution, status: ExecutionStatus, output: Any = None
    ) -> bool:
        """Set the status of an execution that has not ended; False if it had."""
        changes: dict[str, Any] = {
            "status": status.value,
            "error_code": execution.error_code,
            "error": storable(execution.error) if execution.error else None,
            "error_group": (
                storable(execution.error_group, MAX_GROUP) if execution.error_group else None
            ),
            "updated_at": Now(),
        }
        if status.finished:
            changes["completed_at"] = Now()
            if self.outbox.redact is not None:
                output = redacted_json(output, "output of the workflow", self.outbox.redact)
            changes["output"] = encode_json(output, "output of the workflow")
        where = [Where("id", "eq", execution.id), Where("status", "in", LIVE)]
        changed = bool(rows.update(EXECUTION, where, changes))
        if changed:
            execution.status = status
            execution.output = output
        return changed

    def _runs(self, rows: Rows, execution_ids: Sequence[str]) -> dict[str, list[StepRun]]:
        where = [Where("execution_id", "in", list(execution_ids))]
        runs: dict[str, list[StepRun]] = {}
        # Ids are made in the order in which runs begin.
        for row in rows.select(STEP, where, order_by=("id",)):
            runs.setdefault(row["execution_id"], []).append(StepRun.from_row(row))
        return runs
