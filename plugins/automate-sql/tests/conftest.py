"""Databases of each kind, with each driver; the servers are those of the kernel's own tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("automate_testing")
sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.append(str(Path(__file__).parents[3] / "tests" / "support"))

import sqlalchemy as sa  # noqa: E402
from database_servers import fresh_database, mariadb_server, postgresql_server  # noqa: E402, F401

from automate_kernel import AutomateError, ErrorCodes, Kernel  # noqa: E402
from automate_sql import SqlConnector  # noqa: E402

DRIVERS = {
    "pysqlite": "sqlite",
    "aiosqlite": "sqlite+aiosqlite",
    "psycopg": "postgresql+psycopg",
    "asyncpg": "postgresql+asyncpg",
    "pymysql": "mysql+pymysql",
}


@pytest.fixture(scope="module")
def postgresql_url(postgresql_server: str) -> Iterator[str]:  # noqa: F811
    with fresh_database(postgresql_server) as url:
        yield url


@pytest.fixture(scope="module")
def mariadb_url(mariadb_server: str) -> Iterator[str]:  # noqa: F811
    with fresh_database(mariadb_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    file = tmp_path / "shop.sqlite3"
    file.touch()
    return f"sqlite:///{file}"


@pytest.fixture(params=list(DRIVERS))
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, sa.Engine]]:
    """The URL with each driver, and an engine for what the test itself does."""
    name = request.param
    kind = {"psycopg": "postgresql", "asyncpg": "postgresql", "pymysql": "mariadb"}.get(
        name, "sqlite"
    )
    url = request.getfixturevalue(f"{kind}_url")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("item", "automate_calls"):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        connection.exec_driver_sql(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(100) UNIQUE,"
            " price NUMERIC(12, 2))"
        )
        for number in range(1, 8):
            connection.exec_driver_sql(
                f"INSERT INTO item VALUES ({number}, 'item {number}', {number}.50)"
            )
    drivername = DRIVERS[name]
    yield sa.make_url(url).set(drivername=drivername).render_as_string(False), engine
    engine.dispose()


Make = Callable[..., Kernel]


@pytest.fixture
def make() -> Iterator[Make]:
    """A function that makes a kernel whose connector `sql` has the config."""
    made: list[Kernel] = []

    def function(url: str, **config: Any) -> Kernel:
        kernel = Kernel(
            plugins=[SqlConnector],
            discover=False,
            config={"sql": {"url": url, **config}},
            secrets={"PASSWORD": "canary-7Qm2xVb91tZkP0eL"},
        )
        made.append(kernel)
        return kernel

    yield function
    for kernel in made:
        kernel.close()


@pytest.fixture
def answered() -> Callable[[Kernel], bool]:
    """Whether a small query is answered; again while a busy machine lets its time pass."""

    def function(kernel: Kernel) -> bool:
        while True:
            try:
                return kernel.invoke("sql.query", {"query": "SELECT 1 AS n"})["rows"] == [{"n": 1}]
            except AutomateError as error:
                if error.code not in (ErrorCodes.DEADLINE_EXCEEDED, ErrorCodes.UNAVAILABLE):
                    raise

    return function
