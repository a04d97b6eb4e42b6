"""The connections to one database: a pool for each event loop, and sessions of one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_sql import drivers
from automate_sql.config import SqlConfig
from automate_sqlalchemy.engines import end_failed_commits

T = TypeVar("T")

_RECYCLE_SECONDS = 1_800
_PATIENCE_SECONDS = 3.0
# What the drivers' own parsers raise over bytes that are not of their protocol. A few wrong
# options raise ValueError as well, which the message therefore names.
_UNREADABLE = (AssertionError, IndexError, NameError, ValueError, struct.error)


class Password:
    """The password for new connections, which may rotate; never in a repr."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: str | None = None


class DatabaseSession(Protocol):
    """One transaction on one connection, with a deadline."""

    deadline: float

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return ``work(connection, *arguments)``; the event loop isn't blocked meanwhile."""

    async def commit(self) -> None:
        """Commit the transaction."""

    async def drop(self) -> None:
        """Let the connection go, not back to the pool: rows are still on their way."""

    async def close(self) -> None:
        """Roll back what was not committed, and give the connection back as it was opened."""


class Database:
    """
    The database that *config* names.

    Connections belong to the event loop that opened them, since those of asynchronous drivers do.
    """

    def __init__(self, config: SqlConfig) -> None:
        self._config, self.password = config, Password()
        self._url = drivers.opened_url(sa.make_url(config.url.get_secret_value()))
        self.dialect: str = self._url.get_backend_name()
        self._lock = Lock()
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def session(self, *, writes: bool, seconds: float) -> AsyncIterator[DatabaseSession]:
        """
        Open a transaction, read-only unless it *writes*, of which each run ends by the deadline.

        It is rolled back at the end unless it was committed.
        """
        pool = self._pool()
        deadline = time.monotonic() + seconds
        async with pool.place(deadline):
            session = await pool.open(deadline)
            try:
                await session.run(
                    lambda connection: drivers.begin(connection, writes=writes, seconds=seconds)
                )
                yield session
            finally:
                await asyncio.shield(session.close())

    async def close(self) -> None:
        """Close the connections of this event loop, and let other loops close theirs."""
        with self._lock:
            pools = list(self._pools.items())
            self._pools.clear()
        here = asyncio.get_running_loop()
        for loop, pool in pools:
            if loop is here:
                await pool.close()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(pool.close(), loop)

    def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._pools.get(loop)
            if pool is None:
                kind = _AsyncPool if self._url.get_dialect().is_async else _ThreadPool
                pool = self._pools[loop] = kind(self._url, self._config, self.password)
            return pool


class _Pool:
    """The connections of one event loop. A session has a place, so none waits for a connection."""

    def __init__(self, url: sa.URL, config: SqlConfig, password: Password) -> None:
        self.config = config
        self._places = asyncio.Semaphore(config.pool_size)
        self._password = password
        self.options: dict[str, Any] = {
            "connect_args": drivers.connect_args(url, config),
            "hide_parameters": True,
            "pool_size": config.pool_size,
            "max_overflow": 0,
            "pool_timeout": config.timeout_seconds,
            "pool_recycle": _RECYCLE_SECONDS,
            "pool_pre_ping": True,
            "pool_reset_on_return": None,  # drivers.give_back does more
        }

    @contextlib.asynccontextmanager
    async def place(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a place until *deadline*."""
        acquiring = asyncio.ensure_future(self._places.acquire())
        try:
            # Not wait_for, which before Python 3.12 goes on if it is cancelled as it has ended.
            await asyncio.wait({acquiring}, timeout=_left(deadline))
        except asyncio.CancelledError:
            if not acquiring.cancel():
                self._places.release()
            raise
        if not acquiring.done():
            acquiring.cancel()
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"all {self.config.pool_size} connections were in use until the time was over",
                hint="raise pool_size",
            )
        try:
            yield
        finally:
            self._places.release()

    async def open(self, deadline: float) -> DatabaseSession:
        """Return a session on a connection of the pool."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    def give_password(self, engine: sa.Engine) -> None:
        """Let each new connection of *engine* have the password of the moment."""

        @sa.event.listens_for(engine, "do_connect")
        def connect(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
            if self._password.value is not None:
                parameters["password"] = self._password.value

    def connect_deadline(self, deadline: float) -> float:
        """Return when a connection has to be there."""
        return min(deadline, time.monotonic() + self.config.connect_timeout_seconds)


class _AsyncPool(_Pool):
    """The connections of an asynchronous driver."""

    def __init__(self, url: sa.URL, config: SqlConfig, password: Password) -> None:
        super().__init__(url, config, password)
        self._engine: AsyncEngine = create_async_engine(url, **self.options)
        self.give_password(self._engine.sync_engine)
        end_failed_commits(self._engine.dialect)

    async def open(self, deadline: float) -> DatabaseSession:
        connection = self._engine.connect()
        opening = asyncio.ensure_future(connection.start())
        try:
            await _connected(opening, self.connect_deadline(deadline))
        except BaseException:
            # It may have come in the very moment in which its caller left.
            if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
                await asyncio.shield(_patiently(connection.close()))
            raise
        return _AsyncSession(connection, deadline)

    async def close(self) -> None:
        await self._engine.dispose()


class _AsyncSession:
    """A session of an asynchronous driver, which itself cancels what is cancelled."""

    def __init__(self, connection: AsyncConnection, deadline: float) -> None:
        self._connection, self.deadline = connection, deadline

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        running = asyncio.ensure_future(self._connection.run_sync(work, *arguments))
        return await _result(running, self.deadline, self._end)

    async def commit(self) -> None:
        await self.run(drivers.commit)

    async def drop(self) -> None:
        await _patiently(self._connection.invalidate())

    async def close(self) -> None:
        raw = _raw(self._connection.sync_connection)
        if not await _patiently(self._connection.run_sync(drivers.give_back)):
            drivers.cut(getattr(raw, "driver_connection", None))

    async def _end(self, running: asyncio.Future[Any]) -> None:
        # First, as one driver waits for its thread when it is cancelled.
        raw = _raw(self._connection.sync_connection)
        drivers.interrupt(raw)
        running.cancel()
        await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
        if not running.done():
            drivers.cut(getattr(raw, "driver_connection", None))
            await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
        # Nobody knows what is still on its way on this connection.
        await self.drop()


class _ThreadPool(_Pool):
    """The connections of a driver that blocks, each used by one thread at a time."""

    def __init__(self, url: sa.URL, config: SqlConfig, password: Password) -> None:
        super().__init__(url, config, password)
        self._engine = sa.create_engine(url, **self.options)
        end_failed_commits(self._engine.dialect)
        self.spare = sa.create_engine(
            url, poolclass=sa.NullPool, connect_args=self.options["connect_args"],
            hide_parameters=True,
        )  # fmt: skip
        for engine in (self._engine, self.spare):
            self.give_password(engine)
        # A thread for each connection, and a thread for each that has to be let go of.
        self.threads = ThreadPoolExecutor(2 * config.pool_size, "automate-sql")

    async def open(self, deadline: float) -> DatabaseSession:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self.threads, self._engine.connect)
        try:
            connection = await _connected(opening, self.connect_deadline(deadline))
        except BaseException:
            opening.add_done_callback(_closed_when_done)
            raise
        return _ThreadSession(self, connection, deadline)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._engine.dispose)
        self.threads.shutdown(wait=False)


