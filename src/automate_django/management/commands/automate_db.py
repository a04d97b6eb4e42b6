"""``manage.py automate_db``: look whether the kernel's tables are right, and mend their indexes."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.db import HOSTED_DB

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate db`` on the project's kernel."""

    definition = HOSTED_DB
