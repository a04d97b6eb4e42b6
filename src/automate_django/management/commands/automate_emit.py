"""``manage.py automate_emit``: put an event into the outbox."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.emit import EMIT

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate emit`` on the project's kernel."""

    definition = EMIT
