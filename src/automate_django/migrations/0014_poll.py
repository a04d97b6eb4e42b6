"""Add the polls of connectors: their cursors, claims and errors."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from automate_django.values import compare_exactly, keep_text

JSON = {"automate_poll": (("poll_cursor", True),)}


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare and keep texts exactly here too."""
    compare_exactly(schema_editor, ("automate_poll",))
    keep_text(schema_editor, JSON)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0013_attempts")]

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
            options={"db_table": "automate_poll"},
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
