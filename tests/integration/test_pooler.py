"""Behind a pooler in transaction mode, which gives each transaction another connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_kernel.operations.context import current_call
from automate_kernel.outbox import ItemStatus
from automate_sqlalchemy import SqlAlchemyStorage, metadata
from database_servers import pooled
from waiting import until
from workers import working

SHIP = {
    "name": "ship",
    "trigger": {"type": "event", "event": "order.created"},
    "steps": [
        {"id": "book", "action": "shop.book", "for_each": [1, 2, 3], "concurrency": 3},
        {"id": "nap", "sleep": "10ms"},
        {"id": "paid", "wait_for": {"event": "paid", "match": {"n": "{{ event.payload.n }}"}}},
        {"id": "send", "action": "shop.send", "input": {"n": "{{ steps.paid.output.payload.n }}"}},
    ],
    "output": "{{ steps.send.output }}",
}


@pytest.fixture
def url(postgresql_url: str) -> Iterator[sa.URL]:
    url = sa.make_url(postgresql_url)
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS booked (n INTEGER)")
        connection.exec_driver_sql("TRUNCATE booked")
    yield url
    metadata.drop_all(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("keeps", "arguments", "listen"),
    [(200, {}, True), (200, {}, False), (0, {"prepare_threshold": None}, False)],
    ids=["listening", "polling", "without prepared statements"],
)
def test_everything_works(url: sa.URL, keeps: int, arguments: dict[str, Any], listen: bool) -> None:
    """Events, steps in the application's transaction, waits and handlers, by two workers."""
    with pooled(url, max_prepared_statements=keeps) as pooler:
        engine = sa.create_engine(pooler, connect_args=arguments)
        work(Kernel(SqlAlchemyStorage(engine, listen=listen), discover=False, secrets={}))
        engine.dispose()


def test_a_pool_of_one_connection_is_enough(url: sa.URL) -> None:
    """Threads wait for each other, and none for itself; LISTEN has a connection apart."""
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    work(Kernel(SqlAlchemyStorage(engine), discover=False, secrets={}))
    engine.dispose()


def work(kernel: Kernel) -> None:
    """Have two workers do something of everything, and look whether it was done once."""
    engine = kernel.storage.engine

    @kernel.action("shop.book", transactional=True)
    def book() -> None:
        call = current_call()
        assert call is not None
        call.transaction.exec_driver_sql("INSERT INTO booked VALUES (1)")

    @kernel.action("shop.send")
    def send(n: int) -> int:
        return n * 10

    @kernel.handler("note", transactional=True)
    def note(item: Any, transaction: sa.Connection) -> None:
        transaction.exec_driver_sql("INSERT INTO booked VALUES (2)")

    kernel.add_workflow(SHIP)
    items = [kernel.outbox.enqueue("note") for _ in range(30)]
    with working(kernel), working(kernel):
        for n in range(20):
            with engine.begin() as transaction:
                kernel.emit("order.created", {"n": n}, transaction=transaction)
        # From then on it is known that they wait for it.
        until(lambda: len(kernel.executions.find(limit=50)) == 20, 60)
        for n in range(20):
            kernel.emit("paid", {"n": n})
        until(lambda: len(kernel.executions.find(status="COMPLETED", limit=50)) == 20, 60)
        found = kernel.executions.find(limit=50)
        until(lambda: all(is_done(kernel, one) for one in items), 60)
    assert sorted(one.output for one in found) == [n * 10 for n in range(20)]
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT n, count(*) FROM booked GROUP BY n").all()
    assert sorted(map(tuple, rows)) == [(1, 60), (2, 30)]
    kernel.close()


def is_done(kernel: Kernel, item_id: str) -> bool:
    item = kernel.outbox.get(item_id)
    return item is not None and item.status is ItemStatus.COMPLETED


def test_a_pooler_that_loses_prepared_statements_is_told(url: sa.URL) -> None:
    """The driver prepares what it is asked often, and finds it on one of the connections alone."""
    with pooled(url, max_prepared_statements=0) as pooler:
        engine, other = sa.create_engine(pooler), sa.create_engine(pooler)
        storage = SqlAlchemyStorage(engine, listen=False)
        kernel = Kernel(storage, discover=False, secrets={})
        for _ in range(10):
            kernel.outbox.stats()
        with other.connect() as busy:
            busy.exec_driver_sql("SELECT 1")  # it has the connection that was used last
            with pytest.raises(StorageError, match="prepare_threshold=None") as caught:
                kernel.outbox.stats()
        assert "max_prepared_statements" in (caught.value.hint or "")
        kernel.close()
        for each in (engine, other):
            each.dispose()
