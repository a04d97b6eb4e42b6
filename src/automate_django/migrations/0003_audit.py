"""Add the audit trail of the admin."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("automate_django", "0002_operations")]

    operations = []
