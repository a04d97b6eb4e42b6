"""``manage.py automate_worker``: run workflows, tasks and other outbox items."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import django
from django.core.management.base import BaseCommand, CommandError

from automate_django import conf
from automate_django.connections import FreshConnections
from automate_django.kernel import get_kernel
from automate_django.management.logs import add_log_arguments, log_as, log_options
from automate_django.management.ports import add_port_arguments, ports_of
from automate_kernel.errors import AutomateError, ConfigError
from automate_kernel.http.worker_ports import Ports, run_observed, supervise_observed
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.process import guarded_process
from automate_kernel.storage.migration import require_schema
from automate_kernel.worker.worker import Worker

__all__ = ["Command"]

_NOWHERE = Ports()


class Command(BaseCommand):
    """Runs a worker until it is told to stop."""

    help = (
        "Run workflows, tasks and other outbox items. SIGTERM or Ctrl-C stops it when what runs is "
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
            "--kinds",
            action="append",
            default=[],
            metavar="KIND,…",
            help="work on these kinds of items only: mail.send, or mail.*",
        )
        parser.add_argument(
            "--exclude-kinds",
            action="append",
            default=[],
            metavar="KIND,…",
            help="leave these kinds of items to other workers",
        )
        parser.add_argument(
            "--queue",
            action="append",
            default=[],
            metavar="NAME,…",
            help="work on these queues of Django's tasks only, and on --kinds if there are any",
        )
        add_port_arguments(parser)
        add_log_arguments(parser, worker.get("LOG_FORMAT"))
        parser.add_argument(
            "--until-idle",
            "--once",
            action="store_true",
            help="run what is due and what follows from it, then stop",
        )
        parser.add_argument(
            "--reload", action="store_true", help="start again when code changes: for development"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one worker here, or several in processes of their own."""
        if options["processes"] < 1 or options["slots"] < 1:
            raise CommandError("--processes and --slots must be at least 1")
        if options["reload"] and (options["processes"] > 1 or options["until_idle"]):
            raise CommandError("--reload goes with one process that runs until it is stopped")
        if options["reload"] and ports_of(options):
            raise CommandError("--reload answers no probes: leave out the ports")
        try:
            kernel = get_kernel()
            log_as(kernel, **log_options(options))
            kinds = [*_parts(options["kinds"]), *_kinds_of(_parts(options["queue"]))]
            chosen: dict[str, Any] = {
                "kinds": kinds,
                "exclude_kinds": _parts(options["exclude_kinds"]),
            }
            kernel.worker(**chosen)  # told here, and not by each process
            require_schema(kernel.storage)
            if options["until_idle"]:
                self.stdout.write(str(kernel.run_until_idle(**chosen)))
            else:
                with guarded_process():
                    self._work(kernel, chosen, options)
        except AutomateError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            return  # before the worker listens to signals itself, so nothing was begun

    def _work(self, kernel: Kernel, chosen: dict[str, Any], options: dict[str, Any]) -> None:
        ports, names = ports_of(options), ("slots", "grace_seconds")
        run = {**chosen, **{name: options[name] for name in names}}
        shown = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
        self.stdout.write(f"{kernel.storage.describe()}; workflows: {shown}")
        self.stdout.flush()
        if options["reload"]:
            from automate_django.management.reloading import work_with_reloader

            with guarded_process():
                work_with_reloader(lambda: worker_of(get_kernel(), run))
        elif options["processes"] == 1:
            work(ports, **run)
        else:
            run["logs"] = log_options(options)
            with guarded_process():
                failed = supervise_observed(
                    kernel, options["processes"], work, run, ports, prepare=django.setup
                )
            if failed:
                raise CommandError(f"{failed} of the worker processes failed")


def _parts(given: list[str]) -> list[str]:
    return [part for text in given for part in text.split(",") if part]


def _kinds_of(queues: list[str]) -> list[str]:
    """The kinds of the items of Django's tasks in *queues*."""
    if not queues:
        return []
    from django.core.exceptions import ImproperlyConfigured

    try:
        from automate_django.tasks.running import kinds_of
    except ImproperlyConfigured as error:
        raise ConfigError(f"--queue: {error}") from error
    return kinds_of(queues)


def worker_of(kernel: Kernel, options: dict[str, Any]) -> Worker:
    """A worker, whose threads' database connections are looked after."""
    kernel.register(FreshConnections(), "hook", key="automate_django")
    return kernel.worker(**options)


def work(
    ports: Ports = _NOWHERE,
    *,
    board: Connection | None = None,
    logs: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Run one worker in this process until SIGTERM or SIGINT; *logs* are for `log_as`."""
    kernel = get_kernel()
    log_as(kernel, **logs or {})
    with guarded_process():
        left = run_observed(kernel, worker_of(kernel, options), board or ports)
        kernel.close()
        if left:
            # What still runs was handed back. Its threads would keep this process from ending.
            logging.shutdown()
            os._exit(0)
