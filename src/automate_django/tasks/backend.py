"""The backend of Django's Tasks: a task is an outbox item, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from automate_django.kernel import get_kernel
from automate_django.tasks.results import kind_of, read_result
from automate_django.tasks.retries import OPTIONS, Retry, retry_of
from automate_django.tasks.versions import (
    BaseTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from automate_kernel.base.errors import nearest
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.item import new_id

_LONGEST_QUEUE = 150


class OutboxBackend(BaseTaskBackend):
    """
    Runs tasks on the workers that ``manage.py automate_worker`` starts.

    A task exists exactly if the open ``atomic()`` block commits. If its worker dies, it runs again
    elsewhere. ``OPTIONS`` may hold ``MAX_ATTEMPTS`` (the number of begins in all, 5),
    ``RETRY_ERRORS`` (False: a task that raises has failed), ``BASE_SECONDS`` and
    ``MAXIMUM_SECONDS`` of the backoff. `automate_django.tasks.retry` sets them for one task.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    @cached_property
    def retry(self) -> Retry:
        """The retries of tasks without `automate_django.tasks.retry`."""
        return Retry.from_options(self.options)

    # The base is generic in the types of the function, which no caller of a backend knows.
    def enqueue(  # type: ignore[override]
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> TaskResult[..., Any]:
        """
        Accept a task, in the ``atomic()`` block if it is open.

        Raises TypeError for arguments that are no JSON, and `PayloadError` for arguments that no
        database can store.
        """
        self.validate_task(task)
        result: TaskResult[..., Any] = TaskResult(
            task=task,
            id=new_id(),
            status=TaskResultStatus("READY"),
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        get_kernel().outbox.enqueue_many([self._item(result)])
        task_enqueued.send(type(self), task_result=result)
        return result

    def _item(self, result: TaskResult[..., Any]) -> NewItem:
        task = result.task
        return NewItem(
            kind_of(task.queue_name, self.queues),
            {
                "task": task.module_path,
                "args": result.args,
                "kwargs": result.kwargs,
                "backend": self.alias,
                "queue_name": task.queue_name,
                "run_after": task.run_after and task.run_after.isoformat(),
                "enqueued_at": result.enqueued_at and result.enqueued_at.isoformat(),
            },
            id=result.id,
            priority=int(task.priority),
            run_at=task.run_after,
            max_attempts=retry_of(task.func, self.retry).max_attempts,
        )

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """
        Return the result of a task that was enqueued with this backend.

        Raises TaskResultDoesNotExist, also for an invalid id and for another backend's task.
        """
        found = read_result(result_id)
        if found is None or found.backend != self.alias:
            raise TaskResultDoesNotExist(result_id)
        return found

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """Find the problems of this backend's settings."""
        return [
            checks.Error(f"TASKS[{self.alias!r}]: {text}.", hint=hint, id=f"automate.{number}")
            for number, text, hint in self._problems()
        ]

    def _problems(self) -> Iterator[tuple[str, str, str]]:
        if not apps.is_installed("automate_django"):
            hint = "Add 'automate_django' to INSTALLED_APPS."
            yield "E030", "its backend's app is not installed", hint
        for key in self.options:
            if key not in OPTIONS:
                near = nearest(key, OPTIONS)
                hint = f"Did you mean {near}?" if near else f"There are {', '.join(OPTIONS)}."
                yield "E031", f"{key!r} is no option of OutboxBackend", hint
        try:
            Retry.from_options(self.options)
        except ImproperlyConfigured as error:
            yield "E032", str(error), "Correct its OPTIONS."
        for name in sorted(self.queues):
            if len(name) > _LONGEST_QUEUE:
                yield "E033", f"the queue's name {name[:20]}… is too long", "Shorten it."
