"""Add what operators see and steer with: workers, activity, limits."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models


def compare_exactly(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB tell ``a`` from ``A`` in the new tables too."""
    if schema_editor.connection.vendor == "mysql":
        for name in NEW:
            table = apps.get_model("automate_django", name)._meta.db_table
            schema_editor.execute(
                f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            )


def set_storage(apps: Any, schema_editor: Any) -> None:
    """Set PostgreSQL's storage parameters of the outbox."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE automate_outbox SET (fillfactor = 70,"
            " autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)"
        )


NEW = ("OutboxWorker", "OutboxActivity", "OutboxLimit", "OutboxSlot")


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0001_initial")]

    operations = [
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
            ],
            options={"db_table": "automate_worker"},
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
                "db_table": "automate_activity",
                "verbose_name_plural": "outbox activity",
                "indexes": [models.Index(fields=["at"], name="automate_activity_at")],
            },
        ),
        migrations.AlterModelOptions(
            name="outboxitem",
            options={
                "permissions": [("operate_outbox", "Can see and steer the outbox of all tenants")]
            },
        ),
        migrations.AddField(
            model_name="outboxitem",
            name="concurrency_key",
            field=models.CharField(max_length=200, null=True),
        ),
        migrations.AddField(
            model_name="outboxitem",
            name="concurrency_limit",
            field=models.IntegerField(null=True),
        ),
        migrations.AddIndex(
            model_name="outboxitem",
            index=models.Index(
                fields=["concurrency_key", "kind", "id"],
                name="automate_outbox_concurrency",
                condition=models.Q(concurrency_key__isnull=False, waiting_for="key"),
            ),
        ),
        migrations.AddIndex(
            model_name="outboxitem",
            index=models.Index(
                fields=["id"],
                name="automate_outbox_cancel",
                condition=models.Q(waiting_for="cancel"),
            ),
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
            options={"db_table": "automate_outbox_limit"},
        ),
        migrations.RemoveIndex(model_name="outboxitem", name="automate_outbox_ready"),
        migrations.AddIndex(
            model_name="outboxitem",
            index=models.Index(
                fields=["kind", "sort_at", "id"],
                name="automate_outbox_ready",
                condition=models.Q(tenant_id__isnull=True, waiting_for="worker"),
            ),
        ),
        migrations.AddIndex(
            model_name="outboxitem",
            index=models.Index(
                fields=["kind", "tenant_id", "sort_at", "id"],
                name="automate_outbox_shared",
                condition=models.Q(tenant_id__isnull=False, waiting_for="worker"),
            ),
        ),
        migrations.RunPython(set_storage, migrations.RunPython.noop),
        migrations.RunPython(compare_exactly, migrations.RunPython.noop, atomic=False),
    ]
