"""The actions, with each driver on a real database."""

from __future__ import annotations

import asyncio
import csv
import json
import threading
import time
import tracemalloc
from dataclasses import replace

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, Call, ErrorCodes
from automate_kernel.operations.context import calling
from automate_kernel.operations.drafts import Draft
from automate_sql import CREATE_TABLE
from sqlalchemy.ext.asyncio import AsyncConnection
from waiting import within


def refused(kernel, name, data):
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(name, data)
    return caught.value


def count(engine):
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM item").scalar_one()


def test_a_query_binds_its_parameters(database, make):
    kernel = make(database[0])
    found = kernel.invoke(
        "sql.query",
        {"query": "SELECT id, name FROM item WHERE name = :name", "params": {"name": "item 3"}},
    )
    assert found == {"rows": [{"id": 3, "name": "item 3"}], "row_count": 1, "more": False}
    hostile = {"name": "x' OR '1'='1"}
    found = kernel.invoke(
        "sql.query", {"query": "SELECT id FROM item WHERE name = :name", "params": hostile}
    )
    assert found["rows"] == []


def test_a_statement_may_end_and_have_comments(database, make):
    kernel = make(database[0])
    for query in (
        "SELECT :n AS n ; ; -- the end",
        "/* a; */ -- b\n SELECT :n AS n -- c;",
        "SELECT :n AS n;\r\n",
    ):
        found = kernel.invoke("sql.query", {"query": query, "params": {"n": 3}})
        assert [int(row["n"]) for row in found["rows"]] == [3]


def test_a_list_after_in_stands_for_its_elements(database, make):
    kernel = make(database[0])
    query = "SELECT id FROM item WHERE id IN :ids ORDER BY id"
    for ids in ([2, 5], []):
        found = kernel.invoke("sql.query", {"query": query, "params": {"ids": ids}})
        assert [row["id"] for row in found["rows"]] == ids


def test_numbers_stay_exact(database, make):
    kernel = make(database[0])
    row = kernel.invoke("sql.query", {"query": "SELECT price FROM item WHERE id = 3"})["rows"][0]
    # SQLite has no decimals.
    assert row["price"] == (3.5 if "sqlite" in database[0] else "3.50")
    row = kernel.invoke("sql.query", {"query": "SELECT 9007199254740993 AS n"})["rows"][0]
    assert row["n"] == 9007199254740993


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM item",
        "SELECT 1; DELETE FROM item",
        "SELECT 1 /* a */ ; -- b\n DELETE FROM item",
        "COMMIT",
        "PRAGMA query_only = 0",
        "SET TRANSACTION READ WRITE",
        "ATTACH DATABASE 'x' AS x",
        "EXPLAIN ANALYZE DELETE FROM item",
        "WITH x AS (SELECT 1) DELETE FROM item",
        "WITH x AS (DELETE FROM item RETURNING id) SELECT * FROM x",
        "SELECT * INTO other FROM item",
        "SELECT 'x' INTO OUTFILE '/tmp/x'",
    ],
)
def test_a_query_never_writes(database, make, text):
    kernel = make(database[0], allow_writes=True)
    try:
        kernel.invoke("sql.query", {"query": text})
    except AutomateError as error:
        assert not error.retryable, error
    else:
        assert text.startswith("EXPLAIN")  # SQLite explains without doing it
    assert count(database[1]) == 7


def test_writes_need_the_config(database, make):
    statement = {
        "statement": "INSERT INTO item (id, name) VALUES (:id, :name)",
        "params": {"id": 20, "name": "new"},
    }
    error = refused(make(database[0]), "sql.execute", statement)
    assert error.code is ErrorCodes.PERMISSION_DENIED
    assert "allow_writes" in str(error)
    kernel = make(database[0], allow_writes=True)
    assert kernel.invoke("sql.execute", statement) == {"row_count": 1, "rows": []}
    changed = {
        "statement": "UPDATE item SET name = :n WHERE id > :id",
        "params": {"n": None, "id": 3},
    }
    assert kernel.invoke("sql.execute", changed)["row_count"] == 5
    # A connection that has written is read-only again for the next query.
    error = refused(kernel, "sql.query", {"query": "WITH x AS (SELECT 1) DELETE FROM item"})
    assert count(database[1]) == 8


