"""Database errors that a client's values cause, distinguished from bugs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

from django.db import DataError, IntegrityError
from django.db.models import ProtectedError, RestrictedError


class Refusal(Enum):
    """The reason of a refusal; each is the request's own fault, or another request's."""

    DUPLICATE = "another row has a value that must be unique"
    NEEDED = "other rows need this one"
    GONE = "a row that this one refers to is not there"
    CHECK = "the values break a rule of the table"
    VALUE = "the database can't store or look up a value"


# SQLSTATE of PostgreSQL, error numbers of MariaDB and MySQL, words of SQLite. NOT NULL is missing
# on purpose: a form or a serializer reports a missing value to the client.
_SQLSTATES = {
    "23505": Refusal.DUPLICATE,
    "23P01": Refusal.DUPLICATE,
    "23503": Refusal.GONE,
    "23514": Refusal.CHECK,
}
_NUMBERS = {
    **dict.fromkeys((1062, 1586), Refusal.DUPLICATE),
    **dict.fromkeys((1216, 1452), Refusal.GONE),
    **dict.fromkeys((1217, 1451), Refusal.NEEDED),
    **dict.fromkeys((3819, 4025), Refusal.CHECK),
}
_WORDS = {
    "UNIQUE constraint failed": Refusal.DUPLICATE,
    "FOREIGN KEY constraint failed": Refusal.GONE,
    "CHECK constraint failed": Refusal.CHECK,
}
# Raised by psycopg 2 (no DataError), by sqlite3 where Django before 5.0 asks it, and by datetime,
# for the years that a filter of times asks for.
_VALUES = (
    (ValueError, r"NUL \(0x00\)"),
    (ValueError, r"^year (-?[0-9]+ is out of range|must be in 1)"),
    (OverflowError, "too large to convert to SQLite INTEGER"),
    (OverflowError, "too large to convert to C"),
    (UnicodeEncodeError, "surrogates not allowed"),
)


def refusal_of(error: BaseException) -> Refusal | None:
    """Return the reason if *error* is a refusal of a client's values, else None."""
    if isinstance(error, (ProtectedError, RestrictedError)):
        return Refusal.NEEDED
    if isinstance(error, IntegrityError):
        return _of_integrity(error)
    text = str(error)
    known = any(isinstance(error, kind) and re.search(words, text) for kind, words in _VALUES)
    return Refusal.VALUE if known or isinstance(error, DataError) else None


def _of_integrity(error: IntegrityError) -> Refusal | None:
    cause: Any = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is not None:
        return _SQLSTATES.get(str(state))
    first = error.args[0] if error.args else None
    if isinstance(first, int):
        return _NUMBERS.get(first)
    return next((found for words, found in _WORDS.items() if words in str(first)), None)


def has_nul(texts: Iterable[str]) -> bool:
    """Return True if one of *texts* has a NUL character, which PostgreSQL can't store."""
    return any("\0" in text for text in texts)
