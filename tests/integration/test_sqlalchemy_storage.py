"""What the SQLAlchemy storage refuses, what it never shows, and how it runs statements."""

import logging

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import ConfigError, StorageError
from automate_kernel.outbox import RowsOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage
from automate_sqlalchemy.engines import shown
from sqlalchemy.orm import Session


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:sekretpw@localhost/x",
        "postgresql+psycopg://localhost/x?user=u&password=sekretpw",
        "postgresql+psycopg://localhost/x?sslpassword=sekretpw",
    ],
)
def test_a_password_is_hidden_wherever_the_url_holds_it(url):
    """In its usual place and among the options."""
    text = shown(sa.make_url(url))
    assert "sekretpw" not in text
    assert "localhost" in text


def test_an_engine_without_transactions_is_refused():
    """An enqueue there would stay although its transaction was rolled back."""
    plain = sa.create_engine("sqlite://")
    with pytest.raises(ConfigError, match="AUTOCOMMIT"):
        SqlAlchemyStorage(plain.execution_options(isolation_level="AUTOCOMMIT"))
    with pytest.raises(ConfigError, match="AUTOCOMMIT"):
        SqlAlchemyStorage(sa.create_engine("sqlite://", isolation_level="AUTOCOMMIT"))
    SqlAlchemyStorage(plain)


@pytest.fixture
def engine(tmp_path):
    made = sa.create_engine(f"sqlite:///{tmp_path}/outbox.sqlite3")
    SqlAlchemyStorage(made).create_tables()
    yield made
    made.dispose()


def test_what_is_no_transaction_is_refused_for_good(engine):
    """It was said to be away, which is tried again, or the item stayed after a rollback."""
    store = RowsOutboxStore(SqlAlchemyStorage(engine))
    two = Session(binds={sa.Table("orders", sa.MetaData()): engine})
    plain = Session(engine.execution_options(isolation_level="AUTOCOMMIT"))
    wrong = {"several databases": two, "AUTOCOMMIT": plain, "no SQLAlchemy transaction": engine}
    for problem, transaction in wrong.items():
        with pytest.raises(StorageError, match=problem) as caught:
            store.enqueue("k", transaction=transaction)
        assert caught.value.code == "INVALID_ARGUMENT"
    for session in (two, plain):
        session.rollback()
        session.close()
    assert store.find() == []


@pytest.mark.parametrize("commits", [True, False])
def test_a_host_that_begins_as_it_goes(engine, commits):
    """An enqueue begins a connection's transaction, as any statement of the host's would."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(engine))
    with engine.connect() as connection:
        item_id = outbox.enqueue("k", transaction=connection)
        assert connection.in_transaction()
        if commits:
            connection.commit()
    assert (outbox.get(item_id) is not None) is commits


def test_who_watches_statements_sees_ours(engine):
    """Listeners for tracing, and SQLAlchemy's own log."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(engine))
    seen = []

    def note(connection, cursor, statement, parameters, context, many):
        seen.append(statement)

    sa.event.listen(engine, "after_cursor_execute", note)
    outbox.enqueue("k")
    assert outbox.claim_batch("w")
    assert any(each.startswith("INSERT") for each in seen)
    assert any(each.startswith("UPDATE") and "RETURNING" in each for each in seen)