def test_many_rows_are_one_transaction(database, make):
    kernel = make(database[0], allow_writes=True)
    statement = "INSERT INTO item (id, name) VALUES (:id, :name)"
    rows = [{"id": 100 + n, "name": f"n{n}"} for n in range(10)]
    assert (
        kernel.invoke("sql.execute_many", {"statement": statement, "rows": rows})["row_count"] == 10
    )
    rows = [{"id": 200, "name": "fits"}, {"id": 201, "name": "item 1"}]
    error = refused(kernel, "sql.execute_many", {"statement": statement, "rows": rows})
    assert error.code is ErrorCodes.ALREADY_EXISTS
    assert not error.retryable
    assert "item 1" not in str(error)
    assert count(database[1]) == 17


def test_a_page_says_that_there_is_more(database, make):
    kernel = make(database[0], max_rows=5)
    query = "SELECT id FROM item WHERE id > :after ORDER BY id"
    error = refused(kernel, "sql.query", {"query": query, "params": {"after": 0}})
    assert error.code is ErrorCodes.RESOURCE_EXHAUSTED
    assert not error.retryable
    seen, after, more = [], 0, True
    while more:
        page = kernel.invoke(
            "sql.query", {"query": query, "params": {"after": after}, "max_rows": 3}
        )
        seen += [row["id"] for row in page["rows"]]
        after, more = seen[-1], page["more"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_bytes_are_bounded(database, make):
    kernel = make(database[0], max_bytes=1_000)
    many = "SELECT id, '" + "x" * 300 + "' AS text FROM item ORDER BY id"
    page = kernel.invoke("sql.query", {"query": many, "max_rows": 100})
    assert page["row_count"] == 3
    assert page["more"]
    wide = "SELECT '" + "x" * 2_000 + "' AS text"
    assert not refused(kernel, "sql.query", {"query": wide, "max_rows": 1}).retryable


def test_a_table_is_read_page_by_page(database, make):
    kernel = make(database[0])
    page = {"table": "item", "key": "name", "columns": ["id"], "max_rows": 4}
    first = kernel.invoke("sql.page", page)
    second = kernel.invoke("sql.page", {**page, "after": first["after"]})
    assert [row["id"] for row in first["rows"] + second["rows"]] == [1, 2, 3, 4, 5, 6, 7]
    assert (first["more"], second["more"]) == (True, False)
    error = refused(kernel, "sql.page", {**page, "key": "nam; DROP TABLE item"})
    assert error.code is ErrorCodes.NOT_FOUND
    assert "it has: id, name, price" in str(error)


def test_tables_describe_themselves(database, make):
    kernel = make(database[0])
    assert "item" in kernel.invoke("sql.tables")["tables"]
    found = kernel.invoke("sql.describe", {"table": "item"})
    assert [each["name"] for each in found["columns"]] == ["id", "name", "price"]
    assert found["primary_key"] == ["id"]
    assert "item" in [each.value for each in kernel.options("sql.describe", "table")]
    keys = kernel.options("sql.page", "key", values={"table": "item"})
    assert [each.value for each in keys] == ["id", "name", "price"]
    error = refused(kernel, "sql.describe", {"table": "itme"})
    assert "did you mean 'item'?" in str(error)


def test_an_export_has_all_rows(database, make, tmp_path):
    kernel = make(database[0], files_to=str(tmp_path / "out"), max_rows=2)
    export = {"query": "SELECT id, name FROM item ORDER BY id", "params": {}}
    written = kernel.invoke("sql.export", {**export, "file": "items.jsonl"})
    lines = (tmp_path / "out/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert written["rows"] == 7
    kernel.invoke("sql.export", {**export, "file": "items.csv", "format": "csv"})
    with (tmp_path / "out/items.csv").open(newline="") as file:
        assert list(csv.reader(file))[:2] == [["id", "name"], ["1", "item 1"]]
    refused(kernel, "sql.export", {**export, "file": "../items.csv"})
    refused(kernel, "sql.export", {"query": "SELECT x FROM item", "file": "bad.csv"})
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "items.csv",
        "items.jsonl",
    ]


def test_what_a_killed_export_had_begun_is_deleted_by_the_next_attempt(database, make, tmp_path):
    kernel = make(database[0], files_to=str(tmp_path))
    call = Call("sql.export", execution_id="e", step_id="s", idempotency_key="e:s")
    with calling(call):
        begun = tmp_path / Draft.of(str(tmp_path / "items.jsonl")).name
    begun.write_text("half")
    export = {"query": "SELECT id FROM item", "params": {}, "file": "items.jsonl"}
    kernel.perform(call, export)
    assert begun.exists()  # it may be another's, who is only slow
    kernel.perform(replace(call, attempt=2), export)
    assert [each.name for each in tmp_path.glob("*items*")] == ["items.jsonl"]
    assert not begun.exists()


def test_a_stream_has_all_rows(database, make):
    connector = make(database[0], max_rows=1).connector("sql")

    async def read(most):
        rows = connector.stream("SELECT id FROM item ORDER BY id")
        found = []
        async for row in rows:
            found.append(row["id"])
            if len(found) == most:
                break
        await rows.aclose()
        again = await connector.query("SELECT 1 AS n", {})  # the connection is free again
        assert again.rows == [{"n": 1}]
        await connector.close()
        return found

    assert asyncio.run(read(100)) == [1, 2, 3, 4, 5, 6, 7]
    assert asyncio.run(read(2)) == [1, 2]


_ADD = {"statement": "UPDATE item SET price = price + 1 WHERE id = :id", "params": {"id": 1}}


@pytest.fixture
def remembering(database, make):
    """A kernel whose calls are noted in a table."""
    url, engine = database
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE_TABLE)
    return make(url, allow_writes=True, calls_table="automate_calls")


