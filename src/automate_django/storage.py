"""The kernel's `Storage` and `Rows` on a Django database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.conf import settings
from django.core import mail
from django.db import Error, InterfaceError, OperationalError, connections, router, transaction
from django.db.backends.signals import connection_created

from automate_django.connections import (
    close_idle,
    forget_inherited,
    is_idle,
    is_pooled,
    is_spare,
    notice_moved_file,
    place_of,
    remember,
    sqlite_threads,
    uses_sqlite,
)
from automate_kernel.base.errors import ConfigError, ErrorCodes, StorageError, type_name
from automate_kernel.base.forks import ForkGuard, renew_in_children
from automate_kernel.storage import DIALECTS, Clock, Rows, Wakeup
from automate_kernel.storage.connections import BESIDE_SLOTS
from automate_kernel.storage.errors import (
    loses_transaction,
    lost_transaction,
    storage_error,
    unsendable,
)
from automate_kernel.storage.listen import ListenWakeup
from automate_kernel.storage.migration import SchemaReport, inspect_schema, migrate_schema
from automate_kernel.storage.notify import Notifier
from automate_kernel.storage.rows import begin_through, copy_through, write
from automate_kernel.storage.shortage import Shortage, shortage_of

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["DjangoRows", "DjangoStorage", "is_open", "mend", "translated"]

T = TypeVar("T")


class DjangoRows(Rows):
    """`Rows` on one Django connection, below the ORM."""

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        dialect = DIALECTS.get(connection.vendor)
        if dialect is None:
            text = f"database {connection.alias!r}: {connection.vendor} is not supported"
            raise ConfigError(text, hint="use PostgreSQL, SQLite, MariaDB or MySQL")
        super().__init__(dialect, "%s", clock)
        self.native = connection
        self._notifier = notifier

    def notify(self) -> None:
        """Have the workers woken that wait for items, once the transaction is committed."""
        connection, notifier = self.native, self._notifier
        if notifier is None or not hasattr(connection.connection, "pgconn"):  # psycopg 3 alone
            return
        # Django doesn't say when a transaction without a block is committed: workers poll.
        if connection.in_atomic_block or connection.get_autocommit():
            transaction.on_commit(notifier.ring, using=connection.alias)

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement through a cursor of the application's connection."""
        try:
            with self.native.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if fetch else cursor.rowcount
        except Error as error:
            raise self._failed(error) from error
        except (UnicodeError, OverflowError) as error:
            raise unsendable(error, f"database {self.native.alias!r}") or error from None

    def begins_with(self, sql: str) -> bool:
        """Send it with the BEGIN, unless somebody watches the statements; psycopg 3 alone does."""
        connection = self.native
        if connection.vendor != "postgresql" or connection.queries_logged:
            return False
        return not connection.execute_wrappers and begin_through(connection.connection, sql)

    def _failed(self, error: Error) -> StorageError:
        connection, failure = self.native, translated(error, self.native.alias)
        if connection.in_atomic_block and loses_transaction(error, connection.vendor):
            _refuse_commit(connection, failure)
        return failure

    def copy(self, sql: str, lines: Iterable[str]) -> int | None:
        """Run COPY through psycopg's own connection; None with another driver."""
        try:
            with self.native.wrap_database_errors:
                return copy_through(self.native.connection, sql, lines)
        except Error as error:
            raise self._failed(error) from error


