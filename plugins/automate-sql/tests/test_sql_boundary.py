"""What the servers themselves hold a query to, whatever our own reading makes of its text."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, ErrorCodes
from automate_sql import drivers
from database_servers import pooled


def refused(kernel, query, name="sql.query", **more):
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(name, {"query": query, **more})
    assert not caught.value.retryable, caught.value
    return caught.value


def rows(kernel, query, **params):
    return kernel.invoke("sql.query", {"query": query, "params": params})["rows"]


def value(kernel, query, **params):
    (row,) = rows(kernel, query, **params)
    (found,) = row.values()
    return found


def only_on(engine, name):
    if engine.dialect.name != name:
        pytest.skip(f"its means are those of {name}")


def execute(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def names(engine):
    with engine.connect() as connection:
        return [*connection.exec_driver_sql("SELECT name FROM item ORDER BY id").scalars()]


UNTOUCHED = [f"item {number}" for number in range(1, 8)]

_DROP = "COMMIT; DROP TABLE item"
_SEVERAL = {
    "comment ends at CR": f"SHOW server_version --\r; {_DROP}",
    "comment ends at CR, twice": f"SHOW server_version --\r\r; {_DROP}",
    "CR and LF": f"SHOW server_version --\r\n; {_DROP}",
    "next line": f"SHOW server_version --\x85; {_DROP}",
    "line separator": f"SHOW server_version --\u2028; {_DROP}",
    "form feed": f"SHOW server_version --\f; {_DROP}",
    "letter before dollars": f"SELECT 1 AS \u00e9$$; {_DROP}; --$$",
    "letter beyond before dollars": f"SELECT 1 AS \U00020000$$; {_DROP}; --$$",
    "digit before dollars": f"SELECT 1 AS \u0661$a$; {_DROP}; --$a$",
    "tag with a letter": f"SELECT $\u00e9$a$\u00e9$; {_DROP}",
    "backslash": f"SELECT '\\'; {_DROP}; --'",
    "escapes": f"SELECT E'\\\\'; {_DROP}; --'",
    "escapes go on": f"SELECT E'a'\n'\\'; {_DROP}; --'",
    "escapes go on after a comment": f"SELECT E'a' -- b\n '\\'; {_DROP}; --'",
    "unicode": f"SELECT U&'\\0027'; {_DROP}; --'",
    "unicode name": f'SELECT 1 AS U&"\\0022"; {_DROP}; --"',
    "national": f"SELECT N'\\'; {_DROP}; --'",
    "backtick": f"SHOW server_version `; {_DROP}; --`",
    "bracket": f"SELECT ARRAY[1; {_DROP}; --]",
    "nested comment": f"SHOW server_version /* /* */ ; {_DROP} */; {_DROP}",
    "comment in an operator": f"SELECT 1 +/* */ 1; {_DROP}",
    "parameter in dollars": f"SELECT $1$; {_DROP}; --$1$",
    "plain": f"SELECT 1; {_DROP}",
}


@pytest.mark.parametrize("text", _SEVERAL.values(), ids=_SEVERAL)
def test_several_statements_write_nothing_by_an_action(database, make, text):
    url, engine = database
    kernel = make(url, allow_writes=True)
    for name, field in (("query", "query"), ("execute", "statement"), ("export", "query")):
        with suppress(AutomateError):  # of some the second is a comment, and no statement
            kernel.invoke(
                f"sql.{name}", {field: text, **({"file": "x"} if name == "export" else {})}
            )
    assert names(engine) == UNTOUCHED


def sent(kernel, text, *, writes=False):
    """Send *text* as it is, past our own reading, in a session as an action has it."""

    async def send():
        connector = kernel.connector("sql")
        try:
            async with connector._database.session(writes=writes, seconds=60) as session:
                await session.run(lambda connection: connection.exec_driver_sql(text).close())
                await session.commit()
        finally:
            await connector.close()

    asyncio.run(send())


@pytest.mark.parametrize("text", _SEVERAL.values(), ids=_SEVERAL)
def test_the_server_takes_no_several_statements(database, make, text):
    """Without our reading: the protocol is the boundary, also where writes are allowed."""
    url, engine = database
    for each in (text, text.replace("COMMIT; ", "")):
        try:
            sent(make(url), each, writes=True)
        except sa.exc.DBAPIError:
            pass
        except Exception as error:
            assert type(error).__name__ in ("Warning", "UnicodeEncodeError"), error
        assert names(engine) == UNTOUCHED


_WRITES = [
    "DELETE FROM item",
    "UPDATE item SET name = 'x'",
    "INSERT INTO item (id) VALUES (99)",
    "CREATE TABLE other (id INTEGER)",
    "ALTER TABLE item ADD COLUMN x INTEGER",
]
_WRITES_BY = {
    "postgresql": [
        "DROP TABLE item",
        "TRUNCATE item",
        "EXPLAIN ANALYZE DELETE FROM item",
        "WITH x AS (DELETE FROM item RETURNING id) SELECT * FROM x",
        "SELECT * INTO other FROM item",
        "SELECT * FROM item FOR UPDATE",
        "SELECT nextval('numbers')",
        "SELECT setval('numbers', 77)",
        "SELECT writing()",
        "CALL writing_and_committing()",
        "DO $$ BEGIN DELETE FROM item; COMMIT; END $$",
        "COPY item FROM PROGRAM 'echo 99'",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT set_config('transaction_read_only', 'off', false), writing()",
        "SELECT query_to_xml('DELETE FROM item', true, true, '')",
        "GRANT ALL ON item TO PUBLIC",
    ],
    "mysql": [
        "SELECT * FROM item FOR UPDATE",
        "SELECT NEXTVAL(numbers)",
        "SELECT SETVAL(numbers, 77)",
        "SELECT writing()",
        "EXPLAIN DELETE FROM item",
        "ANALYZE DELETE FROM item",
        "/*! DELETE FROM item */",
        "/*M! DELETE FROM item */",
    ],
    "sqlite": [
        "DROP TABLE item",
        "REPLACE INTO item (id) VALUES (1)",
        "ATTACH DATABASE 'other.sqlite3' AS other",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "VACUUM",
        "REINDEX item",
    ],
}
_FUNCTIONS = {
    "postgresql": [
        "CREATE SEQUENCE IF NOT EXISTS numbers",
        "CREATE OR REPLACE FUNCTION writing() RETURNS bigint LANGUAGE sql AS"
        " 'DELETE FROM item; SELECT 1::bigint'",
        "CREATE OR REPLACE PROCEDURE writing_and_committing() LANGUAGE plpgsql AS"
        " 'BEGIN COMMIT; DELETE FROM item; COMMIT; END'",
    ],
    "mysql": [
        "CREATE SEQUENCE IF NOT EXISTS numbers",
        "CREATE OR REPLACE FUNCTION writing() RETURNS INTEGER BEGIN DELETE FROM item; RETURN 1; END",
    ],
    "sqlite": [],
}


def test_a_transaction_that_reads_writes_nothing(database, make):
    """Each text alone, past our own reading: the server refuses it."""
    url, engine = database
    name = engine.dialect.name
    execute(engine, *_FUNCTIONS[name])
    kernel = make(url)
    for text in (*_WRITES, *_WRITES_BY[name]):
        if name == "mysql" and not text.startswith(("SELECT", "EXPLAIN", "/*")):
            # A change of tables commits there before the server looks at the transaction.
            if text.startswith(("CREATE", "ALTER")):
                continue
        with pytest.raises((sa.exc.DBAPIError, AutomateError)):
            sent(kernel, text)
            pytest.fail(text)
        assert names(engine) == UNTOUCHED, text
    with engine.connect() as connection:
        found = sa.inspect(connection).get_table_names()
    assert "other" not in found


def test_the_first_word_is_what_the_server_reads(database, make):
    """What begins with another one is refused, and nothing stands before it in what is sent."""
    url, engine = database
    kernel = make(url)
    hidden = ("/* ; */ -- x\n ", "((", "\n\t", "/* */(/* */")
    words = (
        "COPY",
        "SET",
        "DO",
        "CALL",
        "PREPARE",
        "EXECUTE",
        "LISTEN",
        "HANDLER",
        "PRAGMA",
        "DELIMITER",
    )
    for lead in hidden:
        for word in (
            *words,
            "COMMIT",
            "ROLLBACK",
            "ATTACH",
            "DROP",
            "LOCK",
            "LOAD",
            "NOTIFY",
            "RESET",
        ):
            assert "begins with" in str(refused(kernel, f"{lead}{word} x"))
    if engine.dialect.name == "postgresql":
        query = (
            "/* a */ -- b\n SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() -- c"
        )
        assert value(kernel, query).partition("SELECT")[0].strip().endswith(("", "FOR"))
        assert "/* a */" not in value(kernel, query)


_REACHING = {
    "postgresql": [
        "SELECT pg_read_file('/etc/hostname')",
        "SELECT \"pg_read_binary_file\"('/etc/hostname')",
        "SELECT * FROM pg_ls_dir('/')",
        "SELECT lo_export(1, '/tmp/x')",
        "SELECT dblink_exec('dbname=x', 'DELETE FROM item')",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_catalog . PG_CANCEL_BACKEND /* */ (1)",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(lo_ex' || 'port(1, ''/tmp/x'')::text)')",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a'', pg_read_fi' || 'le(''PG_VERSION'')')",
        "SELECT pg_create_physical_replication_slot('kept_for_ever')",
        "SELECT pg_create_restore_point('x')",
        "SELECT pg_backup_start('x')",
        "SELECT pg_log_backend_memory_contexts(1)",
        "SELECT U&\"pg\\005fread_file\"('/etc/hostname')",
    ],
    "mysql": [
        "SELECT LOAD_FILE('/etc/hostname')",
        "SELECT `load_file`('/etc/hostname')",
        "SELECT 'x' INTO OUTFILE '/tmp/x'",
        "SELECT 'x' INTO/**/DUMPFILE '/tmp/x'",
        "TABLE item INTO OUTFILE '/tmp/x'",
        "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */",
        "SELECT 1 /*M!100000 INTO OUTFILE '/tmp/x' */",
    ],
    "sqlite": ["SELECT load_extension('x')", "SELECT fts3_tokenizer('x', 'y')"],
}


def test_what_reaches_beyond_the_transaction_is_refused(database, make):
    url, engine = database
    for text in _REACHING[engine.dialect.name]:
        error = refused(make(url, allow_writes=True), text)
        assert error.code in (ErrorCodes.INVALID_ARGUMENT, ErrorCodes.PERMISSION_DENIED), error


def test_what_watches_replication_is_read(postgresql_url, make):
    """A view's name is like those of functions that change what it shows."""
    kernel = make(postgresql_url)
    for view in ("pg_replication_slots", "pg_stat_replication", "pg_replication_origin"):
        assert rows(kernel, f"SELECT * FROM {view}") == []