def _price(engine):
    with engine.connect() as connection:
        return float(connection.exec_driver_sql("SELECT price FROM item WHERE id = 1").scalar_one())


def test_a_call_is_done_once_with_a_table_of_calls(database, remembering):
    first = remembering.invoke("sql.execute", _ADD, idempotency_key="step-1")
    assert remembering.invoke("sql.execute", _ADD, idempotency_key="step-1") == first
    remembering.invoke("sql.execute", _ADD, idempotency_key="step-2")
    assert _price(database[1]) == 3.5


def test_keys_that_a_collation_takes_for_one_are_two_calls(database, remembering):
    keys = ["e:post", "e:Post", "e:p\N{LATIN SMALL LETTER O WITH ACUTE}st", "e" * 300]
    for key in [*keys, *keys]:
        remembering.perform(Call("sql.execute", idempotency_key=key), _ADD)
    assert _price(database[1]) == 1.5 + len(keys)


def test_a_failed_call_is_not_remembered(remembering):
    taken = {
        "statement": "INSERT INTO item (id, name) VALUES (:id, 'x')",
        "params": {"id": 1},
    }
    for _ in range(2):
        with pytest.raises(AutomateError) as caught:
            remembering.invoke("sql.execute", taken, idempotency_key="k")
        assert caught.value.code is ErrorCodes.ALREADY_EXISTS


# Of this database alone: a server may serve other tests at the same time.
_ASLEEP = {
    "postgresql": "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
    " AND datname = current_database()",
    "mysql": "FROM information_schema.processlist WHERE info = 'SELECT sleep(30)'"
    " AND db = DATABASE()",
}
_SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(30)",
    "mysql": "SELECT sleep(30)",
}


def test_a_slow_query_ends_in_time(database, make, answered):
    kernel = make(database[0], timeout_seconds=3)
    assert answered(kernel)  # so that the time is the query's, and not the connection's
    slow = _SLOW[database[1].dialect.name]
    error = within(8, lambda: refused(kernel, "sql.query", {"query": slow}))
    assert error.code is ErrorCodes.DEADLINE_EXCEEDED, error
    assert error.retryable
    assert answered(kernel)


def _running(engine):
    words = f"SELECT count(*) {_ASLEEP[engine.dialect.name]}"
    with engine.connect() as connection:
        return connection.exec_driver_sql(words).scalar_one()


