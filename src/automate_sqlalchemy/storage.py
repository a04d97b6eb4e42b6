"""The kernel's `Storage` and `Rows` on a SQLAlchemy engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Dialect, Engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    StatementError,
    UnboundExecutionError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import QueuePool, StaticPool

from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    StorageError,
    type_name,
)
from automate_kernel.base.forks import renew_in_children
from automate_kernel.storage import DIALECTS, Clock, Rows, Wakeup, migration
from automate_kernel.storage.connections import BESIDE_SLOTS
from automate_kernel.storage.errors import (
    loses_transaction,
    lost_transaction,
    storage_error,
    unsendable,
)
from automate_kernel.storage.listen import ListenWakeup
from automate_kernel.storage.migration import SchemaReport
from automate_kernel.storage.notify import Notifier
from automate_kernel.storage.rows import begin_through, copy_through, write
from automate_kernel.storage.shortage import Shortage, shortage_of
from automate_sqlalchemy.engines import (
    end_failed_commits,
    fork_gate,
    make_engine,
    notice_moved_file,
    renew,
    shown,
)

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
_MIGRATE = (
    "create our tables, or bring them to this release: automate db migrate, storage.migrate() or "
    "Alembic with automate_sqlalchemy.metadata; automate db migrate --check says what is missing"
)
_PLAIN_ENGINE = (
    "give a plain engine of the same database, create_engine('postgresql+psycopg://...');"
    " aemit(..., transaction=...) takes your AsyncSession all the same"
)
_STYLES = {"qmark": "?", "numeric_dollar": "$"}


class SqlAlchemyRows(Rows):
    """
    `Rows` on one SQLAlchemy connection, below its expression language.

    A statement joins a transaction, or with *commits* it is committed by itself.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        *,
        commits: bool = False,
    ) -> None:
        dialect = connection.dialect
        known = DIALECTS.get("mysql" if dialect.name == "mariadb" else dialect.name)
        if known is None:
            hint = "use PostgreSQL, SQLite, MariaDB or MySQL"
            raise StorageError(f"the database {dialect.name!r} is not supported", hint=hint)
        super().__init__(known, _STYLES.get(dialect.paramstyle, "%s"), clock)
        self.native = connection
        self._notifier = notifier
        self._commits = commits

    def notify(self) -> None:
        """Have the workers woken that wait for items, once the connection has committed."""
        if self._notifier is None:
            return
        if self._commits:
            self._notifier.ring()
            return
        _watch_commits(self.native.dialect)
        self.native.info.setdefault(_AFTER_COMMIT, set()).add(self._notifier)

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement through the driver's own cursor."""
        try:
            if _is_watched(self.native):
                result = self.native.exec_driver_sql(sql, tuple(parameters))
                found = result.fetchall() if fetch else result.rowcount
            else:
                found = self._run(sql, tuple(parameters), fetch)
            if self._commits:
                self.native.commit()
        except DBAPIError as error:
            failure = translated(error, shown(self.native.engine.url))
            self._note(error.orig, failure)
            raise failure from error
        except (PendingRollbackError, StatementError) as error:
            place = shown(self.native.engine.url)
            if refused := unsendable(getattr(error, "orig", None) or error, place):
                raise refused from None
            if not self.native.invalidated:
                raise
            # An earlier statement has found that out, the host's own perhaps.
            raise StorageError(f"{place}: the connection was lost", retryable=True) from error
        except InvalidRequestError as error:
            if self.native.in_transaction():
                raise
            raise _is_over() from error
        return found

    def begins_with(self, sql: str) -> bool:
        """Send it with the BEGIN, unless somebody watches the statements; psycopg alone does."""
        if self.dialect.name != "postgresql" or _is_watched(self.native):
            return False
        return begin_through(self.native.connection.driver_connection, sql)

    def _note(self, error: BaseException | None, failure: StorageError) -> None:
        if not self._commits and loses_transaction(error, self.dialect.name):
            _refuse_commit(self.native, failure)

    def _run(self, sql: str, parameters: tuple[Any, ...], fetch: bool) -> Any:
        # SQLAlchemy's result takes longer to make than all else that the client does in a claim.
        connection, cursor = self.native, None
        if not connection.in_transaction():
            connection.begin()  # as any statement does that is run through it
        try:
            cursor = connection.connection.cursor()
            cursor.execute(sql, parameters)
            found = cursor.fetchall() if fetch else cursor.rowcount
            cursor.close()
        except BaseException as error:
            # What marks a lost connection, in the pool too, and makes the error SQLAlchemy's.
            connection._handle_dbapi_exception(error, sql, parameters, cursor, None)
        return found

    def copy(self, sql: str, lines: Iterable[str]) -> int | None:
        """Run COPY through psycopg's cursor; None with another driver."""
        try:
            return copy_through(self.native.connection.driver_connection, sql, lines)
        except self.native.dialect.loaded_dbapi.Error as error:
            place = shown(self.native.engine.url)
            failure = storage_error(error, place, migrate=_MIGRATE, retryable=False)
            self._note(error, failure)
            raise failure from error