_MODES = (
    "NO_BACKSLASH_ESCAPES",
    "ANSI_QUOTES",
    "ANSI",
    "ORACLE",
    "MSSQL",
    "NO_BACKSLASH_ESCAPES,ANSI",
)
_FILES = [
    "SELECT '\\' INTO OUTFILE '{file}' -- '",
    "SELECT 'a\\' INTO DUMPFILE '{file}' # '",
    'SELECT "a" INTO OUTFILE \'{file}\' -- "',
    'SELECT 1 AS "\\" INTO OUTFILE \'{file}\' -- "',
    "SELECT '\"', \"' INTO OUTFILE '{file}' -- \"",
    "SELECT '\\'' INTO OUTFILE '{file}' -- '",
]


@pytest.mark.parametrize("mode", _MODES)
def test_no_mode_of_the_server_lets_a_query_write_a_file(mariadb_url, make, mode):
    file = Path(f"/tmp/automate-sql-{os.getpid()}.written")
    url = sa.make_url(mariadb_url).update_query_dict({"init_command": f"SET sql_mode = '{mode}'"})
    kernel = make(url.render_as_string(False), allow_writes=True)
    for text in _FILES:
        refused(kernel, text.format(file=file))
        with pytest.raises(AutomateError):
            kernel.invoke(
                "sql.execute",
                {
                    "statement": text.format(file=file).replace(
                        "SELECT", "WITH x AS (SELECT 1) SELECT", 1
                    )
                },
            )
        assert not file.exists(), text
    # What a quotation is, is the same as everywhere; other modes stay.
    hostile = '\\\' OR "1"="1" -- '
    assert value(kernel, "SELECT 'a\\'b' \"c\" AS x") == "a'bc"
    assert value(kernel, "SELECT :x AS x", x=hostile) == hostile
    modes = set(value(kernel, "SELECT @@sql_mode AS x").split(","))
    assert not modes & {"ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ORACLE", "MSSQL"}
    assert mode not in ("ANSI", "ORACLE") or "PIPES_AS_CONCAT" in modes


