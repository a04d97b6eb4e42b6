"""automate-kernel through SQLAlchemy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from benchmarks.contenders.ours import Ours


class OursSqlAlchemy(Ours):
    """On an engine of the host."""

    name = "ours"
    title = "ours, SQLAlchemy"
    packages = ("automate-kernel", "SQLAlchemy", "psycopg")
    imports = (
        "from automate_kernel import Kernel; from automate_sqlalchemy import SqlAlchemyStorage"
    )
    bare_imports = "import pydantic, jinja2, psycopg, sqlalchemy.orm"
    _engine: Any = None

    @property
    def engine(self) -> Any:
        """The host's engine."""
        if self._engine is None:
            import sqlalchemy

            url = self.database.url.replace("postgresql:", "postgresql+psycopg:")
            self._engine = sqlalchemy.create_engine(url)
            if self.database.kind == "sqlite":
                sqlalchemy.event.listen(self._engine, "connect", _durably)
        return self._engine

    def storage(self) -> Any:
        from automate_sqlalchemy import SqlAlchemyStorage

        return SqlAlchemyStorage(self.engine)

    def transaction(self) -> AbstractContextManager[Any]:
        begun: AbstractContextManager[Any] = self.engine.begin()
        return begun

    def execute(self, sql: str) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(sql)
            return result.fetchall() if result.returns_rows else []


def _durably(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


CONTENDER = OursSqlAlchemy
