"""How often the kernel waits for an answer of PostgreSQL, by the trace of the driver's library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import StorageError
from automate_kernel.outbox import NewItem, RowsOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage


@pytest.fixture
def engine(postgresql_engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine with a single connection."""
    made = sa.create_engine(postgresql_engine.url, pool_size=1, max_overflow=0)
    yield made
    made.dispose()


Count = Callable[[Callable[[], object]], int]


@pytest.fixture
def round_trips(engine: sa.Engine, tmp_path: Path) -> Count:
    """Return a function that calls another, and returns how often the server was waited for."""

    def count(work: Callable[[], object]) -> int:
        with engine.connect() as connection:
            server = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
        with (tmp_path / "trace").open("w+") as trace:
            server.trace(trace.fileno())
            try:
                work()
            finally:
                server.untrace()
            trace.seek(0)
            return sum("ReadyForQuery" in line for line in trace)

    return count


def test_renewing_leases_is_a_single_statement(engine: sa.Engine, round_trips: Count) -> None:
    """Nothing is left in a transaction either, where a frozen worker would keep its locks."""
    store = RowsOutboxStore(SqlAlchemyStorage(engine))
    ids = store.enqueue_many(NewItem("k") for _ in range(20))
    assert len(store.claim_batch("worker", 20)) == 20
    assert round_trips(lambda: store.extend(ids, "worker")) == 1
    store.release(ids[:1], "worker")
    assert round_trips(lambda: store.extend(ids[1:], "worker")) == 1


def test_a_transaction_is_bounded_at_no_cost(engine: sa.Engine, round_trips: Count) -> None:
    """The bound goes with the BEGIN; where application code runs there is none."""
    storage = SqlAlchemyStorage(engine)
    seen: list[str] = []

    def transact(**options: bool) -> None:
        with storage.begin(**options) as rows:
            rows.notify()
            found = rows.run("SHOW idle_in_transaction_session_timeout", (), fetch=True)
            seen.append(found[0][0])

    assert round_trips(transact) == 3  # BEGIN, SHOW, COMMIT
    assert round_trips(lambda: transact(bounded=False)) == 3
    with RowsOutboxStore(storage).transaction() as connection:
        bound = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
        seen.append(bound.scalar())
    assert seen == ["15s", "0", "0"]


def test_a_transaction_begins_as_its_connection_says(postgresql_engine: sa.Engine) -> None:
    """An isolation level stays, and so does what a listener has begun with."""
    engine = sa.create_engine(postgresql_engine.url, isolation_level="SERIALIZABLE")

    @sa.event.listens_for(engine, "begin")
    def tell(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL application_name = 'told'")

    for storage in (SqlAlchemyStorage(engine), SqlAlchemyStorage(postgresql_engine)):
        with storage.begin() as rows:
            found = [
                rows.run(f"SHOW {name}", (), fetch=True)[0][0]
                for name in ("transaction_isolation", "idle_in_transaction_session_timeout")
            ]
            told = rows.run("SHOW application_name", (), fetch=True)[0][0] == "told"
        isolated = storage.engine is engine
        assert found == ["serializable" if isolated else "read committed", "15s"]
        assert told is isolated
    engine.dispose()


def test_a_connection_that_was_cut_is_replaced(engine: sa.Engine) -> None:
    """Its failure shows in the BEGIN, and the next transaction has another."""
    storage = SqlAlchemyStorage(engine)
    with storage.begin() as rows:
        pid = rows.run("SELECT pg_backend_pid()", (), fetch=True)[0][0]
    other = sa.create_engine(engine.url)
    with other.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
    other.dispose()
    with pytest.raises(StorageError) as lost, storage.begin():
        pass
    assert lost.value.retryable
    with storage.begin() as rows:
        assert rows.run("SELECT pg_backend_pid()", (), fetch=True)[0][0] != pid