def test_a_role_that_reads_texts_in_another_way_does_not(database, make):
    url, engine = database
    only_on(engine, "postgresql")
    other = sa.make_url(url).update_query_dict(
        {"options": "-c standard_conforming_strings=off -c escape_string_warning=off"}
    )
    if other.drivername.endswith("asyncpg"):
        pytest.skip("it has no options in its URL")
    kernel = make(other.render_as_string(False))
    assert value(kernel, "SELECT 'a\\' AS x") == "a\\"


def test_a_value_is_never_part_of_the_text(database, make):
    """Also where its parameter stands in a quotation or a comment, where no value belongs."""
    url, engine = database
    execute(engine, "UPDATE item SET name = 'secret' WHERE id = 7")
    kernel = make(url)
    for text in ("SELECT id FROM item WHERE name = :x AND name <> ':x'", "SELECT :x AS x /* :x */"):
        for hostile in (" OR 1=1 OR ''='", "*/ FROM item -- ", "x"):
            refused(kernel, text, params={"x": hostile})


# -- what a session keeps ----------------------------------------------------------------------

_KEPT = {
    "postgresql": [
        ("SELECT set_config('statement_timeout', '0', false)", "SELECT current_setting('work_mem') <> '77MB'"),
        ("SELECT set_config('work_mem', '77MB', false)", "SELECT current_setting('work_mem') <> '77MB'"),
        ("SELECT set_config('search_path', 'nowhere', false)", "SELECT current_setting('search_path') <> 'nowhere'"),
        ("SELECT set_config('shop.tenant', 'a', false)", "SELECT coalesce(current_setting('shop.tenant', true), '') = ''"),
        ("SELECT set_config('role', 'pg_monitor', false)", "SELECT current_user <> 'pg_monitor'"),
        ("SELECT set_config('session_authorization', 'pg_monitor', false)", "SELECT session_user <> 'pg_monitor'"),
        ("SELECT set_config('default_transaction_read_only', 'off', false)", "SELECT current_setting('transaction_read_only') = 'on'"),
        ("SELECT pg_advisory_lock(4711)", "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"),
        ("SELECT keeping('LISTEN shop')", "SELECT count(*) = 0 FROM pg_listening_channels()"),
        ("SELECT keeping('PREPARE kept AS SELECT 1')", "SELECT count(*) = 0 FROM pg_prepared_statements WHERE name = 'kept'"),
        ("SELECT keeping('DECLARE kept CURSOR WITH HOLD FOR SELECT 1')", "SELECT count(*) = 0 FROM pg_cursors WHERE name = 'kept'"),
    ],
    "mysql": [
        ("SELECT GET_LOCK('kept', 0)", "SELECT IS_FREE_LOCK('kept') = 1"),
        ("SELECT @kept := 5", "SELECT @kept IS NULL"),
        ("SELECT keeping()", "SELECT @@session.time_zone <> '+05:00'"),
        ("SELECT 1 INTO @kept", "SELECT @kept IS NULL"),
    ],
}  # fmt: skip
_KEEPING = {
    "postgresql": "CREATE OR REPLACE FUNCTION keeping(text) RETURNS integer LANGUAGE plpgsql AS"
    " 'BEGIN EXECUTE $1; RETURN 1; END'",
    "mysql": "CREATE OR REPLACE FUNCTION keeping() RETURNS INTEGER"
    " BEGIN SET SESSION time_zone = '+05:00'; RETURN 1; END",
}
_SELF = {"postgresql": "SELECT pg_backend_pid() AS n", "mysql": "SELECT connection_id() AS n"}


