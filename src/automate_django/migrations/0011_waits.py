"""Add what steps wait for, the parents of executions, and the state of schedules."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

from automate_django.values import compare_exactly, keep_text

TABLES = ("automate_wait", "automate_signal", "automate_awaited", "automate_debounce")
TEXTS = (("automate_execution", "concurrency_key", 255), ("automate_step", "place", 200))
JSON = {
    "automate_wait": (("details", True),),
    "automate_signal": (("event", False),),
    "automate_step": (("progress", True),),
}


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare and keep texts exactly here too."""
    compare_exactly(schema_editor, TABLES, TEXTS)
    keep_text(schema_editor, JSON)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0010_line")]

    operations = [
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
            name="WorkflowSignal",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=64)),
                ("event", models.JSONField()),
                ("received_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_signal",
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
            ],
            options={
                "db_table": "automate_wait",
            },
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="concurrency_key",
            field=models.CharField(max_length=255, null=True),
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="output_ref",
            field=models.TextField(null=True),
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="parent_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="workflowschedule",
            name="execution_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="workflowschedule",
            name="paused_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="output_ref",
            field=models.TextField(null=True),
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="place",
            field=models.CharField(max_length=200, null=True),
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="progress",
            field=models.JSONField(null=True),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(
                condition=models.Q(("parent_id__isnull", False)),
                fields=["parent_id", "created_at"],
                name="automate_execution_parent",
            ),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(
                condition=models.Q(("concurrency_key__isnull", False)),
                fields=["concurrency_key", "status", "created_at"],
                name="automate_execution_key",
            ),
        ),
        migrations.AddIndex(
            model_name="awaitedevent",
            index=models.Index(fields=["name"], name="automate_awaited_name"),
        ),
        migrations.AddIndex(
            model_name="workflowsignal",
            index=models.Index(fields=["key", "received_at"], name="automate_signal_key"),
        ),
        migrations.AddIndex(
            model_name="workflowsignal",
            index=models.Index(fields=["received_at"], name="automate_signal_received"),
        ),
        migrations.AddField(
            model_name="workflowwait",
            name="execution",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="waits",
                to="automate_django.workflowexecution",
            ),
        ),
        migrations.AddIndex(
            model_name="workflowwait",
            index=models.Index(fields=["key"], name="automate_wait_key"),
        ),
        migrations.AddIndex(
            model_name="workflowwait",
            index=models.Index(fields=["about", "created_at"], name="automate_wait_about"),
        ),
        migrations.AddConstraint(
            model_name="workflowwait",
            constraint=models.UniqueConstraint(
                fields=("execution", "step_id", "position"), name="automate_wait_once"
            ),
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
