"""Servers with fewer connections than processes would take."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_kernel.monitoring.diagnosis import capacity_findings
from automate_kernel.monitoring.health import database_problems
from automate_kernel.outbox import NewItem, RowsOutboxStore
from automate_kernel.storage import shortage as shortages
from automate_kernel.storage.connections import look_for_room, read_connections
from automate_kernel.storage.shortage import Shortage, TooManyConnectionsError
from automate_sqlalchemy import SqlAlchemyStorage
from automate_sqlalchemy.engines import SparingPool, make_engine
from database_servers import pooled
from waiting import until

Limited = Callable[[sa.Engine, int], sa.URL]
PASSWORD = f"pw-{uuid.uuid4().hex}"


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Limited]:
    """Makes a user of a server who may have so many connections, and returns its URL."""
    monkeypatch.setattr(shortages, "_warned_at", float("-inf"))
    made: list[tuple[sa.Engine, str]] = []

    def run(engine: sa.Engine, sql: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def limited(engine: sa.Engine, most: int) -> sa.URL:
        name = f"few{uuid.uuid4().hex[:10]}"
        postgresql = engine.dialect.name == "postgresql"
        if postgresql:
            run(engine, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {most}")
            run(engine, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
        else:
            bound = f"WITH MAX_USER_CONNECTIONS {most}"
            run(engine, f"CREATE USER {name}@localhost IDENTIFIED BY '{PASSWORD}' {bound}")
            run(engine, f"GRANT ALL ON {engine.url.database}.* TO {name}@localhost")
        made.append((engine, name))
        return engine.url.set(username=name, password=PASSWORD)

    yield limited
    for engine, name in made:
        if engine.dialect.name == "postgresql":
            run(engine, f"DROP OWNED BY {name}")
            run(engine, f"DROP ROLE {name}")
        else:
            run(engine, f"DROP USER {name}@localhost")


@pytest.fixture(params=["postgresql_engine", "mariadb_engine"])
def engine(request: pytest.FixtureRequest) -> Any:
    """An engine on each server, with our tables."""
    return request.getfixturevalue(request.param)


def test_no_worker_starves_and_each_warns_once(
    postgresql_engine: sa.Engine, limited: Limited, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven workers share four connections: all of them report, and all the work is done."""
    url, ended = limited(postgresql_engine, 4), set()
    store = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine, listen=False))
    workers, threads = [], []
    for number in range(7):
        # As in processes: none knows what another has met.
        own = SqlAlchemyStorage(url.update_query_dict({"application_name": f"w{number}"}))
        kernel = Kernel(own, discover=False, secrets={})
        kernel.handler("mail")(lambda item: ended.add(item.id))
        workers.append((kernel, kernel.worker(poll_seconds=0.2, report_seconds=0.5, slots=2)))
    with caplog.at_level(logging.WARNING), ExitStack() as stack:
        for kernel, worker in workers:
            threads.append(threading.Thread(target=worker.run, daemon=True))
            stack.callback(kernel.close)
            stack.callback(threads[-1].join, 60)
            stack.callback(worker.stop)
            threads[-1].start()
        until(lambda: len(store.workers()) == 7, 120)
        ids = store.enqueue_many([NewItem("mail") for _ in range(100)])
        until(lambda: ended >= set(ids), 120)
        until(lambda: not store.stats().total("RUNNING"), 120)
    assert [each.exc_text for each in caplog.records if each.exc_text] == []
    warned = [each for each in caplog.records if "CONNECTION LIMIT" in each.getMessage()]
    warned += [each for each in caplog.records if "too many connections" in each.getMessage()]
    assert len(warned) == 1
    assert "worker.processes" in warned[0].getMessage()
    assert PASSWORD not in caplog.text