class DjangoStorage:
    """
    The kernel's tables in a Django database.

    Inside an ``atomic()`` block of the application everything joins that block, and is committed or
    rolled back with it; a *transaction* need not be given. *using* is the database's alias; by
    default the database router chooses. Without *listen* nobody is notified on PostgreSQL either,
    and workers poll: behind a pooler in transaction mode, say.
    """

    def __init__(
        self, using: str | None = None, *, clock: Clock | None = None, listen: bool = True
    ) -> None:
        self._using = using
        self._clock = clock
        self._notifier = (
            Notifier(self._own_connection, self._owner, self._saves) if listen else None
        )
        self._guard = ForkGuard(
            self._close_idle, self._is_mine, holders=self._holders, idle=self._is_idle
        )
        connection_created.connect(self._connected)
        renew_in_children(self)

    def _connected(self, connection: BaseDatabaseWrapper, **_: object) -> None:
        if connection.vendor == "sqlite":
            self._guard.left = False  # its thread doesn't know that another is about to fork

    def _close_idle(self) -> bool:
        """Close the SQLite file, in all threads: a child would take their locks for its own."""
        return not apps.models_ready or close_idle(self.alias)

    def _is_mine(self) -> bool:
        return apps.models_ready and uses_sqlite(self.alias)

    def _holders(self) -> list[int]:
        return sqlite_threads(self.alias) if apps.models_ready else []

    def _is_idle(self) -> bool:
        return not apps.models_ready or is_idle(self.alias)

    def renew(self) -> None:
        """Have Django open connections of this process's own, and leave the others open."""
        forget_inherited()

    def __repr__(self) -> str:
        return f"DjangoStorage(using={self.alias!r})"

    @property
    def alias(self) -> str:
        """The alias of the database that holds our tables."""
        if self._using is None:
            from automate_django.models import OutboxItem

            self._using = router.db_for_write(OutboxItem)
        return self._using

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The connection of the current thread to that database."""
        return connections[self.alias]

    @property
    def shortage(self) -> Shortage | None:
        """The shortage of connections to that database, if there is any; None for SQLite."""
        server = self.connection.vendor != "sqlite"
        return shortage_of(place_of(self.alias)) if server else None

    def _saves(self) -> bool:
        return shortage_of(place_of(self.alias)).lasts

    @property
    def supports_skip_locked(self) -> bool:
        """True if the database knows ``SKIP LOCKED``."""
        return self.connection.vendor != "sqlite"

    @contextmanager
    def begin(
        self, transaction: Any = None, *, atomic: bool = True, bounded: bool = True
    ) -> Iterator[DjangoRows]:
        """
        Give rows in the open ``atomic()`` block, or in a transaction of their own.

        *transaction* may name a connection whose block must then be open. Without *atomic*, and
        outside a block, each statement commits by itself where the database allows it.
        """
        connection = self.connection if transaction is None else transaction
        if not hasattr(connection, "in_atomic_block"):
            hint = "leave it out: the open transaction.atomic() block is meant"
            raise StorageError(
                f"{type_name(transaction)} is no Django transaction",
                code=ErrorCodes.INVALID_ARGUMENT, hint=hint,
            )  # fmt: skip
        remember(connection)  # which may be older than this storage
        if connection.vendor == "sqlite":
            self._guard.check()
        if is_open(connection):
            yield self._rows(connection)
        elif transaction is None:
            with self._gated(connection), self._lent(connection):
                if connection.vendor == "sqlite":
                    try:
                        notice_moved_file(connection)
                    except Error as error:
                        raise translated(error, connection.alias) from error
                if not atomic and connection.vendor != "mysql":
                    mend(connection)
                    yield self._rows(connection)
                else:
                    with self._own(connection, bounded) as rows:
                        yield rows
        else:
            text = f"no transaction is open on the database {connection.alias!r}"
            hint = "open transaction.atomic(), or leave *transaction* out"
            raise StorageError(text, code=ErrorCodes.INVALID_ARGUMENT, hint=hint)

    def joins(self, transaction: Any) -> bool:
        """Return True in an open ``atomic()`` block."""
        return transaction is not None or is_open(self.connection)

    def _gated(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
        return self._guard.entered() if connection.vendor == "sqlite" else nullcontext()

    @contextmanager
    def _lent(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """
        Take a connection of a pool for the block, unless this thread has it already.

        While a server has no more of them, a worker's threads keep none that they don't use.
        """
        lent = connection.connection is None and is_pooled(connection)
        try:
            yield
        finally:
            spare = is_spare(saves=self._saves()) and not is_open(connection)
            if lent or spare:
                connection.close()

    @contextmanager
    def _own(self, connection: BaseDatabaseWrapper, bounded: bool) -> Iterator[DjangoRows]:
        mend(connection)
        of_host: Error | None = None
        try:
            with transaction.atomic(using=connection.alias):
                rows = self._rows(connection)
                rows.begun(bounded=bounded)
                try:
                    yield rows
                except Error as error:
                    of_host = error
                    raise
        except Error as error:
            # What a handler's own query raised is the handler's to see as it is.
            if error is of_host:
                raise
            raise translated(error, connection.alias) from error

    def _rows(self, connection: BaseDatabaseWrapper) -> DjangoRows:
        if connection.vendor == "postgresql" and not settings.USE_TZ:
            # Django would then read our instants as local times, and twice a year wrong times.
            raise ConfigError("automate_django needs time zones", hint="set USE_TZ = True")
        return DjangoRows(connection, self._clock, self._notifier)

    async def arun_in(self, transaction: Any, work: Callable[[Any], T]) -> T:
        """Run *work* in Django's synchronous thread, and in the ``atomic()`` block open there."""
        from asgiref.sync import sync_to_async

        return await sync_to_async(write, thread_sensitive=True)(self, transaction, work)

    def wakeup(self) -> Wakeup | None:
        """Return a LISTEN connection on PostgreSQL with psycopg 3; None elsewhere."""
        if self._notifier is None or self.connection.vendor != "postgresql":
            return None
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        return ListenWakeup(self._own_connection, self._saves) if is_psycopg3 else None

    def _owner(self) -> object:
        # A test runner drops its database at the end. It is known by Django's mailbox for tests.
        return None if hasattr(mail, "outbox") else self

    def _own_connection(self) -> Any:
        # A copy of Django's own, past its pool, which it would take a connection from for long.
        copy = self.connection.copy()
        copy.settings_dict["OPTIONS"].pop("pool", None)
        copy.settings_dict["AUTOCOMMIT"] = True
        try:
            with copy.wrap_database_errors:
                copy.connect()
        except Error as error:
            raise translated(error, self.alias) from error
        return copy.connection

    def create_tables(self) -> None:
        """Run our migrations."""
        from django.core.management import call_command

        options: Any = {"database": self.alias, "verbosity": 0, "interactive": False}
        call_command("migrate", "automate_django", **options)

    def check_schema(self) -> SchemaReport:
        """Report where the database's catalogue differs from this release, with remedies."""
        with self.begin(atomic=False) as rows:
            return inspect_schema(rows, self.describe())

    def migrate(self, *, emit_function: bool = False) -> list[str]:
        """
        Rebuild indexes that differ from this release's, and return the statements.

        With *emit_function* PostgreSQL gets the function ``automate_emit`` too.

        Tables and columns are for ``manage.py migrate``: raises `AutomateError` if some are
        missing.
        """
        with self._own(self.connection, bounded=True) as rows:
            return migrate_schema(rows, self.describe(), emit_function=emit_function)

    def describe(self) -> str:
        """Return the database's alias, kind and name."""
        connection = self.connection
        return f"{self.alias} ({connection.display_name} {connection.settings_dict['NAME']})"

    def most_connections(self, slots: int) -> int:
        """Return the number of connections that a worker with *slots* opens at most."""
        pool, most = self.connection.settings_dict["OPTIONS"].get("pool"), slots + BESIDE_SLOTS
        if not pool:
            return most
        given: dict[str, int] = pool if isinstance(pool, dict) else {}
        return min(most, (given.get("max_size") or given.get("min_size", 4)) + 2)

    def close(self) -> None:
        """Close the connection for notices; the others are Django's."""
        if self._notifier is not None:
            self._notifier.close()


