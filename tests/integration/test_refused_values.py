"""What a database itself refuses: a clear and permanent failure, and no work that is done again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.context import current_call
from automate_kernel.outbox import RowsOutboxStore
from automate_testing.contracts.values import nested
from automate_kernel.http.answers import failure_answer
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

REFUSES = """
CREATE TRIGGER refuses BEFORE {when} ON automate_{table} WHEN NEW.{column} LIKE '%refused%'
BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: {column}'); END
"""


def trigger(engine: sa.Engine, table: str, column: str, when: str = "UPDATE") -> None:
    """Let SQLite refuse a word, as it would refuse what a check of its own doesn't hold for."""
    with engine.begin() as connection:
        connection.exec_driver_sql(REFUSES.format(table=table, column=column, when=when))


@pytest.fixture
def kernel(sqlite_engine: sa.Engine) -> Iterator[Kernel]:
    with Kernel(SqlAlchemyStorage(sqlite_engine), discover=False, secrets={}) as kernel:
        yield kernel


def define(kernel: Kernel, *steps: dict[str, Any], **options: Any) -> list[str]:
    """A workflow of *steps*, and the list of the actions that are called."""
    calls: list[str] = []
    for name in ("charge", "tell", "undo"):

        def act(word: str = "", name: str = name) -> dict[str, str]:
            calls.append(name)
            return {"word": word}

        kernel.action(name)(act)
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps, **options})
    return calls


def act(name: str, word: str = "fine", **options: Any) -> dict[str, Any]:
    return {"id": name, "action": name, "input": {"word": word}, **options}


def test_a_step_whose_output_is_refused_is_not_called_again(
    kernel: Kernel, sqlite_engine: sa.Engine
) -> None:
    """It fails, for good, says why, and the recovery steps run."""
    calls = define(
        kernel,
        act("charge", "refused", retry={"attempts": 5}),
        act("tell"),
        on_failure=[act("undo")],
    )
    trigger(sqlite_engine, "step", "output", "INSERT")
    execution = kernel.run("w")
    assert calls == ["charge", "undo"]
    assert execution.status is ExecutionStatus.FAILED
    charge, undo = execution.step("charge"), execution.step("undo")
    assert charge.status is StepStatus.FAILED
    assert (charge.error_code, charge.attempts) == ("INVALID_ARGUMENT", 1)
    assert "its output can't be stored" in charge.error
    assert "charge" in execution.error
    assert undo.status is StepStatus.COMPLETED
    assert [item.status.value for item in kernel.outbox.find()] == ["COMPLETED"]


def test_labels_of_a_refused_step_are_kept(kernel: Kernel, sqlite_engine: sa.Engine) -> None:
    """They were set, and the execution goes on with them after a crash as well."""

    @kernel.action("labelled")
    def labelled() -> str:
        call = current_call()
        assert call is not None
        call.label(order=7)
        return "refused"

    kernel.add_workflow({
        "name": "w", "trigger": {"type": "manual"},
        "steps": [{"id": "a", "action": "labelled", "on_failure": "continue"}],
    })  # fmt: skip
    trigger(sqlite_engine, "step", "output", "INSERT")
    execution = kernel.run("w")
    assert execution.step("a").status is StepStatus.FAILED
    assert [each.id for each in kernel.executions.page(labels=["order=7"]).executions] == [
        execution.id
    ]


def test_a_step_that_may_fail_lets_the_others_go_on(
    kernel: Kernel, sqlite_engine: sa.Engine
) -> None:
    """A refused output is a failure like any other: of the step alone, if it may fail."""
    calls = define(kernel, act("charge", "refused", on_failure="continue"), act("tell"))
    trigger(sqlite_engine, "step", "output", "INSERT")
    execution = kernel.run("w")
    assert calls == ["charge", "tell"]
    assert execution.status is ExecutionStatus.COMPLETED


def test_one_refused_element_fails_its_step(kernel: Kernel, sqlite_engine: sa.Engine) -> None:
    """Elements whose outputs are kept are not called again for the sake of one that isn't."""
    calls = define(
        kernel,
        {
            "id": "charge",
            "action": "charge",
            "for_each": ["a", "refused", "b"],
            "concurrency": 1,
            "input": {"word": "{{ item }}"},
        },
    )
    trigger(sqlite_engine, "step", "output", "INSERT")
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    assert calls.count("charge") <= 3
    states = {run.position: run.status.value for run in execution.runs_of("charge")}
    assert (states[0], states[1], states[-1]) == ("COMPLETED", "FAILED", "FAILED")