class _ThreadSession:
    """A session of a driver that blocks. What takes too long is ended from another thread."""

    def __init__(self, pool: _ThreadPool, connection: sa.Connection, deadline: float) -> None:
        self._pool, self._connection, self.deadline = pool, connection, deadline
        self._lost = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool.threads, work, self._connection, *arguments)
        return await _result(running, self.deadline, self._end)

    async def commit(self) -> None:
        await self.run(drivers.commit)

    async def drop(self) -> None:
        if not self._lost:
            self._lost = True
            raw = _raw(self._connection)
            await asyncio.get_running_loop().run_in_executor(None, drivers.cut, raw)
            await self._on_thread(self._connection.invalidate)

    async def close(self) -> None:
        raw = _raw(self._connection)
        if not await self._on_thread(drivers.give_back, self._connection):
            await asyncio.get_running_loop().run_in_executor(None, drivers.cut, raw)

    async def _end(self, running: asyncio.Future[Any]) -> None:
        """Make *running* end: by the database's own means, or else by cutting the connection."""
        loop, raw = asyncio.get_running_loop(), _raw(self._connection)
        for means in (lambda: drivers.cancel(raw, self._pool.spare), lambda: drivers.cut(raw)):
            asked = loop.run_in_executor(None, means)
            await asyncio.wait({asked}, timeout=_PATIENCE_SECONDS)
            await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
            if running.done():
                await self.drop()
                return

    async def _on_thread(self, work: Callable[..., object], *arguments: Any) -> bool:
        loop = asyncio.get_running_loop()
        return await _patiently(loop.run_in_executor(self._pool.threads, work, *arguments))


async def _result(
    running: asyncio.Future[T],
    deadline: float,
    end: Callable[[asyncio.Future[Any]], Awaitable[None]],
) -> T:
    """Return the result of *running*. At *deadline*, or if this is cancelled, *end* it."""
    running.add_done_callback(_heard)
    try:
        # Not wait_for, which waits for what it has cancelled, however long.
        await asyncio.wait({running}, timeout=_left(deadline))
        if running.done():
            return running.result()
    except asyncio.CancelledError:
        if not running.done():
            await asyncio.shield(end(running))
        raise
    await end(running)
    raise AutomateError(ErrorCodes.DEADLINE_EXCEEDED, "the database has not answered in time")


async def _patiently(work: Awaitable[object]) -> bool:
    """Await *work* for some seconds; return True if it ended. Its failure is of no interest."""
    doing = asyncio.ensure_future(work)
    doing.add_done_callback(_heard)
    await asyncio.wait({doing}, timeout=_PATIENCE_SECONDS)
    return doing.done()


async def _connected(opening: asyncio.Future[T], deadline: float) -> T:
    """
    Return the connection that is being opened.

    Raises ``UNAVAILABLE`` at *deadline*, and if what answers speaks no protocol of a database.
    """
    opening.add_done_callback(_heard)
    await asyncio.wait({opening}, timeout=_left(deadline))
    if not opening.done():
        raise AutomateError(ErrorCodes.UNAVAILABLE, "the database has not answered in time")
    try:
        return opening.result()
    except _UNREADABLE as error:
        # Drivers do not catch what their own parsers raise. Its bytes are not for a log.
        name = type(error).__name__
    raise AutomateError(
        ErrorCodes.UNAVAILABLE,
        f"no connection could be opened: {name}",
        hint="check that the URL's host and port are the database's, and the options after its '?'",
    )


def _raw(connection: sa.Connection | None) -> Any:
    """Return the driver's connection, or None if it is gone."""
    try:
        return None if connection is None else connection.connection.dbapi_connection
    except Exception:
        return None


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _heard(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _closed_when_done(opening: asyncio.Future[sa.Connection]) -> None:
    """Close a connection that came too late."""
    if not opening.cancelled() and opening.exception() is None:
        asyncio.get_running_loop().run_in_executor(None, opening.result().close)
