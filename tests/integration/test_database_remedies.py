"""What an operator reads when the database can't do its work: each error says what mends it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import StorageError
from automate_kernel.outbox import RowsOutboxStore
from automate_sqlalchemy import SqlAlchemyStorage

CONNECTIONS = "smaller pools"
DAMAGED = "restore a backup"
NO_DATABASE = "create the database, or correct its name"
RIGHTS = "grant it rights on our tables (automate_*)"
PASSWORD = f"pw-{uuid.uuid4().hex}"


def refused(url: sa.URL | str, hint: str, **connect: str) -> None:
    """Expect that an enqueue there fails with a hint in these words."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=connect)
    with pytest.raises(StorageError) as caught:
        RowsOutboxStore(SqlAlchemyStorage(engine)).enqueue("mail", {"to": "ada"})
    assert hint in str(caught.value.hint), caught.value
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"


@pytest.fixture
def user() -> Iterator[Callable[[sa.Engine, str], sa.URL]]:
    """Makes a user of a server, with these options, who may log in and nothing else."""
    made: list[tuple[sa.Engine, str]] = []

    def run(engine: sa.Engine, sql: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def user(engine: sa.Engine, options: str = "") -> sa.URL:
        name = f"u{uuid.uuid4().hex[:12]}"
        # MariaDB prefers users of the very host: it may have one without a name.
        name += "" if engine.dialect.name == "postgresql" else "@localhost"
        if engine.dialect.name == "postgresql":
            run(engine, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}")
        else:
            run(engine, f"CREATE USER {name} IDENTIFIED BY '{PASSWORD}' {options}")
            run(engine, f"GRANT CREATE ON {engine.url.database}.* TO {name}")
        made.append((engine, name))
        return engine.url.set(username=name.partition("@")[0], password=PASSWORD)

    yield user
    for engine, name in made:
        run(engine, f"DROP {'ROLE' if engine.dialect.name == 'postgresql' else 'USER'} {name}")


@pytest.fixture(params=["postgresql_engine", "mariadb_engine"])
def engine(request: pytest.FixtureRequest) -> Any:
    """An engine on each server, with our tables."""
    return request.getfixturevalue(request.param)


def test_a_user_without_rights(engine: sa.Engine, user: Any) -> None:
    """The server runs, and the address is right."""
    refused(user(engine), RIGHTS)


def test_more_connections_than_the_server_takes(engine: sa.Engine, user: Any) -> None:
    """A limit for one user is met as the server's is."""
    if engine.dialect.name == "postgresql":
        refused(user(engine, "CONNECTION LIMIT 0"), CONNECTIONS)
        return
    url = user(engine, "WITH MAX_USER_CONNECTIONS 1")
    with sa.create_engine(url).connect():
        refused(url, CONNECTIONS)


def test_a_database_that_does_not_exist(engine: sa.Engine) -> None:
    """Its name is wrong, or nobody has made it."""
    refused(engine.url.set(database="nowhere"), NO_DATABASE)


def test_a_wrong_password(mariadb_engine: sa.Engine, user: Any) -> None:
    """The error tells neither the right one nor this one."""
    url = user(mariadb_engine)
    refused(url.set(password=PASSWORD + "x"), "check the user and the password")


def test_a_replica(postgresql_engine: sa.Engine) -> None:
    """It was said that the permissions of a file were to be checked."""
    refused(
        postgresql_engine.url,
        "connect to the primary",
        options="-c default_transaction_read_only=on",
    )


def test_a_statement_that_the_server_has_no_patience_for(postgresql_engine: sa.Engine) -> None:
    """The hint names the setting."""
    storage = SqlAlchemyStorage(postgresql_engine)
    with pytest.raises(StorageError) as caught, storage.begin() as rows:
        # For this one alone: a busy machine may need as long to connect.
        rows.run("SET LOCAL statement_timeout = 500", (), fetch=False)
        rows.run("SELECT pg_sleep(60)", (), fetch=True)
    assert "raise statement_timeout" in str(caught.value.hint)


def test_a_statement_that_somebody_has_ended(postgresql_engine: sa.Engine) -> None:
    """It has the same code, and no setting was in its way."""
    storage = SqlAlchemyStorage(postgresql_engine)
    with pytest.raises(StorageError, match="user request") as caught, storage.begin() as rows:
        rows.run("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)", (), fetch=True)
    assert caught.value.hint is None


def test_a_full_disk(tmp_path: Path) -> None:
    """Nothing is lost: once there is room, work goes on."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'full.sqlite3'}", poolclass=sa.StaticPool)
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    store = RowsOutboxStore(storage)
    with engine.connect() as connection:
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError) as caught:
        store.enqueue("mail", {"text": "x" * 100_000})
    assert "disk is full: make room" in str(caught.value.hint)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1000}")
    assert store.get(store.enqueue("mail", {"text": "x" * 100_000})) is not None
    engine.dispose()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Or one that is damaged."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but a text\n" * 1000)
    refused(f"sqlite:///{path}", DAMAGED)


def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    """This time it is the file."""
    path = tmp_path / "read.sqlite3"
    SqlAlchemyStorage(sa.create_engine(f"sqlite:///{path}")).create_tables()
    refused(f"sqlite:///file:{path}?mode=ro&uri=true", "the file's and its folder's permissions")
    refused(f"sqlite:///{tmp_path / 'no' / 'folder.sqlite3'}", "check that the folder exists")
