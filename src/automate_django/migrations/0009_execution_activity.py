"""Add what workers tell of executions and of their own problems; mend indexes of Django 4.2."""

from __future__ import annotations

import re
from typing import Any

from django.db import migrations, models

from automate_django.values import compare_exactly, keep_text


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare and keep text exactly in the new tables too."""
    compare_exactly(schema_editor, ["automate_execution_activity", "automate_schema"])
    keep_text(schema_editor, JSON)


def mend_conditions(apps: Any, schema_editor: Any) -> None:
    """
    Make those partial indexes anew that Django 4.2.0 to 4.2.5 wrote.

    They have ``(tenant_id)::text IS NULL`` with a cast, with which PostgreSQL never uses them, and
    no later version of Django mends them.
    """
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.relname, pg_get_indexdef(i.oid)"
            " FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
            " WHERE x.indrelid IN (to_regclass('automate_outbox'),"
            " to_regclass('automate_execution')) AND x.indpred IS NOT NULL"
        )
        found = cursor.fetchall()
    for name, definition in found:
        mended = re.sub(r"\((\w+)\)::text IS (NOT )?NULL", r"\1 IS \2NULL", definition)
        if mended != definition:
            schema_editor.execute(f'DROP INDEX "{name}"')
            schema_editor.execute(mended)


JSON = {"automate_execution_activity": (("run_times", False), ("step_times", False))}


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0008_failures_and_labels")]

    operations = [
        migrations.AddField(
            model_name="outboxworker",
            name="problem",
            field=models.TextField(null=True),
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
            ],
            options={
                "db_table": "automate_execution_activity",
                "verbose_name_plural": "workflow activity",
                "indexes": [models.Index(fields=["at"], name="automate_execution_activity_at")],
            },
        ),
        migrations.CreateModel(
            name="SchemaVersion",
            fields=[
                ("name", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("version", models.IntegerField()),
                ("migrated_at", models.DateTimeField()),
            ],
            options={"db_table": "automate_schema", "default_permissions": ()},
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
        migrations.RunPython(mend_conditions, migrations.RunPython.noop),
    ]
