"""``manage.py automate_executions``: look at executions, cancel and resume them."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.executions import EXECUTIONS

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate executions`` on the project's kernel."""

    definition = EXECUTIONS
