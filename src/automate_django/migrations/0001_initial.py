"""Create the tables of automate-kernel."""

from __future__ import annotations

import uuid
from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import automate_django.models
import automate_django.models.tables
import automate_django.values

_EXACT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def keep_exactly(apps: Any, schema_editor: Any) -> None:
    """
    Let MySQL and MariaDB compare and keep texts as every other database does.

    They distinguish ``a`` from ``A`` and ``ä`` then. Their own type for JSON refuses what is nested
    deeper than 32 levels (MariaDB), or changes large numbers (MySQL): it is kept as text.
    """
    connection = schema_editor.connection
    if connection.vendor != "mysql":
        return
    for model in apps.get_app_config("automate_django").get_models():
        if model._meta.proxy:
            continue  # it has no table
        changes = [f"CONVERT TO {_EXACT}"]
        for field in model._meta.local_fields:
            if isinstance(field, models.JSONField):
                null = "NULL" if field.null else "NOT NULL"
                changes.append(f"MODIFY `{field.column}` longtext {_EXACT} {null}")
        schema_editor.execute(f"ALTER TABLE `{model._meta.db_table}` {', '.join(changes)}")


def set_storage(apps: Any, schema_editor: Any) -> None:
    """Set PostgreSQL's storage parameters of the outbox."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE automate_outbox SET (fillfactor = 70,"
            " autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)"
        )


def _loose_key(to: str, **options: Any) -> Any:
    """Return a foreign key that no database keeps."""
    loose: Any = {"on_delete": models.DO_NOTHING, "db_constraint": False, "db_index": False}
    return models.ForeignKey(to=to, **loose, **options)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ConnectorPoll",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("connector", models.CharField(max_length=200)),
                ("trigger_name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("poll_cursor", models.JSONField(null=True)),
                ("next_at", models.DateTimeField()),
                ("claim_token", models.UUIDField(null=True)),
                ("claimed_until", models.DateTimeField(null=True)),
                ("polled_at", models.DateTimeField(null=True)),
                ("event_at", models.DateTimeField(null=True)),
                ("paused_at", models.DateTimeField(null=True)),
                ("failures", models.IntegerField()),
                ("error_code", models.CharField(max_length=64, null=True)),
                ("error", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_poll",
            },
        ),
        migrations.CreateModel(
            name="OutboxLimit",
            fields=[
                ("kind", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("concurrency", models.IntegerField(null=True)),
                ("rate", models.IntegerField(null=True)),
                ("per_milliseconds", models.IntegerField()),
                ("burst", models.IntegerField(null=True)),
                ("declared", models.IntegerField()),
                ("full_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_outbox_limit",
            },
        ),
        migrations.CreateModel(
            name="OutboxPause",
            fields=[
                ("kind", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("reason", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_outbox_pause",
            },
        ),
        migrations.CreateModel(
            name="OutboxWorker",
            fields=[
                ("id", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("host", models.CharField(max_length=200)),
                ("pid", models.IntegerField()),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("kinds", models.JSONField()),
                ("slots", models.IntegerField()),
                ("in_flight", models.IntegerField()),
                ("stopping", models.IntegerField()),
                ("problem", models.TextField(null=True)),
            ],
            options={
                "db_table": "automate_worker",
            },
        ),
        migrations.CreateModel(
            name="WorkflowDebounce",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("execution_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_debounce",
            },
        ),
        migrations.CreateModel(
            name="WorkflowDefinition",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("body", models.JSONField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_definition",
            },
        ),
        migrations.CreateModel(
            name="WorkflowSchedule",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("last_fired_at", models.DateTimeField()),
                ("paused_at", models.DateTimeField(null=True)),
                ("execution_id", models.UUIDField(null=True)),
            ],
            options={
                "db_table": "automate_schedule",
            },
        ),
        migrations.CreateModel(
            name="AwaitedEvent",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("field", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_awaited",
                "indexes": [models.Index(fields=["name"], name="automate_awaited_name")],
            },
        ),
        migrations.CreateModel(
            name="IdempotencyRecord",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("fingerprint", models.CharField(max_length=64)),
                ("lock", models.CharField(max_length=32, null=True)),
                ("locked_until", models.DateTimeField(null=True)),
                ("status_code", models.IntegerField(null=True)),
                ("headers", models.JSONField()),
                ("body", models.JSONField(null=True)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "answer to an idempotent request",
                "verbose_name_plural": "answers to idempotent requests",
                "db_table": "automate_api_idempotency",
                "indexes": [
                    models.Index(fields=["expires_at"], name="automate_api_idempotency_old")
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxActivity",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                ("worker_id", models.CharField(max_length=200)),
                ("kind", models.CharField(max_length=200)),
                ("completed", models.IntegerField()),
                ("retried", models.IntegerField()),
                ("failed", models.IntegerField()),
                ("lost", models.IntegerField()),
                ("run_times", models.JSONField()),
                ("wait_times", models.JSONField()),
            ],
            options={
                "verbose_name_plural": "outbox activity",
                "db_table": "automate_activity",
                "indexes": [models.Index(fields=["at"], name="automate_activity_at")],
            },
        ),
        migrations.CreateModel(
            name="OutboxFailure",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("subject_id", models.UUIDField()),
                ("step_id", models.CharField(max_length=200, null=True)),
                ("position", models.IntegerField()),
                ("attempt", models.IntegerField()),
                ("error_code", models.CharField(max_length=64)),
                ("error_group", models.CharField(max_length=200)),
                ("error", models.TextField()),
                ("trace", models.TextField(null=True)),
                ("failed_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("worker_id", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "automate_failure",
                "indexes": [
                    models.Index(
                        fields=["subject_id", "failed_at"], name="automate_failure_subject"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxItem",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=200)),
                ("payload", models.JSONField()),
                ("headers", models.JSONField()),
                ("status", models.CharField(max_length=16)),
                ("waiting_for", models.CharField(max_length=8, null=True)),
                ("priority", models.IntegerField()),
                ("attempt_count", models.IntegerField()),
                ("max_attempts", models.IntegerField()),
                ("next_attempt_at", models.DateTimeField()),
                ("sort_at", models.DateTimeField()),
                ("lease_owner", models.CharField(max_length=200, null=True)),
                ("lease_token", models.UUIDField(null=True)),
                ("lease_expires_at", models.DateTimeField(null=True)),
                ("idempotency_key", models.CharField(max_length=255, null=True)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("ordering_key", models.CharField(max_length=200, null=True)),
                ("last_error_code", models.CharField(max_length=64, null=True)),
                ("last_error", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("completed_at", models.DateTimeField(null=True)),
                ("concurrency_key", models.CharField(max_length=200, null=True)),
                ("concurrency_limit", models.IntegerField(null=True)),
                ("last_error_group", models.CharField(max_length=200, null=True)),
                ("lane", models.CharField(max_length=200, null=True)),
            ],
            options={
                "verbose_name_plural": "outbox",
                "db_table": "automate_outbox",
                "permissions": [
                    ("operate_outbox", "Can see and steer the outbox of all tenants"),
                    ("call_operation", "Can call the operations that the settings offer"),
                ],
                "indexes": [
                    automate_django.models.PartialIndex(
                        condition=models.Q(("tenant_id__isnull", True), ("waiting_for", "worker")),
                        fields=["kind", "sort_at", "id"],
                        name="automate_outbox_ready",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("tenant_id__isnull", False), ("waiting_for", "worker")),
                        fields=["kind", "tenant_id", "sort_at", "id"],
                        name="automate_outbox_shared",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(
                            ("lane__isnull", False),
                            ("tenant_id__isnull", True),
                            ("waiting_for", "worker"),
                        ),
                        fields=["kind", "lane", "sort_at", "id"],
                        name="automate_outbox_lane",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(
                            ("lane__isnull", False),
                            ("tenant_id__isnull", False),
                            ("waiting_for", "worker"),
                        ),
                        fields=["kind", "tenant_id", "lane", "sort_at", "id"],
                        name="automate_outbox_shared_lane",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("waiting_for", "time")),
                        fields=["next_attempt_at"],
                        name="automate_outbox_later",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("lease_expires_at__isnull", False)),
                        fields=["lease_expires_at"],
                        name="automate_outbox_lease",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(
                            ("ordering_key__isnull", False), ("waiting_for__isnull", False)
                        ),
                        fields=["ordering_key", "created_at", "id"],
                        name="automate_outbox_line",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("status", "FAILED")),
                        fields=["id", "kind", "last_error_group", "tenant_id"],
                        name="automate_outbox_failed",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(
                            ("concurrency_key__isnull", False), ("waiting_for", "key")
                        ),
                        fields=["concurrency_key", "kind", "id"],
                        name="automate_outbox_concurrency",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("waiting_for", "cancel")),
                        fields=["id"],
                        name="automate_outbox_cancel",
                    ),
                ],
                "constraints": [
                    automate_django.models.UniqueIfSet(
                        fields=("idempotency_key",), name="automate_outbox_idempotency"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxLabel",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=64)),
                ("value", models.CharField(max_length=200)),
                ("subject_id", models.UUIDField()),
                ("about", models.CharField(max_length=16)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_label",
                "indexes": [
                    models.Index(
                        fields=["value", "created_at", "name", "tenant_id"],
                        name="automate_label_value",
                    ),
                    models.Index(fields=["subject_id"], name="automate_label_subject"),
                ],
            },
        ),
        migrations.CreateModel(
            name="KnownCause",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("about", models.CharField(max_length=16)),
                ("kind", models.CharField(max_length=200)),
                ("error_group", models.CharField(max_length=200)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_cause",
            },
        ),
        migrations.CreateModel(
            name="ApprovalDecision",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("execution_id", models.UUIDField()),
                ("step_id", models.CharField(max_length=200)),
                ("position", models.IntegerField()),
                ("workflow", models.CharField(max_length=200)),
                ("title", models.CharField(max_length=500)),
                ("approved", models.IntegerField()),
                ("decided_by", models.CharField(max_length=200)),
                ("comment", models.CharField(max_length=500)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("decided_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_decision",
                "indexes": [
                    models.Index(fields=["decided_at"], name="automate_decision_at"),
                    models.Index(
                        fields=["tenant_id", "decided_at"], name="automate_decision_tenant"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WaitApprover",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("wait_id", models.UUIDField()),
                ("who", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_approver",
                "indexes": [
                    models.Index(
                        fields=["who", "created_at", "wait_id", "tenant_id"],
                        name="automate_approver_who",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="OrderingLock",
            fields=[
                (
                    "ordering_key",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("item_id", models.UUIDField()),
                ("lease_token", models.UUIDField()),
            ],
            options={
                "db_table": "automate_ordering_lock",
                "indexes": [models.Index(fields=["item_id"], name="automate_ordering_lock_item")],
            },
        ),
        migrations.CreateModel(
            name="OutboxSlot",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("concurrency_key", models.CharField(max_length=200)),
                ("item_id", models.UUIDField()),
                ("lease_token", models.UUIDField()),
            ],
            options={
                "db_table": "automate_outbox_slot",
                "indexes": [
                    models.Index(fields=["concurrency_key"], name="automate_outbox_slot_key"),
                    models.Index(fields=["item_id"], name="automate_outbox_slot_item"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StagedImport",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("owner", models.CharField(editable=False, max_length=64)),
                ("filename", models.CharField(editable=False, max_length=200)),
                ("format", models.CharField(editable=False, max_length=16)),
                ("content", models.BinaryField()),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
            ],
            options={
                "db_table": "automate_import",
                "default_permissions": (),
                "indexes": [models.Index(fields=["created_at"], name="automate_import_recent")],
            },
        ),
        migrations.CreateModel(
            name="TaskResult",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("task", models.TextField()),
                ("attempt", models.IntegerField()),
                ("worker_ids", models.JSONField()),
                ("errors", models.JSONField()),
                (
                    "return_value",
                    models.JSONField(encoder=automate_django.values.ExactJSONEncoder, null=True),
                ),
                ("started_at", models.DateTimeField()),
                ("last_attempted_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_task_result",
                "indexes": [models.Index(fields=["updated_at"], name="automate_task_updated")],
            },
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("connector", models.CharField(max_length=200)),
                ("trigger_name", models.CharField(max_length=200)),
                ("item_id", models.UUIDField()),
                ("received_at", models.DateTimeField()),
                ("redeliveries", models.IntegerField(null=True)),
                ("redelivered_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name_plural": "webhook deliveries",
                "db_table": "automate_webhook_delivery",
                "indexes": [
                    models.Index(fields=["received_at"], name="automate_delivery_received")
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowActivity",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                ("worker_id", models.CharField(max_length=200, null=True)),
                ("workflow", models.CharField(max_length=200)),
                ("started", models.IntegerField()),
                ("completed", models.IntegerField()),
                ("failed", models.IntegerField()),
                ("cancelled", models.IntegerField()),
                ("run_times", models.JSONField()),
                ("steps_completed", models.IntegerField()),
                ("steps_retried", models.IntegerField()),
                ("steps_failed", models.IntegerField()),
                ("step_times", models.JSONField()),
                ("actions", models.JSONField(null=True)),
                ("waits", models.JSONField(null=True)),
                ("minutes", models.IntegerField(default=1)),
            ],
            options={
                "verbose_name_plural": "workflow activity",
                "db_table": "automate_execution_activity",
                "indexes": [
                    models.Index(fields=["minutes", "at"], name="automate_execution_activity_at")
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowExecution",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("workflow", models.CharField(max_length=200)),
                ("status", models.CharField(max_length=16)),
                ("event", models.JSONField()),
                ("output", models.JSONField(null=True)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("item_id", models.UUIDField()),
                ("error_code", models.CharField(max_length=64, null=True)),
                ("error", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("completed_at", models.DateTimeField(null=True)),
                ("error_group", models.CharField(max_length=200, null=True)),
                ("parent_id", models.UUIDField(null=True)),
                ("concurrency_key", models.CharField(max_length=255, null=True)),
                ("output_ref", models.TextField(null=True)),
                ("chain_id", models.UUIDField(null=True)),
                ("successor_id", models.UUIDField(null=True)),
                ("events_since", models.DateTimeField(null=True)),
                ("events_taken", models.JSONField(null=True)),
                ("labels", models.JSONField(null=True)),
                ("seed", models.UUIDField(null=True)),
                (
                    "definition",
                    _loose_key("automate_django.workflowdefinition", related_name="executions"),
                ),
            ],
            options={
                "verbose_name": "execution",
                "db_table": "automate_execution",
                "indexes": [
                    models.Index(fields=["created_at"], name="automate_execution_recent"),
                    models.Index(
                        fields=["workflow", "created_at"], name="automate_execution_workflow"
                    ),
                    models.Index(
                        fields=["status", "created_at", "workflow", "error_group", "tenant_id"],
                        name="automate_execution_status",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("tenant_id__isnull", False)),
                        fields=["tenant_id", "created_at", "workflow", "status"],
                        name="automate_execution_tenant",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("parent_id__isnull", False)),
                        fields=["parent_id", "created_at"],
                        name="automate_execution_parent",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("chain_id__isnull", False)),
                        fields=["chain_id", "created_at"],
                        name="automate_execution_chain",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("concurrency_key__isnull", False)),
                        fields=["concurrency_key", "status", "created_at"],
                        name="automate_execution_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="DeliveryRefusal",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("connector", models.CharField(max_length=200)),
                ("trigger_name", models.CharField(max_length=200)),
                ("outcome", models.CharField(max_length=16)),
                ("reason", models.TextField()),
                ("times", models.IntegerField()),
                ("first_at", models.DateTimeField()),
                ("received_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "refused deliveries",
                "db_table": "automate_refused_delivery",
                "indexes": [
                    models.Index(
                        fields=["connector", "trigger_name", "received_at"],
                        name="automate_refused_trigger",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SpendingBudget",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("spent", models.JSONField()),
                ("reserved", models.JSONField()),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField(null=True)),
                (
                    "execution",
                    _loose_key(
                        "automate_django.workflowexecution", null=True, related_name="budgets"
                    ),
                ),
            ],
            options={
                "db_table": "automate_budget",
                "indexes": [
                    automate_django.models.PartialIndex(
                        condition=models.Q(("execution_id__isnull", False)),
                        fields=["execution"],
                        name="automate_budget_execution",
                    ),
                    automate_django.models.PartialIndex(
                        condition=models.Q(("ends_at__isnull", False)),
                        fields=["ends_at"],
                        name="automate_budget_ended",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowSignal",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=64)),
                ("event", models.JSONField()),
                ("received_at", models.DateTimeField()),
                (
                    "execution",
                    _loose_key(
                        "automate_django.workflowexecution", null=True, related_name="signals"
                    ),
                ),
            ],
            options={
                "db_table": "automate_signal",
                "indexes": [
                    models.Index(fields=["key", "received_at"], name="automate_signal_key"),
                    models.Index(
                        fields=["execution", "received_at"], name="automate_signal_execution"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowStep",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("step_id", models.CharField(max_length=200)),
                ("position", models.IntegerField()),
                ("status", models.CharField(max_length=16)),
                ("attempts", models.IntegerField()),
                ("failures", models.IntegerField()),
                ("output", models.JSONField(null=True)),
                ("error_code", models.CharField(max_length=64, null=True)),
                ("error", models.TextField(null=True)),
                ("trace", models.TextField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("completed_at", models.DateTimeField(null=True)),
                ("error_group", models.CharField(max_length=200, null=True)),
                ("place", models.CharField(max_length=200, null=True)),
                ("progress", models.JSONField(null=True)),
                ("output_ref", models.TextField(null=True)),
                ("attempted_at", models.DateTimeField(null=True)),
                ("worker_id", models.CharField(max_length=200, null=True)),
                (
                    "execution",
                    _loose_key("automate_django.workflowexecution", related_name="steps"),
                ),
            ],
            options={
                "db_table": "automate_step",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("execution", "step_id", "position"), name="automate_step_once"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowWait",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=64)),
                ("about", models.CharField(max_length=16)),
                ("step_id", models.CharField(max_length=200)),
                ("position", models.IntegerField()),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("details", models.JSONField(null=True)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField(null=True)),
                (
                    "execution",
                    _loose_key("automate_django.workflowexecution", related_name="waits"),
                ),
            ],
            options={
                "verbose_name": "approval",
                "db_table": "automate_wait",
                "indexes": [
                    models.Index(fields=["key"], name="automate_wait_key"),
                    models.Index(fields=["about", "created_at"], name="automate_wait_about"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("execution", "step_id", "position"), name="automate_wait_once"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=automate_django.models.tables.new_key,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(help_text="What it is for.", max_length=200)),
                ("prefix", models.CharField(editable=False, max_length=32)),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("user_id", models.CharField(blank=True, max_length=200, null=True)),
                ("tenant_id", models.CharField(blank=True, max_length=200, null=True)),
                ("all_tenants", models.IntegerField(default=0)),
                ("roles", models.JSONField(blank=True, default=list)),
                ("scopes", models.JSONField(blank=True, default=list)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "API token",
                "db_table": "automate_token",
                "indexes": [models.Index(fields=["user_id"], name="automate_token_user")],
                "constraints": [
                    models.UniqueConstraint(fields=("prefix",), name="automate_token_prefix")
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=automate_django.models.tables.new_key,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("actor_id", models.CharField(editable=False, max_length=200, null=True)),
                ("actor", models.CharField(blank=True, editable=False, max_length=200)),
                ("tenant_id", models.CharField(editable=False, max_length=200, null=True)),
                ("action", models.CharField(editable=False, max_length=64)),
                ("model", models.CharField(editable=False, max_length=200)),
                ("object_id", models.CharField(editable=False, max_length=255, null=True)),
                ("object_repr", models.CharField(blank=True, editable=False, max_length=200)),
                ("outcome", models.CharField(default="done", editable=False, max_length=16)),
                ("changes", models.JSONField(default=dict, editable=False)),
                ("details", models.JSONField(default=dict, editable=False)),
            ],
            options={
                "verbose_name_plural": "audit",
                "db_table": "automate_audit",
                "indexes": [
                    models.Index(fields=["created_at"], name="automate_audit_recent"),
                    models.Index(fields=["tenant_id", "created_at"], name="automate_audit_tenant"),
                    models.Index(fields=["object_id", "model"], name="automate_audit_object"),
                    models.Index(fields=["actor", "created_at"], name="automate_audit_actor"),
                ],
            },
        ),
        migrations.CreateModel(
            name="PageQuery",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("page", models.CharField(max_length=64)),
                ("query", models.TextField()),
                ("user_name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("shared", models.IntegerField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "saved queries",
                "db_table": "automate_saved_query",
                "indexes": [
                    models.Index(fields=["page", "user_name"], name="automate_saved_query_page")
                ],
            },
        ),
        migrations.CreateModel(
            name="AccountConsent",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("digest", models.CharField(max_length=64)),
                ("asked", models.JSONField()),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_consent",
                "indexes": [models.Index(fields=["expires_at"], name="automate_consent_expires")],
            },
        ),
        migrations.CreateModel(
            name="PageSession",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("user_name", models.CharField(max_length=200)),
                ("roles", models.JSONField()),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("token_id", models.UUIDField(null=True)),
                ("method", models.CharField(max_length=32)),
                ("address", models.CharField(max_length=200, null=True)),
                ("agent", models.CharField(max_length=200, null=True)),
                ("created_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_session",
                "indexes": [
                    models.Index(fields=["expires_at"], name="automate_session_expires"),
                    models.Index(fields=["user_name", "created_at"], name="automate_session_user"),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowStamp",
            fields=[
                ("id", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("token", models.CharField(max_length=64)),
            ],
            options={
                "db_table": "automate_workflow_stamp",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="WorkflowDocument",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=automate_django.models.tables.new_key,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("key", models.CharField(editable=False, max_length=64)),
                ("name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(blank=True, max_length=200, null=True)),
                ("enabled", models.IntegerField(default=1)),
                ("version", models.IntegerField(null=True)),
                ("latest", models.IntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "workflow",
                "db_table": "automate_workflow_document",
                "indexes": [models.Index(fields=["name"], name="automate_document_name")],
                "constraints": [
                    models.UniqueConstraint(fields=("key",), name="automate_document_key")
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowVersion",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=automate_django.models.tables.new_key,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("number", models.IntegerField()),
                ("format", models.CharField(max_length=8)),
                ("source", models.TextField()),
                ("definition", models.JSONField()),
                ("digest", models.CharField(max_length=64)),
                ("restored_from", models.IntegerField(null=True)),
                ("comment", models.CharField(blank=True, max_length=500)),
                ("author", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField()),
                ("published_at", models.DateTimeField(null=True)),
                ("published_by", models.CharField(blank=True, max_length=200)),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="automate_django.workflowdocument",
                    ),
                ),
            ],
            options={
                "verbose_name": "version of a workflow",
                "verbose_name_plural": "versions of workflows",
                "db_table": "automate_workflow_version",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("document", "number"), name="automate_version_number"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Pages",
            fields=[],
            options={
                "verbose_name": "operators' page",
                "verbose_name_plural": "operators' pages",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("automate_django.outboxitem",),
        ),
        migrations.RunPython(set_storage, migrations.RunPython.noop),
        migrations.RunPython(keep_exactly, migrations.RunPython.noop, atomic=False),
    ]
