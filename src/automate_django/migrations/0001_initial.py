"""Create the tables of automate-kernel."""

from __future__ import annotations

from typing import Any

import automate_django.models
from django.db import migrations, models
import django.db.models.deletion


def compare_exactly(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB tell ``a`` from ``A`` and ``ä``, as every other database does."""
    if schema_editor.connection.vendor == "mysql":
        for model in apps.get_app_config("automate_django").get_models():
            schema_editor.execute(
                f"ALTER TABLE `{model._meta.db_table}`"
                " CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            )


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
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
                (
                    "definition",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="executions",
                        to="automate_django.workflowdefinition",
                    ),
                ),
            ],
            options={
                "db_table": "automate_execution",
            },
        ),
        migrations.CreateModel(
            name="WorkflowSchedule",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("last_fired_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_schedule",
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
                ("output", models.JSONField(null=True)),
                ("error_code", models.CharField(max_length=64, null=True)),
                ("error", models.TextField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("completed_at", models.DateTimeField(null=True)),
                (
                    "execution",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="steps",
                        to="automate_django.workflowexecution",
                    ),
                ),
            ],
            options={
                "db_table": "automate_step",
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
            name="OutboxLane",
            fields=[
                (
                    "ordering_key",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("item_id", models.UUIDField()),
                ("lease_token", models.UUIDField()),
            ],
            options={
                "db_table": "automate_outbox_lane",
                "indexes": [models.Index(fields=["item_id"], name="automate_outbox_lane_item")],
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
            ],
            options={
                "db_table": "automate_outbox",
                "indexes": [
                    models.Index(
                        condition=models.Q(("waiting_for", "worker")),
                        fields=["sort_at", "id"],
                        name="automate_outbox_ready",
                    ),
                    models.Index(
                        condition=models.Q(("waiting_for", "time")),
                        fields=["next_attempt_at"],
                        name="automate_outbox_later",
                    ),
                    models.Index(
                        condition=models.Q(("lease_expires_at__isnull", False)),
                        fields=["lease_expires_at"],
                        name="automate_outbox_lease",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("ordering_key__isnull", False), ("waiting_for__isnull", False)
                        ),
                        fields=["ordering_key", "id"],
                        name="automate_outbox_ordering",
                    ),
                    models.Index(
                        condition=models.Q(("status", "FAILED")),
                        fields=["id"],
                        name="automate_outbox_failed",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="outboxitem",
            constraint=automate_django.models.UniqueIfSet(
                fields=("idempotency_key",), name="automate_outbox_idempotency"
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowstep",
            constraint=models.UniqueConstraint(
                fields=("execution", "step_id", "position"), name="automate_step_once"
            ),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(fields=["created_at"], name="automate_execution_recent"),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(
                fields=["workflow", "created_at"], name="automate_execution_workflow"
            ),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(fields=["status", "created_at"], name="automate_execution_status"),
        ),
        migrations.RunPython(compare_exactly, migrations.RunPython.noop, atomic=False),
    ]
