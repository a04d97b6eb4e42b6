"""Add the audit trail of the admin, and the uploads that await a confirmation."""

from __future__ import annotations

from uuid import uuid4

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0002_operations")]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("actor_id", models.CharField(editable=False, max_length=64, null=True)),
                ("actor", models.CharField(blank=True, editable=False, max_length=150)),
                ("tenant_id", models.CharField(editable=False, max_length=200, null=True)),
                ("action", models.CharField(editable=False, max_length=32)),
                ("model", models.CharField(editable=False, max_length=200)),
                ("object_id", models.CharField(editable=False, max_length=255, null=True)),
                ("object_repr", models.CharField(blank=True, editable=False, max_length=200)),
                ("changes", models.JSONField(default=dict, editable=False)),
                ("details", models.JSONField(default=dict, editable=False)),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "db_table": "automate_audit",
                "indexes": [
                    models.Index(fields=["created_at"], name="automate_audit_recent"),
                    models.Index(fields=["tenant_id", "created_at"], name="automate_audit_tenant"),
                    models.Index(fields=["model", "object_id"], name="automate_audit_object"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StagedImport",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("owner", models.CharField(editable=False, max_length=64)),
                ("filename", models.CharField(editable=False, max_length=200)),
                ("format", models.CharField(editable=False, max_length=16)),
                ("content", models.BinaryField()),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
            ],
            options={
                "db_table": "automate_import",
                "default_permissions": (),
                "indexes": [models.Index(fields=["created_at"], name="automate_import_recent")],
            },
        ),
    ]
