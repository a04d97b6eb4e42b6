"""``manage.py automate_reap``: recover outbox items whose worker died."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from automate_django.kernel import get_kernel
from automate_django.management.base import KernelCommand, as_json
from automate_kernel.worker import OutboxReaper


class Command(KernelCommand):
    """Recovers items once, for cron."""

    help = "Recover items whose worker died. Workers do it themselves, if any is running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        since = "since the lease was last renewed; never less than the lease"
        help_ = f"{since} (default: the lease's length)"
        parser.add_argument("--stale-seconds", type=float, help=help_)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, stale_seconds: float | None, **options: Any) -> None:
        """Recover them, and print how many they were."""
        outbox = get_kernel().outbox
        stale = outbox.lease_seconds if stale_seconds is None else stale_seconds
        number = OutboxReaper(outbox, stale_threshold_seconds=stale).reap_stale_items()
        text = f"{number} item{'' if number == 1 else 's'} recovered"
        self.stdout.write(as_json({"reaped": number}) if options["json"] else text)
