"""A driver's errors as `StorageError`, with a remedy."""

from __future__ import annotations

import re
from pathlib import Path

from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_kernel.storage.shortage import TooManyConnectionsError, shortage_of

# MySQL's and MariaDB's: out of range, not of the column's characters, too long, no JSON, a check,
# and longer than max_allowed_packet.
_REFUSED = frozenset({1153, 1264, 1265, 1292, 1366, 1406, 3140, 3141, 3819, 4025})
_DUPLICATE, _LOCK_WAIT_TIMEOUT, _DEADLOCK = 1062, 1205, 1213
# SQLite's, and those of psycopg, which sends no such text.
_REFUSED_WORDS = (
    "string or blob too big",
    "PostgreSQL text fields cannot contain NUL (0x00) bytes",
)
_HALF = "text with half a surrogate pair"
_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED = "55P03", "40P01"
# A server's limit, or that of a user, of a database or of PgBouncer. 1226 counts other things too.
_FULL, _RESOURCE = frozenset({"53300", 1040, 1203}), 1226
# None, as psycopg gives when it connects, or PgBouncer's own.
_UNTOLD = frozenset({"", "08P01"})
_FULL_WORDS = re.compile(
    r"too many (clients|connections)|connection slots are reserved|no more connections allowed"
)
ROOM: str = (
    "the server takes no more connections: run fewer processes (worker.processes, --processes),"
    " give them smaller pools (pool_size and max_overflow of the engine; fewer slots), put a pooler"
    " such as PgBouncer ahead of it, or raise its max_connections (PgBouncer's max_client_conn)"
)
"""The remedy for a server without a connection left."""
_LOCKED = (
    "another transaction holds what this one needs, perhaps one of the application's that was left"
    " open: end it, and try again (on PostgreSQL pg_stat_activity shows those that are idle in"
    " transaction, on MariaDB and MySQL information_schema.innodb_trx)"
)
# What people can do about an error: by PostgreSQL's codes, MySQL's numbers, or words of its text.
# With psycopg an error of a connection has no code, and none of SQLite's has one.
_REMEDIES: tuple[tuple[set[str | int], str, str], ...] = (
    (
        {"26000", "42P05"}, "prepared statement .* (does not|already) exist",
        (
            "a pooler in transaction mode gives each transaction another connection: have it keep"
            " prepared statements (max_prepared_statements of PgBouncer 1.21 or newer), or prepare"
            " none (prepare_threshold=None among the connection's arguments)"
        ),
    ),
    (
        {"53100", 1021, 1114}, "disk is full|no space left",
        "the database's disk is full: make room there, and try again",
    ),
    (
        set(), "^queuepool limit|couldn't get a connection after",
        (
            "all connections of this process's own pool are in use: give it room for a worker's"
            " slots and ten more (max_overflow of the engine, max_size of Django's pool)"
        ),
    ),
    (
        {"57P01", "57P02", "57P03", 1053}, "system is (starting|shutting|not yet|in recovery)",
        "the server is starting, stopping or recovering: try again in a moment",
    ),
    (
        {"25006", 1792, 1836}, "read-only transaction|--read-only",
        "this server only reads, as a replica does: connect to the primary",
    ),
    (
        {"42501", 1044, 1142, 1143, 1227}, "permission denied for",
        "the database's user may not do this: grant it rights on our tables (automate_*)",
    ),
    (
        {"28000", "28P01", 1045, 1698}, "authentication failed|no password supplied",
        "check the user and the password in the database's address",
    ),
    (
        {"3D000", 1049}, "database .*does not exist",
        "create the database, or correct its name in the address",
    ),
    (
        {1969, 3024}, "statement timeout",
        (
            "the server lets no statement take that long: raise statement_timeout (MariaDB:"
            " max_statement_time) for this user, or look for what slows the database down"
        ),
    ),
    (
        set(), "disk image is malformed|file is not a database",
        "the file is damaged, or no database of SQLite: check its path, or restore a backup",
    ),
    (
        set(), "disk i/o error",
        "SQLite could not read or write its file: check the disk, and keep the file on a local one",
    ),
    (
        set(), "readonly|read-only",
        "the database can't be written: check the file's and its folder's permissions",
    ),
    (set(), "unable to open", "check that the folder exists and may be written"),
    (
        set(), "is locked",
        (
            "another transaction holds SQLite's write lock: if it is your own, a transactional"
            " step's say, pass it on (transaction=...) or do this after it; if another process's,"
            " give the connection a longer timeout"
        ),
    ),
)  # fmt: skip
# In the words of SQLite, MySQL and PostgreSQL.
_MISSING = re.compile(
    r"no such (table|column)|has no column|unknown column|table .*doesn't exist"
    r"|(relation|column) .*does not exist"
)


class DuplicateKeyError(StorageError):
    """A row with this key exists."""

    default_code = ErrorCodes.ALREADY_EXISTS


class LockedError(StorageError):
    """Another transaction holds a lock for longer than this one waits."""


