"""``manage.py automate_worker``: run workflows and other outbox items."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import django
from django.core.management.base import BaseCommand, CommandError

from automate_django import conf
from automate_django.connections import FreshConnections
from automate_django.kernel import get_kernel
from automate_kernel.errors import AutomateError
from automate_kernel.outbox.supervisor import Supervisor, handling_signals

__all__ = ["Command"]


class Command(BaseCommand):
    """Runs a worker until it is told to stop."""

    help = (
        "Run workflows and other outbox items. SIGTERM or Ctrl-C stops it when what runs is "
        "finished; a second one hands back what runs and stops at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options; what is left out comes from ``AUTOMATE_WORKER``."""
        worker = conf.options("AUTOMATE_WORKER")
        parser.add_argument(
            "--processes",
            type=int,
            default=worker.get("PROCESSES", 1),
            help="how many processes, each with its own slots (default: %(default)s)",
        )
        parser.add_argument(
            "--slots",
            "--concurrency",
            type=int,
            default=worker.get("SLOTS", 10),
            help="how many calls run at once in a process (default: %(default)s)",
        )
        parser.add_argument(
            "--grace-seconds",
            type=float,
            default=worker.get("GRACE_SECONDS", 30.0),
            help="how long a stopping worker waits for what runs (default: %(default)s)",
        )
        parser.add_argument(
            "--until-idle",
            "--once",
            action="store_true",
            help="run what is due and what follows from it, then stop",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one worker here, or several in processes of their own."""
        if options["processes"] < 1 or options["slots"] < 1:
            raise CommandError("--processes and --slots must be at least 1")
        try:
            kernel = get_kernel()
            if options["until_idle"]:
                self.stdout.write(str(kernel.run_until_idle()))
                return
            self._work(kernel, options)
        except AutomateError as error:
            raise CommandError(str(error)) from error

    def _work(self, kernel: Any, options: dict[str, Any]) -> None:
        run = {"slots": options["slots"], "grace_seconds": options["grace_seconds"]}
        names = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
        self.stdout.write(f"{kernel.storage.describe()}; workflows: {names}")
        self.stdout.flush()
        if options["processes"] == 1:
            work(**run)
            return
        supervisor = Supervisor(options["processes"], work, run, prepare=django.setup)
        with handling_signals(supervisor.stop):
            failed = supervisor.run()
        if failed:
            raise CommandError(f"{failed} of the worker processes failed")


def work(**options: Any) -> None:
    """Run one worker in this process until SIGTERM or SIGINT."""
    kernel = get_kernel()
    kernel.register(FreshConnections(), "hook", key="automate_django")
    worker = kernel.worker(**options)
    stops = iter((False,))
    with handling_signals(lambda: worker.stop(abandon=next(stops, True))):
        worker.run()
    kernel.close()
