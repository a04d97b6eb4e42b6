"""``manage.py automate_reap``: recover outbox items whose worker died."""

from __future__ import annotations

from dataclasses import replace

from automate_django.management.base import AutomateCommand
from automate_kernel.cli.commands.outbox import REAP

__all__ = ["Command"]


class Command(AutomateCommand):
    """``automate outbox reap`` on the project's kernel, for cron."""

    definition = replace(REAP, examples=("automate reap", "automate reap --stale-seconds 600"))
