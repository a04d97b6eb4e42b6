"""Add which events count for an execution that continues another as new."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from automate_django.values import keep_text

JSON = {"automate_execution": (("events_taken", True),)}


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB keep texts exactly here too."""
    keep_text(schema_editor, JSON)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0016_budget")]

    operations = [
        migrations.AddField(
            model_name="workflowexecution",
            name="events_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="events_taken",
            field=models.JSONField(null=True),
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