def _refuse_commit(connection: BaseDatabaseWrapper, failure: StorageError) -> None:
    """Let the commit of the open block raise, but for a savepoint; see `loses_transaction`."""

    def fail() -> None:
        raise lost_transaction(failure, "an inner transaction.atomic()") from failure

    transaction.on_commit(fail, using=connection.alias)
    # Before the host's own, which would act on rows that aren't there.
    connection.run_on_commit.insert(0, connection.run_on_commit.pop())


def is_open(connection: BaseDatabaseWrapper) -> bool:
    """Return True if a transaction is open: an ``atomic()`` block, or autocommit turned off."""
    if connection.in_atomic_block:
        return True
    if connection.connection is None:  # to ask it would connect
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.get_autocommit()


def mend(connection: BaseDatabaseWrapper) -> None:
    """Close *connection* if errors have broken it."""
    if connection.errors_occurred:
        # A worker's thread outlives a restart of the server: nobody else looks after it.
        connection.close_if_unusable_or_obsolete()


def translated(error: Error, alias: str) -> StorageError:
    """Return the kernel's error for one of Django's, with a remedy."""
    return storage_error(
        error,
        place_of(alias),
        migrate=f"run: manage.py migrate automate_django --database {alias}",
        retryable=isinstance(error, (OperationalError, InterfaceError)),
    )
