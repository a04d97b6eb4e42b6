"""What an outbox item may hold, and what is refused at the door."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from automate_kernel.errors import PayloadError
from automate_kernel.storage.tables import OUTBOX, TABLES
from automate_kernel.storage.values import (
    MAX_DEPTH,
    MAX_PAYLOAD_BYTES,
    Redaction,
    encode_json,
    storable,
    text_problem,
)

__all__ = [
    "LENGTHS",
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "Redaction",
    "check_number",
    "check_text",
    "encode_json",
    "redacted_json",
    "storable",
]

LENGTHS = {column.name: column.length for column in TABLES[OUTBOX].columns if column.length}
"""How many characters each text of an item may have."""


def check_text(
    value: Any, what: str, *, column: str = "", beside: int = 0, hint: str | None = None
) -> None:
    """
    Raise `PayloadError` if *value* is no text that the outbox's *column* keeps as it is.

    Empty and blank ones are refused, and those with spaces around: MariaDB takes ``"a"`` and
    ``"a "`` for the same. *beside* so many characters stand in the column already.
    """
    if not isinstance(value, str):
        raise PayloadError(f"{what} must be text, not {type(value).__name__}", hint=hint)
    most = LENGTHS[column or what] - beside
    if len(value) > most:
        room = " beside the tenant's id" if beside else ""
        raise PayloadError(
            f"{what} is too long: {len(value)} characters of at most {most}{room}",
            hint="shorten it, or pass a hash of it",
        )
    if not value or value.isspace():
        blank = "blank" if value else "empty"
        raise PayloadError(f"{what} is {blank}", hint=hint or "give it characters, or leave it out")
    if value[0].isspace() or value[-1].isspace():
        raise PayloadError(f"{what} has spaces around it", hint="take them out")
    problem = text_problem(value)
    if problem:
        raise PayloadError(f"{what} {problem[0]}", hint=problem[1])


def check_number(value: Any, what: str, least: float, most: float, *, whole: bool = True) -> None:
    """Raise `PayloadError` if *value* is no number from *least* to *most*, a *whole* one if so."""
    number: Any = value.total_seconds() if isinstance(value, timedelta) and not whole else value
    if not isinstance(number, int if whole else (int, float)) or isinstance(number, bool):
        raise PayloadError(
            f"{what} must be a {'whole ' if whole else ''}number, not {type(value).__name__}"
        )
    # So that NaN is refused too.
    if not least <= number <= most:
        raise PayloadError(f"{what} must be from {least:,.0f} to {most:,.0f}")


def redacted_json(
    value: Any, name: str, redact: Redaction, limit: int = MAX_PAYLOAD_BYTES, *, inside: int = 0
) -> Any:
    """
    *value* itself, or a copy if *redact* finds secrets in it.

    Raises `PayloadError` for what can't be stored; see `encode_json`.
    """
    text = encode_json(value, name, limit, inside=inside)
    return redact(json.loads(text)) if redact.finds(text) else value
