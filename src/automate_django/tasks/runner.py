"""The runner of tasks in a worker: it calls a task, and records its end with its item's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, transaction
from django.db.models import Exists, OuterRef
from django.dispatch import Signal
from django.utils import timezone

from automate_django.connections import freshen
from automate_django.models import OutboxItem as Item
from automate_django.models import TaskResult as Record
from automate_django.tasks.backend import OutboxBackend
from automate_django.tasks.results import KIND, attempts_of, is_task, kind_of, result_of, task_of
from automate_django.tasks.retries import Retry, retry_of
from automate_django.tasks.versions import (
    LOGGER,
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from automate_kernel.base.errors import (
    ConfigError,
    ErrorCodes,
    LeaseLostError,
    PayloadError,
    StorageError,
)
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome
from automate_kernel.outbox.item import Backoff, OutcomeRecorded
from automate_kernel.plugins import hookimpl
from automate_kernel.secrets import RedactingFilter
from automate_kernel.storage.errors import is_refusal
from automate_kernel.storage.values import encode_json, storable
from automate_kernel.worker.handler import Handler, failed, should_stop
from automate_kernel.worker.periodic import SAVE_SECONDS, try_for

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

_LONGEST_TRACEBACK = 20_000
_MOST_ERRORS = 20
_NEVER = Retry(max_attempts=1)
_FIELDS = [field.name for field in Record._meta.local_fields if not field.primary_key]


def add_tasks(kernel: Kernel) -> None:
    """Let workers of *kernel* run the tasks of every `OutboxBackend` in ``TASKS``."""
    backends = _backends()
    if not backends:
        return
    kinds = {KIND} | {kind_of(queue, each.queues) for each in backends for queue in each.queues}
    runner = TaskRunner(kernel)
    for kind in sorted(kinds):
        kernel.handler(kind)(runner)
    kernel.register(TaskHooks(kernel), "hook", key="automate_django.tasks")
    kernel.purges.append(partial(forget_results, kernel))
    # Django logs the exception of a failed task, whole.
    log = logging.getLogger(LOGGER)
    for former in [each for each in log.filters if isinstance(each, RedactingFilter)]:
        log.removeFilter(former)
    log.addFilter(RedactingFilter(kernel.redactor))


def _backends() -> list[OutboxBackend]:
    found = []
    for alias in task_backends:
        try:
            backend = task_backends[alias]
        except (ImproperlyConfigured, ImportError):
            continue  # reported by Django's own check
        if isinstance(backend, OutboxBackend):
            found.append(backend)
    return found


def kinds_of(queues: Sequence[str]) -> list[str]:
    """Return the kinds of the items in *queues*; raises `ConfigError` for an unknown queue."""
    backends, found = _backends(), []
    for queue in queues:
        if any(queue in backend.queues for backend in backends):
            found.append(f"{KIND}.{queue}")
        elif not all(backend.queues for backend in backends):
            found.append(KIND)  # of the backends that take any name, all in one
        else:
            known = sorted({name for backend in backends for name in backend.queues})
            hint = f"there are: {', '.join(known)}" if known else "TASKS names no OutboxBackend"
            raise ConfigError(f"no backend in TASKS has the queue {queue!r}", hint=hint)
    return found


class TaskRunner:
    """The handler of outbox items that are tasks."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._alias: str = kernel.storage.alias  # type: ignore[attr-defined]

    def __call__(self, item: OutboxItem) -> OutcomeRecorded:
        """Run the task, and record its outcome together with the item's end."""
        freshen()
        row = Record.objects.using(self._alias).filter(pk=item.id).first()
        record = _record_of(item, row)
        try:
            task = task_of(item.payload, item.priority)
        except Exception as error:
            # Tried again: this worker may be older than the process that enqueued the task.
            return self._fail(item, record, error)
        result = result_of(item, row, task)
        _change(result, started_at=record.started_at, last_attempted_at=record.last_attempted_at)
        _send(task_started, result)
        try:
            value = self._call(result)
        except BaseException as error:
            if is_interruption(error):
                raise
            return self._fail(item, record, error, retry_of(task.func, _retry(task)), result)
        try:
            record.return_value = self._stored(value)
            self._save(item, record, Outcome(item.id, token=item.lease_token))
        except Exception as error:
            if not _is_refusal(error):
                raise
            # The task has done its work: called again, it would do it again for the same end.
            record.return_value = None
            return self._fail(item, record, error, _NEVER, result)
        _finish(result, record, TaskResultStatus("SUCCESSFUL"))
        return OutcomeRecorded()

    def _call(self, result: TaskResult[..., Any]) -> Any:
        """Call the task's function."""
        context: list[Any] = [TaskContext(task_result=result)] if result.task.takes_context else []
        # Inside a block (of a TestCase, which runs tasks inline) a database error in the task must
        # not take its record along.
        inside = connections[self._alias].in_atomic_block
        with transaction.atomic(using=self._alias) if inside else nullcontext():
            return result.task.call(*context, *result.args, **result.kwargs)

    def _stored(self, value: Any) -> Any:
        """Return *value* as JSON, without the secrets that the kernel knows."""
        value = normalize_json(value)
        encode_json(value, "return value")
        return self._kernel.redactor.redact_value(value)

    def _fail(
        self,
        item: OutboxItem,
        record: Record,
        error: BaseException,
        retry: Retry | None = None,
        result: TaskResult[..., Any] | None = None,
    ) -> OutcomeRecorded:
        """Record *error*, with the item's end or its next attempt; without *retry* try again."""
        redactor = self._kernel.redactor
        again = retry is None or retry.again(error)
        last = item if again else replace(item, max_attempts=item.attempt_count)
        handler = Handler(item.kind, self, backoff=retry.backoff if retry else Backoff())
        outcome = failed(handler, last, error, redactor.redact_exception, redactor.redact)
        if outcome is None:
            raise error
        path = f"{type(error).__module__}.{type(error).__qualname__}"
        traceback = redactor.redact("".join(format_exception(error)))[-_LONGEST_TRACEBACK:]
        recorded = {"exception_class_path": path, "traceback": storable(traceback, len(traceback))}
        record.errors = [*record.errors, recorded][-_MOST_ERRORS:]
        self._save(item, record, outcome)
        if result is not None:
            if outcome.status is ItemStatus.FAILED:
                _finish(result, record, TaskResultStatus("FAILED"))
            freshen()
        return OutcomeRecorded(outcome)

    def _save(self, item: OutboxItem, record: Record, outcome: Outcome) -> None:
        """Write *record* and *outcome* in one transaction; raises `LeaseLostError`."""
        outbox, owner = self._kernel.outbox, str(item.lease_owner)
        record.updated_at = timezone.now()
        record.finished_at = None if outcome.status is ItemStatus.RETRY else record.updated_at

        def write() -> None:
            with outbox.transaction() as connection:
                if outbox.acknowledge(owner, [outcome], transaction=connection):
                    raise LeaseLostError(f"the lease of task {item.id} was lost")
                _upsert(record, connection)

        # The record is worth more than one try: without it the task would run again.
        try_for(SAVE_SECONDS, write, "recording a task", until=should_stop)


