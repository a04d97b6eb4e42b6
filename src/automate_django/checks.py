"""System checks: what is wrong with the settings, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from automate_django import conf
from automate_kernel.errors import AutomateError

__all__ = ["check_database", "check_settings"]

_PATHS = ("AUTOMATE_PROVIDERS", "AUTOMATE_CONNECTORS", "AUTOMATE_HOOKS")


@register("automate")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Names that nobody reads, paths that lead nowhere, and workflows that don't load."""
    found = [
        *_unknown(),
        *_types(),
        *_paths(),
        *_overrides(),
        *_worker(),
        *_workflows(),
        *_store(),
    ]
    # What is wrong above would be told a second time.
    return found if any(each.level >= ERROR for each in found) else [*found, *_kernel()]


def _unknown() -> Iterator[CheckMessage]:
    for name, near in conf.unknown():
        hint = f"Did you mean {near}?" if near else "Its documentation is in automate_django.conf."
        yield CheckWarning(
            f"{name} is no setting of automate_django.", hint=hint, id="automate.W001"
        )


def _types() -> Iterator[CheckMessage]:
    for name, keys in conf.KEYS.items():
        read = conf.options if keys or name == "AUTOMATE_CONFIG" else conf.listed
        try:
            read(name)
        except AutomateError as error:
            yield _error(error, "automate.E002")


def _paths() -> Iterator[CheckMessage]:
    for name in _PATHS:
        for path in _listed(name):
            try:
                conf.load(path, name)
            except AutomateError as error:
                yield _error(error, "automate.E003")
    for key in ("SITE", "TENANT"):
        admin = conf.setting("AUTOMATE_ADMIN", {})
        try:
            conf.load(
                admin.get(key) if isinstance(admin, dict) else None, f"AUTOMATE_ADMIN[{key!r}]"
            )
        except AutomateError as error:
            yield _error(error, "automate.E003")
    for entry in _listed("AUTOMATE_SECRETS"):
        path = entry.get("BACKEND") if isinstance(entry, dict) else entry
        if conf.is_plugin_key(path):
            continue
        try:
            conf.load(path, "AUTOMATE_SECRETS")
        except AutomateError as error:
            yield _error(error, "automate.E003")


def _listed(name: str) -> list[Any]:
    try:
        return conf.listed(name)
    except AutomateError:
        return []  # told by `_types`


def _overrides() -> Iterator[CheckMessage]:
    given = conf.setting("AUTOMATE_OVERRIDES", {})
    for name in given if isinstance(given, dict) else ():
        if name not in conf.OVERRIDABLE:
            continue  # told by `_unknown`
        try:
            conf.replaced(name, conf.load(conf.OVERRIDABLE[name], "AUTOMATE_OVERRIDES"))
        except AutomateError as error:
            yield _error(error, "automate.E007")


def _worker() -> Iterator[CheckMessage]:
    given = conf.setting("AUTOMATE_WORKER", {})
    for key, value in given.items() if isinstance(given, dict) else ():
        whole = key in ("PROCESSES", "SLOTS")
        types = int if whole else (int, float)
        least = 1 if whole else 0
        if key not in conf.KEYS["AUTOMATE_WORKER"] or value is None:
            continue
        if key == "LOG_FORMAT":
            if value not in ("json", "text"):
                yield Error(
                    f"AUTOMATE_WORKER[{key!r}] must be 'json' or 'text'.",
                    hint="Leave it out for what LOGGING says.",
                    id="automate.E008",
                )
            continue
        if isinstance(value, bool) or not isinstance(value, types) or value < least:
            yield Error(
                f"AUTOMATE_WORKER[{key!r}] must be a{' whole' * whole} number, {least} or more.",
                hint="Leave it out for the default.",
                id="automate.E008",
            )


def _store() -> Iterator[CheckMessage]:
    outbox = conf.setting("AUTOMATE_OUTBOX", {})
    name = outbox.get("STORE") if isinstance(outbox, dict) else None
    if name is None:
        return
    from automate_django.kernel import STORES

    if name in STORES or (conf.is_plugin_key(name) and ("outbox_store", name) in _installed()):
        return
    try:
        conf.load(name, "AUTOMATE_OUTBOX['STORE']")
    except AutomateError as error:
        hint = f"Use {', '.join(map(repr, STORES))}, or the dotted path of an OutboxStore."
        yield Error(f"{error.message}.", hint=hint, id="automate.E004")


