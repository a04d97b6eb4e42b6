"""
The kernel's workflows as Django models: to look at with the ORM, in the admin and in reports.

Write through the kernel, as with `automate_django.models.outbox`.
"""

# ruff: noqa: D106, DJ001, RUF012  (a Meta speaks for itself; null is what the kernel's tables hold)

from __future__ import annotations

from django.db import models
from django.db.models import Q

__all__ = [
    "WorkflowActivity",
    "WorkflowDefinition",
    "WorkflowExecution",
    "WorkflowSchedule",
    "WorkflowStep",
]


class WorkflowDefinition(models.Model):
    """A workflow as it was when an execution of it began."""

    id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    body = models.JSONField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "automate_definition"

    def __str__(self) -> str:
        return f"{self.name} {self.id[:12]}"


class WorkflowExecution(models.Model):
    """One run of a workflow for one event."""

    id = models.UUIDField(primary_key=True)
    workflow = models.CharField(max_length=200)
    definition = models.ForeignKey(
        WorkflowDefinition,
        models.DO_NOTHING,
        related_name="executions",
        db_constraint=False,
        db_index=False,
    )
    status = models.CharField(max_length=16)
    event = models.JSONField()
    output = models.JSONField(null=True)
    tenant_id = models.CharField(max_length=200, null=True)
    item_id = models.UUIDField()
    error_code = models.CharField(max_length=64, null=True)
    error = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)
    error_group = models.CharField(max_length=200, null=True)

    class Meta:
        db_table = "automate_execution"
        indexes = [
            models.Index(fields=["created_at"], name="automate_execution_recent"),
            models.Index(fields=["workflow", "created_at"], name="automate_execution_workflow"),
            models.Index(fields=["status", "created_at"], name="automate_execution_status"),
            models.Index(
                fields=["tenant_id", "created_at"],
                name="automate_execution_tenant",
                condition=Q(tenant_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} {self.id}"


class WorkflowStep(models.Model):
    """One step of an execution; with ``for_each``, one element of it."""

    id = models.UUIDField(primary_key=True)
    execution = models.ForeignKey(
        WorkflowExecution,
        models.DO_NOTHING,
        related_name="steps",
        db_constraint=False,
        db_index=False,
    )
    step_id = models.CharField(max_length=200)
    position = models.IntegerField()
    status = models.CharField(max_length=16)
    attempts = models.IntegerField()
    output = models.JSONField(null=True)
    error_code = models.CharField(max_length=64, null=True)
    error = models.TextField(null=True)
    trace = models.TextField(null=True)
    started_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    error_group = models.CharField(max_length=200, null=True)

    class Meta:
        db_table = "automate_step"
        constraints = [
            models.UniqueConstraint(
                fields=["execution", "step_id", "position"], name="automate_step_once"
            ),
        ]

    def __str__(self) -> str:
        return self.step_id if self.position < 0 else f"{self.step_id}[{self.position}]"


class WorkflowSchedule(models.Model):
    """When a workflow's schedule fired last."""

    id = models.CharField(max_length=255, primary_key=True)
    last_fired_at = models.DateTimeField()

    class Meta:
        db_table = "automate_schedule"

    def __str__(self) -> str:
        return self.id


class WorkflowActivity(models.Model):
    """What one worker did to executions of one workflow in one minute."""

    id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()
    worker_id = models.CharField(max_length=200, null=True)
    workflow = models.CharField(max_length=200)
    started = models.IntegerField()
    completed = models.IntegerField()
    failed = models.IntegerField()
    cancelled = models.IntegerField()
    run_times = models.JSONField()
    steps_completed = models.IntegerField()
    steps_retried = models.IntegerField()
    steps_failed = models.IntegerField()
    step_times = models.JSONField()

    class Meta:
        db_table = "automate_execution_activity"
        verbose_name_plural = "workflow activity"
        indexes = [models.Index(fields=["at"], name="automate_execution_activity_at")]

    def __str__(self) -> str:
        return f"{self.workflow} {self.at:%Y-%m-%d %H:%M}"