class _CommittedRows(SqlAlchemyRows):
    """
    `Rows` on a connection of an engine's pool, whose driver commits each statement by itself.

    It is its own context manager, and gives the connection back. It is for psycopg, which can be
    asked for that at no cost. SQLAlchemy's own ``Connection`` takes longer to make than a statement
    to run, so it is made where something needs it.
    """

    def __init__(self, engine: Engine, clock: Clock | None, notifier: Notifier | None) -> None:
        Rows.__init__(self, DIALECTS["postgresql"], "%s", clock)
        self._commits, self._engine, self._notifier = True, engine, notifier
        self._made: Connection | None = None

    @property
    def native(self) -> Connection:
        """The connection as SQLAlchemy's own."""
        if self._made is None:
            self._made = Connection(self._engine, self._pooled)
        return self._made

    def __enter__(self) -> Self:
        pooled = None
        try:
            self._pooled = pooled = self._engine.raw_connection()
            driver: Any = pooled.driver_connection
            self._driver, driver.autocommit = driver, True
        except self._engine.dialect.loaded_dbapi.Error as error:
            if pooled is not None:  # closed by somebody, and the pool knows nothing of it
                pooled.invalidate(error)
            place = shown(self._engine.url)
            raise storage_error(error, place, migrate=_MIGRATE, retryable=True) from error
        except PoolTimeoutError as error:
            raise _exhausted(error, self._engine) from error
        return self

    def __exit__(self, *_: object) -> None:
        # It is not, if a statement has found that the connection is lost.
        if self._pooled.is_valid:
            try:
                if not self._driver.closed:
                    self._driver.autocommit = False
            finally:
                self._pooled.close()

    def run(self, sql: str, parameters: Sequence[Any], *, fetch: bool) -> Any:
        """Run one statement through the driver's own cursor."""
        if self._made is not None or _has_listeners(self._engine):
            return super().run(sql, parameters, fetch=fetch)
        try:
            cursor = self._driver.execute(sql, parameters)
            return cursor.fetchall() if fetch else cursor.rowcount
        except BaseException as error:
            if refused := unsendable(error, shown(self._engine.url)):
                raise refused from None
            try:
                # What marks a lost connection, in the pool too, and makes the error SQLAlchemy's.
                self.native._handle_dbapi_exception(error, sql, tuple(parameters), None, None)
            except DBAPIError as known:
                raise translated(known, shown(self._engine.url)) from known
            raise


def _commits_by_itself(given: Engine | Connection) -> bool:
    level = given.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(given.dialect, "_on_connect_isolation_level", None)
    return bool(level == "AUTOCOMMIT")


def _engine(given: object) -> Engine:
    if isinstance(given, Engine):
        return given
    if isinstance(given, (URL, str)):
        given = _url(given)
        if given.get_dialect().is_async:
            text = f"{given.drivername} is an asynchronous driver"
            raise ConfigError(f"{text}, and the kernel's threads need another", hint=_PLAIN_ENGINE)
        return make_engine(given)
    if hasattr(given, "sync_engine"):
        raise ConfigError("the engine is asynchronous", hint=_PLAIN_ENGINE)
    text = f"a storage is made of an engine or a URL, not of {type(given).__name__}"
    raise ConfigError(text, hint="SqlAlchemyStorage(create_engine(url))")


