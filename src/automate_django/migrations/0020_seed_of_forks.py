"""Keep what chance in the code of a forked execution follows from: that of the original."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0019_signals_of_executions")]

    operations = [
        migrations.AddField(
            model_name="workflowexecution",
            name="seed",
            field=models.UUIDField(null=True),
        ),
    ]
