"""How often the kernel waits for an answer of PostgreSQL, by the trace of the driver's library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
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