def test_nothing_of_a_call_is_left_to_the_next(database, make):
    """On the same connection, which is reset: the next call may be another tenant's."""
    url, engine = database
    name = engine.dialect.name
    if name == "sqlite":
        pytest.skip("a query keeps nothing there")
    execute(engine, _KEEPING[name])
    kernel = make(url, pool_size=1, allow_writes=True)
    number = value(kernel, _SELF[name])
    for keep, is_gone in _KEPT[name]:
        for way in ("sql.query", "sql.export"):
            try:
                kernel.invoke(
                    way, {"query": keep, **({"file": "x"} if way == "sql.export" else {})}
                )
            except AutomateError as error:
                assert "returns no rows" in str(error) or "files_to" in str(error), error
            assert value(kernel, is_gone), keep
        assert value(kernel, _SELF[name]) == number


def test_a_temporary_table_of_a_write_is_gone(database, make):
    url, engine = database
    only_on(engine, "postgresql")
    execute(
        engine,
        "CREATE OR REPLACE FUNCTION keeping(text) RETURNS integer LANGUAGE plpgsql AS"
        " 'BEGIN EXECUTE $1; RETURN 1; END'",
    )
    kernel = make(url, pool_size=1, allow_writes=True)
    statement = (
        "WITH x AS (SELECT keeping('CREATE TEMPORARY TABLE item (id integer)')) SELECT * FROM x"
    )
    kernel.invoke("sql.execute", {"statement": statement, "params": {}})
    assert value(kernel, "SELECT count(*) AS n FROM item") == 7


