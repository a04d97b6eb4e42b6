"""What became of tasks that ran: Django's Tasks have results, and outbox items have none."""

# ruff: noqa: D106, RUF012  (a Meta speaks for itself)

from __future__ import annotations

from django.db import models

from automate_django.values import ExactJSONEncoder

__all__ = ["TaskResult"]


class TaskResult(models.Model):
    """
    The attempts of a task, and what the last one returned; its state is that of its outbox item.

    There is none before the first attempt has ended. Read it through the backend's ``get_result``.
    """

    id = models.UUIDField(primary_key=True)
    task = models.TextField()
    attempt = models.IntegerField()
    worker_ids = models.JSONField()
    errors = models.JSONField()
    return_value = models.JSONField(null=True, encoder=ExactJSONEncoder)
    started_at = models.DateTimeField()
    last_attempted_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "automate_task_result"
        indexes = [models.Index(fields=["updated_at"], name="automate_task_updated")]

    def __str__(self) -> str:
        # Without the value and the errors: what names an object ends in logs and pages.
        return f"{self.task} {self.id}"