def _record_of(item: OutboxItem, row: Record | None) -> Record:
    """Return the record of the attempts so far, with this one begun."""
    attempts, now = attempts_of(item, row), timezone.now()
    return Record(
        id=item.id,
        task=item.payload["task"],
        attempt=item.attempt_count,
        worker_ids=attempts.worker_ids,
        errors=attempts.errors,
        started_at=row.started_at if row else now,
        last_attempted_at=now,
    )


def _is_refusal(error: Exception) -> bool:
    """Return True if a return value can't be stored; False if the database fails."""
    refused = isinstance(error, StorageError) and error.code is ErrorCodes.INVALID_ARGUMENT
    value = isinstance(error, (PayloadError, TypeError, ValueError))
    return refused or value or (isinstance(error, DatabaseError) and is_refusal(error))


def _upsert(record: Record, connection: Any) -> None:
    targeted = connection.features.supports_update_conflicts_with_target
    Record.objects.using(connection.alias).bulk_create(
        [record],
        update_conflicts=True,
        update_fields=_FIELDS,
        unique_fields=["id"] if targeted else None,
    )


def _retry(task: Task[..., Any]) -> Retry:
    backend = task.get_backend()
    return backend.retry if isinstance(backend, OutboxBackend) else Retry()


def _finish(result: TaskResult[..., Any], record: Record, status: TaskResultStatus) -> None:
    """Bring *result* up to *record*, and send the signal that the task has finished."""
    _change(
        result,
        status=status,
        finished_at=record.finished_at,
        errors=[TaskError(**error) for error in record.errors],
        _return_value=record.return_value,
    )
    _send(task_finished, result)


def _change(result: TaskResult[..., Any], **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # frozen for its users


def _send(signal: Signal, result: TaskResult[..., Any]) -> None:
    # Robustly: the task neither fails nor runs again because of a receiver.
    signal.send_robust(type(result.task.get_backend()), task_result=result)


class TaskHooks:
    """Sends the signal of tasks that ended because their workers died."""

    def __init__(self, kernel: Kernel) -> None:
        self._alias: str = kernel.storage.alias  # type: ignore[attr-defined]

    @hookimpl
    def automate_item_failed(self, item: OutboxItem) -> None:
        """Send ``task_finished`` for a task that was lost once too often."""
        if not is_task(item.kind) or item.last_error_code != "LEASE_EXPIRED":
            return
        row = Record.objects.using(self._alias).filter(pk=item.id).first()
        _send(task_finished, result_of(item, row, task_of(item.payload, item.priority)))


def forget_results(kernel: Kernel, *, older_than_seconds: float, limit: int) -> int:
    """Delete up to *limit* results that old whose outbox item is gone; returns how many."""
    alias = kernel.storage.alias  # type: ignore[attr-defined]
    before = timezone.now() - timedelta(seconds=older_than_seconds)
    old = Record.objects.using(alias).filter(updated_at__lte=before)
    gone = old.filter(~Exists(Item.objects.filter(pk=OuterRef("pk"))))
    ids = list(gone.order_by("updated_at").values_list("pk", flat=True)[:limit])
    deleted: int
    deleted, _ = Record.objects.using(alias).filter(pk__in=ids).delete()
    return deleted
