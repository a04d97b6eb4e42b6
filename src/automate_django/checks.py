"""System checks: problems of the settings, and their remedies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.checks import ERROR, CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from automate_django import conf
from automate_django.kernel import STORES, build_kernel, get_kernel
from automate_django.storage import DjangoStorage
from automate_kernel.base.errors import AutomateError
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.diagnosis import places_of_links
from automate_kernel.secrets.redaction import redact_text
from automate_kernel.secrets.tracebacks import raised_at

_API = "AUTOMATE_API"


@register("automate")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Find unknown names, paths that lead nowhere, and workflows that don't load."""
    found = [*_unknown(), *_types(), *_paths(), *_overrides(), *_worker(), *_workflows(), *_store()]
    # The kernel would report the same errors again.
    return found if any(each.level >= ERROR for each in found) else [*found, *_kernel()]


def _unknown() -> Iterator[CheckMessage]:
    for name, near in conf.unknown():
        hint = f"Did you mean {near}?" if near else "Its documentation is in automate_django.conf."
        yield _problem("W001", f"{name} is no setting of automate_django.", hint)


def _types() -> Iterator[CheckMessage]:
    for name, keys in conf.KEYS.items():
        read = conf.options if keys or name == "AUTOMATE_CONFIG" else conf.listed
        yield from _errors("E002", read, name)


def _paths() -> Iterator[CheckMessage]:
    for name in ("AUTOMATE_PROVIDERS", "AUTOMATE_CONNECTORS", "AUTOMATE_HOOKS"):
        for path in _listed(name):
            yield from _errors("E003", conf.load, path, name)
    admin = _given("AUTOMATE_ADMIN")
    for key in ("SITE", "TENANT"):
        name = f"AUTOMATE_ADMIN[{key!r}]"
        yield from _errors("E003", conf.load, admin.get(key), name)
    for entry in _listed("AUTOMATE_SECRETS"):
        path = entry.get("BACKEND") if isinstance(entry, dict) else entry
        if not conf.is_plugin_key(path):
            yield from _errors("E003", conf.load, path, "AUTOMATE_SECRETS")


def _listed(name: str) -> list[Any]:
    try:
        return conf.listed(name)
    except AutomateError:
        return []  # reported by `_types`


def _given(name: str) -> Mapping[str, Any]:
    """Return the dictionary setting *name*; empty if it is something else, as `_types` reports."""
    value = conf.setting(name, {})
    return value if isinstance(value, dict) else {}


def _overrides() -> Iterator[CheckMessage]:
    for name in _given("AUTOMATE_OVERRIDES"):
        if name in conf.OVERRIDABLE:  # else reported by `_unknown`
            ours = conf.load(conf.OVERRIDABLE[name], "AUTOMATE_OVERRIDES")
            yield from _errors("E007", conf.replaced, name, ours)


def _worker() -> Iterator[CheckMessage]:
    for key, value in _given("AUTOMATE_WORKER").items():
        if key not in conf.KEYS["AUTOMATE_WORKER"] or value is None:
            continue
        name, whole = f"AUTOMATE_WORKER[{key!r}]", key in ("PROCESSES", "SLOTS")
        if key == "VERSION":
            if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
                yield _problem("E008", f"{name} must be text.", "For example '2026.11.2'.")
        elif key == "LOG_FORMAT":
            if value not in ("json", "text"):
                hint = "Leave it out for what LOGGING says."
                yield _problem("E008", f"{name} must be 'json' or 'text'.", hint)
        elif not _is_number(value, least=int(whole), types=int if whole else (int, float)):
            text = f"{name} must be a{' whole' * whole} number, {int(whole)} or more."
            yield _problem("E008", text, "Leave it out for the default.")


def _store() -> Iterator[CheckMessage]:
    name = _given("AUTOMATE_OUTBOX").get("STORE")
    if name is None or name in STORES:
        return
    if conf.is_plugin_key(name):
        from automate_kernel.plugins import scan

        if any((found.kind, found.key) == ("outbox_store", name) for found in scan()):
            return
    try:
        conf.load(name, "AUTOMATE_OUTBOX['STORE']")
    except AutomateError as error:
        hint = f"Use {', '.join(map(repr, STORES))}, or the dotted path of an OutboxStore."
        yield _problem("E004", f"{error.message}.", hint)


def _workflows() -> Iterator[CheckMessage]:
    from automate_kernel.workflows.definition.loader import load_workflows

    try:
        for entry in conf.workflows():
            if isinstance(entry, Path):
                load_workflows(entry)
    except AutomateError as error:
        yield _error(error, "E005")


