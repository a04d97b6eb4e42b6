"""
The kernel's tables as Django models: to look at with the ORM, in the admin and in reports.

Write through the kernel (`automate_django.emit`, the outbox stores), which keeps columns that
depend on each other right. The specification names `OutboxItem`, in the kernel and here: the one
class name of ours that stands twice.
"""

# ruff: noqa: DJ001  (null is what the kernel's tables hold)

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone

from automate_kernel.outbox.item import new_id
from automate_kernel.storage import tables


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


class PartialIndex(models.Index):
    """
    An index of the rows that meet its condition.

    A database without partial indexes has all rows in it, so it begins with the condition there: a
    claim reads no item that has ended.
    """

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **options: Any) -> Any:
        """Return the SQL that makes it."""
        if schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using, **options)
        conditions: list[Any] = self.condition.children if self.condition is not None else []
        leading = [
            field.removesuffix("__isnull")
            for field, value in conditions
            if value is not False and field not in self.fields
        ]
        whole = models.Index(fields=[*leading, *self.fields], name=self.name)
        return whole.create_sql(model, schema_editor, using, **options)


_FIELDS = {"execution_id": "execution", "document_id": "document"}
"""The fields that have another name than their column."""
_LOOSE: Any = {"on_delete": models.DO_NOTHING, "db_constraint": False, "db_index": False}
"""The options of a foreign key that no database keeps."""


def meta_of(table: str, **options: Any) -> Any:
    """Return the Meta of a model: the name and indexes of the kernel's *table*, and *options*."""
    indexes: list[models.Index] = []
    constraints: list[models.UniqueConstraint] = []
    for index in tables.TABLES[table].indexes:
        fields = [_FIELDS.get(column, column) for column in index.columns]
        if index.unique:
            unique = UniqueIfSet if index.where else models.UniqueConstraint
            constraints.append(unique(fields=fields, name=index.name))
        else:
            condition = Q(**dict(map(_condition, index.where)))
            indexes.append(
                PartialIndex(fields=fields, name=index.name, condition=condition)
                if index.where
                else models.Index(fields=fields, name=index.name)
            )
    own = {"db_table": table, "indexes": indexes, "constraints": constraints}
    return type("Meta", (), {**own, **options})


def _condition(pair: tuple[str, str | None]) -> tuple[str, Any]:
    column, value = pair
    if value in (None, tables.NULL):
        return f"{column}__isnull", value is not None
    return column, value


def new_key() -> UUID:
    """Return a new id, which sorts by its time."""
    return UUID(new_id())


class KernelTable(models.Model):
    """A row of one of the kernel's tables."""

    class Meta:  # noqa: D106
        abstract = True

    def __str__(self) -> str:
        return str(self.pk)


class OutboxItem(KernelTable):
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
    lane = models.CharField(max_length=200, null=True)

    Meta = meta_of(
        tables.OUTBOX,
        verbose_name_plural="outbox",
        permissions=[
            ("operate_outbox", "Can see and steer the outbox of all tenants"),
            ("call_operation", "Can call the operations that the settings offer"),
        ],
    )

    def __str__(self) -> str:
        # Without payload and error text: what names an object ends in logs and pages.
        return f"{self.kind} {self.id}"


class OrderingLock(KernelTable):
    """The item that runs for an ordering key."""

    ordering_key = models.CharField(max_length=200, primary_key=True)
    item_id = models.UUIDField()
    lease_token = models.UUIDField()

    Meta = meta_of(tables.ORDERING_LOCK)


class OutboxSlot(KernelTable):
    """A place that an item has taken among those of its concurrency key."""

    id = models.CharField(max_length=255, primary_key=True)
    concurrency_key = models.CharField(max_length=200)
    item_id = models.UUIDField()
    lease_token = models.UUIDField()

    Meta = meta_of(tables.SLOT)


class OutboxLimit(KernelTable):
    """The limits of a kind: of running items, and of starts in a time."""

    kind = models.CharField(max_length=200, primary_key=True)
    concurrency = models.IntegerField(null=True)
    rate = models.IntegerField(null=True)
    per_milliseconds = models.IntegerField()
    burst = models.IntegerField(null=True)
    declared = models.IntegerField()
    full_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    Meta = meta_of(tables.LIMIT)


class OutboxPause(KernelTable):
    """A kind whose items are not claimed for now."""

    kind = models.CharField(max_length=200, primary_key=True)
    reason = models.TextField(null=True)
    created_at = models.DateTimeField()

    Meta = meta_of(tables.PAUSE)


