"""The configuration of the connector."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from automate_kernel.secrets.keys import SecretKey


def _checked_url(value: SecretStr) -> SecretStr:
    try:
        url = sa.make_url(value.get_secret_value())
    except (sa.exc.ArgumentError, ValueError):
        # SQLAlchemy's own words quote it, with the password.
        raise ValueError("it is no URL of SQLAlchemy: dialect+driver://user@host/name") from None
    if url.get_backend_name() not in ("sqlite", "postgresql", "mysql", "mariadb"):
        # Nothing there would keep a query from writing.
        raise ValueError("the database is none of PostgreSQL, MariaDB, MySQL and SQLite")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("name a file: a database in memory is empty, and gone with its connection")
    return value


class TableWatch(BaseModel):
    """The table whose new rows are events, and the column by which they are known to be new."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(description="The table, or schema.table.")
    column: str = Field(
        description="A column that grows: the integer key itself, or the time of the insertion."
    )
    key: str | None = Field(
        default=None,
        description="The unique column that orders rows of one time. Needed unless `column` is an "
        "integer key.",
    )
    columns: list[str] = Field(
        default_factory=list, description="The columns of the event; by default all."
    )
    lag_seconds: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="The most seconds that a transaction takes from its insertion to its commit.",
    )
    start: Literal["now", "beginning"] = Field(
        default="now", description="Begin with rows to come, or with all that are there."
    )


class SqlConfig(BaseModel):
    """One database, the things that may be done with it, and the bounds of each call."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"url": "sqlite:///shop.sqlite3"}]},
    )

    url: Annotated[SecretStr, AfterValidator(_checked_url)] = Field(
        description="SQLAlchemy's URL of PostgreSQL, MariaDB, MySQL or SQLite."
    )
    secret: SecretKey | None = Field(
        default=None,
        description="The key of the secret that is the password, read for each call.",
    )
    allow_writes: bool = Field(
        default=False, description="Let `execute` and `execute_many` change the database."
    )
    calls_table: str | None = Field(
        default=None,
        description="The table that remembers calls that wrote, so that none is repeated.",
    )
    files_to: str | None = Field(
        default=None, description="The folder that `export` writes its files in."
    )
    watch: TableWatch | None = Field(default=None, description="The table of the poll `new_row`.")
    timeout_seconds: float = Field(
        default=30.0, gt=0, le=86_400, description="The most seconds of a call."
    )
    connect_timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, description="The most seconds until a connection is there."
    )
    max_rows: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="The most rows that a call returns or takes.",
    )
    max_bytes: int = Field(
        default=900_000, ge=1_000, le=64_000_000, description="The most bytes of rows, as JSON."
    )
    pool_size: int = Field(
        default=5, ge=1, le=100, description="The most connections of one event loop."
    )
