"""Errors and the JSON of the commands of ``manage.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError

from automate_kernel.documents import shown_document
from automate_kernel.durations import parse_duration
from automate_kernel.errors import AutomateError, ConfigError, exit_code
from automate_kernel.secrets.redaction import redact_text


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn an `AutomateError` of the block into a `CommandError` without secrets."""
    try:
        yield
    except AutomateError as error:
        raise CommandError(redact_text(str(error)), returncode=exit_code(error)) from error


def as_json(value: Any) -> str:
    """Return *value* as a JSON document."""
    return shown_document(value, indent=2)


def duration(given: Any, option: str) -> float:
    """Return the seconds in ``7d``, ``90s`` or a number; raises `ConfigError`."""
    number = isinstance(given, str) and given.replace(".", "", 1).isdecimal()
    try:
        return float(parse_duration(float(given) if number else given))
    except (AutomateError, ValueError, TypeError) as error:
        raise ConfigError(f"{option}: {error}") from None
