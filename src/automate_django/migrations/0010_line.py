"""Let items with an ordering key stand in line by the database's clock."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("automate_django", "0009_execution_activity"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="outboxitem",
            name="automate_outbox_ordering",
        ),
        migrations.AddIndex(
            model_name="outboxitem",
            index=models.Index(
                condition=models.Q(("ordering_key__isnull", False), ("waiting_for__isnull", False)),
                fields=["ordering_key", "created_at", "id"],
                name="automate_outbox_line",
            ),
        ),
    ]
