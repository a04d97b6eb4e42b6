"""Add workflows that are edited in the admin."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0004_api")]

    operations = []
