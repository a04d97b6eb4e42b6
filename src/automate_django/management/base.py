"""Errors and the JSON of the commands of ``manage.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError

from automate_kernel.documents import shown_document
from automate_kernel.errors import AutomateError, exit_code
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