def test_a_cancelled_query_ends_at_the_server(database, make):
    url, engine = database
    if engine.dialect.name == "sqlite":
        pytest.skip("there is no server")
    connector = make(url, timeout_seconds=60).connector("sql")

    async def cancelled():
        task = asyncio.create_task(connector.query(_SLOW[engine.dialect.name], {}))
        while not await asyncio.to_thread(_running, engine):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connector.close()

    asyncio.run(cancelled())
    deadline = time.monotonic() + 20
    while _running(engine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(engine)


def test_a_call_that_is_left_as_it_connects_gives_its_connection_back(
    database, make, monkeypatch, caplog
):
    """It lay about until memory was tidied up, which cut it, with an error in the log."""
    url, start = database[0], AsyncConnection.start
    if not sa.make_url(url).get_dialect().is_async:
        pytest.skip("a driver that blocks connects on a thread, which goes on")
    connector = make(url, pool_size=1).connector("sql")

    async def left():
        task = asyncio.create_task(connector.query("SELECT 1 AS n", {}))

        async def start_and_leave(connection, *arguments):
            await start(connection, *arguments)
            task.cancel()

        with monkeypatch.context() as patch:
            patch.setattr(AsyncConnection, "start", start_and_leave)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await connector.query("SELECT 1 AS n", {})).row_count == 1
        await connector.close()

    asyncio.run(left())
    assert "garbage collector" not in caplog.text


@pytest.mark.parametrize("turns", range(4))
def test_a_call_that_is_left_as_it_gets_its_place_goes_no_further(sqlite_url, make, turns):
    """On Python before 3.12 it did, for as long as its statement took, and wrote."""
    connector = make(f"sqlite+aiosqlite{sqlite_url[6:]}", pool_size=1).connector("sql")
    pool_of = connector._database._pool

    async def left():
        async with pool_of().place(time.monotonic() + 60):
            task = asyncio.create_task(connector.query("SELECT 1 AS n", {}))
            while not pool_of()._places._waiters:
                await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await connector.query("SELECT 1 AS n", {})).row_count == 1
        await connector.close()

    asyncio.run(left())


def test_a_wrong_statement_is_not_tried_again(database, make):
    kernel = make(database[0])
    for text in ("SELECT nothing FROM item", "SELECT * FROM nowhere", "SELECT FROM WHERE"):
        error = refused(kernel, "sql.query", {"query": text})
        assert error.code is ErrorCodes.INVALID_ARGUMENT, (text, error)
        assert "\n" not in str(error)


def test_a_lost_connection_is_tried_again(database, make):
    url, engine = database
    if engine.dialect.name == "sqlite":
        pytest.skip("there is no connection to lose")
    kernel = make(url, timeout_seconds=20)
    found = []

    def call():
        found.append(refused(kernel, "sql.query", {"query": _SLOW[engine.dialect.name]}))

    thread = threading.Thread(target=call)
    thread.start()
    while not _running(engine):
        time.sleep(0.02)
    with engine.connect() as connection:
        asleep = _ASLEEP[engine.dialect.name]
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {asleep}")
        else:
            pid = connection.exec_driver_sql(f"SELECT id {asleep}").scalar_one()
            connection.exec_driver_sql(f"KILL {pid}")
    thread.join(40)
    assert found[0].code is ErrorCodes.UNAVAILABLE, found[0]
    assert found[0].retryable
    assert kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})["rows"] == [{"n": 1}]


_WIDE = {
    "postgresql": "SELECT repeat('x', 1000000) AS x FROM generate_series(1, 300)",
    "mysql": "SELECT repeat('x', 1000000) AS x FROM seq_1_to_300",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    " SELECT hex(zeroblob(500000)) AS x FROM n",
}


def test_wide_rows_are_not_fetched_by_the_hundred(database, make, tmp_path):
    kernel = make(database[0], max_bytes=2_500_000, timeout_seconds=120, files_to=str(tmp_path))
    query = _WIDE[database[1].dialect.name]
    tracemalloc.start()
    try:
        page = kernel.invoke("sql.query", {"query": query, "max_rows": 100})
        written = kernel.invoke("sql.export", {"query": query, "params": {}, "file": "x.jsonl"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (page["row_count"], page["more"], written["rows"]) == (2, True, 300)
    assert peak < 120_000_000


def test_a_long_result_that_is_refused_is_not_read_to_its_end(database, make):
    """Two columns of one name are seen before the first row."""
    counting = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i x, i x FROM n"
    )
    endless = {"mysql": "SELECT 1 AS x, 2 AS x FROM seq_1_to_2000000000"}
    kernel = make(database[0], pool_size=1, timeout_seconds=300)
    query = {"query": endless.get(database[1].dialect.name, counting)}
    error = within(60, lambda: refused(kernel, "sql.query", query))
    assert "two columns have one name" in str(error)
    assert kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})["rows"] == [{"n": 1}]