def _kernel() -> Iterator[CheckMessage]:
    """Report the errors of the kernel's construction: of templates and their filters, say."""
    try:
        if _database() in connections:  # else reported by `check_database`
            yield from _links(get_kernel())
    except AutomateError as error:
        yield from _broken_workflows() or [_error(error, "E010")]
    except Exception as error:
        # A hook of the project's, say, that reads a table which migrate is about to make.
        hint = "Call automate_django.get_kernel() in manage.py shell for the traceback."
        where = redact_text(raised_at(error))
        yield _problem("W004", f"The kernel can't be made: {where}.", hint)


def _links(kernel: Kernel) -> Iterator[CheckMessage]:
    """Warn of the workflows in files and code whose notices read links that lead nowhere."""
    for workflow in kernel.workflows.added():
        for place in places_of_links(kernel, workflow):
            text = f"Workflow {workflow.name!r}: {place} reads a link, and none can be made."
            hint = "Set AUTOMATE_APPROVALS['PUBLIC_URL'] to the address of the API: https://…"
            yield _problem("W005", text, hint)


def _broken_workflows() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    try:
        kernel = build_kernel(workflows=())
    except AutomateError:
        return found
    for entry in conf.workflows():
        found += _errors("E005", kernel.add_workflow, entry)
    kernel.close()
    return found


# -- the database ------------------------------------------------------------------------------


@register("automate")
def check_database(**_: Any) -> list[CheckMessage]:
    """Find what does not suit us in the outbox's database; the database itself is not asked."""
    return list(_found_in_database())


def _database() -> str:
    return DjangoStorage(_given("AUTOMATE_OUTBOX").get("USING")).alias


def _found_in_database() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        text = "USE_TZ is off, and due times are instants."
        yield _problem("E001", text, "Set USE_TZ = True.")
    alias = _database()
    try:
        connection: Any = connections[alias]
    except ConnectionDoesNotExist:
        text = f"AUTOMATE_OUTBOX['USING'] names the database {alias!r}, which is not there."
        yield _problem("E006", text, f"DATABASES has: {', '.join(connections)}.")
        return
    if connection.vendor == "sqlite":
        yield from _sqlite()
    # Before 5.2 Django's own default: it has no emoji, and a row is stored with "?" in their place.
    mysql = connection.vendor == "mysql"
    if mysql and connection.get_connection_params().get("charset") != "utf8mb4":
        text = f"The connection {alias!r} can't tell all characters: they become '?'."
        hint = f"Set DATABASES[{alias!r}]['OPTIONS']['charset'] to 'utf8mb4'."
        yield _problem("E009", text, hint)


def _sqlite() -> Iterator[CheckMessage]:
    if _given("AUTOMATE_WORKER").get("PROCESSES") not in (None, 0, 1):
        text = "Several worker processes share an SQLite database, which one of them can write."
        yield _problem("W002", text, "Use one process with more SLOTS, or PostgreSQL.")
    if _given("AUTOMATE_OUTBOX").get("STORE") == "skip_locked":
        text = "SQLite has no SKIP LOCKED: the store claims as 'optimistic' does."
        hint = "Set AUTOMATE_OUTBOX['STORE'] to 'optimistic', or leave it out."
        yield _problem("W003", text, hint)


# -- AUTOMATE_API ------------------------------------------------------------------------------
#
# REST framework is imported only by the classes that the setting names.

_CLASSES = ("AUTHENTICATION", "PERMISSIONS", "THROTTLES")
_LEAST = {
    "PAGE_SIZE": 1,
    "MAX_PAGE_SIZE": 1,
    "IDEMPOTENCY_HOURS": 1,
    "RATE_LIMIT_PER_MINUTE": 1,
    "TRUSTED_PROXIES": 0,
    "CORS_MAX_AGE": 0,
}
# These count by reading and then writing, or not at all.
_UNFIT_CACHES = ("dummy.DummyCache", "db.DatabaseCache", "filebased.FileBasedCache")
_OLDEST = (3, 14)
# The minimum for a Django; older versions fail at their import.
_OLDEST_ON = (((6, 1), (3, 18)),)


@register("automate")
def check_api(**_: Any) -> list[CheckMessage]:
    """Find problems of ``AUTOMATE_API``, and of the libraries that it needs."""
    given = conf.setting(_API)
    framework = list(_framework())
    if given is not None and not isinstance(given, dict):
        return framework  # reported by `_types`
    found = [*framework, *_values()]
    if found or given is None:
        return found
    # A framework that can't be imported would fail each of its classes.
    return [*_api_paths(), *_cors(), *_limits()]


