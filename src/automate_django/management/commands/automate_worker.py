"""``manage.py automate_worker``: run workflows, tasks and other outbox items."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import django
from django.core.management.base import CommandError
from django.utils import autoreload

from automate_django import conf
from automate_django.connections import FreshConnections, LentConnections, keeping_none
from automate_django.kernel import get_kernel
from automate_django.management.base import KernelCommand
from automate_kernel.base.errors import ConfigError
from automate_kernel.http.worker_ports import Ports, run_observed, supervise_observed
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.logs import configure_logging
from automate_kernel.monitoring.process import guarded_process
from automate_kernel.storage.migration import require_schema
from automate_kernel.worker.process import handling_signals
from automate_kernel.worker.worker import Worker

_NOWHERE = Ports()
_LEVELS = ("warning", "info", "debug", "debug")
_HIGHEST_PORT = 65_535
_RELOAD = 3
"""The exit code with which Django's reloader asks to be started again."""
_STOP_SECONDS = 10.0


class Command(KernelCommand):
    """Runs a worker until it is stopped."""

    help = (
        "Run workflows, tasks and other outbox items. SIGTERM or Ctrl-C lets running items finish; "
        "a second one hands them back and stops at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options; defaults come from ``AUTOMATE_WORKER``."""
        worker, add = conf.options("AUTOMATE_WORKER"), parser.add_argument
        for names, name, default, text in (
            (("--processes",), "PROCESSES", 1, "the number of processes, each with its own slots"),
            (("--slots", "--concurrency"), "SLOTS", 10, "the calls that run at once in a process"),
            (("--grace-seconds",), "GRACE_SECONDS", 30.0, "seconds that a stop waits for items"),
        ):
            kind, help_ = type(default), f"{text} (default: %(default)s)"
            add(*names, type=kind, default=worker.get(name, default), help=help_)
        for name, metavar, text in (
            ("--kinds", "KIND,…", "work on these kinds of items only: mail.send, or mail.*"),
            ("--exclude-kinds", "KIND,…", "leave these kinds of items to other workers"),
            ("--queue", "NAME,…", "work on these queues of Django's tasks, and on --kinds, only"),
        ):
            add(name, action="append", default=[], metavar=metavar, help=text)
        ports = {"--health-port": "/healthz and /readyz", "--metrics-port": "/metrics"}
        for name, pages in ports.items():
            add(name, type=_port, metavar="PORT", help=f"the port that answers {pages}")
        address = "the address of these ports (default: %(default)s)"
        add("--probe-host", default="127.0.0.1", metavar="ADDRESS", help=address)
        log_format = worker.get("LOG_FORMAT")
        add(
            "--log-format",
            choices=("text", "json"),
            default=log_format,
            help="log everything to standard error, as text or as JSON with ids, a document a "
            "line; --verbosity sets the level "
            f"(default: {log_format or 'as LOGGING is configured'})",
        )
        idle = "run due items and what follows from them, then stop"
        add("--until-idle", "--once", action="store_true", help=idle)
        add("--reload", action="store_true", help="start again when code changes: for development")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one worker here, or several in processes of their own."""
        if options["processes"] < 1 or options["slots"] < 1:
            raise CommandError("--processes and --slots must be at least 1")
        if options["reload"] and (options["processes"] > 1 or options["until_idle"]):
            raise CommandError("--reload goes with one process that runs until it is stopped")
        if options["reload"] and _ports(options):
            raise CommandError("--reload answers no probes: leave out the ports")
        try:
            self._run(options)
        except KeyboardInterrupt:
            return  # before the worker listens to signals itself, so nothing was begun

    def _run(self, options: dict[str, Any]) -> None:
        kernel = get_kernel()
        log_as(kernel, **_log_options(options))
        kinds = [*_parts(options, "kinds"), *_kinds_of(_parts(options, "queue"))]
        chosen: dict[str, Any] = {"kinds": kinds, "exclude_kinds": _named(options["exclude_kinds"])}
        kernel.worker(**chosen)  # raises here, not in each process
        require_schema(kernel.storage)
        if options["until_idle"]:
            self.stdout.write(str(kernel.run_until_idle(**chosen)))
        else:
            with guarded_process():
                self._work(kernel, chosen, options)

    def _work(self, kernel: Kernel, chosen: dict[str, Any], options: dict[str, Any]) -> None:
        ports, names = _ports(options), ("slots", "grace_seconds")
        run = {**chosen, **{name: options[name] for name in names}}
        shown = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
        self.stdout.write(f"{kernel.storage.describe()}; workflows: {shown}")
        self.stdout.flush()
        if options["reload"]:
            _work_with_reloader(lambda: worker_of(get_kernel(), run))
        elif options["processes"] == 1:
            work(ports, **run)
        else:
            run["logs"] = _log_options(options)
            number = options["processes"]
            failed = supervise_observed(kernel, number, work, run, ports, prepare=django.setup)
            if failed:
                raise CommandError(f"{failed} of the worker processes failed")


def _parts(options: dict[str, Any], name: str) -> list[str]:
    """Return what an option names; raises `ConfigError` if it is there and names nothing."""
    for text in options[name]:
        if not _named([text]):
            # A variable that is not set, say: without a name it would mean all of them.
            raise ConfigError(f"--{name} names nothing", hint="name some, or leave it out")
    return _named(options[name])


def _named(given: list[str]) -> list[str]:
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def _kinds_of(queues: list[str]) -> list[str]:
    """Return the kinds of the items of Django's tasks in *queues*."""
    if not queues:
        return []
    from django.core.exceptions import ImproperlyConfigured

    try:
        from automate_django.tasks.runner import kinds_of
    except ImproperlyConfigured as error:
        raise ConfigError(f"--queue: {error}") from error
    return kinds_of(queues)


def worker_of(kernel: Kernel, options: dict[str, Any]) -> Worker:
    """Return a worker whose threads keep their database connections usable."""
    kernel.register(FreshConnections(), "hook", key="automate_django")
    kernel.register(LentConnections(), "hook", key="automate_django_lent")
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
    with guarded_process(), keeping_none():
        left = run_observed(kernel, worker_of(kernel, options), board or ports)
        kernel.close()
        if left:
            # Running items were handed back. Their threads would keep this process from ending.
            logging.shutdown()
            os._exit(0)


def _ports(options: dict[str, Any]) -> Ports:
    return Ports(options["health_port"], options["metrics_port"], options["probe_host"])


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise ArgumentTypeError(f"a port is a number up to {_HIGHEST_PORT}")
    return int(text)


# -- logs ----------------------------------------------------------------------------------------


def _log_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"log_format": options["log_format"], "log_level": _LEVELS[options["verbosity"]]}


