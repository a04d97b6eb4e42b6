# Rows that are unique per organization.

import django
import django.db.models.deletion
import django.db.models.functions.text
from django.db import migrations, models

CONDITION = "condition" if django.VERSION >= (5, 1) else "check"


class Migration(migrations.Migration):
    dependencies = [
        ("service", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Code",
            fields=[
                ("id", models.CharField(max_length=20, primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name="Profile",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("motto", models.CharField(max_length=50)),
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, to="service.organization"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Article",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("code", models.CharField(max_length=20)),
                ("title", models.CharField(max_length=50)),
                ("shelf", models.CharField(default="A", max_length=10)),
                ("place", models.IntegerField(blank=True, null=True)),
                ("price", models.IntegerField(default=1)),
                ("extra", models.JSONField(blank=True, default=dict)),
                ("is_deleted", models.BooleanField(default=False, editable=False)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="service.organization"
                    ),
                ),
                (
                    "tag",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="service.tag",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("is_deleted", False)),
                        fields=("organization", "code"),
                        name="service_article_code",
                    ),
                    models.UniqueConstraint(
                        models.F("organization"),
                        django.db.models.functions.text.Lower("title"),
                        name="service_article_title",
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "shelf", "place"), name="service_article_place"
                    ),
                    models.CheckConstraint(
                        name="service_article_price", **{CONDITION: models.Q(("price__gte", 0))}
                    ),
                ],
            },
        ),
    ]
