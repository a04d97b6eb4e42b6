"""
The kernel's tables as Django models: to look at with the ORM, in the admin and in reports.

Write through the kernel (`automate_django.emit`, the outbox stores), which keeps columns that
depend on each other right. The specification names `OutboxItem`, in the kernel and here: the one
class name of ours that stands twice.
"""

# ruff: noqa: D106, DJ001, RUF012  (a Meta speaks for itself; null is what the kernel's tables hold)

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q


class UniqueIfSet(models.UniqueConstraint):
    """
    Unique over the rows that have a value.

    Every unique constraint is; this one also leaves the other rows out of its index, where the
    database has partial indexes. Django itself would make no index at all elsewhere.
    """

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        """Return the SQL in CREATE TABLE."""
        return self._on(schema_editor).constraint_sql(model, schema_editor)

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        """Return the SQL that adds it."""
        return self._on(schema_editor).create_sql(model, schema_editor)

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        """Return the SQL that drops it."""
        return self._on(schema_editor).remove_sql(model, schema_editor)

    def _on(self, schema_editor: Any) -> models.UniqueConstraint:
        partial = schema_editor.connection.features.supports_partial_indexes
        condition = Q(**{f"{name}__isnull": False for name in self.fields}) if partial else None
        return models.UniqueConstraint(fields=self.fields, name=self.name, condition=condition)


class OutboxItem(models.Model):
    """One unit of work."""

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=200)
    payload = models.JSONField()
    headers = models.JSONField()
    status = models.CharField(max_length=16)
    waiting_for = models.CharField(max_length=8, null=True)
    priority = models.IntegerField()
    attempt_count = models.IntegerField()
    max_attempts = models.IntegerField()
    next_attempt_at = models.DateTimeField()
    sort_at = models.DateTimeField()
    lease_owner = models.CharField(max_length=200, null=True)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    idempotency_key = models.CharField(max_length=255, null=True)
    tenant_id = models.CharField(max_length=200, null=True)
    ordering_key = models.CharField(max_length=200, null=True)
    last_error_code = models.CharField(max_length=64, null=True)
    last_error = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)
    concurrency_key = models.CharField(max_length=200, null=True)
    concurrency_limit = models.IntegerField(null=True)
    last_error_group = models.CharField(max_length=200, null=True)

    class Meta:
        db_table = "automate_outbox"
        permissions = [
            ("operate_outbox", "Can see and steer the outbox of all tenants"),
        ]
        constraints = [
            UniqueIfSet(fields=["idempotency_key"], name="automate_outbox_idempotency"),
        ]
        indexes = [
            models.Index(
                fields=["kind", "sort_at", "id"],
                name="automate_outbox_ready",
                condition=Q(waiting_for="worker", tenant_id__isnull=True),
            ),
            models.Index(
                fields=["kind", "tenant_id", "sort_at", "id"],
                name="automate_outbox_shared",
                condition=Q(waiting_for="worker", tenant_id__isnull=False),
            ),
            models.Index(
                fields=["next_attempt_at"],
                name="automate_outbox_later",
                condition=Q(waiting_for="time"),
            ),
            models.Index(
                fields=["lease_expires_at"],
                name="automate_outbox_lease",
                condition=Q(lease_expires_at__isnull=False),
            ),
            models.Index(
                fields=["ordering_key", "id"],
                name="automate_outbox_ordering",
                condition=Q(ordering_key__isnull=False, waiting_for__isnull=False),
            ),
            models.Index(
                fields=["id"], name="automate_outbox_failed", condition=Q(status="FAILED")
            ),
            models.Index(
                fields=["concurrency_key", "kind", "id"],
                name="automate_outbox_concurrency",
                condition=Q(concurrency_key__isnull=False, waiting_for="key"),
            ),
            models.Index(
                fields=["id"], name="automate_outbox_cancel", condition=Q(waiting_for="cancel")
            ),
        ]

    def __str__(self) -> str:
        # Without payload and error text: what names an object ends in logs and pages.
        return f"{self.kind} {self.id}"


class OutboxLane(models.Model):
    """The item that runs for an ordering key."""

    ordering_key = models.CharField(max_length=200, primary_key=True)
    item_id = models.UUIDField()
    lease_token = models.UUIDField()

    class Meta:
        db_table = "automate_outbox_lane"
        indexes = [models.Index(fields=["item_id"], name="automate_outbox_lane_item")]

    def __str__(self) -> str:
        return self.ordering_key