def test_a_command_of_the_url_holds_for_each_call(mariadb_url, make):
    """A reset would forget it, so the connection is not used again."""
    url = sa.make_url(mariadb_url).update_query_dict({"init_command": "SET time_zone = '+03:00'"})
    kernel = make(url.render_as_string(False), pool_size=1)
    numbers = set()
    for _ in range(2):
        (row,) = rows(kernel, "SELECT @@time_zone AS zone, connection_id() AS n")
        assert row["zone"] == "+03:00"
        numbers.add(row["n"])
    assert len(numbers) == 2


def test_letters_are_the_same_after_a_reset(mariadb_url, make):
    kernel, letters = make(mariadb_url, pool_size=1), "\u20ac\U0001f600"
    query = "SELECT @@collation_connection AS c, connection_id() AS n, :text AS text"
    first, second = (rows(kernel, query, text=letters) for _ in range(2))
    assert first == second
    assert first[0]["text"] == letters


# -- drivers that hold to nothing ----------------------------------------------------------------


def test_a_driver_that_sends_several_statements_is_refused(postgresql_url, make, monkeypatch):
    """As psycopg would, without a cursor of ours."""
    monkeypatch.setattr(drivers, "_extended", lambda _: {})
    error = refused(make(postgresql_url), "SELECT 1 AS n")
    assert error.code is ErrorCodes.FAILED_PRECONDITION
    assert "asyncpg" in str(error)


