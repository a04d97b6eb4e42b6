"""``manage.py automate_outbox``: look at the outbox, and steer it."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.outbox import OUTBOX

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate outbox`` on the project's kernel."""

    definition = OUTBOX