def _url(given: URL | str) -> URL:
    try:
        url = make_url(given)
        url.get_dialect()
    except ArgumentError:
        # Without the text, which may hold a password.
        hint = "write postgresql+psycopg://user:password@host/name or sqlite:///file.db"
        raise ConfigError("the database's URL can't be read", hint=hint) from None
    except ImportError as error:
        text = f"the database's driver is not installed: {error.name}"
        raise ConfigError(text, hint="install it") from None
    return url


class SqlAlchemyStorage:
    """
    The kernel's tables in the database of a SQLAlchemy engine, or of a URL.

    For a URL an engine is made, which `close` disposes of; it keeps a SQLite file in WAL mode. A
    given engine stays the application's.

    A *transaction* of the kernel's methods is a ``Session``, ``scoped_session`` or ``Connection``;
    with ``aemit`` an ``AsyncSession``, ``async_scoped_session`` or ``AsyncConnection``.

    On PostgreSQL each worker holds a connection of its own to hear of new items. Each process that
    sends items holds a connection for a minute. Without *listen* nobody is notified and workers
    poll: behind a pooler in transaction mode, say.
    """

    def __init__(
        self, engine: Engine | URL | str, *, clock: Clock | None = None, listen: bool = True
    ) -> None:
        self._own = isinstance(engine, (URL, str))
        engine = _engine(engine)
        if _commits_by_itself(engine):
            raise ConfigError(
                "the engine commits each statement by itself (isolation_level AUTOCOMMIT)",
                hint="give an engine with transactions: nothing is atomic without them",
            )
        end_failed_commits(engine.dialect)
        self.engine = engine
        self._clock = clock
        is_sqlite = engine.dialect.name == "sqlite"
        self.shortage: Shortage | None = None if is_sqlite else shortage_of(shown(engine.url))
        self._notifier: Notifier | None = None
        if listen and engine.dialect.driver == "psycopg":
            # Who disposes of the engine has another pool after it.
            self._notifier = Notifier(self._own_connection, lambda: engine.pool, self._saves)
        # Not as an isolation level of SQLAlchemy's: that takes longer than all the rest of it.
        known = (engine.dialect.name, engine.dialect.driver)
        self._commits_each: bool = known == ("postgresql", "psycopg")
        self.supports_skip_locked: bool = not is_sqlite
        self._guard = fork_gate(engine)
        notice_moved_file(engine)
        renew_in_children(self)

    def __repr__(self) -> str:
        return f"SqlAlchemyStorage({self.describe()})"

    def begin(
        self, transaction: Any = None, *, atomic: bool = True, bounded: bool = True
    ) -> AbstractContextManager[SqlAlchemyRows]:
        """Give rows in *transaction*, or in their own; see `automate_kernel.storage.Storage`."""
        if not atomic and transaction is None and self._commits_each:
            return _CommittedRows(self.engine, self._clock, self._notifier)
        if transaction is not None:
            return nullcontext(self._rows(transaction))
        return self._begin(atomic, bounded)

    @contextmanager
    def _begin(self, atomic: bool, bounded: bool) -> Iterator[SqlAlchemyRows]:
        # Only our own statements are translated: what a handler does to the connection, and the
        # errors that it expects from it, stay SQLAlchemy's.
        with self._guard(), self._translated_connection() as connection:
            # MySQL takes items in several statements, and wants another isolation for each of ours.
            if not atomic and connection.dialect.name in ("postgresql", "sqlite"):
                yield SqlAlchemyRows(connection, self._clock, self._notifier, commits=True)
                return
            rows = self._rows(connection)
            with connection.begin() as own:
                rows.begun(bounded=bounded)
                yield rows
                with self._translating():
                    own.commit()

    def _translated_connection(self) -> Connection:
        with self._translating():
            return self.engine.connect()

    def joins(self, transaction: Any) -> bool:
        """Return True for a transaction of the application's."""
        return transaction is not None

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise translated(error, self.describe()) from error
        except InvalidRequestError as error:
            if isinstance(error, PendingRollbackError):
                raise
            raise _is_over() from error
        except PoolTimeoutError as error:
            raise _exhausted(error, self.engine) from error

    def _rows(self, transaction: Any) -> SqlAlchemyRows:
        if isinstance(transaction, (Session, scoped_session)):
            try:
                transaction = transaction.connection()
            except UnboundExecutionError:
                raise StorageError(
                    "the session has several databases, and doesn't say in which of them it writes",
                    code=ErrorCodes.INVALID_ARGUMENT,
                    hint="pass the connection of your own rows:"
                    ' session.connection(bind_arguments={"mapper": Order})',
                ) from None
        if not isinstance(transaction, Connection):
            raise StorageError(
                f"{type_name(transaction)} is no SQLAlchemy transaction",
                code=ErrorCodes.INVALID_ARGUMENT,
                hint="pass a Session or Connection; with aemit(), an AsyncSession",
            )
        if _commits_by_itself(transaction):
            raise StorageError(
                "the connection commits each statement by itself (isolation_level AUTOCOMMIT)",
                code=ErrorCodes.INVALID_ARGUMENT,
                hint="pass one with a transaction: what is sent here would stay after a rollback",
            )
        end_failed_commits(transaction.dialect)
        return SqlAlchemyRows(transaction, self._clock, self._notifier)

    async def arun_in(self, transaction: Any, work: Callable[[Any], T]) -> T:
        """Run *work* in an ``AsyncSession`` or ``AsyncConnection``, or in a thread of its own."""
        # The session of this thread or task: in a thread of ours it would be another session, which
        # nobody commits.
        registry = getattr(transaction, "registry", None)
        if callable(registry) and hasattr(transaction, "remove"):
            transaction = registry()
        if transaction is not None and hasattr(transaction, "run_sync"):
            result: T = await transaction.run_sync(lambda sync: work(self._rows(sync)))
            return result
        return await asyncio.to_thread(write, self, transaction, work)

    def wakeup(self) -> Wakeup | None:
        """Return a LISTEN connection on PostgreSQL with psycopg; None elsewhere."""
        if self._notifier is None:
            return None
        return ListenWakeup(self._own_connection, self._saves)

    def _saves(self) -> bool:
        return self.shortage is not None and self.shortage.lasts

    def _own_connection(self) -> Any:
        # From another pool that is like the engine's: it takes nobody's place there, doesn't wait
        # for a place, and leaves no setting of ours on a connection that goes back.
        try:
            connection = self.engine.pool.recreate().connect()
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise storage_error(error, self.describe(), migrate=_MIGRATE, retryable=True) from error
        driver: Any = connection.driver_connection
        connection.detach()
        driver.rollback()
        driver.autocommit = True
        return driver

    def create_tables(self) -> None:
        """Create the tables that are missing, and change none that is there: see `migrate`."""
        with self._changing() as rows:
            migration.make_tables(rows, self.describe())

    def check_schema(self) -> SchemaReport:
        """Report where the database's catalogue differs from this release, with remedies."""
        with self.begin(atomic=False) as rows:
            return migration.inspect_schema(rows, self.describe())

    def migrate(self, *, force: bool = False, emit_function: bool = False) -> list[str]:
        """
        Add what this release needs to the tables, and return the statements.

        It is one transaction. MariaDB and MySQL commit each statement by itself; there it goes on
        where it was interrupted. Rows stay. If two processes migrate at once, the second
        finds nothing to do. With *emit_function* PostgreSQL gets the function ``automate_emit``
        too. Raises `AutomateError` where Django migrates these tables, or, without
        *force*, Alembic; its hint is the command to run instead.
        """
        with self._changing() as rows:
            return migration.migrate_schema(
                rows, self.describe(), force=force, emit_function=emit_function
            )

    @contextmanager
    def _changing(self) -> Iterator[SqlAlchemyRows]:
        """Open a transaction for changes of tables; on SQLite no other can then write."""
        with (
            self._guard(),
            self._translating(),
            self.engine.connect() as connection,
            connection.begin(),
        ):
            rows = self._rows(connection)
            driver: Any = connection.connection.driver_connection
            if connection.dialect.name == "sqlite" and not getattr(driver, "in_transaction", False):
                rows.run("BEGIN IMMEDIATE", (), fetch=False)
            yield rows

    def describe(self) -> str:
        """Return the engine's URL without its password."""
        return shown(self.engine.url)

    @property
    def has_one_connection(self) -> bool:
        """True if all threads share one connection, and so whatever transaction it is in."""
        return isinstance(self.engine.pool, StaticPool)

    def most_connections(self, slots: int) -> int:
        """Return the number of connections that a worker with *slots* opens at most."""
        pool, most = self.engine.pool, slots + BESIDE_SLOTS
        overflow = getattr(pool, "_max_overflow", -1)
        if isinstance(pool, QueuePool) and overflow >= 0:
            own = 2 if self._notifier is not None else 0  # to listen, and to notify
            return min(most, pool.size() + overflow + own)
        return most

    def renew(self) -> None:
        """Have the engine open connections of this process's own, and leave the others open."""
        renew(self.engine)

    def close(self) -> None:
        """Dispose of the engine if it was made here, of a URL; another is the application's."""
        if self._notifier is not None:
            self._notifier.close()
        if self._own:
            self.engine.dispose()


