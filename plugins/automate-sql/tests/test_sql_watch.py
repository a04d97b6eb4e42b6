"""The poll for new rows: rows that are committed late, gaps, large tables, times."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from automate_sql import SqlConnector


@pytest.fixture
def polled(database):
    """A function that polls from a cursor until there is no more, and an engine."""
    url, engine = database
    if "sqlite" in url:
        pytest.skip("SQLite has one writer: rows are committed in the order of their numbers")

    def function(cursor, **watch):
        async def poll():
            connector = SqlConnector(
                {"url": url, "watch": {"table": "item", "column": "id", **watch}}
            )
            found, at, more = [], cursor, True
            while more:
                result = await connector.new_row(at)
                found += [event.payload["id"] for event in result.events]
                at, more = result.cursor, result.more
            await connector.close()
            return found, at

        return asyncio.run(poll())

    return function, engine


def insert(connection, *numbers):
    for number in numbers:
        connection.execute(
            sa.text("INSERT INTO item (id, name) VALUES (:n, :t)"), {"n": number, "t": f"i{number}"}
        )


def test_a_row_that_commits_late_is_not_left_out(polled):
    poll, engine = polled
    found, cursor = poll(None)
    assert found == []
    late = engine.connect()
    insert(late, 10)
    with engine.begin() as connection:
        insert(connection, 11)
    found, cursor = poll(cursor)
    assert found == [11]
    assert poll(cursor)[0] == []
    late.commit()
    late.close()
    found, cursor = poll(cursor)
    assert found == [10]
    assert poll(cursor)[0] == []


def test_on_postgresql_a_gap_waits_for_the_transaction(polled):
    """However short the lag is; then nobody looks for it any more."""
    poll, engine = polled
    if engine.dialect.name != "postgresql":
        pytest.skip("only PostgreSQL knows its oldest transaction")
    _, cursor = poll(None)
    late = engine.connect()
    insert(late, 10)
    with engine.begin() as connection:
        insert(connection, 11)
    for _ in range(3):
        _, cursor = poll(cursor, lag_seconds=0)
    assert [gap[:2] for gap in cursor["gaps"]] == [[8, 10]]
    late.commit()
    late.close()
    found, cursor = poll(cursor, lag_seconds=0)
    assert found == [10]
    _, cursor = poll(cursor, lag_seconds=0)
    assert cursor["gaps"] == []


def test_all_rows_from_the_beginning(polled):
    poll, engine = polled
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item")
        insert(connection, *range(1, 4001, 3))
    _, cursor = poll(None, start="beginning")
    found, cursor = poll(cursor, lag_seconds=0)
    assert found == list(range(1, 4001, 3))
    assert cursor["gaps"] == []
    assert poll(cursor)[0] == []


def test_rows_of_one_time_are_ordered_by_the_key(database):
    url, engine = database
    if "sqlite" in url:
        pytest.skip("the contract of the poll runs on SQLite")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS event")
        connection.exec_driver_sql("CREATE TABLE event (code VARCHAR(9) PRIMARY KEY, at TIMESTAMP)")
        for code in ("b", "a", "c"):
            connection.exec_driver_sql(f"INSERT INTO event VALUES ('{code}', CURRENT_TIMESTAMP)")

    async def poll(lag):
        watch = {"table": "event", "column": "at", "key": "code", "start": "beginning"}
        connector = SqlConnector({"url": url, "watch": {**watch, "lag_seconds": lag}})
        cursor = (await connector.new_row(None)).cursor
        first = await connector.new_row(cursor)
        second = await connector.new_row(first.cursor)
        await connector.close()
        return [[each.payload["code"] for each in r.events] for r in (first, second)]

    assert asyncio.run(poll(3600)) == [[], []]
    assert asyncio.run(poll(0)) == [["a", "b", "c"], []]