def _installed() -> set[tuple[str, str]]:
    from automate_kernel.plugins import scan

    return {(found.kind, found.key) for found in scan()}


@register("automate")
def check_database(**_: Any) -> list[CheckMessage]:
    """Whether the database that holds the outbox suits it; nothing is asked of the database."""
    return [*_time_zones(), *_alias()]


def _workflows() -> Iterator[CheckMessage]:
    from automate_kernel.workflows.definition.loader import load_workflows

    try:
        for entry in conf.workflows():
            if isinstance(entry, Path):
                load_workflows(entry)
    except AutomateError as error:
        yield _error(error, "automate.E005")


def _kernel() -> Iterator[CheckMessage]:
    """What the kernel says when it is made: of templates and their filters, say."""
    from automate_django.kernel import get_kernel

    try:
        if _knows_its_database():
            get_kernel()
    except AutomateError as error:
        yield from _broken_workflows() or [_error(error, "automate.E010")]
    except Exception as error:
        # A hook of the project's, say, that reads a table which migrate is about to make.
        yield CheckWarning(
            f"The kernel can't be made: {type(error).__name__}.",
            hint="Call automate_django.get_kernel() in manage.py shell for the traceback.",
            id="automate.W004",
        )


def _knows_its_database() -> bool:
    from automate_django.storage import DjangoStorage

    alias = DjangoStorage(conf.setting("AUTOMATE_OUTBOX", {}).get("USING")).alias
    return alias in connections  # else `check_database` tells


def _broken_workflows() -> list[CheckMessage]:
    from automate_django.kernel import build_kernel

    found: list[CheckMessage] = []
    try:
        kernel = build_kernel(workflows=())
    except AutomateError:
        return found
    for entry in conf.workflows():
        try:
            kernel.add_workflow(entry)
        except AutomateError as error:
            found.append(_error(error, "automate.E005"))
    kernel.close()
    return found


def _time_zones() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Error(
            "USE_TZ is off, and due times are instants.",
            hint="Set USE_TZ = True.",
            id="automate.E001",
        )


def _alias() -> Iterator[CheckMessage]:
    from automate_django.storage import DjangoStorage

    storage = DjangoStorage(conf.setting("AUTOMATE_OUTBOX", {}).get("USING"))
    try:
        connection = storage.connection
    except ConnectionDoesNotExist:
        yield Error(
            f"AUTOMATE_OUTBOX['USING'] names the database {storage.alias!r}, which is not there.",
            hint=f"DATABASES has: {', '.join(connections)}.",
            id="automate.E006",
        )
        return
    if connection.vendor == "sqlite":
        yield from _sqlite(connection)
    if connection.vendor == "mysql":
        yield from _mysql(connection)


def _sqlite(connection: Any) -> Iterator[CheckMessage]:
    worker, outbox = conf.setting("AUTOMATE_WORKER", {}), conf.setting("AUTOMATE_OUTBOX", {})
    if worker.get("PROCESSES") not in (None, 0, 1):
        yield CheckWarning(
            "Several worker processes share an SQLite database, which one of them can write.",
            hint="Use one process with more SLOTS, or PostgreSQL.",
            id="automate.W002",
        )
    if outbox.get("STORE") == "skip_locked":
        yield CheckWarning(
            "SQLite has no SKIP LOCKED: the store claims as 'optimistic' does.",
            hint="Set AUTOMATE_OUTBOX['STORE'] to 'optimistic', or leave it out.",
            id="automate.W003",
        )


def _mysql(connection: Any) -> Iterator[CheckMessage]:
    # Before 5.2 Django's own default: it has no emoji, and a row is stored with "?" in their place.
    if connection.get_connection_params().get("charset") != "utf8mb4":
        yield Error(
            f"The connection {connection.alias!r} can't tell all characters: they become '?'.",
            hint=f"Set DATABASES[{connection.alias!r}]['OPTIONS']['charset'] to 'utf8mb4'.",
            id="automate.E009",
        )


def _error(error: AutomateError, id: str) -> CheckMessage:
    return Error(f"{error.message}.", hint=error.hint and f"{error.hint}.", id=id)
