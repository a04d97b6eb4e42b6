"""Notices to workers that wait: after the commit, outside it, and never at its cost."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from automate_kernel.outbox import NewItem, RowsOutboxStore
from automate_kernel.storage.listen import ListenWakeup
from automate_kernel.storage.notify import CHANNEL, WAITING, Notifier
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from waiting import until

PATIENCE_SECONDS = 60.0


class Worker:
    """A worker that hears of new items, as far as the database is concerned."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute(f"LISTEN {CHANNEL}")
        self.wait(True)

    def wait(self, waits: bool) -> None:
        """Fall asleep, or wake up."""
        what = "lock" if waits else "unlock"
        self.connection.execute(f"SELECT pg_advisory_{what}_shared({WAITING})")

    def heard(self, seconds: float = PATIENCE_SECONDS, count: int = 1) -> bool:
        """Return True if *count* notices are there, or come within *seconds*."""
        heard = self.connection.notifies(timeout=seconds, stop_after=count)
        return len(list(heard)) >= count

    def count(self) -> int:
        """Return the number of notices that are there."""
        return len(list(self.connection.notifies(timeout=0)))


@pytest.fixture
def dsn(postgresql_engine: sa.Engine) -> str:
    url = postgresql_engine.url.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.fixture
def worker(dsn: str) -> Iterator[Worker]:
    made = Worker(dsn)
    yield made
    made.connection.close()


@pytest.fixture
def storage(postgresql_engine: sa.Engine) -> Iterator[SqlAlchemyStorage]:
    made = SqlAlchemyStorage(postgresql_engine)
    yield made
    made.close()


Emit = Callable[..., Any]


def in_a_session(engine: sa.Engine, emit: Emit) -> None:
    with Session(engine) as session, session.begin():
        emit(session)


def on_a_connection(engine: sa.Engine, emit: Emit) -> None:
    with engine.begin() as connection:
        emit(connection)


def in_a_savepoint(engine: sa.Engine, emit: Emit) -> None:
    with Session(engine) as session, session.begin():
        with session.begin_nested():
            emit(session)
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            emit(session)
            raise ZeroDivisionError


def in_a_joined_session(engine: sa.Engine, emit: Emit) -> None:
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            emit(session)
            session.commit()
        outer.commit()


def as_it_goes(engine: sa.Engine, emit: Emit) -> None:
    with engine.connect() as connection:
        emit(connection)
        connection.commit()


def in_two_phases(engine: sa.Engine, emit: Emit) -> None:
    with engine.connect() as connection, connection.begin_twophase() as transaction:
        emit(connection)
        transaction.commit()


def by_itself(engine: sa.Engine, emit: Emit) -> None:
    emit(None)


WAYS = [
    in_a_session, on_a_connection, in_a_savepoint, in_a_joined_session, as_it_goes, in_two_phases,
    by_itself,
]  # fmt: skip


