"""Our reading of statements against that of the servers, by texts that nobody thought of."""

from __future__ import annotations

import sqlite3

import pymysql
import psycopg
import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, Kernel
from automate_sql import SqlConnector
from automate_sql.statement import READS, Statement
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

_INSIDE = st.lists(
    st.sampled_from(
        ["'", "''", "\\", "\\'", '"', '""', "`", "$$", "$a$", "--", "-- ", "#", "/*", "*/", "/*!"]
        + [
            "\n",
            "\r",
            "\r\n",
            " ",
            "; SELECT 2 ",
            "; SELECT '2' --",
            "\u00e9",
            "a",
            "[",
            "]",
            ", 1",
        ]
        + ["E'", "U&'", "\u00a0", "\u2028", "\x0b", "\x85", "1", "\\\\"]
    ),
    max_size=6,
).map("".join)
_PIECES = st.sampled_from(
    ["'%'", "'%'", "E'%'", "e'%'\n'%'", "U&'%'", "N'%'", '1 AS "%"', '"%"', "1 AS `%`", "$$%$$"]
    + ["$a$%$a$", "\u00e9$$%$$", "1 -- %\n", "1 # %\n", "1 /* % */", "/* % */ 1", "1 AS [%]", "1%"]
)


@st.composite
def texts(draw) -> str:
    pieces = draw(st.lists(_PIECES, min_size=1, max_size=3))
    filled = [each.replace("%", draw(_INSIDE), 1).replace("%", draw(_INSIDE)) for each in pieces]
    return "SELECT 0, " + ", ".join(filled) + draw(st.sampled_from(["", "; SELECT 2", " -- '"]))


def takes(text: str, dialect: str) -> bool:
    try:
        Statement(text, dialect, allowed=READS)
    except AutomateError:
        return False
    return True


@pytest.fixture(scope="module")
def on_postgresql(postgresql_url):
    """How many statements PostgreSQL finds in a text that it can read; 0 in another."""
    url = sa.make_url(postgresql_url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(url, autocommit=True) as connection:

        def found(text: str) -> int:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(text.encode())
                except psycopg.Error:
                    return 0
                count = 1
                while cursor.nextset():
                    count += 1
                return count

        yield found


@pytest.fixture(scope="module")
def on_mariadb(mariadb_url):
    """How many statements MariaDB finds before the first that it can't read, with it."""
    url = sa.make_url(mariadb_url)
    connection = pymysql.connect(
        host=url.host, port=url.port, user=url.username, database=url.database,
        client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS, charset="utf8mb4", autocommit=True,
    )  # fmt: skip
    with connection, connection.cursor() as cursor:

        def found(text: str) -> int:
            try:
                cursor.execute(text)
            except pymysql.Error:
                return 0
            count = 1
            try:
                while cursor.nextset():
                    count += 1
            except pymysql.Error:
                count += 1
            return count

        yield found


def on_sqlite(text: str) -> int:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(text)
    except (sqlite3.Warning, sqlite3.ProgrammingError) as error:
        return 2 if "one statement" in str(error) else 0
    except sqlite3.Error:
        return 0
    finally:
        connection.close()
    return 1


_slowly = settings(
    deadline=None,
    max_examples=600,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_slowly
@example("SELECT 0 --\r; SELECT 2")
@example("SELECT 0 AS \u00e9$$; SELECT 2 --$$")
@example("SELECT 0, E'a'\n'\\'; SELECT 2 --'")
@example("SELECT 0 /* /* */ ; SELECT 1 */; SELECT 2")
@given(texts())
def test_what_we_take_is_one_statement_to_postgresql(on_postgresql, text):
    assert not (takes(text, "postgresql") and on_postgresql(text) > 1)


@_slowly
@example("SELECT 0 --\u00a0; SELECT 2")
@example("SELECT 0 /* /* */ ; SELECT 2 -- */")
@example("SELECT '\\\\'; SELECT 2 -- '")
@given(texts())
def test_what_we_take_is_one_statement_to_mariadb(on_mariadb, text):
    assert not (takes(text, "mysql") and on_mariadb(text) > 1)


@_slowly
@example("SELECT 0 /* /* */ ; SELECT 2 -- */")
@example("SELECT '\\'; SELECT 2 -- '")
@given(texts())
def test_what_we_take_is_one_statement_to_sqlite(text):
    assert not (takes(text, "sqlite") and on_sqlite(text) > 1)


def test_the_servers_do_find_several(on_postgresql, on_mariadb):
    """Else the tests above would hold for nothing."""
    text = "SELECT 0; SELECT 2"
    assert [on_postgresql(text), on_mariadb(text), on_sqlite(text)] == [2, 2, 2]
    assert on_postgresql("SELECT 0 --\r; SELECT 2") == 2


_HOSTILE = "'\"`\\ */ -- \n, (SELECT 2) AS p0 # \\' \\\" $$"


@settings(_slowly, max_examples=300)
@example("SELECT :p AS p0, ':p'")
@example("SELECT :p AS p0 -- :p")
@example("SELECT '\\', :p AS p0, '")
@given(st.lists(st.one_of(texts(), st.just(":p AS p0"), st.just("':p'")), min_size=1, max_size=3))
def test_no_value_gets_into_the_text(mariadb_kernel, parts):
    """Where a driver puts values into it, as that of MariaDB does."""
    query = ", ".join(parts) if isinstance(parts, list) else parts
    query = "SELECT " + query.removeprefix("SELECT ").replace("SELECT ", "")
    data = {"query": query, "params": {"p": _HOSTILE}}
    try:
        found = mariadb_kernel.invoke("sql.query", data)["rows"]
    except AutomateError:
        return
    assert all(row["p0"] == _HOSTILE for row in found)


@pytest.fixture(scope="module")
def mariadb_kernel(mariadb_url):
    config = {"sql": {"url": mariadb_url}}
    with Kernel(plugins=[SqlConnector], discover=False, config=config) as kernel:
        yield kernel
