"""The connector ``sql``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, Field

from automate_kernel import (
    Call,
    Connector,
    ConnectorContext,
    PollResult,
    action,
    current_call,
    options,
    poll,
)
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_sql import drivers, tables
from automate_sql.calls import CallsTable
from automate_sql.config import SqlConfig
from automate_sql.database import Database, DatabaseSession
from automate_sql.failures import failure_of
from automate_sql.files import Form, RowsFile, place_of
from automate_sql.reading import (
    BATCH,
    FittingRows,
    OpenResult,
    Row,
    batches,
    bounded,
    read,
    too_many,
)
from automate_sql.statement import READS, WRITES, Statement
from automate_sql.tables import Description, FoundTable
from automate_sql.watch import MOST_EVENTS, poll_rows

T = TypeVar("T")
Json = Any

Sql = Annotated[
    str,
    Field(
        min_length=1,
        description="One statement, with named parameters as in `WHERE id = :id`. A workflow "
        "writes it as it is: a template in it is refused.",
        json_schema_extra={"x-written": True},
    ),
]
Params = Annotated[
    dict[str, Json],
    Field(
        default_factory=dict,
        description="The values of the parameters. A list after IN stands for its elements.",
    ),
]
MaxRows = Annotated[
    int | None,
    Field(
        ge=1,
        description="The most rows of a page. Without it all rows have to fit the config's bounds.",
    ),
]
TableName = Annotated[str, Field(description="The table or view, or schema.table.")]


class QueryResult(BaseModel):
    """Rows of a query."""

    rows: list[dict[str, Any]]
    row_count: int = Field(description="The number of `rows`.")
    more: bool = Field(default=False, description="True if there are rows after these.")


class PageResult(QueryResult):
    """Rows of a table in the order of a key."""

    after: Any = Field(default=None, description="The last key, for the next page.")


class ExecuteResult(BaseModel):
    """The result of a statement that writes."""

    row_count: int = Field(description="The rows that it inserted, changed or deleted.")
    rows: list[dict[str, Any]] = Field(
        default_factory=list, description="The rows of its RETURNING."
    )


class ExportResult(BaseModel):
    """The file of a query's rows."""

    path: str
    rows: int
    bytes: int


class Tables(BaseModel):
    """The names of tables and views."""

    tables: list[str]


