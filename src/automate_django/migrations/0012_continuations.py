"""Add the chains of executions that continue each other as new."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0011_waits")]

    operations = [
        migrations.AddField(
            model_name="workflowexecution",
            name="chain_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="workflowexecution",
            name="successor_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(
                condition=models.Q(("chain_id__isnull", False)),
                fields=["chain_id", "created_at"],
                name="automate_execution_chain",
            ),
        ),
    ]
