"""Failures: the errors of drivers, with their codes and without the values that they quote."""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from automate_kernel.base.errors import AutomateError, ErrorCodes

_LONGEST = 500
_SHORTEST_QUOTED = 2
_QUOTE = re.compile(r"['\"]")
_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r"(?:\\x[0-9A-Fa-f]{2})+")
_ALLOW = "set allow_writes in the config, and use execute"

# By SQLSTATE, the longest prefix first. Each class of PostgreSQL's is here: some drivers have no
# class of exceptions that would say as much.
_STATES: dict[str, ErrorCodes] = {
    "08": ErrorCodes.UNAVAILABLE,
    "0": ErrorCodes.FAILED_PRECONDITION,
    "0A": ErrorCodes.INVALID_ARGUMENT,
    "2": ErrorCodes.FAILED_PRECONDITION,
    "20": ErrorCodes.INVALID_ARGUMENT,
    "21": ErrorCodes.INVALID_ARGUMENT,
    "22": ErrorCodes.INVALID_ARGUMENT,
    "23505": ErrorCodes.ALREADY_EXISTS,
    "25006": ErrorCodes.PERMISSION_DENIED,
    "25P03": ErrorCodes.DEADLINE_EXCEEDED,
    "25P04": ErrorCodes.DEADLINE_EXCEEDED,
    "26": ErrorCodes.UNAVAILABLE,  # a pooler gave the session to another client
    "28": ErrorCodes.UNAUTHENTICATED,
    "3": ErrorCodes.FAILED_PRECONDITION,
    "34": ErrorCodes.INVALID_ARGUMENT,
    "3D": ErrorCodes.NOT_FOUND,
    "3F": ErrorCodes.INVALID_ARGUMENT,
    "40003": ErrorCodes.UNAVAILABLE,
    "40": ErrorCodes.ABORTED,
    "42501": ErrorCodes.PERMISSION_DENIED,
    "42": ErrorCodes.INVALID_ARGUMENT,
    "44": ErrorCodes.FAILED_PRECONDITION,
    "53": ErrorCodes.RESOURCE_EXHAUSTED,
    "54": ErrorCodes.INVALID_ARGUMENT,
    "55": ErrorCodes.FAILED_PRECONDITION,
    "55006": ErrorCodes.ABORTED,
    "55P03": ErrorCodes.ABORTED,
    "57014": ErrorCodes.DEADLINE_EXCEEDED,
    "57": ErrorCodes.UNAVAILABLE,
    "58": ErrorCodes.UNAVAILABLE,
    "72": ErrorCodes.ABORTED,
    "F0": ErrorCodes.UNAVAILABLE,
    "HV": ErrorCodes.UNAVAILABLE,
    "P0": ErrorCodes.FAILED_PRECONDITION,
}
# By the numbers of MySQL and MariaDB.
_NUMBERS: dict[int, ErrorCodes] = {
    1040: ErrorCodes.RESOURCE_EXHAUSTED, 1203: ErrorCodes.RESOURCE_EXHAUSTED,
    1044: ErrorCodes.PERMISSION_DENIED, 1142: ErrorCodes.PERMISSION_DENIED,
    1143: ErrorCodes.PERMISSION_DENIED, 1227: ErrorCodes.PERMISSION_DENIED,
    1290: ErrorCodes.PERMISSION_DENIED, 1792: ErrorCodes.PERMISSION_DENIED,
    1045: ErrorCodes.UNAUTHENTICATED, 1698: ErrorCodes.UNAUTHENTICATED,
    1049: ErrorCodes.NOT_FOUND,
    1062: ErrorCodes.ALREADY_EXISTS, 1586: ErrorCodes.ALREADY_EXISTS,
    1048: ErrorCodes.FAILED_PRECONDITION, 1364: ErrorCodes.FAILED_PRECONDITION,
    1451: ErrorCodes.FAILED_PRECONDITION, 1452: ErrorCodes.FAILED_PRECONDITION,
    1644: ErrorCodes.FAILED_PRECONDITION, 3819: ErrorCodes.FAILED_PRECONDITION,
    4025: ErrorCodes.FAILED_PRECONDITION,
    1205: ErrorCodes.ABORTED, 1213: ErrorCodes.ABORTED, 1020: ErrorCodes.ABORTED,
    1317: ErrorCodes.DEADLINE_EXCEEDED, 1969: ErrorCodes.DEADLINE_EXCEEDED,
    3024: ErrorCodes.DEADLINE_EXCEEDED,
    1053: ErrorCodes.UNAVAILABLE, 1927: ErrorCodes.UNAVAILABLE,
    2002: ErrorCodes.UNAVAILABLE, 2003: ErrorCodes.UNAVAILABLE, 2005: ErrorCodes.UNAVAILABLE,
    2006: ErrorCodes.UNAVAILABLE, 2013: ErrorCodes.UNAVAILABLE, 2055: ErrorCodes.UNAVAILABLE,
    # Wrong SQL and wrong values, for which the driver has the class of a lost connection, too.
    **dict.fromkeys(
        (1052, 1054, 1055, 1059, 1064, 1065, 1066, 1102, 1103, 1109, 1111, 1136, 1140, 1146, 1166,
         1222, 1241, 1242, 1247, 1248, 1264, 1265, 1292, 1300, 1305, 1318, 1365, 1366, 1406, 1411,
         1582, 1630, 1690),
        ErrorCodes.INVALID_ARGUMENT,
    ),
}  # fmt: skip
# By the words of SQLite, which has no codes before Python 3.11, and of drivers that connect.
_WORDS = (
    ("readonly database", ErrorCodes.PERMISSION_DENIED),
    ("not authorized", ErrorCodes.PERMISSION_DENIED),
    ("prohibited", ErrorCodes.PERMISSION_DENIED),
    ("database is locked", ErrorCodes.ABORTED),
    ("table is locked", ErrorCodes.ABORTED),
    ("unable to open", ErrorCodes.NOT_FOUND),
    ("UNIQUE constraint", ErrorCodes.ALREADY_EXISTS),
    ("constraint failed", ErrorCodes.FAILED_PRECONDITION),
    ("interrupted", ErrorCodes.DEADLINE_EXCEEDED),
    ("disk is full", ErrorCodes.RESOURCE_EXHAUSTED),
    ("disk I/O error", ErrorCodes.UNAVAILABLE),
    ("not a database", ErrorCodes.DATA_LOSS),
    ("disk image is malformed", ErrorCodes.DATA_LOSS),
    ("too many c", ErrorCodes.RESOURCE_EXHAUSTED),
    ("authentication failed", ErrorCodes.UNAUTHENTICATED),
    ("no password supplied", ErrorCodes.UNAUTHENTICATED),
    ("no pg_hba.conf entry", ErrorCodes.UNAUTHENTICATED),
    ('FATAL:  role "', ErrorCodes.UNAUTHENTICATED),
    ('FATAL:  database "', ErrorCodes.NOT_FOUND),
)