def test_a_workflows_output_that_is_refused_fails_it(
    kernel: Kernel, sqlite_engine: sa.Engine
) -> None:
    """Nothing is called again, and the error says what it was."""
    calls = define(kernel, act("charge"), output="refused")
    trigger(sqlite_engine, "execution", "output")
    execution = kernel.run("w")
    assert (execution.status, calls) == (ExecutionStatus.FAILED, ["charge"])
    assert "its output can't be stored" in execution.error


def test_a_payload_that_is_refused_is_the_senders_fault(
    kernel: Kernel, sqlite_engine: sa.Engine
) -> None:
    """Not retryable: a webhook is told so, instead of to come again for ever."""
    define(kernel, act("charge"))
    trigger(sqlite_engine, "outbox", "payload", "INSERT")
    with pytest.raises(StorageError) as caught:
        kernel.emit("e", {"word": "refused"})
    assert (caught.value.code, caught.value.retryable) == (ErrorCodes.INVALID_ARGUMENT, False)
    answer = failure_answer(caught.value, "webhook")
    assert answer.status == 400
    assert "automate" not in str(answer.body)
    assert kernel.outbox.find() == []


def test_a_handler_that_enqueues_what_is_refused_fails_for_good(
    kernel: Kernel, sqlite_engine: sa.Engine
) -> None:
    """Its item is not tried until its attempts are spent."""
    trigger(sqlite_engine, "outbox", "payload", "INSERT")
    calls = []

    @kernel.handler("k")
    def handle(item: Any) -> None:
        calls.append(1)
        kernel.emit("e", "refused")

    item_id = kernel.outbox.enqueue("k")
    kernel.run_until_idle(patience=60)
    assert len(calls) == 1
    assert kernel.outbox.get(item_id).status.value == "FAILED"


# -- MariaDB with the tables of before ------------------------------------------------------------


@pytest.fixture
def old_mariadb(mariadb_server: str) -> Iterator[sa.Engine]:
    """Our tables with MariaDB's own JSON type, which refuses what is deeper than 31 levels."""
    engine = sa.create_engine(mariadb_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE automate_old_json")
    try:
        old = sa.create_engine(engine.url.set(database="automate_old_json"))
        SqlAlchemyStorage(old).create_tables()
        with old.begin() as connection:
            for table, column in (("outbox", "payload"), ("execution", "event")):
                connection.exec_driver_sql(f"ALTER TABLE automate_{table} MODIFY {column} JSON")
            connection.exec_driver_sql("ALTER TABLE automate_step MODIFY output JSON NULL")
        yield old
        old.dispose()
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE automate_old_json")
        engine.dispose()


def test_a_refusal_of_mariadb_is_told(old_mariadb: sa.Engine) -> None:
    """No id without a row, no action that is called again: an error that says what refused it."""
    with Kernel(SqlAlchemyStorage(old_mariadb), discover=False, secrets={}) as kernel:
        calls = []

        @kernel.action("deep")
        def deep() -> Any:
            calls.append(1)
            return nested(40)

        kernel.add_workflow(
            {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "s", "action": "deep"}]}
        )
        for enter in (kernel.emit, kernel.start, kernel.outbox.enqueue):
            with pytest.raises(StorageError) as caught:
                enter("w", nested(40))
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        assert kernel.executions.find() == []
        assert kernel.outbox.find() == []
        execution = kernel.run("w")
        assert (execution.status, calls) == (ExecutionStatus.FAILED, [1])
        assert "json_valid" in execution.error or "CONSTRAINT" in execution.error


# -- the host's transaction -----------------------------------------------------------------------


@pytest.fixture
def shop(postgresql_engine: sa.Engine) -> Iterator[sa.Table]:
    """A table of the host's own, and an outbox that can't take what is `refused`."""
    table = sa.Table("shop_order", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    table.metadata.create_all(postgresql_engine)
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE automate_outbox ADD CONSTRAINT refuses"
            " CHECK (payload::text NOT LIKE '%%refused%%')"
        )
    yield table
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE automate_outbox DROP CONSTRAINT refuses")
    table.metadata.drop_all(postgresql_engine)


def orders(engine: sa.Engine, table: sa.Table) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(table.c.id)))


