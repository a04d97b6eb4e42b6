"""
Connections to databases: their upkeep in a worker's threads, and views without a transaction.

A request looks after its own connections; a worker has none.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from asgiref.sync import SyncToAsync
from django.db import OperationalError, connections
from django.db.backends.signals import connection_created

from automate_kernel.base.forks import is_within
from automate_kernel.operations.context import current_call, current_item
from automate_kernel.plugins import hookimpl
from automate_kernel.storage.errors import file_identity, file_is_gone
from automate_kernel.storage.shortage import shortage_of

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

# Servers, proxies and firewalls cut idle connections; none that is common does so within a minute.
_IDLE_SECONDS = 60.0
_thread = threading.local()
# The handlers that go on, with the threads in which they began.
_handlers: dict[object, int] = {}
# Kept, since some drivers close a connection, for the parent too, that is let go of.
_inherited: list[Any] = []
# The connections of all threads to SQLite: a thread can't ask Django for those of another.
_to_sqlite: WeakValueDictionary[int, BaseDatabaseWrapper] = WeakValueDictionary()


def _references() -> int:
    """Return how many a local variable's connection to SQLite has that nobody reads from."""
    driver = sqlite3.connect(":memory:")
    try:
        return sys.getrefcount(driver)
    finally:
        driver.close()


_idle_references = _references()
# The modules whose code uses a connection.
_USES = ("django.db", "automate_django.storage", "automate_kernel.storage")
View = TypeVar("View")


class _Everywhere(set[str]):
    """The aliases of all databases, also of those that a project adds while it runs."""

    def __contains__(self, alias: object) -> bool:
        return True


def non_atomic(view: View) -> View:
    """
    Keep ``ATOMIC_REQUESTS`` from opening a transaction around *view*, in whichever database.

    Django's own decorator is about one, by default ``default``, and the outbox may be in another.
    """
    vars(view)["_non_atomic_requests"] = _Everywhere()  # what Django's decorator sets
    return view


def freshen() -> None:
    """
    Close this thread's connections that are broken or may have been cut while they were idle.

    ``CONN_MAX_AGE`` of 0 means "to the end of the request" and a worker has none, so it does not
    count here: a connection per call would cost more than most calls.
    """
    now = time.monotonic()
    idle = now - getattr(_thread, "used_at", now)
    _thread.used_at = now
    for connection in connections.all(initialized_only=True):
        if connection.connection is None or connection.in_atomic_block:
            continue
        if connection.errors_occurred or connection.settings_dict["CONN_MAX_AGE"]:
            connection.close_if_unusable_or_obsolete()
        elif idle > _IDLE_SECONDS:
            connection.close()


def is_pooled(connection: BaseDatabaseWrapper) -> bool:
    """Return True if *connection* is one of a pool's, as ``"OPTIONS": {"pool": …}`` asks for."""
    return bool(connection.settings_dict["OPTIONS"].get("pool"))


def place_of(alias: str) -> str:
    """Return the database *alias* as errors name it."""
    return f"database {alias!r}"


def give_back() -> None:
    """
    Give this thread's connections back to the pools that they are from, for other threads.

    A pool has four by default, and a worker a dozen threads. While a server takes no more, other
    connections are closed too, unless a handler goes on, which may read from them.
    """
    for connection in connections.all(initialized_only=True):
        taken = connection.connection is not None and not connection.in_atomic_block
        if taken and (is_pooled(connection) or _is_too_many(connection)):
            connection.close()


def _is_too_many(connection: BaseDatabaseWrapper) -> bool:
    lasts = shortage_of(place_of(connection.alias)).lasts
    return lasts and threading.get_ident() not in [*_handlers.values()]


def is_spare(*, saves: bool) -> bool:
    """
    Return True if this thread's connection is not worth keeping after a use of ours.

    That of a thread that waits (`keeping_none`) never is. If the process *saves* connections, none
    is of a worker's own threads, where they serve neither an item nor a call now.
    """
    if getattr(_thread, "keeps_none", False):
        return True
    ours = threading.current_thread().name.startswith("automate-")
    return saves and ours and current_item() is None and current_call() is None


@contextmanager
def keeping_none() -> Iterator[None]:
    """Keep no connection in this thread, a worker's main one, which waits until the end."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
    _thread.keeps_none = True
    try:
        yield
    finally:
        _thread.keeps_none = False


def forget_inherited() -> None:
    """
    Have this process, which was forked, open connections of its own; close none of its parent's.

    Two processes on one connection run their statements in each other's transactions.
    """
    for connection in connections.all():
        pools = getattr(connection, "_connection_pools", {})
        _inherited.append(pools.pop(connection.alias, None))
        # A database in memory was copied with the process: its connection is all there is of it.
        if not getattr(connection, "is_in_memory_db", bool)():
            _inherited.append(connection.connection)
            connection.connection = None


def remember(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Have `close_idle` know *connection*, if it is to SQLite."""
    if connection.vendor == "sqlite":
        _to_sqlite[id(connection)] = connection


connection_created.connect(remember)


# What each connection's file was as it was opened, and the files that were there.
_opened: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, int] | None] = WeakKeyDictionary()
_seen: set[Path] = set()