def failure_of(error: Exception, values: Iterable[Any] = ()) -> AutomateError | None:
    """
    Return the `AutomateError` for an *error* of SQLAlchemy or its driver; None for another.

    The bound *values* are taken out of its text.
    """
    if isinstance(error, sa.exc.TimeoutError):
        return AutomateError(ErrorCodes.RESOURCE_EXHAUSTED, "no connection was free in time")
    if isinstance(error, sa.exc.DBAPIError):
        original = error.orig if error.orig is not None else error
        return _said(_code(original, error), original, values, error.statement or "")
    # Raised by asyncpg while rows are fetched.
    by_state = _by_state(error)
    if by_state is not None:
        return _said(by_state, error, values)
    if isinstance(error, sa.exc.NoSuchModuleError):
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION, "the dialect of the URL isn't installed"
        )
    if isinstance(error, sa.exc.SQLAlchemyError):
        return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"SQLAlchemy: {type(error).__name__}")
    if isinstance(error, sqlite3.Warning):  # of two statements, before Python 3.11
        return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"the database says: {error}")
    if isinstance(error, ModuleNotFoundError):
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the driver of the URL isn't installed: {error.name}",
            hint=f"pip install {error.name}",
        )
    if isinstance(error, OSError):
        return AutomateError(ErrorCodes.UNAVAILABLE, f"the database: {type(error).__name__}")
    return None


