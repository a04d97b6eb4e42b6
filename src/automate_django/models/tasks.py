"""The model of task results: Django's Tasks have them, and outbox items have none."""

# ruff: noqa: D106, RUF012  (a Meta speaks for itself)

from __future__ import annotations

from django.db import models

from automate_django.values import ExactJSONEncoder


class TaskResult(models.Model):
    """
    The attempts of a task and its return value. Its state is that of its outbox item.

    No row is there before the end of the first attempt. The backend's ``get_result`` reads it.
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
