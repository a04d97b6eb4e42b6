"""The input of commands, of `automate` and `manage.py` alike: JSON, payloads, labels, durations."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.storage.values import NestingError, read_json


def json_input(source: str, option: str | None = None) -> Any:
    """Return the JSON in a file or standard input, or, for an *option*, in the text itself."""
    text, where = (source, option) if option else (_read_text(source), _called(source))
    try:
        return read_json(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}",
            hint="""text is '"text"', and an object '{"name": 1}'""" if option else None,
        ) from None
    except NestingError:
        raise ConfigError(f"{where} is nested too deeply to be read") from None
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from None


def payload_input(given: str | None) -> Any:
    """Return the value of ``PAYLOAD``: JSON, ``@`` and a file, or ``-``; None without it."""
    if given is None:
        return None
    if given == "-" or given.startswith("@"):
        return json_input(given.removeprefix("@"))
    return json_input(given, "PAYLOAD")


def label_input(given: Iterable[str]) -> dict[str, str]:
    """Return the labels in ``--label NAME=VALUE``."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--label {each[:40]!r} has no value", hint="order=4711")
        found[name] = value
    return found


def duration_input(given: str | float, option: str) -> float:
    """Return the seconds in ``7d``, ``90s`` or a number."""
    # At the call: it needs pydantic, which most commands of `automate` start without.
    from automate_kernel.base.durations import parse_duration

    # On a command line a number has no quotes.
    number = isinstance(given, str) and given.replace(".", "", 1).isdecimal()
    try:
        return parse_duration(float(given) if number else given)
    except (AutomateError, ValueError, TypeError) as error:
        raise ConfigError(f"{option}: {error}") from None


def _read_text(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.read()
        return Path(source).read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {source!r}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{_called(source)} is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{source} can't be read: {error.strerror}") from None


def _called(source: str) -> str:
    return "standard input" if source == "-" else source