@contextmanager
def watched(engine: sa.Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("many", [1, 60])
@pytest.mark.parametrize("way", WAYS)
def test_the_application_s_transaction_holds_no_notice(
    way: Callable[[sa.Engine, Emit], None],
    many: int,
    postgresql_engine: sa.Engine,
    storage: SqlAlchemyStorage,
    worker: Worker,
) -> None:
    """A commit with a notice waits for every other; the worker is woken all the same."""
    outbox = RowsOutboxStore(storage)

    def emit(transaction: Any) -> None:
        outbox.enqueue_many([NewItem("k") for _ in range(many)], transaction=transaction)

    with watched(postgresql_engine) as seen:
        way(postgresql_engine, emit)
    assert any("INSERT" in each for each in seen) or many > 1
    assert "notify" not in " ".join(seen).lower()
    assert worker.heard()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_asynchronous_session(
    driver: str, postgresql_engine: sa.Engine, storage: SqlAlchemyStorage, worker: Worker
) -> None:
    """Its own driver's connection commits, and the kernel's sends the notice."""
    pytest.importorskip(driver)
    outbox = RowsOutboxStore(storage)

    async def emit(commits: bool) -> None:
        engine = create_async_engine(postgresql_engine.url.set(drivername=f"postgresql+{driver}"))
        async with AsyncSession(engine) as session:
            await outbox.aenqueue("k", transaction=session)
            await (session.commit() if commits else session.rollback())
        await engine.dispose()

    asyncio.run(emit(False))
    storage.close()
    assert worker.count() == 0
    asyncio.run(emit(True))
    assert worker.heard()


def test_what_is_rolled_back_wakes_nobody(
    postgresql_engine: sa.Engine, storage: SqlAlchemyStorage, worker: Worker
) -> None:
    """Nor does a later commit of the same connection."""
    outbox = RowsOutboxStore(storage)
    with postgresql_engine.connect() as connection:
        outbox.enqueue("k", transaction=connection)
        connection.rollback()
        connection.exec_driver_sql("SELECT 1")
        connection.commit()
    with Session(postgresql_engine) as session:
        outbox.enqueue("k", transaction=session)
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1")
    storage.close()
    assert worker.count() == 0


def test_nobody_who_is_busy_is_woken(storage: SqlAlchemyStorage, worker: Worker) -> None:
    """A worker looks for work before it sleeps; a notice would be one for nothing."""
    outbox = RowsOutboxStore(storage)
    worker.wait(False)
    outbox.enqueue("k")
    storage.close()
    assert worker.count() == 0
    worker.wait(True)
    outbox.enqueue("k")
    assert worker.heard()


def test_a_storage_that_does_not_listen_sends_none(
    postgresql_engine: sa.Engine, worker: Worker
) -> None:
    """Neither in the transaction nor after it, and it opens no connection for them."""
    storage = SqlAlchemyStorage(postgresql_engine, listen=False)
    with watched(postgresql_engine) as seen:
        on_a_connection(
            postgresql_engine, lambda c: RowsOutboxStore(storage).enqueue("k", transaction=c)
        )
    assert "notify" not in " ".join(seen).lower()
    storage.close()
    assert worker.count() == 0
    assert "automate-notifier" not in [thread.name for thread in threading.enumerate()]


def test_notices_that_come_together_become_one(dsn: str, worker: Worker) -> None:
    """Who rings never waits, not even for a database that lets nobody connect."""
    may_connect = threading.Event()

    def connect() -> Any:
        assert may_connect.wait(PATIENCE_SECONDS)
        return psycopg.connect(dsn, autocommit=True)

    notifier = Notifier(connect, lambda: dsn)
    clients = [threading.Thread(target=notifier.ring) for _ in range(40)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    may_connect.set()
    assert worker.heard()
    notifier.close()
    assert worker.count() == 0
    for _ in range(3):
        notifier.ring()
        assert worker.heard()
    notifier.close()


def test_an_emit_does_not_fail_with_its_notice(
    postgresql_engine: sa.Engine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is logged without the database's words, and the poll is what is left."""
    monkeypatch.setattr("automate_kernel.storage.notify._AFTER_FAILURE_SECONDS", 3600.0)
    refused = threading.Event()

    def refuse(*_: Any) -> None:
        if threading.current_thread().name == "automate-notifier":
            refused.set()
            raise psycopg.OperationalError("no way in for sekretpw")

    engine = sa.create_engine(postgresql_engine.url)
    sa.event.listen(engine, "do_connect", refuse)
    storage = SqlAlchemyStorage(engine)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            RowsOutboxStore(storage).enqueue("k")
        assert refused.wait(PATIENCE_SECONDS)
        storage.close()
    assert len([record for record in caplog.records if "poll" in record.message]) == 1
    assert "sekretpw" not in caplog.text
    assert RowsOutboxStore(storage).stats().total("PENDING") == 5
    engine.dispose()


def test_a_connection_that_breaks_is_replaced(storage: SqlAlchemyStorage, worker: Worker) -> None:
    """At most the notices of the next second are lost."""
    outbox = RowsOutboxStore(storage)
    outbox.enqueue("k")
    assert worker.heard()
    for thread in threading.enumerate():
        if thread.name == "automate-notifier":
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s"
            worker.connection.execute(cut, ["%pg_notify%WHERE NOT pg_try%"])
            thread.join(PATIENCE_SECONDS)
    assert any(outbox.enqueue("k") and worker.heard(0.2) for _ in range(300))


SCRIPT = """
import os, sys
import sqlalchemy as sa
from automate_kernel.outbox import RowsOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage

engine = sa.create_engine(sys.argv[1])
outbox = RowsOutboxStore(SqlAlchemyStorage(engine))
if sys.argv[2] == "fork":
    outbox.enqueue("parent")
    child = os.fork()
    if child == 0:
        outbox.enqueue("child")
        outbox.storage.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
with engine.begin() as connection:
    outbox.enqueue("last", transaction=connection)
"""


@pytest.mark.parametrize("how", ["exit", "fork"])
def test_a_process_that_ends_right_after_its_commit(how: str, dsn: str, worker: Worker) -> None:
    """It has sent its notice by then; a fork has a connection of its own, and leaves the other."""
    url = dsn.replace("postgresql:", "postgresql+psycopg:")
    if how == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, url, how],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert worker.heard(count=2 if how == "fork" else 1)


def test_a_client_that_emits_now_and_then_keeps_its_connection(
    dsn: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect takes longer than all the rest of a pick-up."""
    # An answer that takes longer ends the connection, and a busy server takes its time.
    monkeypatch.setattr("automate_kernel.storage.notify._LOOK_SECONDS", 0.5)
    connected: list[Any] = []
    looks = 0

    def connect() -> Any:
        connected.append(psycopg.connect(dsn, autocommit=True))
        return connected[-1]

    def owner() -> str:
        nonlocal looks
        looks += 1
        return dsn

    notifier = Notifier(connect, owner)
    for seen in (2, 4):
        notifier.ring()
        assert worker.heard()
        until(lambda seen=seen: looks >= seen)
    assert len(connected) == 1
    notifier.close()
    assert connected[0].closed


@pytest.mark.parametrize("why", ["a minute", "dispose"])
def test_it_holds_no_connection_that_it_does_not_use(
    why: str, storage: SqlAlchemyStorage, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that somebody is connected to can't be dropped."""
    monkeypatch.setattr("automate_kernel.storage.notify._LOOK_SECONDS", 0.01)
    if why == "a minute":
        monkeypatch.setattr("automate_kernel.storage.notify._IDLE_LOOKS", 3)
    else:
        monkeypatch.setattr("automate_kernel.storage.notify._IDLE_LOOKS", 10**9)
    RowsOutboxStore(storage).enqueue("k")
    assert worker.heard()
    if why == "dispose":
        storage.engine.dispose()
    for thread in threading.enumerate():
        if thread.name == "automate-notifier":
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s"
    while worker.connection.execute(query, ["%pg_notify%NOT pg_try%"]).fetchone() != (0,):
        pass  # its process on the server ends a moment later
    RowsOutboxStore(storage).enqueue("k")
    assert worker.heard()


def test_it_takes_no_connection_of_the_application_s_pool(
    postgresql_engine: sa.Engine, worker: Worker
) -> None:
    """Where a request has the only one, neither waits for the other."""
    engine = sa.create_engine(postgresql_engine.url, pool_size=1, max_overflow=0)
    storage = SqlAlchemyStorage(engine)
    wakeup = storage.wakeup()
    assert isinstance(wakeup, ListenWakeup)
    with engine.connect() as connection:
        RowsOutboxStore(storage).enqueue("k", transaction=connection)
        connection.commit()
        assert worker.heard()
        assert not wakeup.expect()
        assert wakeup.expect()
    wakeup.close()
    storage.close()
    engine.dispose()