@pytest.mark.parametrize("count", [1, 60], ids=["insert", "copy"])
def test_a_failure_that_the_host_catches_is_told_at_its_commit(
    postgresql_engine: sa.Engine, shop: sa.Table, count: int
) -> None:
    """PostgreSQL keeps nothing of such a transaction: its commit must not look like a success."""
    from automate_kernel.outbox import NewItem

    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    items = [NewItem("k", "refused")] * count
    with Session(postgresql_engine) as session:
        session.execute(shop.insert().values(id=1))
        with pytest.raises(StorageError, match="refuses"):
            outbox.enqueue_many(items, transaction=session)
        with pytest.raises(StorageError, match="nothing of this transaction was kept") as caught:
            session.commit()
        assert "begin_nested" in str(caught.value)
        session.rollback()
        session.execute(shop.insert().values(id=2))
        outbox.enqueue("k", "fine", transaction=session)
        session.commit()
    assert orders(postgresql_engine, shop) == [2]
    assert [item.payload for item in outbox.find()] == ["fine"]


def test_a_connection_can_be_used_after_it(postgresql_engine: sa.Engine, shop: sa.Table) -> None:
    """Without a session it is the same, and what comes next on the connection is kept."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    with postgresql_engine.connect() as connection:
        for _ in range(2):
            connection.execute(shop.insert().values(id=1))
            with pytest.raises(StorageError, match="refuses"):
                outbox.enqueue("k", "refused", transaction=connection)
            with pytest.raises(StorageError, match="nothing of this"):
                connection.commit()
            connection.rollback()
        connection.execute(shop.insert().values(id=2))
        connection.commit()
    assert orders(postgresql_engine, shop) == [2]


def test_a_savepoint_keeps_the_rest(postgresql_engine: sa.Engine, shop: sa.Table) -> None:
    """What failed inside a savepoint takes nothing else with it."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    with Session(postgresql_engine) as session:
        session.execute(shop.insert().values(id=1))
        with pytest.raises(StorageError, match="refuses"), session.begin_nested():
            outbox.enqueue("k", "refused", transaction=session)
        session.commit()
    assert orders(postgresql_engine, shop) == [1]


def test_a_blank_key_costs_the_host_nothing(postgresql_engine: sa.Engine, shop: sa.Table) -> None:
    """It is refused before anything is written, so the transaction goes on."""
    from automate_kernel.base.errors import PayloadError

    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    with Session(postgresql_engine) as session:
        session.execute(shop.insert().values(id=1))
        for _ in range(2):
            with pytest.raises(PayloadError, match="idempotency_key is empty"):
                outbox.enqueue("k", transaction=session, idempotency_key="")
        session.commit()
    assert orders(postgresql_engine, shop) == [1]


def test_a_deadlock_that_the_host_catches_is_told_at_its_commit(mariadb_engine: sa.Engine) -> None:
    """MariaDB undoes the whole transaction, and would commit what comes after it alone."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(mariadb_engine))
    both, told = threading.Barrier(2, timeout=60), []

    def host(first: str, second: str) -> None:
        with Session(mariadb_engine) as session:
            outbox.enqueue("k", first, transaction=session, idempotency_key=first)
            both.wait()
            try:
                outbox.enqueue("k", second, transaction=session, idempotency_key=second)
            except StorageError as error:
                assert error.retryable
                outbox.enqueue("k", "after", transaction=session)
                with pytest.raises(StorageError, match="nothing of this transaction was kept"):
                    session.commit()
                told.append(first)
            else:
                session.commit()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(host, "a", "b"), pool.submit(host, "b", "a")]:
            done.result(60)
    assert len(told) == 1
    assert sorted(item.payload for item in outbox.find()) == ["a", "b"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_asynchronous_host_is_told_too(
    postgresql_engine: sa.Engine, shop: sa.Table, driver: str
) -> None:
    """At the commit of its ``AsyncSession``, which can be used after it was rolled back."""
    outbox = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))

    async def host() -> None:
        engine = create_async_engine(postgresql_engine.url.set(drivername=f"postgresql+{driver}"))
        try:
            async with AsyncSession(engine) as session:
                await session.execute(shop.insert().values(id=1))
                with pytest.raises(StorageError, match="refuses") as caught:
                    await outbox.aenqueue("k", "refused", transaction=session)
                assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
                with pytest.raises(StorageError, match="nothing of this transaction was kept"):
                    await session.commit()
                await session.rollback()
                await session.execute(shop.insert().values(id=2))
                await session.commit()
        finally:
            await engine.dispose()

    asyncio.run(host())
    assert orders(postgresql_engine, shop) == [2]
