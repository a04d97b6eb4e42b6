"""Add the results of tasks."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0005_definitions")]

    operations = [
        migrations.CreateModel(
            name="TaskResult",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("task", models.TextField()),
                ("attempt", models.IntegerField()),
                ("worker_ids", models.JSONField()),
                ("errors", models.JSONField()),
                ("return_value", models.JSONField(null=True)),
                ("started_at", models.DateTimeField()),
                ("last_attempted_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_task_result",
                "indexes": [models.Index(fields=["updated_at"], name="automate_task_updated")],
            },
        ),
    ]
