"""Open the database that a URL names, set up as the kernel needs it."""

from __future__ import annotations

import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes

if TYPE_CHECKING:
    from sqlalchemy import URL

    from automate_sqlalchemy import SqlAlchemyStorage

Making = Literal["tables", "file", "stand-in", "nothing"]
"""
The thing to make where a SQLite file is missing.

The file with its tables, the file alone, or an empty database in memory with or without tables.
"""
_STAND_IN = "automate_stand_in"
_DRIVERS = {
    "psycopg": "automate-kernel[postgresql]",
    "psycopg2": "automate-kernel[postgresql], and write postgresql+psycopg://",
    "pymysql": "pymysql",
    "MySQLdb": "pymysql, and write mysql+pymysql://",
}


def open_storage(
    text: str, *, folder: Path, listen: bool = True, making: Making = "tables"
) -> SqlAlchemyStorage:
    """
    Return the storage at the URL *text*; a relative SQLite file is below *folder*.

    Raises `ConfigError` for an invalid URL and `StorageError` for an unusable database.
    """
    if find_spec("sqlalchemy") is None:
        raise _not_installed("SQLAlchemy", "automate-kernel[cli]")
    from sqlalchemy.pool import StaticPool

    from automate_sqlalchemy import SqlAlchemyStorage
    from automate_sqlalchemy.engines import make_engine

    url = _url(text, folder)
    is_sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {}
    in_memory = is_sqlite and making in ("stand-in", "nothing") and _is_missing(url.database or "")
    if in_memory:
        marked = {_STAND_IN: True}
        options = {"creator": _memory, "poolclass": StaticPool, "execution_options": marked}
    try:
        engine = make_engine(url, pool_pre_ping=not is_sqlite, **options)
    except ImportError as error:
        name = error.name or "?"
        raise _not_installed(f"the database driver {name}", _DRIVERS.get(name, name)) from None
    if engine.dialect.is_async:
        raise ConfigError(
            f"the database URL names the asynchronous driver {engine.dialect.driver!r}",
            hint="name a synchronous one, for example postgresql+psycopg:// or sqlite://",
        )
    storage = SqlAlchemyStorage(engine, listen=listen)
    if making == "tables" or (making == "stand-in" and in_memory):
        create_missing_tables(storage)
    return storage


def is_stand_in(storage: Any) -> bool:
    """Return True for an empty database in memory that stands for a file which isn't there."""
    engine = getattr(storage, "engine", None)
    return engine is not None and _STAND_IN in engine.get_execution_options()


def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


def _is_missing(file: str) -> bool:
    """Return True for a file that isn't there, and could be made."""
    path = Path(file)
    return not file.startswith("file:") and not path.exists() and os.access(path.parent, os.W_OK)


def create_missing_tables(storage: Any) -> None:
    """Make the tables of *storage* if it is a SQLite file that has none."""
    if storage.engine.dialect.name == "sqlite" and storage.check_schema().empty:
        storage.create_tables()


def _not_installed(what: str, package: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION, f"{what} is not installed", hint=f"pip install {package}"
    )


def _url(text: str, folder: Path) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(text)
        if url.drivername in ("postgresql", "postgres") and find_spec("psycopg2") is None:
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except ImportError:
        return url  # the engine will say so
    except NoSuchModuleError:
        raise ConfigError(
            f"no kind of database is called {url.drivername!r}",
            hint="use sqlite:///, postgresql+psycopg:// or mysql+pymysql://",
        ) from None
    except (ArgumentError, ValueError):
        # The text is not shown: a password may stand in it.
        raise ConfigError(
            "the database is not given as a URL",
            hint="for example sqlite:///automate.sqlite3 or postgresql://user@host/name",
        ) from None
    if "@" in (url.host or ""):
        raise ConfigError(
            "the password in the database URL has an @ in it",
            hint="write %40 for @, and %2F for /, in user and password",
        )
    if url.get_backend_name() != "sqlite":
        return url
    database = url.database or ":memory:"
    if database == ":memory:" or "mode=memory" in database:
        raise ConfigError(
            "an SQLite database in memory ends with this command",
            hint="give it a file: sqlite:///automate.sqlite3",
        )
    return url if database.startswith("file:") else url.set(database=str(folder / database))


def hide_password(text: str) -> str:
    """Return a database URL without its password."""
    try:
        from sqlalchemy import make_url

        from automate_sqlalchemy.engines import shown

        return shown(make_url(text))
    except Exception:
        return "(not a URL)"
