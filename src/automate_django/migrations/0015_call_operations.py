"""Add the permission to call operations from the pages and the API."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0014_poll")]

    operations = [
        migrations.AlterModelOptions(
            name="outboxitem",
            options={
                "permissions": [
                    ("operate_outbox", "Can see and steer the outbox of all tenants"),
                    ("call_operation", "Can call the operations that the settings offer"),
                ]
            },
        ),
    ]
