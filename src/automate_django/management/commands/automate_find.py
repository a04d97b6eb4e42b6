"""``manage.py automate_find``: items and executions by a key of the host's own."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.find import FIND

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate find`` on the project's kernel."""

    definition = FIND
