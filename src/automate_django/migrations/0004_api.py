"""Add API tokens and idempotency keys."""

from __future__ import annotations

from typing import Any

import django.utils.timezone
from django.db import migrations, models


def compare_exactly(apps: Any, schema_editor: Any) -> None:
    """Have MySQL and MariaDB tell ``a`` from ``A`` in the new tables too."""
    if schema_editor.connection.vendor == "mysql":
        for name in NEW:
            table = apps.get_model("automate_django", name)._meta.db_table
            schema_editor.execute(
                f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            )


NEW = ("ApiToken", "IdempotencyRecord")
_ID = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0003_audit")]

    operations = [
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                ("id", _ID.clone()),
                ("name", models.CharField(help_text="What it is for.", max_length=200)),
                ("prefix", models.CharField(editable=False, max_length=32, unique=True)),
                ("digest", models.CharField(editable=False, max_length=64)),
                (
                    "user_id",
                    models.CharField(blank=True, db_index=True, max_length=200, null=True),
                ),
                ("tenant_id", models.CharField(blank=True, max_length=200, null=True)),
                ("all_tenants", models.BooleanField(default=False)),
                ("scopes", models.JSONField(blank=True, default=list)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={"db_table": "automate_api_token", "verbose_name": "API token"},
        ),
        migrations.CreateModel(
            name="IdempotencyRecord",
            fields=[
                ("id", _ID.clone()),
                ("owner", models.CharField(max_length=64)),
                ("key", models.CharField(max_length=255)),
                ("fingerprint", models.CharField(max_length=64)),
                ("lock", models.CharField(max_length=32, null=True)),
                ("locked_until", models.DateTimeField(null=True)),
                ("status_code", models.PositiveSmallIntegerField(null=True)),
                ("headers", models.JSONField(default=dict)),
                ("body", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_api_idempotency",
                "verbose_name": "answer to an idempotent request",
                "verbose_name_plural": "answers to idempotent requests",
                "indexes": [
                    models.Index(fields=["expires_at"], name="automate_api_idempotency_old")
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="idempotencyrecord",
            constraint=models.UniqueConstraint(
                fields=("owner", "key"), name="automate_api_idempotency_once"
            ),
        ),
        migrations.RunPython(compare_exactly, migrations.RunPython.noop, atomic=False),
    ]