# Where a driver's connection keeps whom to notify.
_AFTER_COMMIT = "automate_after_commit"


def _watch_commits(dialect: Dialect) -> None:
    """
    Have *dialect* send the notices that its connections owe, once a commit has taken effect.

    SQLAlchemy's own event comes before the commit.
    """
    if _AFTER_COMMIT in vars(dialect):
        return
    for name in ("do_commit", "do_commit_twophase"):
        setattr(dialect, name, partial(_notify_after, getattr(dialect, name)))
    for name in ("do_rollback", "do_rollback_twophase"):
        setattr(dialect, name, partial(_forget_notices, getattr(dialect, name)))
    setattr(dialect, _AFTER_COMMIT, True)


def _notify_after(commit: Callable[..., None], connection: Any, *rest: Any, **options: Any) -> None:
    commit(connection, *rest, **options)
    for notifier in connection.info.pop(_AFTER_COMMIT, ()):
        notifier.ring()


def _forget_notices(
    rollback: Callable[..., None], connection: Any, *rest: Any, **options: Any
) -> None:
    connection.info.pop(_AFTER_COMMIT, None)
    rollback(connection, *rest, **options)


# The failure that has left nothing of a connection's transaction.
_lost: WeakKeyDictionary[Connection, StorageError] = WeakKeyDictionary()


