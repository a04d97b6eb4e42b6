"""A task's result, from its outbox item and the record of its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.utils.module_loading import import_string

from automate_django.kernel import get_kernel
from automate_django.tasks.versions import Task, TaskError, TaskResult, TaskResultStatus
from automate_kernel.outbox import ItemStatus

if TYPE_CHECKING:
    from automate_django import models
    from automate_kernel.outbox import OutboxItem

KIND = "django.task"
"""The kind of outbox items that are tasks; a declared queue's items have its name behind it."""
LOST = "lost"
"""The id in place of a worker's that died, or was cut off, before it could leave its own."""
_STATUS = {
    ItemStatus.PENDING: TaskResultStatus("READY"),
    ItemStatus.RETRY: TaskResultStatus("READY"),
    ItemStatus.RUNNING: TaskResultStatus("RUNNING"),
    ItemStatus.COMPLETED: TaskResultStatus("SUCCESSFUL"),
    ItemStatus.FAILED: TaskResultStatus("FAILED"),
    ItemStatus.CANCELLED: TaskResultStatus("FAILED"),
}


class TaskLostError(Exception):
    """The task's workers died, or did not finish it in time, until its attempts were spent."""


class TaskCancelledError(Exception):
    """The task was cancelled before it had finished."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The ended attempts, and the start of a running one."""

    worker_ids: list[str]
    errors: list[dict[str, str]]
    started_at: datetime | None
    last_attempted_at: datetime | None


def kind_of(queue_name: str, queues: set[str]) -> str:
    """
    Return the kind of the items of a queue, so that each queue can be paused, limited and chosen.

    A backend without ``QUEUES`` takes any name, so that no worker could know all kinds: its items
    have one kind.
    """
    return f"{KIND}.{queue_name}" if queues else KIND


def is_task(kind: str) -> bool:
    """Return True if outbox items of *kind* are tasks."""
    return kind == KIND or kind.startswith(f"{KIND}.")


def task_of(payload: Mapping[str, Any], priority: int) -> Task[..., Any]:
    """Return the task that an item names; raises ImportError or SuspiciousOperation."""
    task = import_string(payload["task"])
    if not isinstance(task, Task):
        raise SuspiciousOperation(f"{payload['task']!r} is no task")
    run_after = payload.get("run_after")
    return task.using(
        priority=priority,
        queue_name=payload["queue_name"],
        backend=payload["backend"],
        run_after=datetime.fromisoformat(run_after) if run_after else None,
    )


def attempts_of(item: OutboxItem, row: models.TaskResult | None) -> Attempts:
    """Return the known attempts of *item*, the running one included."""
    running = item.status == ItemStatus.RUNNING
    begun, known = item.attempt_count, row.attempt if row else 0
    if begun < known or (running and begun == known):
        known = 0  # it was requeued since, and its attempts count from the start
    ids = list(row.worker_ids) if row else []
    ids += [LOST] * (begun - known - running)
    if running:
        ids.append(str(item.lease_owner))
    claimed = item.updated_at if running else None
    if row is None:
        return Attempts(ids, [], claimed, claimed)
    return Attempts(ids, list(row.errors), row.started_at, claimed or row.last_attempted_at)


def result_of(
    item: OutboxItem, row: models.TaskResult | None, task: Task[..., Any]
) -> TaskResult[..., Any]:
    """Return the result of *task*, whose item is *item*."""
    payload, attempts = item.payload, attempts_of(item, row)
    status = _STATUS[ItemStatus(item.status)]
    errors = [*attempts.errors, *_unrecorded(item, row)]
    enqueued_at = payload.get("enqueued_at")
    result: TaskResult[..., Any] = TaskResult(
        task=task,
        id=str(item.id),
        status=status,
        enqueued_at=datetime.fromisoformat(enqueued_at) if enqueued_at else item.created_at,
        started_at=attempts.started_at,
        finished_at=_finished_at(item, row),
        last_attempted_at=attempts.last_attempted_at,
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=payload["backend"],
        errors=[TaskError(**error) for error in errors],
        worker_ids=attempts.worker_ids,
    )
    if row is not None and status == TaskResultStatus("SUCCESSFUL"):
        object.__setattr__(result, "_return_value", row.return_value)
    return result


def _finished_at(item: OutboxItem, row: models.TaskResult | None) -> datetime | None:
    if item.completed_at is None:
        return None
    recorded = row.finished_at if row is not None and row.attempt == item.attempt_count else None
    return recorded or item.completed_at


def _unrecorded(item: OutboxItem, row: models.TaskResult | None) -> list[dict[str, str]]:
    """Return the error of a task that its function did not end."""
    if item.status == ItemStatus.CANCELLED:
        return [_error(TaskCancelledError, "the task was cancelled")]
    recorded = row is not None and row.attempt == item.attempt_count and row.finished_at
    if item.status == ItemStatus.FAILED and not recorded:
        return [_error(TaskLostError, item.last_error or "its worker died")]
    return []


def _error(cls: type[Exception], text: str) -> dict[str, str]:
    path = f"{cls.__module__}.{cls.__qualname__}"
    return {"exception_class_path": path, "traceback": f"{path}: {text}\n"}


def read_result(result_id: str) -> TaskResult[..., Any] | None:
    """Return the result with this id, or None."""
    from automate_django.models import TaskResult as Record

    try:
        key = str(UUID(str(result_id)))
    except ValueError:
        return None
    kernel = get_kernel()
    records = Record.objects.using(kernel.storage.alias)  # type: ignore[attr-defined]
    # In this order, and again if an attempt has ended in between.
    row, item = records.filter(pk=key).first(), _item(kernel, key)
    if item is None or not is_task(item.kind):
        return None
    if item.status != ItemStatus.RUNNING and item.attempt_count:
        row = records.filter(pk=key).first()
    return result_of(item, row, task_of(item.payload, item.priority))


def _item(kernel: Any, key: str) -> Any:
    from automate_django import models

    if kernel.outbox.tables is None:
        return kernel.outbox.get(key)
    # By the ORM: the store reads in a transaction, and SQLite has one of them at a time.
    return models.OutboxItem.objects.using(kernel.storage.alias).filter(pk=key).first()
