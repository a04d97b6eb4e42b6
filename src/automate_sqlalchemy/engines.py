"""Engines: the set-up of SQLite files that are ours, and the end of a commit that fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import URL, Dialect, Engine, TwoPhaseTransaction, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import (
    ConnectionPoolEntry,
    Pool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

from automate_kernel.base import runtime
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_kernel.base.forks import ForkGuard
from automate_kernel.storage.errors import file_identity, file_is_gone
from automate_kernel.storage.shortage import Shortage, shortage_of

BUSY_SECONDS: float = 30.0
"""The patience of a connection to a SQLite file of ours with another that writes."""


class SparingPool(QueuePool):
    """A pool that closes what it has no use for while there is a *shortage* of connections."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"  # what people silence or watch
    shortage: Shortage

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        # A full pool may have somebody waiting, who is woken by what comes back alone.
        full = 0 <= self._max_overflow <= self._overflow
        if full or not self.shortage.lasts or self.checkedin() < self.shortage.kept:
            super()._do_return_conn(record)
            return
        try:
            record.close()
        finally:
            self._dec_overflow()

    def recreate(self) -> QueuePool:
        """Return another pool that is like this."""
        made = super().recreate()
        cast("SparingPool", made).shortage = self.shortage
        return made


def make_engine(url: URL, **options: Any) -> Engine:
    """Return an engine that is ours; a SQLite file is set up by `set_up_sqlite`."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if not is_sqlite:
        options.setdefault("poolclass", SparingPool)
    if is_sqlite and "timeout" not in url.query and "creator" not in options:
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    engine = create_engine(url, **options)
    if isinstance(engine.pool, SparingPool):
        engine.pool.shortage = shortage_of(shown(url))
    if is_sqlite and not engine.dialect.is_async:
        set_up_sqlite(engine)
    end_failed_commits(engine.dialect)
    return engine


def set_up_sqlite(engine: Engine) -> None:
    """Have each connection of *engine* in WAL mode, and its commits outlive a power cut."""

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: object) -> None:
        try:
            # A step's result must outlive a power cut, or the step would run twice.
            connection.execute("PRAGMA synchronous = FULL")
            # Readers and the writer don't wait for each other.
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            pass  # the first write to a read-only database shows a better error
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{engine.url.database}: {error}",
                code=ErrorCodes.FAILED_PRECONDITION,
                hint="name another file, or move this one away",
            ) from error


def fork_gate(engine: Engine) -> Callable[[], AbstractContextManager[None]]:
    """
    Return what makes a block around each use of *engine*, so that forks don't harm it.

    A SQLite file is closed before a fork: the child would take the parent's locks for its own.
    """
    if engine.dialect.name != "sqlite":
        return nullcontext
    held = _held.get(engine)
    if held is None:
        held = _held[engine] = {}
        event.listen(engine, "checkout", partial(_hold, held))
        event.listen(engine, "checkin", partial(_give_back, held))
    guard = ForkGuard(
        partial(_close_idle, engine, held),
        partial(_is_mine, engine, held),
        holders=lambda: [thread for record, thread in held.copy().items() if record.in_use],
    )
    return guard.entered


# Who has taken which connection of an engine. A pool knows their number at most.
_held: WeakKeyDictionary[Engine, dict[Any, int]] = WeakKeyDictionary()


def _hold(held: dict[Any, int], connection: object, record: Any, proxy: object) -> None:
    held[record] = runtime.get_ident()


def _give_back(held: dict[Any, int], connection: object, record: Any) -> None:
    held.pop(record, None)


def _is_mine(engine: Engine, held: dict[Any, int]) -> bool:
    """Return True if the current thread has a connection to a file."""
    me, taken = runtime.get_ident(), held.copy().items()
    return not _is_copied(engine) and any(each == me and record.in_use for record, each in taken)


def notice_moved_file(engine: Engine) -> None:
    """
    Reopen a SQLite file that was replaced, and refuse to go on without it.

    A connection writes on to the file that it has opened, under whatever name or none.
    """
    if engine.dialect.name == "sqlite" and engine not in _seen:
        _seen[engine] = seen = dict[str, Path]()
        event.listen(engine, "checkout", partial(_look, seen))
        if not engine.dialect.is_async:
            event.listen(engine, "do_connect", partial(_open, seen))


# The path of each engine's file, once the engine has had it open.
_seen: WeakKeyDictionary[Engine, dict[str, Path]] = WeakKeyDictionary()


def _open(seen: dict[str, Path], dialect: Dialect, record: object, args: Any, options: Any) -> Any:
    """Open a file that was there before; SQLite would create another in its place."""
    path = seen.get("path")
    if path is None or options.get("uri"):
        return None
    try:
        address = f"{path.absolute().as_uri()}?mode=rw"
        return dialect.connect(address, *args[1:], **options, uri=True)
    except sqlite3.OperationalError:
        if path.exists():
            raise
        raise file_is_gone(path, "automate db migrate") from None


def _look(seen: dict[str, Path], connection: Any, record: Any, proxy: object) -> None:
    known = record.info.get("automate_file")
    if known is None:
        name = connection.execute("PRAGMA database_list").fetchone()[2]
        known = record.info["automate_file"] = (
            Path(name),
            file_identity(Path(name)) if name else None,
        )
    path, identity = known
    if not path.name:  # in memory
        return
    seen["path"] = path
    found = file_identity(path)
    if found is None:
        raise file_is_gone(path, "automate db migrate")
    if found != identity:
        raise DisconnectionError(f"{path} is another file by now")


def _is_copied(engine: Engine) -> bool:
    """Return True for a database in memory: its connection is all there is of it."""
    return isinstance(engine.pool, (SingletonThreadPool, StaticPool))


def _close_idle(engine: Engine, held: dict[Any, int]) -> bool:
    if not _is_copied(engine):
        if any(record.in_use for record in held.copy()):
            return False
        # Some may have been taken before it was ours.
        if getattr(engine.pool, "checkedout", int)():
            return False
        engine.dispose()
    return True


def renew(engine: Engine) -> None:
    """Have *engine* open connections of this process's own, and leave its parent's open."""
    if not _is_copied(engine):
        # Kept: SQLite would take a connection that is let go of for the last, and end its file.
        _inherited.append(engine.pool)
        engine.dispose(close=False)


_inherited: list[Pool] = []
_guarded: WeakSet[Dialect] = WeakSet()


def end_failed_commits(dialect: Dialect) -> None:
    """
    Have a COMMIT that fails end its transaction, on every engine of *dialect*.

    SQLAlchemy takes it for ended, and gives the connection back to the pool as it is. On SQLite it
    still is open then: it locks the file, and whoever has the connection next commits it.
    """
    if dialect not in _guarded:
        _guarded.add(dialect)
        event.listen(dialect, "handle_error", _end)


def _end(context: ExceptionContext) -> None:
    connection = context.connection
    # What fails without a statement is a BEGIN, a COMMIT or a ROLLBACK.
    if connection is None or context.statement is not None or context.is_disconnect:
        return
    # A coordinator may still ask for a prepared transaction.
    if isinstance(connection.get_transaction(), TwoPhaseTransaction):
        return
    with suppress(Exception):
        context.dialect.do_rollback(connection.connection)
        return
    # It can't be ended, so this connection, and no other of its pool, is given up.
    context.is_disconnect, context.invalidate_pool_on_disconnect = True, False


def shown(url: URL) -> str:
    """Return *url* without its passwords, in their place or among its options."""
    query = {
        name: "***" if "password" in name or "passfile" in name else value
        for name, value in url.query.items()
    }
    text = url.set(query=query).render_as_string(hide_password=True)
    # After an @ that isn't escaped, the rest of a password would stand where the host does.
    start, mark, rest = text.partition("://")
    user, colon, _ = rest.partition(":")
    end = rest.rfind("@")
    known = colon and end > len(user) and not {"/", "@"} & {*user}
    return f"{start}{mark}{user}:***{rest[end:]}" if known else text
