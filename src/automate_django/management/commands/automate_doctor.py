"""``manage.py automate_doctor``: check everything, and name the remedies."""

from __future__ import annotations

import platform
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.checks import WARNING, run_checks
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from automate_cli.command_input import duration_input
from automate_django import conf
from automate_django.kernel import get_kernel
from automate_django.management.base import KernelCommand, as_json
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring import diagnosis
from automate_kernel.monitoring.diagnosis import Finding, capacity_findings, connection_findings

_PROGRAM = "manage.py automate"
_PACKAGES = ("automate-kernel", "Django", "djangorestframework", "django-tasks", "psycopg")


def _versions() -> list[Finding]:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return [Finding("versions", "ok", ", ".join(found))]


def _settings() -> list[Finding]:
    found = []
    for message in run_checks():
        if str(message.id).startswith("automate.") and message.level >= WARNING:
            state: diagnosis.State = "fail" if message.level > WARNING else "warn"
            text = f"{message.msg} ({message.id})"
            found.append(Finding("settings", state, text, message.hint))
    return found or [Finding("settings", "ok", "no problem found")]


def _database() -> list[Finding]:
    storage = get_kernel().storage
    alias: str = storage.alias  # type: ignore[attr-defined]
    place = storage.describe()
    try:
        missing = list(_unapplied(alias))
    except DatabaseError as error:
        text = f"{place} can't be reached: {type(error).__name__}"
        return [Finding("database", "fail", text, f"correct DATABASES[{alias!r}], or start it")]
    if missing:
        remedy = f"run manage.py migrate automate_django --database {alias}"
        return [Finding("database", "fail", f"{place}: not applied: {', '.join(missing)}", remedy)]
    found = Finding("database", "ok", f"{place}: reachable, all migrations are applied")
    wrong = [each for each in diagnosis.schema_findings(storage) if each.state != "ok"]
    worker = conf.options("AUTOMATE_WORKER")
    room = capacity_findings(
        storage,
        get_kernel().outbox,
        processes=worker.get("PROCESSES", 1),
        slots=worker.get("SLOTS", 10),
    )
    return [found, *wrong, *room, diagnosis.clock_finding(storage)]


def _unapplied(alias: str) -> Iterator[str]:
    executor = MigrationExecutor(connections[alias])
    ours = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "automate_django"]
    for migration, _ in executor.migration_plan(ours):
        yield f"{migration.app_label}.{migration.name}"


def _secrets() -> list[Finding]:
    kernel = get_kernel()
    return diagnosis.secret_findings(
        kernel, diagnosis.secret_uses(kernel, conf.options("AUTOMATE_CONFIG"))
    )


def _workers(idle_seconds: float) -> list[Finding]:
    kernel = get_kernel()
    return diagnosis.worker_findings(
        kernel.outbox,
        program=_PROGRAM,
        worker="manage.py automate_worker",
        kinds=kernel.kinds,
        idle_seconds=idle_seconds,
    )


class Command(KernelCommand):
    """Makes all checks, those that need the database too."""

    help = (
        "Check settings, versions, database, migrations, tables, plugins, workflows, secrets, "
        "executions and workers. Each finding comes with its remedy. Exits with 1 if something is "
        "broken: work that is due and that nobody works on, for example."
    )
    # It runs them itself, and goes on to the other checks.
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        idle = "report work that is due for so long and that no worker works on"
        help_ = f"{idle} (default: %(default)s)"
        parser.add_argument("--idle-after", default="60s", metavar="DURATION", help=help_)
        parser.add_argument(
            "--test-connections",
            action="store_true",
            help="have the plugins that have config ask their services, too",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the checks, print the findings, and fail if any is a failure."""
        seconds = duration_input(options["idle_after"], "--idle-after")
        checks: dict[str, Callable[[], list[Finding]]] = {
            "versions": _versions,
            "settings": _settings,
            "database": _database,
            "plugins": lambda: diagnosis.plugin_findings(get_kernel()),
            "workflows": lambda: diagnosis.workflow_findings(
                get_kernel(), link_settings="AUTOMATE_APPROVALS['PUBLIC_URL']"
            ),
            "secrets": _secrets,
            "polls": lambda: diagnosis.poll_findings(
                get_kernel(), program=_PROGRAM, idle_seconds=seconds
            ),
            "schedules": lambda: diagnosis.schedule_findings(
                get_kernel(), program=_PROGRAM, idle_seconds=seconds
            ),
            "executions": lambda: diagnosis.execution_findings(get_kernel(), program=_PROGRAM),
            "workers": lambda: _workers(seconds),
            "executors": lambda: diagnosis.executor_findings(get_kernel()),
            "relays": lambda: diagnosis.relay_findings(get_kernel()),
        }
        if options["test_connections"]:
            checks["connections"] = lambda: connection_findings(get_kernel())
        findings = diagnosis.findings_of(checks.items(), debug=bool(options["traceback"]))
        broken = sum(each.state == "fail" for each in findings)
        if options["json"]:
            found = [each.to_json() for each in findings]
            self.stdout.write(as_json({"ok": not broken, "findings": found}))
        else:
            self._show(findings)
        if broken:
            text = f"{broken} of {len(findings)} findings are failures"
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, text)

    def _show(self, findings: list[Finding]) -> None:
        width = max(len(each.check) for each in findings)
        self.stdout.write(f"{'CHECK':<{width}}  STATE  FOUND")
        styles = {"fail": self.style.ERROR, "warn": self.style.WARNING}
        for each in findings:
            text = f"{each.check:<{width}}  {each.state:<5}  {each.text}"
            self.stdout.write(text, styles.get(each.state))
        for each in findings:
            if each.remedy and each.state != "ok":
                self.stdout.write(f"{each.check}: {each.remedy}")