class OutboxWorker(KernelTable):
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

    Meta = meta_of(tables.WORKER)


class OutboxActivity(KernelTable):
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

    Meta = meta_of(tables.ACTIVITY, verbose_name_plural="outbox activity")

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M}"


class OutboxFailure(KernelTable):
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
    started_at = models.DateTimeField(null=True)
    worker_id = models.CharField(max_length=200, null=True)

    Meta = meta_of(tables.FAILURE)

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.subject_id}"


class KnownCause(KernelTable):
    """A cause of failures, and when it was seen first and last."""

    id = models.CharField(max_length=64, primary_key=True)
    about = models.CharField(max_length=16)
    kind = models.CharField(max_length=200)
    error_group = models.CharField(max_length=200)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    Meta = meta_of(tables.CAUSE)


class OutboxLabel(KernelTable):
    """A label of the application's that finds an item or an execution."""

    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=64)
    value = models.CharField(max_length=200)
    subject_id = models.UUIDField()
    about = models.CharField(max_length=16)
    tenant_id = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField()

    Meta = meta_of(tables.LABEL)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class WebhookDelivery(KernelTable):
    """An accepted webhook delivery, so that its repetition is recognized."""

    id = models.CharField(max_length=64, primary_key=True)
    connector = models.CharField(max_length=200)
    trigger_name = models.CharField(max_length=200)
    item_id = models.UUIDField()
    received_at = models.DateTimeField()
    redeliveries = models.IntegerField(null=True)
    redelivered_at = models.DateTimeField(null=True)

    Meta = meta_of(tables.DELIVERY, verbose_name_plural="webhook deliveries")

    def __str__(self) -> str:
        return f"{self.connector}.{self.trigger_name} {self.id[:12]}"


class DeliveryRefusal(KernelTable):
    """Webhook deliveries that started nothing, for one reason."""

    id = models.CharField(max_length=64, primary_key=True)
    connector = models.CharField(max_length=200)
    trigger_name = models.CharField(max_length=200)
    outcome = models.CharField(max_length=16)
    reason = models.TextField()
    times = models.IntegerField()
    first_at = models.DateTimeField()
    received_at = models.DateTimeField()

    Meta = meta_of(tables.REFUSED_DELIVERY, verbose_name_plural="refused deliveries")

    def __str__(self) -> str:
        return f"{self.connector}.{self.trigger_name} {self.outcome}"


class WorkflowDefinition(KernelTable):
    """A workflow as it was when an execution of it began."""

    id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    body = models.JSONField()
    created_at = models.DateTimeField()

    Meta = meta_of(tables.DEFINITION)

    def __str__(self) -> str:
        return f"{self.name} {self.id[:12]}"


class WorkflowExecution(KernelTable):
    """One run of a workflow for one event."""

    id = models.UUIDField(primary_key=True)
    workflow = models.CharField(max_length=200)
    definition = models.ForeignKey(WorkflowDefinition, related_name="executions", **_LOOSE)
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
    parent_id = models.UUIDField(null=True)
    concurrency_key = models.CharField(max_length=255, null=True)
    output_ref = models.TextField(null=True)
    chain_id = models.UUIDField(null=True)
    successor_id = models.UUIDField(null=True)
    events_since = models.DateTimeField(null=True)
    events_taken = models.JSONField(null=True)
    labels = models.JSONField(null=True)
    seed = models.UUIDField(null=True)

    Meta = meta_of(tables.EXECUTION, verbose_name="execution")

    def __str__(self) -> str:
        return f"{self.workflow} {self.id}"


class WorkflowStep(KernelTable):
    """One step of an execution; with ``for_each``, one element of it."""

    id = models.UUIDField(primary_key=True)
    execution = models.ForeignKey(WorkflowExecution, related_name="steps", **_LOOSE)
    step_id = models.CharField(max_length=200)
    position = models.IntegerField()
    status = models.CharField(max_length=16)
    attempts = models.IntegerField()
    failures = models.IntegerField()
    output = models.JSONField(null=True)
    error_code = models.CharField(max_length=64, null=True)
    error = models.TextField(null=True)
    trace = models.TextField(null=True)
    started_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    error_group = models.CharField(max_length=200, null=True)
    place = models.CharField(max_length=200, null=True)
    progress = models.JSONField(null=True)
    output_ref = models.TextField(null=True)
    attempted_at = models.DateTimeField(null=True)
    worker_id = models.CharField(max_length=200, null=True)

    Meta = meta_of(tables.STEP)

    def __str__(self) -> str:
        return self.step_id if self.position < 0 else f"{self.step_id}[{self.position}]"