class DeadlockError(StorageError):
    """The database has undone this transaction, so that one that waited for it can go on."""


def storage_error(
    error: BaseException | None, place: str, *, migrate: str, retryable: bool
) -> StorageError:
    """
    Return a `StorageError` with the first line of *error*, and with a remedy if one is known.

    *place* names the database without a password. *migrate* is the way in which this application
    makes our tables. A refused value is ``INVALID_ARGUMENT``: the database will refuse it again.
    """
    text = (str(error or "").strip() or type(error).__name__).split("\n")[0]
    if _is_duplicate(error):
        return DuplicateKeyError(f"{place}: {text}")
    if _number(error) == _LOCK_WAIT_TIMEOUT or _state(error) == _LOCK_NOT_AVAILABLE:
        return LockedError(f"{place}: {text}", hint=_LOCKED, retryable=retryable)
    if _number(error) == _DEADLOCK or _state(error) == _DEADLOCK_DETECTED:
        return DeadlockError(f"{place}: {text}", retryable=retryable)
    if is_refusal(error):
        return StorageError(
            f"{place} refused a value: {text}",
            code=ErrorCodes.INVALID_ARGUMENT,
            hint="compare our tables with the reference: the columns' types, their characters"
            " (utf8mb4) and their checks",
        )
    if is_full(error):
        shortage_of(place).note()
        return TooManyConnectionsError(f"{place}: {text}", hint=ROOM, retryable=True)
    hint = migrate if _MISSING.search(text.lower()) else _remedy(error, text.lower())
    return StorageError(f"{place}: {text}", hint=hint, retryable=retryable)


def is_full(error: BaseException | None) -> bool:
    """Return True if a driver's *error* says that the server takes no more connections."""
    number, state = _number(error), _state(error)
    if number is not None:
        return number in _FULL or (number == _RESOURCE and "connections" in str(error))
    return state in _FULL or (state in _UNTOLD and bool(_FULL_WORDS.search(str(error).lower())))


def _remedy(error: BaseException | None, text: str) -> str | None:
    known = {_state(error), _number(error)}
    return next(
        (hint for codes, words, hint in _REMEDIES if known & codes or re.search(words, text)), None
    )


def unsendable(error: BaseException, place: str) -> StorageError | None:
    """
    Return a `StorageError` for a value that a driver can't send; None for any other *error*.

    Half a surrogate pair is one, and on SQLite an integer of more than 64 bits. It has no value in
    it: the driver's own text, or SQLAlchemy's, has all parameters of the statement.
    """
    if not isinstance(error, (UnicodeError, OverflowError)):
        return None
    what = "a number that is too large" if isinstance(error, OverflowError) else _HALF
    return StorageError(
        f"{place} can't look for or store {what}",
        code=ErrorCodes.INVALID_ARGUMENT,
        hint="give other text, or another number",
    )


def loses_transaction(error: BaseException | None, vendor: str) -> bool:
    """
    Return True if a statement's *error* undoes its whole transaction, unless a savepoint helps.

    Every error does on PostgreSQL, and a deadlock on MySQL and MariaDB. A later commit reports no
    error, and keeps nothing or only what came later.
    """
    return vendor == "postgresql" or (vendor == "mysql" and _number(error) == _DEADLOCK)


def lost_transaction(failure: StorageError, savepoint: str) -> StorageError:
    """Return the error for the commit of a transaction that *failure* has undone."""
    return StorageError(
        f"nothing of this transaction was kept, since a statement failed in it: {failure.message}",
        code=ErrorCodes.ABORTED,
        hint=f"let the error end the transaction, or catch it around {savepoint}",
        retryable=failure.retryable,
    )


def is_refusal(error: BaseException | None) -> bool:
    """Return True if a driver's *error* is about a value: the same statement fails for ever."""
    state = _state(error)
    # Of PostgreSQL's classes: data exceptions, what exceeds its limits, a check that fails.
    if state[:2] in ("22", "54") or state == "23514" or _number(error) in _REFUSED:
        return True
    text = str(error)
    return text.startswith("CHECK constraint failed") or text in _REFUSED_WORDS


def _is_duplicate(error: BaseException | None) -> bool:
    unique = str(error).startswith("UNIQUE constraint failed")
    return unique or _state(error) == "23505" or _number(error) == _DUPLICATE


def _state(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error, whichever driver or framework raised it."""
    for one in (error, getattr(error, "__cause__", None)):
        for name in ("sqlstate", "pgcode"):
            state = getattr(one, name, None)
            if isinstance(state, str):
                return state
    return ""


def _number(error: BaseException | None) -> int | None:
    """Return MySQL's number of an error."""
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else None


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def file_is_gone(path: Path, migrate: str) -> StorageError:
    """Return the error of a SQLite file that is there no more; *migrate* is a command."""
    return StorageError(
        f"{path}: the database's file is gone, and with it what was written since",
        code=ErrorCodes.UNAVAILABLE,
        hint=f"put it back, or create another ({migrate}); workers then go on",
        retryable=True,
    )
