"""Keep the signals that were sent to an execution as long as the execution, or its chain."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0018_whole_indexes")]

    operations = [
        migrations.AddField(
            model_name="workflowsignal",
            name="execution",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="signals",
                to="automate_django.workflowexecution",
            ),
        ),
        migrations.RemoveIndex(model_name="workflowsignal", name="automate_signal_received"),
        migrations.AddIndex(
            model_name="workflowsignal",
            index=models.Index(
                fields=["execution", "received_at"], name="automate_signal_execution"
            ),
        ),
    ]