class WorkflowSchedule(KernelTable):
    """The last firing of a workflow's schedule."""

    id = models.CharField(max_length=255, primary_key=True)
    last_fired_at = models.DateTimeField()
    paused_at = models.DateTimeField(null=True)
    execution_id = models.UUIDField(null=True)

    Meta = meta_of(tables.SCHEDULE)


class ConnectorPoll(KernelTable):
    """A poll of a connector for one tenant: its cursor, its claim and its last error."""

    id = models.CharField(max_length=64, primary_key=True)
    connector = models.CharField(max_length=200)
    trigger_name = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True)
    poll_cursor = models.JSONField(null=True)
    next_at = models.DateTimeField()
    claim_token = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)
    polled_at = models.DateTimeField(null=True)
    event_at = models.DateTimeField(null=True)
    paused_at = models.DateTimeField(null=True)
    failures = models.IntegerField()
    error_code = models.CharField(max_length=64, null=True)
    error = models.TextField(null=True)
    created_at = models.DateTimeField()

    Meta = meta_of(tables.POLL)

    def __str__(self) -> str:
        return f"{self.connector}.{self.trigger_name}"


class WorkflowActivity(KernelTable):
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
    actions = models.JSONField(null=True)
    waits = models.JSONField(null=True)
    minutes = models.IntegerField(default=1)

    Meta = meta_of(tables.EXECUTION_ACTIVITY, verbose_name_plural="workflow activity")

    def __str__(self) -> str:
        return f"{self.workflow} {self.at:%Y-%m-%d %H:%M}"


class WorkflowWait(KernelTable):
    """A step that waits for an event, an approval or another workflow."""

    id = models.UUIDField(primary_key=True)
    key = models.CharField(max_length=64)
    about = models.CharField(max_length=16)
    execution = models.ForeignKey(WorkflowExecution, related_name="waits", **_LOOSE)
    step_id = models.CharField(max_length=200)
    position = models.IntegerField()
    tenant_id = models.CharField(max_length=200, null=True)
    details = models.JSONField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)

    # Operators see those that are approvals.
    Meta = meta_of(tables.WAIT, verbose_name="approval")

    def __str__(self) -> str:
        return f"{self.about} {self.step_id}"


class WaitApprover(KernelTable):
    """A person or role that may decide on the approval that a step waits for."""

    id = models.UUIDField(primary_key=True)
    wait_id = models.UUIDField()
    who = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField()

    Meta = meta_of(tables.APPROVER)


class ApprovalDecision(KernelTable):
    """A decision that a person has made on an approval."""

    id = models.UUIDField(primary_key=True)
    execution_id = models.UUIDField()
    step_id = models.CharField(max_length=200)
    position = models.IntegerField()
    workflow = models.CharField(max_length=200)
    title = models.CharField(max_length=500)
    approved = models.IntegerField()
    decided_by = models.CharField(max_length=200)
    comment = models.CharField(max_length=500)
    tenant_id = models.CharField(max_length=200, null=True)
    decided_at = models.DateTimeField()

    Meta = meta_of(tables.DECISION)


class WorkflowSignal(KernelTable):
    """A signal that has come, for steps that wait for it."""

    id = models.UUIDField(primary_key=True)
    key = models.CharField(max_length=64)
    event = models.JSONField()
    received_at = models.DateTimeField()
    execution = models.ForeignKey(WorkflowExecution, null=True, related_name="signals", **_LOOSE)

    Meta = meta_of(tables.SIGNAL)


class AwaitedEvent(KernelTable):
    """An event that some workflow waits for."""

    id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    field = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    Meta = meta_of(tables.AWAITED)

    def __str__(self) -> str:
        return f"{self.name} {self.field}".rstrip()


class WorkflowDebounce(KernelTable):
    """The execution of a debounced workflow that waits for the last event of its key."""

    id = models.CharField(max_length=64, primary_key=True)
    execution_id = models.UUIDField()
    created_at = models.DateTimeField()

    Meta = meta_of(tables.DEBOUNCE)


class SpendingBudget(KernelTable):
    """The amounts that an execution, or a tenant in a day, has spent of a budget."""

    id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True)
    execution = models.ForeignKey(WorkflowExecution, null=True, related_name="budgets", **_LOOSE)
    spent = models.JSONField()
    reserved = models.JSONField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)

    Meta = meta_of(tables.BUDGET)