def _refuse_commit(connection: Connection, failure: StorageError) -> None:
    """Let the commit raise, unless a rollback comes first; see `loses_transaction`."""
    # A listener that is there already is not added again.
    for name in ("rollback", "rollback_savepoint"):
        event.listen(connection, name, _forget)
    event.listen(connection, "commit", _fail)
    _lost[connection] = failure


def _fail(connection: Connection) -> None:
    failure = _lost.pop(connection, None)
    if failure is not None:
        # Its driver's, since SQLAlchemy takes a transaction whose commit fails for ended.
        connection.dialect.do_rollback(connection.connection)
        raise lost_transaction(failure, "session.begin_nested()") from failure


def _forget(connection: Connection, *_: object) -> None:
    _lost.pop(connection, None)


def _is_watched(connection: Connection) -> bool:
    """Return True if statements have listeners or are logged, or the driver is asynchronous."""
    listeners, dialect = connection.dispatch, connection.dialect
    return bool(
        listeners.before_cursor_execute
        or listeners.after_cursor_execute
        or dialect.dispatch.do_execute
        or dialect.is_async
        or connection.engine.logger.isEnabledFor(logging.INFO)
    )


def _has_listeners(engine: Engine) -> bool:
    """Return True if statements of *engine* may have listeners, or are logged."""
    return bool(
        engine._has_events
        or Connection._has_events
        or engine.dialect.dispatch.do_execute
        or engine.logger.isEnabledFor(logging.INFO)
    )


def _is_over() -> AutomateError:
    """Return the error of a transaction that an action has ended, which is to be saved in it."""
    # No failure of the database: whoever tried it again would commit again.
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        "the transaction is over: it was committed or rolled back inside the block that began it",
        hint="leave its end to the block; a transactional action or handler that is to be rolled"
        " back raises an error",
        retryable=False,
    )


def _exhausted(error: PoolTimeoutError, engine: Engine) -> StorageError:
    """Return the error of a pool whose connections are all in use."""
    return storage_error(error, shown(engine.url), migrate=_MIGRATE, retryable=True)


def translated(error: DBAPIError, place: str) -> StorageError:
    """Return SQLAlchemy's *error* as ours; *place* is the database without a password."""
    passing = isinstance(error, (OperationalError, InterfaceError))
    retryable = error.connection_invalidated or passing
    return storage_error(error.orig, place, migrate=_MIGRATE, retryable=retryable)
