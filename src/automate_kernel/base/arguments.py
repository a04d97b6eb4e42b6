"""
Arguments as callers hand them over: one text in place of several, numbers out of their bounds.

Checked here before anything is read, a mistake is an error with a remedy. Unchecked it is what a
database makes of it: a text is a list of its letters, and a limit of -1 is all rows on SQLite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    did_you_mean,
    type_name,
)

E = TypeVar("E", bound=Enum)

# All drivers take it as a number of rows.
_MOST_ROWS = 2**31 - 1
# Python's locks take no more than some 290 years.
_LONGEST_SECONDS = 1e9


def several(given: Any) -> list[Any]:
    """Return the elements of *given*; a text, a path, a mapping or a class is the only one."""
    alone = isinstance(given, (str, bytes, PurePath, Mapping, type))
    return [given] if alone or not isinstance(given, Iterable) else list(given)


def check_limit(limit: Any, *, least: int = 1) -> int:
    """Return *limit*, or the most that databases take; raises ``INVALID_ARGUMENT``."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < least:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a limit is a whole number from {least} on, not {_shown(limit)}",
            hint="for all rows read page after page",
        )
    return min(limit, _MOST_ROWS)


def check_age(seconds: Any, name: str) -> float:
    """Return *seconds*, an age called *name*; raises ``INVALID_ARGUMENT``."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < 0:
        # An age below zero is that of everything: nothing would be kept.
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"{name} is a number of seconds from 0 on, not {_shown(seconds)}",
        )
    return float(seconds)


def check_timeout(seconds: Any) -> float | None:
    """Return *seconds*, a timeout, or None for none; raises ``INVALID_ARGUMENT``."""
    if seconds is None:
        return None
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    # Else the operation would be blamed, which was never called.
    if not number or not seconds > 0 or seconds == math.inf:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"timeout is a number of seconds above 0, not {_shown(seconds)}",
            hint="leave it out for no limit",
        )
    return float(min(seconds, _LONGEST_SECONDS))


def check_choice(given: Any, choices: type[E], name: str) -> E:
    """Return the member of *choices* with the value *given*; raises ``INVALID_ARGUMENT``."""
    try:
        return choices(given)
    except ValueError:
        values = [str(each.value) for each in choices]
        shown = repr(given[:40]) if isinstance(given, str) else _shown(given)
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a {name} can't be {shown}",
            hint=did_you_mean(given, values, also=f"there are {', '.join(values)}"),
        ) from None


def check_names(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Raise TypeError, as for any argument that there is not, for a name that is not *known*."""
    names = list(known)
    for name in given:
        if name not in names:
            others = did_you_mean(name, names, also=f"there are {', '.join(names)}")
            raise TypeError(f"{what} can't be filtered by {name[:40]} ({others})")


def check_flag(given: Any, name: str) -> bool:
    """Return *given*, True or False; raises `ConfigError`."""
    if not isinstance(given, bool):
        # Any text counts as true: "no" would turn it on.
        raise ConfigError(
            f"{name} is True or False, and can't be {type_name(given)}",
            hint=f"write {name}=True or {name}=False",
        )
    return given


def check_table(given: Any, name: str, example: str, *, of: type | None = None) -> Any:
    """
    Return *given*, a mapping from texts; an empty mapping for None. Raises `ConfigError`.

    *of* is the type of its values, where it matters.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{name} is a mapping, and can't be {type_name(given)}", hint=f"write {example}"
        )
    for key, value in given.items():
        if not isinstance(key, str):
            raise ConfigError(
                f"the keys of {name} are texts, not {type_name(key)}", hint=f"write {example}"
            )
        if of is not None and not isinstance(value, of):
            raise ConfigError(
                f"{name}[{key[:40]!r}] can't be {type_name(value)}", hint=f"write {example}"
            )
    return given


def check_object(given: Any, name: str, example: str) -> Any:
    """Return *given*, a JSON object or None; raises `ConfigError` for what JSON can't hold."""
    if given is None:
        return None
    problem = "" if isinstance(given, Mapping) else f"can't be {type_name(given)}"
    if not problem:
        try:
            json.dumps(dict(given), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            problem = "holds something that JSON doesn't have"
    if problem:
        raise ConfigError(f"{name} is a JSON object, and {problem}", hint=f"write {example}")
    return given


def check_texts(given: Any, name: str, example: str) -> list[str]:
    """Return the texts in *given*, or the one that it is; raises `ConfigError`."""
    if not isinstance(given, Iterable):
        raise ConfigError(
            f"{name} is a list of texts, and can't be {type_name(given)}", hint=f"write {example}"
        )
    found = several(given)
    for each in found:
        if not isinstance(each, str):
            raise ConfigError(
                f"{name} has {type_name(each)} in it, and takes texts", hint=f"write {example}"
            )
    return found


def check_address(given: Any, name: str) -> str | None:
    """Return *given*, an address of the web to put paths below; raises `ConfigError`."""
    if given is None or given == "":
        return None
    remedy = f'write {name}="https://automate.example.com"'
    if not isinstance(given, str):
        raise ConfigError(f"{name} is a text, and can't be {type_name(given)}", hint=remedy)
    try:
        parts = urlsplit(given)
        able = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        able = False
    # Not the value: it may have a password.
    if not able or not given.isprintable() or " " in given:
        raise ConfigError(f"{name} is no address that begins with https:// or http://", hint=remedy)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"{name} has more than a host and a path", hint=remedy)
    return given


def _shown(value: Any) -> str:
    return str(value)[:40] if isinstance(value, (int, float)) else type_name(value)


def require_asyncio(name: str, plain: str) -> None:
    """Raise `AutomateError` if asyncio runs no loop here, as under trio; *plain* is its twin."""
    from asyncio import get_running_loop

    try:
        get_running_loop()
    except RuntimeError:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{name}() needs a running event loop of asyncio, and there is none here",
            hint=f"under trio call {plain}() on a thread: trio.to_thread.run_sync({plain}, ...)",
        ) from None
