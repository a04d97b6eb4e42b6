"""Add API tokens and idempotency keys."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0003_audit")]

    operations = []