def test_who_watches_statements_sees_those_that_commit_by_themselves(postgresql_engine):
    """On PostgreSQL a claim needs no transaction, and no connection of SQLAlchemy's."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    outbox.enqueue("k")
    begun, seen = [], []

    def note(connection, cursor, statement, parameters, context, many):
        seen.append(statement)

    watchers = [("engine_connect", begun.append), ("before_cursor_execute", note)]
    for name, watcher in watchers:
        sa.event.listen(postgresql_engine, name, watcher)
    try:
        assert outbox.get(outbox.enqueue("k"))
    finally:
        for name, watcher in watchers:
            sa.event.remove(postgresql_engine, name, watcher)
    assert begun
    assert any(each.startswith("INSERT") for each in seen)


def test_a_statement_that_commits_by_itself_and_fails(postgresql_engine):
    """Its error has SQLAlchemy's as its cause, and the next statement runs."""
    storage = SqlAlchemyStorage(postgresql_engine)
    with storage.begin(atomic=False) as rows:
        with pytest.raises(StorageError) as caught:
            rows.run("SELECT 1 / %s", (0,), fetch=True)
        assert rows.run("SELECT 1", (), fetch=True) == [(1,)]
        assert rows.native.exec_driver_sql("SELECT 2").scalar() == 2
    assert isinstance(caught.value.__cause__, sa.exc.DataError)
    with storage.begin(atomic=False) as rows, pytest.raises(KeyError):
        raise KeyError
    with postgresql_engine.connect() as connection:
        assert not connection.connection.driver_connection.autocommit


def test_a_connection_that_somebody_has_closed_is_replaced(postgresql_engine):
    """One call fails in a way that may pass; the next has another connection."""
    storage = SqlAlchemyStorage(postgresql_engine)
    with postgresql_engine.connect() as connection:
        driver = connection.connection.driver_connection
    driver.close()
    with pytest.raises(StorageError) as caught, storage.begin(atomic=False):
        raise AssertionError
    assert caught.value.retryable
    with storage.begin(atomic=False) as rows:
        assert rows.run("SELECT 1", (), fetch=True) == [(1,)]


def test_sqlalchemys_log_shows_our_statements(engine, caplog):
    """Turned on at any time."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(engine))
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        outbox.enqueue("k")
    assert "INSERT INTO" in caplog.text


@pytest.mark.parametrize("watched", [True, False])
def test_a_statement_that_fails(engine, watched):
    """It is our error, with a way to mend it and SQLAlchemy's as its cause, whoever ran it."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(engine))
    if watched:
        sa.event.listen(engine, "before_cursor_execute", lambda *arguments: None)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE automate_outbox")
    with pytest.raises(StorageError, match="no such table") as caught:
        outbox.enqueue("k")
    assert "create" in str(caught.value)
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)


@pytest.mark.parametrize("watched", [True, False])
def test_a_lost_connection_is_lost_for_the_whole_pool(postgresql_url, watched):
    """The first error empties the pool, so that the next call works whichever connection it gets."""
    engine = sa.create_engine(postgresql_url, pool_size=3)
    storage = SqlAlchemyStorage(engine, listen=False)
    storage.create_tables()
    outbox = RowsOutboxStore(storage)
    if watched:
        sa.event.listen(engine, "before_cursor_execute", lambda *arguments: None)
    connections = [engine.connect() for _ in range(3)]
    pids = [one.exec_driver_sql("SELECT pg_backend_pid()").scalar() for one in connections]
    for one in connections:
        one.close()
    other = sa.create_engine(postgresql_url)
    with other.begin() as admin:
        for pid in pids:
            admin.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(StorageError) as caught:
        outbox.enqueue("k")
    assert caught.value.retryable
    for _ in range(3):
        assert outbox.enqueue("k")
    engine.dispose()
    other.dispose()


def test_what_a_prepared_transaction_sends_comes_once_it_is_committed(mariadb_engine):
    """Nobody sees it before, and nobody waits for it."""
    storage = SqlAlchemyStorage(mariadb_engine)
    outbox = RowsOutboxStore(storage)
    with mariadb_engine.connect() as connection, connection.begin_twophase() as two_phase:
        outbox.enqueue("k", {"n": 1}, transaction=connection)
        two_phase.prepare()
        outbox.enqueue("k", {"n": 2})
        assert [item.payload["n"] for item in outbox.claim_batch("w")] == [2]
        two_phase.commit()
    assert [item.payload["n"] for item in outbox.claim_batch("w")] == [1]
