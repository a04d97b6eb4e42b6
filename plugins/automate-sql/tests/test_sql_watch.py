"""The poll for new rows: rows that are committed late, gaps, large tables, times."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from automate_sql import SqlConnector, TableWatch
from automate_sql.watch import poll_rows
from waiting import until


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


def settle(engine):
    """Wait for what runs on the server now: a watch does, be it PostgreSQL's own, elsewhere."""
    if engine.dialect.name != "postgresql":
        return
    words = "SELECT pg_snapshot_{}(pg_current_snapshot())::text::bigint"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        following = connection.exec_driver_sql(words.format("xmax")).scalar_one()
        oldest = words.format("xmin")
        until(lambda: connection.exec_driver_sql(oldest).scalar_one() >= following)


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


def test_another_table_or_column_begins_anew(polled):
    """The number of one says nothing of the other: its rows were left out until it was reached."""
    poll, engine = polled
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item")
        connection.exec_driver_sql("DROP TABLE IF EXISTS small")
        connection.exec_driver_sql("CREATE TABLE small (id INTEGER PRIMARY KEY, at TIMESTAMP)")
        insert(connection, 1_000_000)
    _, cursor = poll(None, start="beginning")
    settle(engine)
    found, cursor = poll(cursor, lag_seconds=0)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO small VALUES (1, '2026-01-01 00:00:00')")
    small = {"table": "small", "start": "beginning", "lag_seconds": 0}
    _, cursor = poll(cursor, **small)
    settle(engine)
    assert poll(cursor, **small)[0] == [1]
    _, cursor = poll(cursor, **small, column="at", key="id")
    assert poll(cursor, **small, column="at", key="id")[0] == [1]


def test_on_postgresql_a_gap_waits_for_the_transaction(polled):
    """However short the lag is; then nobody looks for it any more."""
    poll, engine = polled
    if engine.dialect.name != "postgresql":
        pytest.skip("only PostgreSQL knows its oldest transaction")
    _, cursor = poll(None)
    settle(engine)
    late = engine.connect()
    insert(late, 10)
    with engine.begin() as connection:
        insert(connection, 11)
    for _ in range(3):
        _, cursor = poll(cursor, lag_seconds=0)
    assert [gap[:2] for gap in cursor["gaps"]] == [[8, 10]]
    late.commit()
    late.close()
    settle(engine)
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
    settle(engine)
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
        # In one statement, which has one time: that of the next may be of the next second.
        rows = ", ".join(f"('{code}', CURRENT_TIMESTAMP)" for code in ("b", "a", "c"))
        connection.exec_driver_sql(f"INSERT INTO event VALUES {rows}")

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


def test_a_row_below_the_first_of_an_empty_table_is_not_left_out(polled):
    poll, engine = polled
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item")
    _, cursor = poll(None)
    late = engine.connect()
    insert(late, 1)
    with engine.begin() as connection:
        insert(connection, 2)
    found, cursor = poll(cursor)
    assert found == [2]
    late.commit()
    late.close()
    assert poll(cursor)[0] == [1]


def test_a_gap_with_more_rows_than_fit_is_read_to_its_end(polled):
    """Although it is over when the first of them are read."""
    poll, engine = polled
    _, cursor = poll(None)
    late = engine.connect()
    insert(late, *range(10, 610))
    with engine.begin() as connection:
        insert(connection, 610)
    _, cursor = poll(cursor)
    late.commit()
    late.close()
    settle(engine)
    found, cursor = poll(cursor, lag_seconds=0)
    assert found == list(range(10, 610))


def test_a_transaction_that_begins_during_a_poll_is_waited_for(postgresql_url):
    """It takes its number, and a later number is committed, while the poll reads."""
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS item")
        connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(100))")
        insert(connection, 7)
    watch = TableWatch(table="item", column="id", lag_seconds=0)
    reader = sa.create_engine(postgresql_url, isolation_level="REPEATABLE READ")  # as drivers.begin
    late, statements = engine.connect(), []

    def poll(cursor):
        with reader.connect() as connection:
            result = poll_rows(connection, watch, cursor)
        return [event.payload["id"] for event in result.events], result.cursor

    _, cursor = poll(None)

    @sa.event.listens_for(reader, "after_cursor_execute")
    def interfere(_connection, _cursor, statement, *_):
        if "pg_current_snapshot" in statement and not statements:
            statements.append(statement)
            insert(late, 8)
            with engine.begin() as other:
                insert(other, 9)

    found, cursor = poll(cursor)
    for _ in range(2):
        more, cursor = poll(cursor)
        found += more
    late.commit()
    late.close()
    found += poll(cursor)[0]
    for each in (engine, reader):
        each.dispose()
    assert statements
    assert sorted(found) == [8, 9]