def _note_file(connection: Any, **_: object) -> None:
    if (path := _file(connection)) is not None:
        _opened[connection] = file_identity(path)


connection_created.connect(_note_file)


def _file(connection: Any) -> Path | None:
    """Return the SQLite file of *connection*; None for a database in memory or by a URI."""
    name = str(connection.settings_dict["NAME"])
    known = connection.vendor != "sqlite" or connection.is_in_memory_db()
    return None if known or name.startswith("file:") else Path(name)


def notice_moved_file(connection: Any) -> None:
    """
    Reopen a SQLite file that was replaced; raise ``UNAVAILABLE`` if it was deleted.

    A connection writes on to the file that it has opened, under whatever name or none, and a new
    one would create an empty file. *connection* must not be in a transaction.
    """
    if (path := _file(connection)) is None:
        return
    found = file_identity(path)
    if connection.connection is not None and _opened.setdefault(connection, found) != found:
        connection.close()
    if found is not None:
        _seen.add(path)
        if connection.connection is None:
            _open_file(connection, path)
            _opened[connection] = found
    elif path in _seen:
        raise file_is_gone(path, "manage.py migrate")


def _open_file(connection: Any, path: Path) -> None:
    """Open a file that was there a moment ago; SQLite would create another in its place."""
    settings = connection.settings_dict
    # Each thread has a connection of its own, and shares the settings with the others.
    connection.settings_dict = {**settings, "NAME": f"{path.absolute().as_uri()}?mode=rw"}
    try:
        connection.ensure_connection()
    except OperationalError:
        if path.exists():
            raise
        raise file_is_gone(path, "manage.py migrate") from None
    finally:
        connection.settings_dict = settings


def close_idle(alias: str) -> bool:
    """
    Close the connections of all threads to the SQLite file of *alias*; False if some are in use.

    A process that is forked would take their locks for its own, and lose what it commits once its
    parent removes the WAL. Django opens them again when needed.
    """
    mine = connections.all(initialized_only=True)
    closed = [_close_if_idle(each, mine=each in mine) for each in _open(alias)]
    return all(closed)


def uses_sqlite(alias: str) -> bool:
    """Return True if this thread has a transaction on the SQLite file of *alias*."""
    mine = connections.all(initialized_only=True)
    return any(each in mine and _in_transaction(each, each.connection) for each in _open(alias))


def sqlite_threads(alias: str) -> list[int]:
    """Return the threads with an open connection to the SQLite file of *alias*."""
    return [vars(each)["_thread_ident"] for each in _open(alias)]


def is_idle(alias: str) -> bool:
    """
    Return True if nothing is done on the open connections to the SQLite file of *alias*.

    None has a transaction, and no thread of theirs is in a call of Django's or ours: a cursor that
    somebody keeps is all there is.
    """
    return not any(
        _in_transaction(each, each.connection) or is_within(vars(each)["_thread_ident"], _USES)
        for each in _open(alias)
    )


def _open(alias: str) -> list[Any]:
    for connection in connections.all(initialized_only=True):
        remember(connection)  # it may be older than this module
    found: list[Any] = [reference() for reference in _to_sqlite.valuerefs()]
    name = connections.settings[alias]["NAME"]
    return [
        connection
        for connection in found
        if connection is not None
        and connection.connection is not None
        and connection.settings_dict["NAME"] == name
        and not connection.is_in_memory_db()  # else its connection is all there is of it
    ]


def _in_transaction(connection: Any, driver: Any) -> bool:
    return connection.in_atomic_block or (driver is not None and driver.in_transaction)


def _close_if_idle(connection: Any, *, mine: bool) -> bool:
    driver = connection.connection
    # Looked at again once it is taken away: its thread may have begun in between.
    for attribute in (1, 0):
        # Whoever reads rows refers to it as well as the attribute.
        read = not mine and sys.getrefcount(driver) > _idle_references + attribute
        if read or _in_transaction(connection, driver):
            connection.connection = connection.connection or driver
            return False
        connection.connection = None
    if driver is not None:
        driver.close()
    return True


class FreshConnections:
    """A hook that freshens connections around every call of a worker."""

    @hookimpl
    def automate_before_call(self, call: Any) -> None:
        """Freshen this thread's connections before a call."""
        freshen()

    @hookimpl
    def automate_after_call(self, error: Any) -> None:
        """Freshen the connections of asynchronous code after a failed call."""
        if error is not None:
            SyncToAsync.single_thread_executor.submit(freshen)


class LentConnections:
    """A hook that gives connections back after every item and call of a worker: see `give_back`."""

    @hookimpl
    def automate_handling(self) -> AbstractContextManager[None]:
        """Give back what an item's handler has taken."""
        return _giving_back()

    @hookimpl
    def automate_after_call(self) -> None:
        """Give back what a call has taken."""
        give_back()


@contextmanager
def _giving_back() -> Iterator[None]:
    handler = object()
    _handlers[handler] = threading.get_ident()
    try:
        yield
    finally:  # in another thread, perhaps: an execution ends where its last step did
        del _handlers[handler]
        give_back()
