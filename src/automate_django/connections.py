"""
Connections to databases: their upkeep in a worker's threads, and views without a transaction.

A request looks after its own connections; a worker has none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import SyncToAsync
from django.db import connections

from automate_kernel.plugins import hookimpl

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

# Servers, proxies and firewalls cut idle connections; none that is common does so within a minute.
_IDLE_SECONDS = 60.0
_thread = threading.local()
# Kept, since some drivers close a connection, for the parent too, that is let go of.
_inherited: list[Any] = []
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


def give_back() -> None:
    """
    Give this thread's connections back to the pools that they are from, for other threads.

    A pool has four by default, and a worker a dozen threads.
    """
    for connection in connections.all(initialized_only=True):
        taken = connection.connection is not None and not connection.in_atomic_block
        if taken and is_pooled(connection):
            connection.close()


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


class PooledConnections:
    """A hook that gives pooled connections back after every item and call of a worker."""

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
    try:
        yield
    finally:
        give_back()
