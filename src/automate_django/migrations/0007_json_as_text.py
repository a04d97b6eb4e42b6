"""
Have MariaDB and MySQL keep JSON as the text that it is.

Their own type refuses what is nested deeper than 32 levels (MariaDB) and changes large numbers
(MySQL). What stands in the columns stays as it is. SQLite has text already, and PostgreSQL's jsonb
keeps what it is given.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

import automate_django.values

COLUMNS = {
    "automate_outbox": (("payload", False), ("headers", False)),
    "automate_definition": (("body", False),),
    "automate_execution": (("event", False), ("output", True)),
    "automate_step": (("output", True),),
    "automate_worker": (("kinds", False),),
    "automate_activity": (("run_times", False), ("wait_times", False)),
    "automate_audit": (("changes", False), ("details", False)),
    "automate_api_token": (("scopes", False),),
    "automate_api_idempotency": (("headers", False), ("body", True)),
    "automate_workflow_version": (("definition", False),),
    "automate_task_result": (("worker_ids", False), ("errors", False), ("return_value", True)),
}


def as_text(apps: Any, schema_editor: Any) -> None:
    """Change the columns' type, and with it drop MariaDB's check."""
    automate_django.values.keep_text(schema_editor, COLUMNS)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0006_tasks")]

    operations = [
        # Text holds all that JSON did, so there is nothing to undo.
        migrations.RunPython(as_text, migrations.RunPython.noop, atomic=False),
        # How values are written is no matter of the database.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model,
                    field,
                    models.JSONField(encoder=automate_django.values.ExactJSONEncoder, null=True),
                )
                for model, field in (("taskresult", "return_value"), ("idempotencyrecord", "body"))
            ]
        ),
    ]