@pytest.mark.parametrize("driver", ["psycopg2", "pg8000"])
def test_drivers_without_the_extended_protocol_are_refused(postgresql_url, make, driver):
    pytest.importorskip(driver)
    url = sa.make_url(postgresql_url).set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        host = url.query["host"]
        url = url.set(query={"unix_sock": f"{host}/.s.PGSQL.5432"})
    error = refused(make(url.render_as_string(False)), "SELECT 1 AS n")
    assert error.code is ErrorCodes.FAILED_PRECONDITION, error


def test_an_option_that_allows_several_statements_is_refused(mariadb_url, make):
    url = sa.make_url(mariadb_url).update_query_dict({"client_flag": str(1 << 16)})
    error = refused(make(url.render_as_string(False)), "SELECT 1 AS n")
    assert error.code is ErrorCodes.FAILED_PRECONDITION


def test_a_driver_that_begins_no_transaction_is_refused(postgresql_url, make):
    url = sa.make_url(postgresql_url).update_query_dict({"autocommit": "yes"})
    error = refused(make(url.render_as_string(False)), "SELECT 1 AS n")
    assert error.code is ErrorCodes.FAILED_PRECONDITION


def test_the_asynchronous_psycopg_is_held_to_one_statement(postgresql_url, make):
    url = sa.make_url(postgresql_url).set(drivername="postgresql+psycopg_async")
    kernel = make(url.render_as_string(False), pool_size=1)
    for _ in range(2):
        assert value(kernel, "SELECT set_config('shop.x', :x, false) AS x", x="a") == "a"
        assert not value(kernel, "SELECT current_setting('shop.x', true) AS x")
    with pytest.raises(sa.exc.ProgrammingError):
        sent(kernel, f"SELECT 1; {_DROP}")


@pytest.mark.parametrize("url", ["mssql+pyodbc://ada@shop/x", "oracle+oracledb://ada@shop/x"])
def test_a_database_that_holds_to_nothing_is_refused(make, url):
    with pytest.raises(AutomateError, match="PostgreSQL, MariaDB, MySQL and SQLite"):
        make(url).connector("sql")


def test_doctor_shows_a_user_that_may_do_more(database, make):
    url, engine = database
    name = engine.dialect.name
    check = lambda: asyncio.run(make(url).connector("sql").check())  # noqa: E731
    if name == "sqlite":
        assert check() == "sqlite answers"
        return
    assert "give the connector a user that may only read" in check()
    made = sa.make_url(url)
    if name == "postgresql":
        execute(engine, "DROP ROLE IF EXISTS reading", "CREATE ROLE reading LOGIN")
    else:
        execute(
            engine,
            "CREATE OR REPLACE USER reading@localhost",
            f"GRANT SELECT ON {made.database}.* TO reading@localhost",
        )
    url = made.set(username="reading").render_as_string(False)
    assert check() == f"{name} answers"


def test_modules_of_sqlite_still_work(sqlite_url, make):
    """They ask for pragmas themselves."""
    engine = sa.create_engine(sqlite_url)
    execute(
        engine,
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
    )
    kernel = make(sqlite_url, allow_writes=True)
    for statement in (
        "INSERT INTO words VALUES ('some words')",
        "INSERT INTO boxes VALUES (1, 2, 3)",
    ):
        kernel.invoke("sql.execute", {"statement": statement, "params": {}})
    assert value(kernel, "SELECT count(*) FROM words WHERE text MATCH :x", x="words") == 1
    assert value(kernel, "SELECT count(*) FROM boxes WHERE low < 3") == 1
    assert value(kernel, "SELECT count(*) FROM pragma_table_info('item')") == 2
    assert value(kernel, "SELECT integrity_check FROM pragma_integrity_check") == "ok"
    for text in ("SELECT * FROM pragma_optimize(1)", "SELECT * FROM pragma_wal_checkpoint"):
        refused(kernel, text)
    engine.dispose()