def _said(
    code: ErrorCodes, original: BaseException, values: Iterable[Any], statement: str = ""
) -> AutomateError:
    hint = _ALLOW if _is_read_only(original) else None
    # The lines after the first quote rows, in PostgreSQL's DETAIL. Not before values are hidden,
    # which have lines of their own.
    text = _without(_text(original), values, statement).strip().partition("\n")[0]
    text = text if text.isprintable() else repr(text)[1:-1]  # a name in it may hold anything
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return AutomateError(code, f"the database says: {text}", hint=hint)


def _code(original: BaseException, error: sa.exc.DBAPIError) -> ErrorCodes:
    number = original.args[0] if original.args else None
    if isinstance(number, int) and number in _NUMBERS:
        return _NUMBERS[number]
    code = _by_state(original)
    if code is not None:
        return code
    words = str(original)
    known = next((code for word, code in _WORDS if word in words), None)
    if known is not None:
        return known
    if isinstance(original, sqlite3.OperationalError):
        return ErrorCodes.INVALID_ARGUMENT  # its "SQL logic error": no server could be away
    return ErrorCodes.UNAVAILABLE if error.connection_invalidated else _by_class(error)


def _by_state(original: BaseException) -> ErrorCodes | None:
    state = _state(original)
    if state is None:
        return None
    known = (state[:length] for length in (5, 2, 1))
    return next((_STATES[each] for each in known if each in _STATES), ErrorCodes.INTERNAL)


def _by_class(error: sa.exc.DBAPIError) -> ErrorCodes:
    if isinstance(error, sa.exc.IntegrityError):
        return ErrorCodes.FAILED_PRECONDITION
    if isinstance(error, (sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)):
        return ErrorCodes.INVALID_ARGUMENT
    # A lost connection is reported as one of these, and so is an answer in no protocol.
    lost = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)
    return ErrorCodes.UNAVAILABLE if isinstance(error, lost) else ErrorCodes.INTERNAL


def _state(original: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):
        value = getattr(original, name, None)
        if isinstance(value, str) and value:
            return value
    return None


def _is_read_only(original: BaseException) -> bool:
    number = original.args[0] if original.args else None
    return _state(original) == "25006" or number == 1792 or "readonly database" in str(original)


def _text(original: BaseException) -> str:
    diagnosis = getattr(original, "diag", None)
    text = getattr(diagnosis, "message_primary", None)
    if not text:
        number = original.args[0] if original.args else None
        words = original.args[1:] if isinstance(number, int) and len(original.args) > 1 else ()
        text = str(words[0] if words else original)
    return re.sub(r"^<class '[^']*'>: ", "", text.strip())


def _without(text: str, values: Iterable[Any], statement: str) -> str:
    """
    Return *text* without the *values*.

    Databases quote them cut short and with escapes. So each word of a quotation goes that is part
    of a value, unless the *statement* itself has it.
    """
    forms = {form for leaf in _leaves(values) for form in _forms(leaf)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST_QUOTED:
            text = text.replace(form, "…")
    if not forms or (quotation := _QUOTE.search(text)) is None:
        return text
    begin, given = quotation.start(), "\0".join(forms).casefold()
    own = set(_WORD.findall(statement.casefold()))

    def shown(found: re.Match[str]) -> str:
        word = found[0].casefold()  # as PostgreSQL folds a name
        hides = len(word) >= _SHORTEST_QUOTED and word not in own and word in given
        return "…" if hides else found[0]

    return text[:begin] + _WORD.sub(shown, _ESCAPED.sub("…", text[begin:]))


def _forms(leaf: Any) -> Iterable[str]:
    """Yield the *leaf* as text, and as drivers and databases quote it."""
    yield from (str(leaf), repr(leaf).strip("'\""))
    if isinstance(leaf, str):
        with contextlib.suppress(ValueError):  # it may stand for bytes
            raw = base64.b64decode(leaf, validate=True)
            yield from (raw.decode("utf-8", "replace"), raw.hex(), raw.hex().upper())


def _leaves(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, Mapping):
            for each in value.values():
                # The keys of a value belong to it, unlike the names of parameters.
                yield from each if isinstance(each, Mapping) else ()
                yield from _leaves([each])
        elif isinstance(value, (list, tuple)):
            yield from _leaves(value)
        elif value is not None and not isinstance(value, bool):
            yield value
