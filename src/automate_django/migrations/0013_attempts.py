"""Add the workers and beginnings of attempts, labels of workflows, and counts by action."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from automate_django.values import compare_exactly, keep_text

TEXTS = (("automate_step", "worker_id", 200), ("automate_failure", "worker_id", 200))
JSON = {
    "automate_execution": (("labels", True),),
    "automate_execution_activity": (("actions", True), ("waits", True)),
}


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare and keep texts exactly here too."""
    compare_exactly(schema_editor, (), TEXTS)
    keep_text(schema_editor, JSON)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0012_continuations")]

    operations = [
        migrations.AddField(
            model_name="outboxfailure",
            name="started_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="outboxfailure",
            name="worker_id",
            field=models.CharField(max_length=200, null=True),
        ),
        migrations.AddField(
            model_name="workflowactivity",
            name="actions",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="workflowactivity",
            name="waits",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="labels",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="attempted_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="worker_id",
            field=models.CharField(max_length=200, null=True),
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