class AuditEntry(KernelTable):
    """
    One change in the admin, one export, or one order of the pages.

    The names are kept as text, so that an entry outlives the user, the object and the model.
    """

    id = models.UUIDField(primary_key=True, default=new_key, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    actor_id = models.CharField(max_length=200, null=True, editable=False)
    actor = models.CharField(max_length=200, blank=True, editable=False)
    tenant_id = models.CharField(max_length=200, null=True, editable=False)
    action = models.CharField(max_length=64, editable=False)
    model = models.CharField(max_length=200, editable=False)
    object_id = models.CharField(max_length=255, null=True, editable=False)
    object_repr = models.CharField(max_length=200, blank=True, editable=False)
    outcome = models.CharField(max_length=16, default="done", editable=False)
    changes = models.JSONField(default=dict, editable=False)
    details = models.JSONField(default=dict, editable=False)

    Meta = meta_of(tables.AUDIT, verbose_name_plural="audit")

    def __str__(self) -> str:
        return f"{self.action} {self.model} {self.object_id or ''}".rstrip()


class PageSession(KernelTable):
    """A session of a person on the pages that have a log-in of their own; its id is a hash."""

    id = models.CharField(max_length=64, primary_key=True)
    user_name = models.CharField(max_length=200)
    roles = models.JSONField()
    tenant_id = models.CharField(max_length=200, null=True)
    token_id = models.UUIDField(null=True)
    method = models.CharField(max_length=32)
    address = models.CharField(max_length=200, null=True)
    agent = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    Meta = meta_of(tables.SESSION)

    def __str__(self) -> str:
        return f"{self.user_name} ({self.method})"


class AccountConsent(KernelTable):
    """A question to a person about an account at a service; its id is a hash of its state."""

    id = models.CharField(max_length=64, primary_key=True)
    digest = models.CharField(max_length=64)
    asked = models.JSONField()
    expires_at = models.DateTimeField()

    Meta = meta_of(tables.CONSENT)

    def __str__(self) -> str:
        return self.id[:12]


class PageQuery(KernelTable):
    """A query of a list that a user has saved."""

    id = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    page = models.CharField(max_length=64)
    query = models.TextField()
    user_name = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True)
    shared = models.IntegerField()
    created_at = models.DateTimeField()

    Meta = meta_of(tables.SAVED_QUERY, verbose_name_plural="saved queries")

    def __str__(self) -> str:
        return self.name


class WorkflowDocument(KernelTable):
    """
    A workflow that is edited in the admin. Its text is in its versions.

    `automate_django.definitions` writes it, so that workers learn of the change.
    """

    id = models.UUIDField(primary_key=True, default=new_key, editable=False)
    key = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True, blank=True)
    """Its owner; None for a workflow of all tenants."""
    enabled = models.IntegerField(default=1)
    version = models.IntegerField(null=True)
    """The number of the published version; None before any is."""
    latest = models.IntegerField(default=1)
    """The number of the version that was saved last."""
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    Meta = meta_of(tables.DOCUMENT, verbose_name="workflow")

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(KernelTable):
    """One version of a workflow: its text, author and time. It never changes."""

    id = models.UUIDField(primary_key=True, default=new_key, editable=False)
    document = models.ForeignKey(
        WorkflowDocument,
        models.CASCADE,
        related_name="versions",
        db_constraint=False,
        db_index=False,
    )
    number = models.IntegerField()
    format = models.CharField(max_length=8)
    source = models.TextField()
    definition = models.JSONField()
    """The definition in the source, in the form of `Workflow.to_dict`."""
    digest = models.CharField(max_length=64)
    """The definition's hash, which is the id that executions are pinned to."""
    restored_from = models.IntegerField(null=True)
    comment = models.CharField(max_length=500, blank=True)
    author = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    published_by = models.CharField(max_length=200, blank=True)

    Meta = meta_of(
        tables.DOCUMENT_VERSION,
        verbose_name="version of a workflow",
        verbose_name_plural="versions of workflows",
    )

    def __str__(self) -> str:
        return f"version {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write a new version; raises TypeError for a version that is written already."""
        if not self._state.adding:
            raise TypeError("a version never changes: save a new version")
        super().save(*args, **kwargs)


class WorkflowStamp(KernelTable):
    """One row, whose token changes with every change of a document. Workers look at it."""

    id = models.CharField(max_length=16, primary_key=True)
    token = models.CharField(max_length=64)

    Meta = meta_of(tables.DOCUMENT_STAMP, default_permissions=())

    def __str__(self) -> str:
        return self.token
