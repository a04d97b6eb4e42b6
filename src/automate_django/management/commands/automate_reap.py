"""``manage.py automate_reap``: recover outbox items whose worker died."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from automate_django.outbox import OutboxReaper
from automate_kernel.errors import AutomateError

__all__ = ["Command"]


class Command(BaseCommand):
    """Recovers stale items once."""

    help = (
        "Recover outbox items whose worker died. Workers do this themselves; run it where none "
        "is running, from cron for example."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the one option."""
        parser.add_argument(
            "--stale-seconds",
            type=float,
            default=600.0,
            help="since the lease was last renewed; never less than the lease (default: 600)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Reap, and say how many there were."""
        try:
            reaper = OutboxReaper(stale_threshold_seconds=options["stale_seconds"])
            reaped = reaper.reap_stale_items()
        except AutomateError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"reaped {reaped} items")
