"""The errors of real databases, and the decision whether to try again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
import sys
import threading
import time
import traceback
from functools import partial

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_sql import CREATE_TABLE, SqlConnector
from automate_sql.failures import failure_of

ADD = {"statement": "UPDATE item SET price = price + 1 WHERE id = :id", "params": {"id": 1}}


def refused(kernel, name, data, **options):
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(name, data, **options)
    return caught.value


def on_postgresql(engine):
    if engine.dialect.name != "postgresql":
        pytest.skip("its means are those of PostgreSQL")


def execute(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM item a, item b",
        "SELECT no_such_function(1)",
        "SELECT id FROM item UNION SELECT id, name FROM item",
        "SELECT 1 FROM",
    ],
    ids=["ambiguous", "function", "union", "syntax"],
)
def test_wrong_sql_is_not_tried_again(database, make, query):
    error = refused(make(database[0]), "sql.query", {"query": query})
    assert (error.code, error.retryable) == (ErrorCodes.INVALID_ARGUMENT, False), error


def test_each_state_of_the_server_has_a_code():
    """asyncpg raises its own errors while rows are fetched; their DETAIL may quote a value."""
    exceptions = pytest.importorskip("asyncpg.exceptions")
    for error in vars(exceptions).values():
        if isinstance(error, type) and isinstance(getattr(error, "sqlstate", None), str):
            found = failure_of(error("it says so\nDETAIL:  canary"))
            assert found is not None, (error, error.sqlstate)
            assert found.message.startswith("the database says: "), error
            assert "canary" not in str(found), error


def test_what_goes_wrong_while_rows_are_fetched_has_the_same_code_with_each_driver(database, make):
    """A failure of the statement, and no defect of the connector to be tried again."""
    url, engine = database
    on_postgresql(engine)
    for query, code in (
        ("SELECT currval(:x)", ErrorCodes.FAILED_PRECONDITION),
        ("SELECT 1 / (id - 1) FROM item", ErrorCodes.INVALID_ARGUMENT),
        ("SELECT (SELECT id FROM item) FROM item", ErrorCodes.INVALID_ARGUMENT),
        ("SELECT table_to_xml('item', true, true, '')", ErrorCodes.INVALID_ARGUMENT),
    ):
        execute(engine, "CREATE SEQUENCE IF NOT EXISTS canary_4711")
        params = {"x": "canary_4711"} if ":x" in query else {}
        error = refused(make(url), "sql.query", {"query": query, "params": params})
        assert (error.code, error.retryable) == (code, False), error
        assert "\n" not in str(error)
        assert "canary" not in str(error)


_REFUSING = {
    "sqlite": ["CREATE TRIGGER no BEFORE UPDATE ON item BEGIN SELECT RAISE(ABORT, 'closed'); END"],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''closed''; END'",
        "CREATE TRIGGER no BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION no()",
    ],
    "mysql": [
        "CREATE TRIGGER no BEFORE UPDATE ON item FOR EACH ROW"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed'"
    ],
}


def test_what_a_trigger_refuses_is_not_tried_again(database, make):
    url, engine = database
    execute(engine, *_REFUSING[engine.dialect.name])
    error = refused(make(url, allow_writes=True), "sql.execute", ADD)
    assert (error.code, error.retryable) == (ErrorCodes.FAILED_PRECONDITION, False), error
    assert "closed" in str(error)


def _waits(engine):
    words = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx"
        " JOIN information_schema.processlist ON id = trx_mysql_thread_id"
        " WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()",
    }[engine.dialect.name]
    with engine.connect() as connection:
        return connection.exec_driver_sql(words).scalar_one()


def wait_for(engine, number):
    end = time.monotonic() + 20
    time.sleep(0.15)  # else InnoDB shows what the last look saw, be it of an earlier test
    while _waits(engine) != number:
        assert time.monotonic() < end
        time.sleep(0.15)


def touch(connection, *numbers):
    for number in numbers:
        connection.exec_driver_sql(f"UPDATE item SET price = 0 WHERE id = {number}")


def test_a_deadlock_is_tried_again(database, make):
    """The call takes row 1, waits for row 3, and then for row 2, whose owner waits for row 1."""
    url, engine = database
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    kernel = make(url, allow_writes=True)
    many = {"statement": ADD["statement"], "rows": [{"id": 1}, {"id": 3}, {"id": 2}]}
    found = []
    with engine.connect() as other, engine.connect() as gate:
        if engine.dialect.name == "postgresql":
            other.exec_driver_sql("SET LOCAL deadlock_timeout = '60s'")  # the call is the victim
        touch(gate, 3)
        touch(other, 2, 4, 5, 6, 7)
        call = threading.Thread(
            target=lambda: found.append(refused(kernel, "sql.execute_many", many))
        )
        call.start()
        wait_for(engine, 1)
        waiting = threading.Thread(target=partial(touch, other, 1))
        waiting.start()
        wait_for(engine, 2)
        gate.commit()
        call.join(20)
        waiting.join(20)
        other.rollback()
    assert (found[0].code, found[0].retryable) == (ErrorCodes.ABORTED, True), found
    assert kernel.invoke("sql.execute_many", many)["row_count"] == 3


def test_a_serialization_failure_is_tried_again(database, make):
    url, engine = database
    on_postgresql(engine)
    name = sa.make_url(url).database
    execute(engine, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    kernel, found = make(url, allow_writes=True), []
    try:
        with engine.connect() as other:
            touch(other, 1)
            call = threading.Thread(
                target=lambda: found.append(refused(kernel, "sql.execute", ADD))
            )
            call.start()
            wait_for(engine, 1)
            other.commit()
            call.join(20)
        assert (found[0].code, found[0].retryable) == (ErrorCodes.ABORTED, True), found
        assert kernel.invoke("sql.execute", ADD)["row_count"] == 1
    finally:
        execute(engine, f"ALTER DATABASE {name} RESET default_transaction_isolation")


_DYING = (
    "CREATE OR REPLACE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON item DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION die()",
)


def test_a_connection_that_is_lost_at_commit_is_not_tried_again(database, make):
    """Nobody knows what came of it; with a table of calls another attempt is safe."""
    url, engine = database
    on_postgresql(engine)
    execute(engine, *_DYING, CREATE_TABLE)
    error = refused(make(url, allow_writes=True), "sql.execute", ADD)
    assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, False), error
    assert "it may be done" in str(error)
    kernel = make(url, allow_writes=True, calls_table="automate_calls")
    error = refused(kernel, "sql.execute", ADD, idempotency_key="step-1")
    assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, True), error
    execute(engine, "DROP TRIGGER die ON item")
    assert kernel.invoke("sql.execute", ADD, idempotency_key="step-1")["row_count"] == 1
    assert kernel.invoke("sql.execute", ADD, idempotency_key="step-1")["row_count"] == 1
    with engine.connect() as connection:
        price = connection.exec_driver_sql("SELECT price FROM item WHERE id = 1").scalar_one()
    assert float(price) == 2.5


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_commit_that_fails_leaves_nothing_open(tmp_path, make, driver):
    """A reader keeps it out: the change is undone, and whoever comes next may write."""
    file = tmp_path / "shop.sqlite3"
    with sqlite3.connect(file) as here:
        here.execute("CREATE TABLE item (id INTEGER)")
    kernel = make(f"{driver}:///{file}?timeout=0.2", allow_writes=True)
    add = {"statement": "INSERT INTO item VALUES (:id)"}
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM item").fetchall()
    refused(kernel, "sql.execute", {**add, "params": {"id": 1}})
    reader.execute("COMMIT")
    with sqlite3.connect(file, timeout=0) as other:
        other.execute("INSERT INTO item VALUES (2)")
    kernel.invoke("sql.execute", {**add, "params": {"id": 3}})
    assert reader.execute("SELECT id FROM item ORDER BY id").fetchall() == [(2,), (3,)]
    reader.close()


def test_a_connection_that_is_refused_says_why(database, make):
    url, engine = database
    on_postgresql(engine)
    missing = sa.make_url(url).set(database="no_such_database").render_as_string(False)
    error = refused(make(missing), "sql.tables", {})
    assert (error.code, error.retryable) == (ErrorCodes.NOT_FOUND, False), error
    execute(engine, "DROP ROLE IF EXISTS ada", "CREATE ROLE ada LOGIN CONNECTION LIMIT 0")
    for user, code in (
        ("ada", ErrorCodes.RESOURCE_EXHAUSTED),
        ("nobody", ErrorCodes.UNAUTHENTICATED),
    ):
        other = sa.make_url(url).set(username=user).render_as_string(False)
        error = refused(make(other), "sql.tables", {})
        assert error.code is code, error


def test_a_key_of_one_tenant_is_none_of_another(database, make):
    url, engine = database
    execute(engine, CREATE_TABLE)
    kernel = make(url, allow_writes=True, calls_table="automate_calls")
    for tenant in ("a", "b", None, "a"):
        kernel.invoke("sql.execute", ADD, idempotency_key="order-7", tenant_id=tenant)
    with engine.connect() as connection:
        price = connection.exec_driver_sql("SELECT price FROM item WHERE id = 1").scalar_one()
    assert float(price) == 4.5


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 can't set the limit")
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
@pytest.mark.parametrize("query", ["SELECT zeroblob(900000000)", "SELECT hex(zeroblob(400000000))"])
def test_a_query_on_sqlite_does_not_fill_the_memory(tmp_path, driver, query):
    """It is made in the worker's own process, which another server isn't."""
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE item (id INTEGER)")
    config = {"sql": {"url": f"{driver}:///{tmp_path / 'a.db'}"}}
    with Kernel(plugins=[SqlConnector], discover=False, config=config) as kernel:
        with pytest.raises(AutomateError, match="too big") as caught:
            kernel.invoke("sql.query", {"query": query})
        assert (caught.value.code, caught.value.retryable) == ("INVALID_ARGUMENT", False)
        with pytest.raises(AutomateError, match="malformed JSON") as caught:
            kernel.invoke("sql.query", {"query": "SELECT json('{bad')"})
        assert caught.value.code == "INVALID_ARGUMENT"


_SECRET = "canary7Qm2xVb91tZkP0eL"
_HALVES = (_SECRET[:11], _SECRET[11:])
_VALUES = {
    "plain": _SECRET,
    "longer than the database quotes": _SECRET * 40,
    "two lines": "\n".join(_HALVES),
    "quote": "'".join(_HALVES),
    "double quote": '"'.join(_HALVES),
    "backslash": "\\".join(_HALVES),
    "tab": "\t".join(_HALVES),
    "letters": f"{_SECRET}\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}",
    "hebrew": "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}" * 12,
    "bytes": {"base64": base64.b64encode(_SECRET.encode()).decode()},
    "object": {_HALVES[0]: {_HALVES[1]: _SECRET}},
    "list": [_SECRET],
}
_WRONG = (
    "INSERT INTO item (id, name) VALUES (50, :v)",
    "INSERT INTO item (id, name) VALUES (51, :v)",
    "INSERT INTO item (id) VALUES (:v)",
    "INSERT INTO item (price) VALUES (CAST(:v AS DATE))",
    "INSERT INTO item (id) VALUES (JSON_EXTRACT('{}', :v))",
    "INSERT INTO item (id) SELECT nextval(CAST(:v AS text))",
    "INSERT INTO item (id) VALUES (ExtractValue('<a/>', :v))",
    "INSERT INTO item (id) VALUES (nowhere(:v))",
)


def test_no_part_of_a_value_is_in_an_error(database, make):
    """Databases quote values cut short, with escapes, and in the statement's own words."""
    kernel, failed = make(database[0], allow_writes=True), 0
    for name, value in _VALUES.items():
        for statement in _WRONG:
            try:
                kernel.invoke("sql.execute", {"statement": statement, "params": {"v": value}})
            except AutomateError as error:
                failed += 1
                shown = "".join(traceback.format_exception(error))
            else:
                continue
            parts = (*_HALVES, _SECRET.encode().hex()[:16], "\N{HEBREW LETTER BET}", "\\xD7\\x90")
            for part in parts:
                assert part.lower() not in shown.lower(), (name, statement, shown)
    assert failed > len(_VALUES)


def test_an_error_keeps_the_words_that_say_what_is_wrong(database, make):
    """Also where a value has some of them."""
    prose = "the column price of the table item has no such name, value or date"
    for params in ({"v": prose}, {"v": 5}):
        wrong = {"statement": "INSERT INTO item (id, nothing) VALUES (60, :v)", "params": params}
        assert "nothing" in str(refused(make(database[0], allow_writes=True), "sql.execute", wrong))


def test_a_frozen_worker_holds_its_locks_no_longer_than_a_call(database, make):
    """Its transaction is open, and it asks for nothing more: the server ends it."""
    url, engine = database
    if engine.dialect.name == "sqlite":
        pytest.skip("its locks are the process's")
    connector = make(url).connector("sql")

    async def frozen():
        with contextlib.suppress(Exception):  # as the connection is gone
            async with connector._database.session(writes=True, seconds=4) as session:
                await session.run(touch, 1)
                await asyncio.to_thread(execute, engine, "UPDATE item SET price = 9 WHERE id = 1")
                await session.commit()
        await connector.close()

    asyncio.run(frozen())
    with engine.connect() as connection:
        price = connection.exec_driver_sql("SELECT price FROM item WHERE id = 1").scalar_one()
    assert float(price) == 9