def _framework() -> Iterator[CheckMessage]:
    if not apps.is_installed("rest_framework"):
        return
    try:
        text = version("djangorestframework")
    except PackageNotFoundError:
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    needed = max([_OLDEST, *(drf for host, drf in _OLDEST_ON if django.VERSION[:2] >= host)])
    if numbers < needed:
        text = f"Django REST framework {text} does not run on Django {django.get_version()}."
        hint = f"Install djangorestframework>={'.'.join(map(str, needed))}."
        yield _problem("E020", text, hint)


def _values() -> Iterator[CheckMessage]:
    values = {key: conf.option(_API, key) for key in conf.KEYS[_API]}
    for key, default in conf.DEFAULTS[_API].items():
        value = values[key]
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if isinstance(default, tuple) and not is_list:
            yield _wrong(key, f"is no list: {value!r}", f"Write [{value!r}].")
    for key, least in _LEAST.items():
        value, or_none = values[key], conf.DEFAULTS[_API][key] is None
        if not _is_number(value, least=least) and not (or_none and value is None):
            text = "must be a number" + (" above 0" if least else ", 0 or more")
            yield _wrong(key, text, f"Leave it out for {'60' if or_none else 'the default'}.")
    if values["PAGINATION"] not in ("cursor", "offset"):
        yield _wrong("PAGINATION", "is unknown", "Use 'cursor' or 'offset'.")


def _is_number(value: Any, *, least: int, types: Any = int) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and bool(value >= least)


def _api_paths() -> Iterator[CheckMessage]:
    for key in (*_CLASSES, "TENANT"):
        value = conf.option(_API, key)
        for path in value if key in _CLASSES else [value] if value else ():
            try:
                loaded = conf.load(path, f"{_API}[{key!r}]")
            except AutomateError as error:
                yield _error(error, "E022")
                continue
            if not (callable(loaded) if key == "TENANT" else isinstance(loaded, type)):
                kind = "function" if key == "TENANT" else "class"
                yield _wrong(key, f"names {path!r}, which is no {kind}", f"Name a {kind}.")


def _cors() -> Iterator[CheckMessage]:
    origins = conf.option(_API, "CORS_ALLOWED_ORIGINS")
    if "*" in origins and conf.option(_API, "CORS_ALLOW_CREDENTIALS"):
        text = f"{_API} lets scripts of any origin ('*') send credentials"
        hint = "List the origins, or set CORS_ALLOW_CREDENTIALS to False."
        yield _problem("E023", f"{text}: every site could act as its visitor.", hint)
    for origin in origins:
        if origin != "*" and not _is_origin(origin):
            text = f"{_API}['CORS_ALLOWED_ORIGINS'] has {origin!r}, which no browser sends."
            hint = "An origin is a scheme and a host, without a path: 'https://app.example'."
            yield _problem("E024", text, hint)


def _is_origin(text: Any) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme and parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"
    except (ValueError, TypeError, AttributeError):
        return False


def _limits() -> Iterator[CheckMessage]:
    alias = conf.option(_API, "RATE_LIMIT_CACHE")
    try:
        backend = type(caches[alias])
    except InvalidCacheBackendError:
        hint = f"CACHES has: {', '.join(settings.CACHES)}."
        yield _wrong("RATE_LIMIT_CACHE", f"names {alias!r}, which is not there", hint)
        return
    path = f"{backend.__module__}.{backend.__qualname__}"
    if path.endswith(_UNFIT_CACHES):
        text = f"The cache {alias!r} ({backend.__name__}) can't count requests that race."
        hint = "Name a Redis or Memcached cache in AUTOMATE_API['RATE_LIMIT_CACHE']."
        yield _problem("W020", text, hint)
    rest: Any = getattr(settings, "REST_FRAMEWORK", None) or {}
    if conf.option(_API, "THROTTLES") and rest.get("NUM_PROXIES") is None:
        text = "REST framework's throttles believe whatever X-Forwarded-For says."
        hint = "Set REST_FRAMEWORK['NUM_PROXIES'] (0 without a proxy), or use RateLimitMixin."
        yield _problem("W021", text, hint)


def _wrong(key: str, problem: str, hint: str) -> CheckMessage:
    return _problem("E021", f"{_API}[{key!r}] {problem}.", hint)


# -- messages ----------------------------------------------------------------------------------


def _problem(number: str, text: str, hint: str | None) -> CheckMessage:
    """Return an error, or with a *number* like ``W001`` a warning."""
    return (CheckWarning if number[0] == "W" else Error)(text, hint=hint, id=f"automate.{number}")


def _errors(number: str, function: Callable[..., Any], *arguments: Any) -> Iterator[CheckMessage]:
    """Call *function*, and report the error that it raises."""
    try:
        function(*arguments)
    except AutomateError as error:
        yield _error(error, number)


def _error(error: AutomateError, number: str) -> CheckMessage:
    return _problem(number, f"{error.message}.", error.hint and f"{error.hint}.")
