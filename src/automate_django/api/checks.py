"""System checks of ``AUTOMATE_API``, which import REST framework only if it can be imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import django
from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from automate_django import conf
from automate_django.api.options import DEFAULTS, SETTING, option
from automate_kernel.errors import AutomateError

__all__ = ["check_api"]

_CLASSES = ("AUTHENTICATION", "PERMISSIONS", "THROTTLES")
_POSITIVE = ("PAGE_SIZE", "MAX_PAGE_SIZE", "IDEMPOTENCY_HOURS")
_LISTS = tuple(key for key, default in DEFAULTS.items() if isinstance(default, tuple))
# These count by reading and then writing, or not at all.
_UNFIT_CACHES = ("dummy.DummyCache", "db.DatabaseCache", "filebased.FileBasedCache")
_OLDEST = (3, 14)
# What a Django needs at least; older ones fail at their import.
_OLDEST_ON = (((6, 1), (3, 18)),)


@register("automate")
def check_api(**_: Any) -> list[CheckMessage]:
    """What is wrong with ``AUTOMATE_API``, and with the libraries that it needs."""
    given = conf.setting(SETTING)
    framework = list(_framework())
    if given is not None and not isinstance(given, dict):
        return framework  # told by the check of all settings
    found = [*framework, *_values()]
    if found or given is None:
        return found
    # A framework that can't be imported would fail each of its classes.
    return [*_paths(), *_cors(), *_limits()]


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
        yield Error(
            f"Django REST framework {text} does not run on Django {django.get_version()}.",
            hint=f"Install djangorestframework>={'.'.join(map(str, needed))}.",
            id="automate.E020",
        )


def _values() -> Iterator[CheckMessage]:
    for key in _LISTS:
        value = option(key)
        if isinstance(value, str) or not isinstance(value, Sequence):
            yield _wrong(key, f"is no list: {value!r}", f"Write [{value!r}].")
    for key in _POSITIVE:
        if not _is_number(option(key)) or option(key) <= 0:
            yield _wrong(key, "must be a number above 0", "Leave it out for the default.")
    for key in ("TRUSTED_PROXIES", "CORS_MAX_AGE"):
        if not _is_number(option(key)) or option(key) < 0:
            yield _wrong(key, "must be a number, 0 or more", "Leave it out for the default.")
    limit = option("RATE_LIMIT_PER_MINUTE")
    if limit is not None and (not _is_number(limit) or limit <= 0):
        yield _wrong("RATE_LIMIT_PER_MINUTE", "must be a number above 0", "Leave it out for 60.")
    if option("PAGINATION") not in ("cursor", "offset"):
        yield _wrong("PAGINATION", "is unknown", "Use 'cursor' or 'offset'.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _paths() -> Iterator[CheckMessage]:
    for key in (*_CLASSES, "TENANT"):
        value = option(key)
        for path in value if key in _CLASSES else [value] if value else ():
            try:
                loaded = conf.load(path, f"{SETTING}[{key!r}]")
            except AutomateError as error:
                yield Error(
                    f"{error.message}.", hint=error.hint and f"{error.hint}.", id="automate.E022"
                )
                continue
            fits: Callable[[Any], bool] = callable if key == "TENANT" else _is_class
            if not fits(loaded):
                kind = "function" if key == "TENANT" else "class"
                yield _wrong(key, f"names {path!r}, which is no {kind}", f"Name a {kind}.")


def _is_class(value: Any) -> bool:
    return isinstance(value, type)


def _cors() -> Iterator[CheckMessage]:
    origins = option("CORS_ALLOWED_ORIGINS")
    if "*" in origins and option("CORS_ALLOW_CREDENTIALS"):
        yield Error(
            f"{SETTING} lets scripts of any origin ('*') send credentials: every site could act as"
            " its visitor.",
            hint="List the origins, or set CORS_ALLOW_CREDENTIALS to False.",
            id="automate.E023",
        )
    for origin in origins:
        if origin != "*" and not _is_origin(origin):
            yield Error(
                f"{SETTING}['CORS_ALLOWED_ORIGINS'] has {origin!r}, which no browser sends.",
                hint="An origin is a scheme and a host, without a path: 'https://app.example'.",
                id="automate.E024",
            )


def _is_origin(text: Any) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme and parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"
    except (ValueError, TypeError, AttributeError):
        return False


def _limits() -> Iterator[CheckMessage]:
    alias = option("RATE_LIMIT_CACHE")
    try:
        backend = type(caches[alias])
    except InvalidCacheBackendError:
        hint = f"CACHES has: {', '.join(settings.CACHES)}."
        yield _wrong("RATE_LIMIT_CACHE", f"names {alias!r}, which is not there", hint)
        return
    path = f"{backend.__module__}.{backend.__qualname__}"
    if path.endswith(_UNFIT_CACHES):
        yield CheckWarning(
            f"The cache {alias!r} ({backend.__name__}) can't count requests that race.",
            hint="Name a Redis or Memcached cache in AUTOMATE_API['RATE_LIMIT_CACHE'].",
            id="automate.W020",
        )
    rest: Any = getattr(settings, "REST_FRAMEWORK", None) or {}
    if option("THROTTLES") and rest.get("NUM_PROXIES") is None:
        yield CheckWarning(
            "REST framework's throttles believe whatever X-Forwarded-For says.",
            hint="Set REST_FRAMEWORK['NUM_PROXIES'] (0 without a proxy), or use RateLimitMixin.",
            id="automate.W021",
        )


def _wrong(key: str, problem: str, hint: str) -> CheckMessage:
    return Error(f"{SETTING}[{key!r}] {problem}.", hint=hint, id="automate.E021")