class SqlConnector(Connector):
    """
    Queries of one database, read-only unless the config allows writes.

    Each call is one transaction. Actions are asynchronous; a driver that blocks runs on threads of
    its own.
    """

    key = "sql"
    display_name = "SQL database"

    def __init__(
        self, config: Mapping[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        super().__init__(dict(config or {}), ctx=ctx)
        self._settings: SqlConfig = self.parse_config(config)
        self._database = Database(self._settings)

    @classmethod
    def config_schema(cls) -> type[SqlConfig]:
        """Return the model of the config: the database, and the bounds of each call."""
        return SqlConfig

    # -- reading -----------------------------------------------------------------------------

    @action(read_only=True)
    async def query(self, query: Sql, params: Params, max_rows: MaxRows = None) -> QueryResult:
        """Return the rows of a query, in a transaction that can't write."""
        statement = self._statement("query", query, READS)
        settings = self._settings
        most = settings.max_rows if max_rows is None else min(max_rows, settings.max_rows)

        async def work(session: DatabaseSession) -> FittingRows:
            return await read(
                session, statement.bind(params), streams=statement.streams,
                most_rows=most, most_bytes=settings.max_bytes,
            )  # fmt: skip

        found = await self._reading(work, params)
        if found.more and max_rows is None:
            raise too_many(most, settings.max_bytes)
        return QueryResult(rows=found.rows, row_count=len(found.rows), more=found.more)

    @action(read_only=True)
    async def page(
        self,
        table: TableName,
        key: Annotated[str, Field(description="A unique column without NULL, which orders them.")],
        after: Annotated[Json, Field(description="The key after which the page begins.")] = None,
        columns: Annotated[list[str] | None, Field(description="By default all.")] = None,
        max_rows: Annotated[int, Field(ge=1, description="The most rows of the page.")] = 500,
    ) -> PageResult:
        """Return the next rows of a table in the order of a key."""
        settings = self._settings
        most = min(max_rows, settings.max_rows)

        def select(connection: sa.Connection) -> sa.Select[Any]:
            found = FoundTable(connection, table)
            query = found.select(columns or (), key).order_by(found.column(key)).limit(most + 1)
            if after is None:
                return query
            return query.where(found.column(key) > found.native(key, after))

        async def work(session: DatabaseSession) -> FittingRows:
            query = await session.run(select)
            return await read(
                session, query, streams=True, most_rows=most, most_bytes=settings.max_bytes
            )

        found = await self._reading(work, [after])
        rows = found.rows
        return PageResult(
            rows=rows, row_count=len(rows), more=found.more, after=rows[-1][key] if rows else after
        )

    async def stream(
        self, query: str, params: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Row, None]:
        """
        Yield the rows of a query one by one, of any number; for Python.

        They are fetched in batches from the server, each within `timeout_seconds`. What you do
        between two batches takes no longer, either: else the server ends the transaction. Close
        the generator, or read to its end: it holds a connection.
        """
        statement, values = Statement(query, self._database.dialect, allowed=READS), params or {}
        seconds = self._settings.timeout_seconds
        with self._failing(values):
            await self._read_password()
            async with self._database.session(writes=False, seconds=seconds) as session:
                found = batches(session, statement.bind(values), streams=statement.streams)
                try:
                    async for rows in found:
                        for row in rows:
                            yield row
                        session.deadline += seconds
                finally:
                    await found.aclose()

    @action(idempotent=True)
    async def export(
        self,
        query: Sql,
        params: Params,
        file: Annotated[str, Field(min_length=1, description="The file's name, below `files_to`.")],
        format: Annotated[Form, Field(description="JSON lines or CSV.")] = "jsonl",
    ) -> ExportResult:
        """Write the rows of a query, of any number, to a file; one that is there is replaced."""
        statement = self._statement("query", query, READS)
        path = place_of(self._settings.files_to, file)

        async def work(session: DatabaseSession) -> ExportResult:
            target = await asyncio.to_thread(RowsFile, path, format)
            found = batches(session, statement.bind(params), streams=statement.streams)
            try:
                async for rows in found:
                    await asyncio.to_thread(target.write, rows)
                size = await asyncio.to_thread(target.finish)
            finally:
                await found.aclose()
                target.discard()
            return ExportResult(path=str(path), rows=target.rows, bytes=size)

        return await self._reading(work, params)

    @action("tables", read_only=True)
    async def list_tables(
        self, schema: Annotated[str | None, Field(description="By default the usual one.")] = None
    ) -> Tables:
        """List the tables and views."""
        return Tables(tables=await self._reading(lambda s: s.run(tables.names, schema)))

    @action(read_only=True)
    async def describe(self, table: TableName) -> Description:
        """Return the columns and keys of a table."""
        return await self._reading(
            lambda session: session.run(lambda c: FoundTable(c, table).description())
        )

    # -- writing -----------------------------------------------------------------------------

    @action
    async def execute(self, statement: Sql, params: Params, call: Call) -> ExecuteResult:
        """Insert, change or delete rows with one statement, and commit."""
        prepared = self._statement("statement", statement, WRITES)
        settings = self._settings

        def work(connection: sa.Connection) -> ExecuteResult:
            clause = prepared.bind(params)
            result = connection.execute(clause)
            if not result.returns_rows:
                return ExecuteResult(row_count=max(0, result.rowcount))
            rows = _returned(result, settings)
            return ExecuteResult(row_count=len(rows), rows=rows)

        return await self._writing(work, call, params)

    @action
    async def execute_many(
        self,
        statement: Sql,
        rows: Annotated[list[dict[str, Json]], Field(description="The parameters of each row.")],
        call: Call,
    ) -> ExecuteResult:
        """Insert, change or delete rows with one statement for each of many, in one transaction."""
        prepared = self._statement("statement", statement, WRITES)
        most = self._settings.max_rows
        if len(rows) > most:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"there are more than max_rows of {most:,} rows"
            )

        def work(connection: sa.Connection) -> ExecuteResult:
            count = 0
            for row in rows:
                count += max(0, connection.execute(prepared.bind(row)).rowcount)
            return ExecuteResult(row_count=count)

        return await self._writing(work, call, rows)

    # -- triggers, choices, life -------------------------------------------------------------

    @poll("new_row", every="10s", max_events=MOST_EVENTS, timeout_seconds=300)
    async def new_row(self, cursor: Any) -> PollResult:
        """Rows that were added to the table of `watch`."""
        watch = self._settings.watch
        if watch is None:
            raise ConfigError("there is no table to watch", hint="set `watch` in the config")
        return await self._reading(lambda session: session.run(poll_rows, watch, cursor))

    @options("table")
    async def table_options(self) -> list[str]:
        """Return the names of the tables."""
        return await self._reading(lambda session: session.run(tables.names))

    @options("key", of="page")
    async def key_options(self, table: str) -> list[str]:
        """Return the columns of a table."""
        found = await self.describe(table)
        return [each.name for each in found.columns]

    @options("columns", of="page")
    async def column_options(self, table: str) -> list[str]:
        """Return the columns of a table."""
        return await self.key_options(table)

    async def check(self) -> str:
        """Connect, and ask what the user may do."""
        more = await self._reading(lambda session: session.run(drivers.user_warning))
        return f"{self._database.dialect} answers{more}"

    def normalize_error(self, exc: Exception) -> Exception:
        """Return the `AutomateError` for an error of SQLAlchemy or a driver, without values."""
        return failure_of(exc) or super().normalize_error(exc)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    # -- inside ------------------------------------------------------------------------------

    def _statement(self, field: str, text: str, allowed: frozenset[str]) -> Statement:
        call = current_call()
        # Not where the code of another operation calls this method: it wrote the text itself.
        if call is not None and call.operation.startswith(f"{self.ctx.key}."):
            call.require_written(field, text)
        return Statement(text, self._database.dialect, allowed=allowed)

    async def _reading(
        self, work: Callable[[DatabaseSession], Awaitable[T]], values: Any = ()
    ) -> T:
        with self._failing(values):
            await self._read_password()
            seconds = self._settings.timeout_seconds
            async with self._database.session(writes=False, seconds=seconds) as session:
                return await work(session)

    async def _writing(
        self, work: Callable[[sa.Connection], ExecuteResult], call: Call, values: Any
    ) -> ExecuteResult:
        """Do *work* and commit, or return the result of the same call before."""
        settings = self._settings
        if not settings.allow_writes:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                "this database is read-only here",
                hint="set allow_writes in the config",
            )
        name = settings.calls_table
        once = CallsTable.of(name, call) if name is not None else None
        seconds = settings.timeout_seconds
        with self._failing(values):
            await self._read_password()
            async with self._database.session(writes=True, seconds=seconds) as session:
                if once is None or await session.run(once.begin):
                    result = await session.run(work)
                    if once is not None:
                        await session.run(once.end, result.model_dump(mode="json"))
                    await _commit(session, known=once is not None)
                    return result
            async with self._database.session(writes=False, seconds=seconds) as session:
                return ExecuteResult.model_validate(await session.run(once.result))

    @contextmanager
    def _failing(self, values: Any) -> Iterator[None]:
        """Turn errors of the driver into our own, without the bound *values*."""
        try:
            yield
        except AutomateError:
            raise
        except Exception as error:
            failure = failure_of(error, [values])
            if failure is None:
                raise
        else:
            return
        # Not while the driver's error is being handled: it quotes values.
        raise failure

    async def _read_password(self) -> None:
        secret = self._settings.secret
        if secret is not None:
            self._database.password.value = await self.ctx.secrets.aget(secret)


def _returned(result: sa.CursorResult[Any], settings: SqlConfig) -> list[Row]:
    taken, used, cursor = FittingRows(), 0, OpenResult(result)
    while rows := cursor.fetch(BATCH):
        used = bounded(
            iter(rows), taken, most_rows=settings.max_rows, most_bytes=settings.max_bytes, used=used
        )
        if taken.more:
            raise too_many(settings.max_rows, settings.max_bytes)
    return taken.rows


async def _commit(session: DatabaseSession, *, known: bool) -> None:
    """Commit. Where that fails and it isn't *known* what came of it, nobody may do it again."""
    try:
        await session.commit()
    except Exception as error:
        failure = error if isinstance(error, AutomateError) else failure_of(error)
        unsure = failure is not None and failure.code in (
            ErrorCodes.UNAVAILABLE, ErrorCodes.DEADLINE_EXCEEDED, ErrorCodes.INTERNAL,
        )  # fmt: skip
        if failure is None or not unsure or known:
            raise
        lost = AutomateError(
            failure.code,
            "the connection was lost while the database committed: it may be done",
            retryable=False,
            hint="look there, or set calls_table, which makes another attempt safe",
        )
    else:
        return
    raise lost