def test_types_that_asyncpg_has_to_ask_for_are_read(postgresql_url, make):
    """It asks between the preparation of a statement and its execution."""
    engine = sa.create_engine(postgresql_url)
    execute(engine, "DROP TYPE IF EXISTS mood CASCADE", "CREATE TYPE mood AS ENUM ('good', 'bad')")
    url = sa.make_url(postgresql_url).set(drivername="postgresql+asyncpg")
    kernel = make(url.render_as_string(False), pool_size=1)
    query = (
        "SELECT CAST(:x AS mood) AS a, ARRAY[CAST('bad' AS mood)] AS b, ROW(1, 'x') IS NULL AS c"
    )
    for _ in range(2):
        assert rows(kernel, query, x="good") == [{"a": "good", "b": ["bad"], "c": False}]
    engine.dispose()


def through(pooler: sa.URL, driver: str) -> str:
    """The URL of *pooler* for a driver."""
    url = pooler.set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg":  # it knows no port in the query
        url = sa.URL.create(
            url.drivername, url.username, port=int(url.query["port"]), database=url.database,
            query={"host": url.query["host"]},
        )  # fmt: skip
    return url.render_as_string(False)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_nothing_of_a_session_is_left_behind_a_pooler_that_resets_nothing(
    postgresql_url, make, driver
):
    """In transaction mode what comes after a transaction may reach another session."""
    engine = sa.create_engine(postgresql_url)
    execute(
        engine,
        "DROP TABLE IF EXISTS kept CASCADE",
        "CREATE TABLE kept (id integer)",
        "INSERT INTO kept VALUES (0)",
        "CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_lock(4713); PERFORM set_config('app.deferred', 'left', false);"
        " RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER keeps AFTER UPDATE ON kept DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with pooled(sa.make_url(postgresql_url), server_round_robin="1") as pooler:
        all_four = sa.create_engine(pooler, poolclass=sa.NullPool)
        with ExitStack() as stack:  # so that it takes them in turn
            for _ in range(4):
                stack.enter_context(all_four.begin()).exec_driver_sql("SELECT 1")
        kernel = make(through(pooler, driver), pool_size=2, allow_writes=True)
        for _ in range(3):
            value(kernel, "SELECT pg_advisory_lock(4711) IS NULL AS x")
            refused(kernel, "SELECT pg_advisory_lock(4712) IS NULL, 1 / (SELECT id FROM kept)")
            value(kernel, "SELECT set_config('app.read', 'left', false) AS x")
            statement = (
                "WITH s AS MATERIALIZED (SELECT set_config('app.tenant', 'left', false),"
                " set_config('search_path', 'pg_catalog', false), pg_advisory_lock(4714))"
                " UPDATE public.kept SET id = 0 FROM s"
            )
            done = kernel.invoke("sql.execute", {"statement": statement, "params": {}})
            assert done["row_count"] == 1
            with engine.connect() as connection:
                assert connection.exec_driver_sql(locks).scalar() == 0
        look = (
            "SELECT concat_ws(' ', current_setting('app.tenant', true),"
            " current_setting('app.read', true), current_setting('app.deferred', true)) AS x"
        )
        seen = {value(kernel, look).strip() for _ in range(12)}
        paths = {value(kernel, "SELECT current_setting('search_path') AS x") for _ in range(12)}
        kernel.close()
    assert seen == {""}
    assert paths == {'"$user", public'}
    execute(engine, "DROP TABLE kept", "DROP FUNCTION keep()")
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_a_pooler_between_is_no_reason_to_connect_anew(postgresql_url, make, monkeypatch, driver):
    """PgBouncer gives each transaction another connection, and the reset is not part of any."""
    url, resets = sa.make_url(postgresql_url), []
    reset = drivers._is_reset
    monkeypatch.setattr(drivers, "_is_reset", lambda c: resets.append(reset(c)) or resets[-1])
    with pooled(url, server_reset_query_always="1", server_round_robin="1") as pooler:
        kernel = make(through(pooler, driver), pool_size=1, allow_writes=True)
        for number in range(12):
            assert value(kernel, "SELECT CAST(:x AS integer) AS x", x=number) == number
            assert value(kernel, "SELECT pg_advisory_lock(4711) IS NULL AS x") is False
        kernel.close()
    assert resets == [True] * 24
