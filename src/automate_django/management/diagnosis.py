"""What ``manage.py automate_doctor`` looks at."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from django.core.checks import WARNING, CheckMessage, run_checks
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from automate_django import conf
from automate_kernel.cli.definitions import Command, Context
from automate_kernel.cli.findings import IdleAfter, diagnose
from automate_kernel.cli.inputs import duration
from automate_kernel.monitoring.diagnosis import (
    Finding,
    clock_finding,
    plugin_findings,
    schema_findings,
    secret_findings,
    secret_uses,
    worker_findings,
    workflow_findings,
)

__all__ = ["CHECKS", "DOCTOR"]

_TOLD = ("automate-kernel", "Django", "djangorestframework", "django-tasks", "psycopg")


def _versions(context: Context) -> list[Finding]:
    told = [f"Python {platform.python_version()}"]
    for name in _TOLD:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return [Finding("versions", "ok", ", ".join(told))]


def _settings(context: Context) -> list[Finding]:
    found = [
        Finding(
            "settings",
            "fail" if message.level > WARNING else "warn",
            f"{message.msg} ({message.id})",
            message.hint,
        )
        for message in run_checks()
        if _is_ours(message)
    ]
    return found or [Finding("settings", "ok", "nothing to say")]


def _is_ours(message: CheckMessage) -> bool:
    return str(message.id).startswith("automate.") and message.level >= WARNING


def _database(context: Context) -> list[Finding]:
    storage = context.session.kernel.storage
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
    wrong = [each for each in schema_findings(storage) if each.state != "ok"]
    return [found, *wrong, clock_finding(storage)]


def _unapplied(alias: str) -> Iterator[str]:
    executor = MigrationExecutor(connections[alias])
    ours = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "automate_django"]
    for migration, _ in executor.migration_plan(ours):
        yield f"{migration.app_label}.{migration.name}"


def _plugins(context: Context) -> list[Finding]:
    return plugin_findings(context.session.kernel)


def _workflows(context: Context) -> list[Finding]:
    return workflow_findings(context.session.kernel)


def _secrets(context: Context) -> list[Finding]:
    kernel = context.session.kernel
    return secret_findings(kernel, secret_uses(kernel, conf.options("AUTOMATE_CONFIG")))


def _workers(context: Context, idle_seconds: float) -> list[Finding]:
    kernel = context.session.kernel
    return worker_findings(
        kernel.outbox,
        command=context.named("outbox"),
        worker=context.named("worker"),
        kinds=kernel.kinds,
        idle_seconds=idle_seconds,
    )


CHECKS: tuple[tuple[str, Callable[[Context], list[Finding]]], ...] = (
    ("versions", _versions),
    ("settings", _settings),
    ("database", _database),
    ("plugins", _plugins),
    ("workflows", _workflows),
    ("secrets", _secrets),
)


def doctor(context: Context, idle_after: IdleAfter = "60s") -> None:
    """
    Check settings, versions, database, migrations, tables, plugins, workflows, secrets, workers.

    Each finding comes with its remedy. Exits with 1 if something is broken: work that is due and
    that nobody works on, for example.
    """
    workers = partial(_workers, idle_seconds=duration(idle_after, "--idle-after"))
    diagnose(context, (*CHECKS, ("workers", workers)))


DOCTOR = Command("doctor", doctor, ("automate doctor", "automate doctor --json"), data=True)