def test_what_is_not_used_is_given_back_while_there_is_a_shortage(engine: sa.Engine) -> None:
    """But for the connection of a process with leases; nobody waits for what is closed."""
    made, shortage, worker = make_engine(engine.url, pool_size=3), Shortage(), Worker()
    shortage.add_worker(worker)
    pool = made.pool
    assert isinstance(pool, SparingPool)
    pool.shortage = shortage

    def use(several: int = 3) -> None:
        with ExitStack() as stack:
            for _ in range(several):
                stack.enter_context(made.connect())

    use()
    assert pool.checkedin() == 3
    shortage.note()
    worker.in_flight = 1
    for _ in range(4):
        use(1)
    use()
    assert pool.checkedin() == 1
    worker.in_flight = 0
    use(1)
    assert pool.checkedin() == 0
    assert pool.checkedout() == 0
    other = pool.recreate()
    assert isinstance(other, SparingPool)
    assert other.shortage is shortage
    made.dispose()


class Worker:
    """A worker, as far as a shortage knows it."""

    in_flight = 0


def test_who_waits_for_a_connection_gets_what_comes_back(engine: sa.Engine) -> None:
    """It is woken by nothing else."""
    made = make_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=60)
    pool = made.pool
    assert isinstance(pool, SparingPool)
    pool.shortage = Shortage()
    pool.shortage.note()
    taken, waits, got = made.connect(), threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        with made.connect():
            got.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    waits.wait(60)
    taken.close()
    assert got.wait(20)
    thread.join(20)
    made.dispose()


def test_a_pool_of_ones_own_that_is_in_use(engine: sa.Engine) -> None:
    """Is an error with its own remedy, and no shortage of the server's."""
    made = make_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    storage = SqlAlchemyStorage(made, listen=False)
    with made.connect(), pytest.raises(StorageError, match="QueuePool limit") as caught:
        storage.check_schema()
    assert caught.value.retryable
    assert "max_overflow" in str(caught.value.hint)
    assert not isinstance(caught.value, TooManyConnectionsError)
    made.dispose()


def test_the_doctor_warns_before_it_happens(engine: sa.Engine, limited: Limited) -> None:
    """Of more connections than there are, and of a server that is nearly full."""
    storage = SqlAlchemyStorage(limited(engine, 18), listen=False)
    outbox = RowsOutboxStore(storage)
    (one,) = capacity_findings(storage, outbox, processes=1, slots=2)
    assert (one.state, one.remedy) == ("ok", None)
    assert "1 worker may open 12 each" in one.text
    (two,) = capacity_findings(storage, outbox, processes=2, slots=2)
    assert two.state == "warn"
    assert "more than there are" in two.text
    assert "worker.processes" in str(two.remedy)
    with storage.begin() as rows:
        found = read_connections(rows)
    assert found is not None
    assert (found.limit, found.reserved, found.scarce) == (18, 0, False)
    others = sa.create_engine(storage.engine.url, poolclass=sa.NullPool)
    with ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(others.connect())
        assert capacity_findings(storage, outbox, processes=1, slots=2)[0].state == "ok"
        stack.enter_context(others.connect())
        (full,) = capacity_findings(storage, outbox, processes=1, slots=2)
        assert full.state == "warn"
        assert "nearly none is left" in full.text
        shortage = Shortage()
        with pytest.raises(TooManyConnectionsError, match="17 of 18 connections are open"):
            look_for_room(storage, shortage)
        assert shortage.lasts
    storage.close()


def test_a_probe_says_that_the_server_is_full(engine: sa.Engine, limited: Limited) -> None:
    """And not where the database is."""
    url = limited(engine, 1)
    with sa.create_engine(url).connect():
        kernel = Kernel(SqlAlchemyStorage(url, listen=False), discover=False, secrets={})
        assert database_problems(kernel) == ["the database takes no more connections"]
    kernel.close()


def test_a_pooler_that_is_full_is_recognised(postgresql_engine: sa.Engine) -> None:
    """It has a bound of its own."""
    with pooled(postgresql_engine.url, max_client_conn=1) as pooler:
        with sa.create_engine(pooler).connect(), pytest.raises(TooManyConnectionsError) as caught:
            SqlAlchemyStorage(pooler, listen=False).check_schema()
    assert "max_client_conn" in str(caught.value.hint)
