"""
Let the indexes that are partial elsewhere begin with their conditions in MySQL and MariaDB.

Django makes them of all rows there, so that a claim read every item of its kind that had ended.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

WHOLE = {
    "automate_outbox_ready": "tenant_id, waiting_for, kind, sort_at, id",
    "automate_outbox_shared": "waiting_for, kind, tenant_id, sort_at, id",
    "automate_outbox_later": "waiting_for, next_attempt_at",
    "automate_outbox_failed": "status, id",
    "automate_outbox_concurrency": "waiting_for, concurrency_key, kind, id",
    "automate_outbox_cancel": "waiting_for, id",
}


def begin_with_conditions(apps: Any, schema_editor: Any) -> None:
    """Make them anew, all in one statement."""
    if schema_editor.connection.vendor == "mysql":
        changes = (
            f"DROP INDEX `{name}`, ADD INDEX `{name}` ({columns})"
            for name, columns in WHOLE.items()
        )
        schema_editor.execute(f"ALTER TABLE `automate_outbox` {', '.join(changes)}")


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0017_events_of_chains")]

    operations = [
        migrations.RunPython(begin_with_conditions, migrations.RunPython.noop, atomic=False),
    ]
