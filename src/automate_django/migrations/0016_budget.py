"""Add what executions and tenants have spent of budgets."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

from automate_django.values import compare_exactly, keep_text

JSON = {"automate_budget": (("spent", False), ("reserved", False))}


def as_everywhere(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB compare and keep texts exactly here too."""
    compare_exactly(schema_editor, ("automate_budget",))
    keep_text(schema_editor, JSON)


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0015_call_operations")]

    operations = [
        migrations.CreateModel(
            name="SpendingBudget",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(max_length=200, null=True)),
                ("spent", models.JSONField()),
                ("reserved", models.JSONField()),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField(null=True)),
                (
                    "execution",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="budgets",
                        to="automate_django.workflowexecution",
                    ),
                ),
            ],
            options={"db_table": "automate_budget"},
        ),
        migrations.AddIndex(
            model_name="spendingbudget",
            index=models.Index(
                condition=models.Q(("execution_id__isnull", False)),
                fields=["execution"],
                name="automate_budget_execution",
            ),
        ),
        migrations.AddIndex(
            model_name="spendingbudget",
            index=models.Index(
                condition=models.Q(("ends_at__isnull", False)),
                fields=["ends_at"],
                name="automate_budget_ended",
            ),
        ),
        migrations.RunPython(as_everywhere, migrations.RunPython.noop, atomic=False),
    ]