def log_as(kernel: Kernel, *, log_format: str | None = None, log_level: str = "info") -> None:
    """Log to standard error, without the secrets of *kernel*; without a format change nothing."""
    if log_format is None:
        return
    configure_logging(kernel, level=log_level, format=log_format)
    for name in list(logging.root.manager.loggerDict):
        _give_up_console(logging.getLogger(name))


def _give_up_console(logger: logging.Logger) -> None:
    # In Django's own configuration ``django`` prints by itself, as plain text and a second time.
    for handler in logger.handlers[:]:
        stream = getattr(handler, "stream", None)
        if stream is not None and stream in (sys.stdout, sys.stderr):
            logger.removeHandler(handler)
            logger.propagate = True


# -- reloading, for development ------------------------------------------------------------------


def _work_with_reloader(make: Callable[[], Worker]) -> None:
    """Run the worker of *make*; when code changes, it hands running items back and starts again."""
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
        autoreload.run_with_reloader(lambda: _run_until_changed(make()))
    else:
        sys.exit(_watch_over())


def _watch_over() -> int:
    # When Django's own parent is stopped it kills its child, and the leases of running items
    # would keep others from them for minutes.
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    lock, stopped = threading.Lock(), threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def stop() -> None:
        with lock:
            stopped.set()
            if child is not None:
                child.terminate()

    code = _RELOAD
    # Around all children: a signal between two, or heard late, is for the child that runs then.
    with handling_signals(stop):
        while code == _RELOAD:
            with lock:
                if stopped.is_set():
                    break
                arguments = autoreload.get_child_arguments()
                child = subprocess.Popen(arguments, env=environment)  # noqa: S603
            code = child.wait()
    return 0 if stopped.is_set() else code


def _run_until_changed(worker: Worker) -> None:
    """Let *worker* work until code changes or the process is stopped."""
    ended = threading.Event()

    def stop(*_: Any, **__: Any) -> None:
        worker.stop(abandon=True)
        ended.wait(_STOP_SECONDS)

    autoreload.file_changed.connect(stop, weak=False)
    # Django's reloader ends the process from its main thread, with this one still at work.
    atexit.register(stop)
    try:
        worker.run()
    finally:
        ended.set()
