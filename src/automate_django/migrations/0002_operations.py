"""Add what operators see and steer with: workers, activity, limits."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0001_initial")]

    operations = []