class OutboxSlot(models.Model):
    """A place that an item has taken among those of its concurrency key."""

    id = models.CharField(max_length=255, primary_key=True)
    concurrency_key = models.CharField(max_length=200)
    item_id = models.UUIDField()
    lease_token = models.UUIDField()

    class Meta:
        db_table = "automate_outbox_slot"
        indexes = [
            models.Index(fields=["concurrency_key"], name="automate_outbox_slot_key"),
            models.Index(fields=["item_id"], name="automate_outbox_slot_item"),
        ]

    def __str__(self) -> str:
        return self.id


class OutboxLimit(models.Model):
    """The limits of a kind: of running items, and of starts in a time."""

    kind = models.CharField(max_length=200, primary_key=True)
    concurrency = models.IntegerField(null=True)
    rate = models.IntegerField(null=True)
    per_milliseconds = models.IntegerField()
    burst = models.IntegerField(null=True)
    declared = models.IntegerField()
    full_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "automate_outbox_limit"

    def __str__(self) -> str:
        return self.kind


class OutboxPause(models.Model):
    """A kind whose items are not claimed for now."""

    kind = models.CharField(max_length=200, primary_key=True)
    reason = models.TextField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "automate_outbox_pause"

    def __str__(self) -> str:
        return self.kind


class OutboxWorker(models.Model):
    """A worker, as it last reported."""

    id = models.CharField(max_length=200, primary_key=True)
    host = models.CharField(max_length=200)
    pid = models.IntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    kinds = models.JSONField()
    slots = models.IntegerField()
    in_flight = models.IntegerField()
    stopping = models.IntegerField()
    problem = models.TextField(null=True)

    class Meta:
        db_table = "automate_worker"

    def __str__(self) -> str:
        return self.id


class OutboxActivity(models.Model):
    """The work of one worker on items of one kind in one minute."""

    id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()
    worker_id = models.CharField(max_length=200)
    kind = models.CharField(max_length=200)
    completed = models.IntegerField()
    retried = models.IntegerField()
    failed = models.IntegerField()
    lost = models.IntegerField()
    run_times = models.JSONField()
    wait_times = models.JSONField()

    class Meta:
        db_table = "automate_activity"
        verbose_name_plural = "outbox activity"
        indexes = [models.Index(fields=["at"], name="automate_activity_at")]

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M}"


class OutboxFailure(models.Model):
    """One failed attempt of an item, or of a step of an execution."""

    id = models.UUIDField(primary_key=True)
    subject_id = models.UUIDField()
    step_id = models.CharField(max_length=200, null=True)
    position = models.IntegerField()
    attempt = models.IntegerField()
    error_code = models.CharField(max_length=64)
    error_group = models.CharField(max_length=200)
    error = models.TextField()
    trace = models.TextField(null=True)
    failed_at = models.DateTimeField()

    class Meta:
        db_table = "automate_failure"
        indexes = [
            models.Index(fields=["subject_id", "failed_at"], name="automate_failure_subject")
        ]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.subject_id}"


class OutboxLabel(models.Model):
    """A label of the host's that finds an item or an execution."""

    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=64)
    value = models.CharField(max_length=200)
    subject_id = models.UUIDField()
    about = models.CharField(max_length=16)
    tenant_id = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "automate_label"
        indexes = [
            models.Index(fields=["value", "created_at"], name="automate_label_value"),
            models.Index(fields=["subject_id"], name="automate_label_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class SchemaVersion(models.Model):
    """The version of the tables, where ``automate db`` migrates them and not Django."""

    name = models.CharField(max_length=200, primary_key=True)
    version = models.IntegerField()
    migrated_at = models.DateTimeField()

    class Meta:
        db_table = "automate_schema"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class WebhookDelivery(models.Model):
    """An accepted webhook delivery, so that its repetition is recognized."""

    id = models.CharField(max_length=64, primary_key=True)
    connector = models.CharField(max_length=200)
    trigger_name = models.CharField(max_length=200)
    item_id = models.UUIDField()
    received_at = models.DateTimeField()

    class Meta:
        db_table = "automate_webhook_delivery"
        verbose_name_plural = "webhook deliveries"
        indexes = [models.Index(fields=["received_at"], name="automate_delivery_received")]

    def __str__(self) -> str:
        return f"{self.connector}.{self.trigger_name} {self.id[:12]}"


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
    """The last firing of a workflow's schedule."""

    id = models.CharField(max_length=255, primary_key=True)
    last_fired_at = models.DateTimeField()

    class Meta:
        db_table = "automate_schedule"

    def __str__(self) -> str:
        return self.id


class WorkflowActivity(models.Model):
    """The work of one worker on executions of one workflow in one minute."""

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
