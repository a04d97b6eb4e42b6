"""Add workflows that are edited in the admin."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0004_api")]

    operations = [
        migrations.CreateModel(
            name="WorkflowDocument",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(editable=False, max_length=64, unique=True)),
                ("name", models.CharField(max_length=200)),
                ("tenant_id", models.CharField(blank=True, max_length=200, null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("version", models.IntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_workflow_document",
                "verbose_name": "workflow",
                "indexes": [models.Index(fields=["name"], name="automate_document_name")],
            },
        ),
        migrations.CreateModel(
            name="WorkflowVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="automate_django.workflowdocument",
                    ),
                ),
                ("number", models.IntegerField()),
                ("format", models.CharField(max_length=8)),
                ("source", models.TextField()),
                ("definition", models.JSONField()),
                ("digest", models.CharField(max_length=64)),
                ("restored_from", models.IntegerField(null=True)),
                ("comment", models.CharField(blank=True, max_length=500)),
                ("author", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "automate_workflow_version",
                "verbose_name": "version of a workflow",
                "verbose_name_plural": "versions of workflows",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("document", "number"), name="automate_version_number"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkflowStamp",
            fields=[
                ("id", models.IntegerField(primary_key=True, serialize=False)),
                ("token", models.CharField(max_length=32)),
            ],
            options={"db_table": "automate_workflow_stamp", "default_permissions": ()},
        ),
        migrations.AddField(
            model_name="workflowstep",
            name="trace",
            field=models.TextField(null=True),
        ),
        migrations.AddIndex(
            model_name="workflowexecution",
            index=models.Index(
                condition=models.Q(tenant_id__isnull=False),
                fields=["tenant_id", "created_at"],
                name="automate_execution_tenant",
            ),
        ),
    ]
