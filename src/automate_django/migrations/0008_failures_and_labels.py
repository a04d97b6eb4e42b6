"""Add groups of errors, the errors of every attempt, and labels."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from automate_django.values import compare_exactly

GROUPS = (
    ("automate_outbox", "last_error_group", 200),
    ("automate_execution", "error_group", 200),
    ("automate_step", "error_group", 200),
)


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare the new texts exactly too."""
    compare_exactly(schema_editor, ["automate_failure", "automate_label"], GROUPS)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0007_json_as_text")]

    operations = [
        migrations.AddField(
            "outboxitem", "last_error_group", models.CharField(max_length=200, null=True)
        ),
        migrations.AddField(
            "workflowexecution", "error_group", models.CharField(max_length=200, null=True)
        ),
        migrations.AddField(
            "workflowstep", "error_group", models.CharField(max_length=200, null=True)
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
                    models.Index(fields=["value", "created_at"], name="automate_label_value"),
                    models.Index(fields=["subject_id"], name="automate_label_subject"),
                ],
            },
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
