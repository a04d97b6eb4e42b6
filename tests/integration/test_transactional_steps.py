"""Transactional steps: what they write is there exactly if they have completed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import until
from workers import working
import sqlalchemy as sa
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_kernel.plugins.connectors import Connector, action
from automate_kernel.base.errors import PluginError, StorageError
from automate_kernel.operations.context import Call, current_call
from automate_kernel.outbox import Backoff, ItemStatus, RowsOutboxStore
from automate_kernel.outbox.item import new_id
from automate_kernel.storage import MemoryStorage, memory
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.drive import transactional
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from automate_sqlalchemy import SqlAlchemyStorage
from sqlalchemy.orm import Session


class Failing:
    """A storage whose commit fails where ``here.failure`` is set: before it is done, or after."""

    def __init__(self, storage: SqlAlchemyStorage) -> None:
        self._storage = storage
        self.here = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextlib.contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True, **more: Any) -> Iterator[Any]:
        with self._storage.begin(transaction, atomic=atomic, **more) as rows:
            yield rows
            failure = self.here.__dict__.pop("failure", "")
            if failure == "before":
                raise StorageError("the database is away")
        if failure == "after":
            raise StorageError("the reply was lost")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    engine: sa.Engine = request.getfixturevalue(f"{request.param}_engine")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS written")
        connection.exec_driver_sql("CREATE TABLE written (word VARCHAR(50))")
    yield engine
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE written")


@pytest.fixture
def storage(engine: sa.Engine) -> Failing:
    return Failing(SqlAlchemyStorage(engine))


@pytest.fixture
def kernel(storage: Failing) -> Iterator[Kernel]:
    with Kernel(storage, discover=False, secrets={}) as kernel:
        yield kernel


def write(word: str) -> None:
    call = current_call()
    assert call is not None
    call.transaction.execute(sa.text("INSERT INTO written VALUES (:word)"), {"word": word})


def written(engine: sa.Engine) -> list[str]:
    with engine.begin() as connection:
        return sorted(connection.execute(sa.text("SELECT word FROM written")).scalars())


def define(kernel: Kernel, *steps: dict[str, Any], **more: Any) -> None:
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps, **more})


def see(kernel: Kernel, execution_id: str) -> Execution:
    found = kernel.executions.get(execution_id)
    assert found is not None
    return found


def run(kernel: Kernel, how: str) -> Execution:
    """Run the workflow inline, or by a worker."""
    if how == "inline":
        return kernel.run("w")
    with working(kernel):
        one = kernel.start("w")
        until(lambda: see(kernel, one).status.finished)
    return see(kernel, one)


HOW = pytest.mark.parametrize("how", ["inline", "worker"])


# -- the rule --------------------------------------------------------------------------------------


@HOW
def test_the_writes_and_the_checkpoint_are_one(kernel: Kernel, engine: sa.Engine, how: str) -> None:
    """While the action runs neither is there; then both are, with the output."""
    seen = []

    @kernel.action("book", transactional=True)
    def book(word: str) -> dict[str, str]:
        write(word)
        return {"booked": word}

    @kernel.action("look")
    def look() -> list[str]:
        seen.append(written(engine))
        return seen[-1]

    define(
        kernel,
        {"id": "a", "action": "book", "input": {"word": "one"}},
        {"id": "b", "action": "look"},
        {"id": "c", "action": "book", "input": {"word": "{{ steps.a.output.booked }}!"}},
    )
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.COMPLETED
    assert [run.output for run in execution.steps] == [
        {"booked": "one"}, ["one"], {"booked": "one!"},
    ]  # fmt: skip
    assert written(engine) == ["one", "one!"]


@HOW
def test_a_database_that_goes_away_is_no_failure_of_the_step(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    """Its connection is lost while the action runs: the action is called again, and writes once."""
    kill = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
    own = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
    vendor = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
    if vendor == "sqlite":
        pytest.skip("SQLite has no server")
    calls = []

    @kernel.action("book", transactional=True)
    def book() -> None:
        call = current_call()
        assert call is not None
        calls.append(call.attempt)
        write("one")
        if len(calls) == 1:
            number = call.transaction.exec_driver_sql(own[vendor]).scalar()
            with engine.connect() as other:
                other.exec_driver_sql(kill[vendor].format(number))
            write("two")

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert (written(engine), len(calls)) == (["one"], 2)


@HOW
def test_a_statement_that_fails_is_a_failure_of_the_step(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    """The database is there, and would refuse it again."""
    calls = []

    @kernel.action("book", transactional=True)
    def book() -> None:
        calls.append(1)
        call = current_call()
        assert call is not None
        call.transaction.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    assert (execution.status, len(calls)) == (ExecutionStatus.FAILED, 1)
    assert "nowhere" in (execution.error or "")


@HOW
def test_a_failed_attempt_leaves_nothing(kernel: Kernel, engine: sa.Engine, how: str) -> None:
    """Its writes are rolled back, the failure is kept, and the retry writes once."""
    attempts = []

    @kernel.action("book", transactional=True)
    def book() -> None:
        attempts.append(1)
        write(f"attempt {len(attempts)}")
        if len(attempts) < 3:
            raise ConnectionError("away")

    define(kernel, {"id": "a", "action": "book", "retry": {"attempts": 3, "delay": "0s"}})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.COMPLETED
    assert written(engine) == ["attempt 3"]
    assert execution.steps[0].attempts == 3
    assert len(kernel.executions.failed_attempts(execution.id)) == 2


@HOW
def test_an_output_that_cannot_be_stored_leaves_nothing(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    @kernel.action("book", transactional=True)
    def book() -> str:
        write("too much")
        return "x" * 3_000_000

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.FAILED
    assert written(engine) == []


@HOW
def test_a_step_that_takes_too_long_leaves_nothing(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    """It is not left behind with its transaction: it ends, and is rolled back."""

    @kernel.action("book", transactional=True)
    def book() -> None:
        write("late")
        threading.Event().wait(0.1)

    define(kernel, {"id": "a", "action": "book", "timeout": "0.05s"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.FAILED
    assert execution.steps[0].error_code == "DEADLINE_EXCEEDED"
    assert written(engine) == []


@HOW
def test_a_broken_transaction_is_a_failed_step(kernel: Kernel, engine: sa.Engine, how: str) -> None:
    """An action that swallows its statement's error can't commit the rest."""

    @kernel.action("book", transactional=True)
    def book(call: Call) -> None:
        write("before")
        with contextlib.suppress(sa.exc.DBAPIError):
            call.transaction.exec_driver_sql("SELECT * FROM no_such_table")

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    if engine.dialect.name == "postgresql":
        assert execution.status is ExecutionStatus.FAILED
        assert written(engine) == []
    else:  # nothing of the transaction is lost by a statement that fails
        assert execution.status is ExecutionStatus.COMPLETED
        assert written(engine) == ["before"]


@HOW
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_action_that_ends_its_transaction_is_called_once(
    kernel: Kernel, engine: sa.Engine, how: str, end: str
) -> None:
    """It was called ten times, and what it had committed was there ten times."""

    @kernel.action("a.ends", transactional=True)
    def ends() -> None:
        write("here")
        call = current_call()
        assert call is not None
        getattr(call.transaction, end)()

    define(kernel, {"id": "one", "action": "a.ends", "retry": {"attempts": 3, "delay": 0}})
    failed = run(kernel, how)
    assert (failed.status, failed.error_code) == ("FAILED", "FAILED_PRECONDITION")
    assert "committed or rolled back inside the block that began it" in str(failed.error)
    assert written(engine) == ["here"] * (end == "commit")
    with pytest.raises(AutomateError, match="the transaction is over"):
        kernel.invoke("a.ends", {})


def test_a_handler_that_ends_its_transaction_is_called_once(
    kernel: Kernel, engine: sa.Engine
) -> None:
    """Its item fails at once, since another attempt would write again."""

    @kernel.handler("note", transactional=True)
    def note(item: Any, transaction: Any) -> None:
        transaction.execute(sa.text("INSERT INTO written VALUES ('here')"))
        transaction.commit()

    one = kernel.outbox.enqueue("note")
    kernel.run_until_idle()
    found = kernel.outbox.get(one)
    assert found is not None
    assert (found.status, found.last_error_code) == (ItemStatus.FAILED, "FAILED_PRECONDITION")
    assert written(engine) == ["here"]


def test_elements_and_branches_write_once_each(kernel: Kernel, engine: sa.Engine) -> None:
    """Many transactions of one execution at once, beside plain and async steps."""

    @kernel.action("book", transactional=True)
    def book(word: str) -> str:
        write(word)
        return word

    @kernel.action("plain")
    def plain() -> None:
        threading.Event().wait(0.02)

    @kernel.action("loop")
    async def loop() -> None:
        await asyncio.sleep(0.02)

    define(
        kernel,
        {
            "id": "each", "action": "book", "for_each": [f"e{n:02}" for n in range(30)],
            "concurrency": 5, "input": {"word": "{{ item }}"}, "needs": [],
        },
        {"id": "plain", "action": "plain", "needs": []},
        {"id": "loop", "action": "loop", "needs": []},
        {"id": "if", "action": "loop", "needs": [], "if": "{{ event.payload.n == 1 }}"},
        {
            "id": "last", "action": "book", "needs": ["each", "plain", "loop"],
            "input": {"word": "{{ steps.each.output | length }} in all"},
        },
    )  # fmt: skip
    with working(kernel, slots=6):
        started = [kernel.start("w", {"n": n}) for n in range(3)]
        until(lambda: all(see(kernel, one).status.finished for one in started))
    assert [see(kernel, one).status.value for one in started] == ["COMPLETED"] * 3
    assert written(engine) == sorted([f"e{n:02}" for n in range(30)] * 3 + ["30 in all"] * 3)
    assert see(kernel, started[0]).step("each", 7).output == "e07"  # type: ignore[union-attr]


# -- who may not write -----------------------------------------------------------------------------


@HOW
def test_who_lost_the_execution_writes_nothing(kernel: Kernel, engine: sa.Engine, how: str) -> None:
    """The fence is in the transaction: a worker whose lease was taken over rolls back."""
    if engine.dialect.name == "sqlite":
        pytest.skip("its transaction lets nobody else write")
    calls = []

    @kernel.action("book", transactional=True)
    def book(call: Call) -> None:
        calls.append(1)
        write(f"call {len(calls)}")
        if len(calls) == 1:
            execution = see(kernel, str(call.execution_id))
            with kernel.storage.begin() as rows:  # as another worker's claim does
                its = [Where("id", "eq", execution.item_id)]
                rows.update(OUTBOX, its, {"lease_token": new_id()})

    define(kernel, {"id": "a", "action": "book"})
    if how == "inline":
        one = kernel.start("w")
        kernel.run_until_idle()
    else:
        with working(kernel) as worker:
            one = kernel.start("w")
            until(lambda: calls)
            until(lambda: worker.in_flight == 0)
    assert written(engine) == []
    assert all(run.status is StepStatus.RUNNING for run in see(kernel, one).steps)
    assert not see(kernel, one).status.finished
    item = kernel.outbox.get(see(kernel, one).item_id or "")
    assert item is not None
    assert item.status is ItemStatus.RUNNING  # the other's


@HOW
def test_what_is_cancelled_while_it_runs_writes_nothing(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("its transaction lets nobody else write")

    @kernel.action("book", transactional=True)
    def book(call: Call) -> None:
        write("cancelled")
        assert kernel.executions.cancel(str(call.execution_id))

    define(kernel, {"id": "a", "action": "book"}, {"id": "b", "action": "book"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.CANCELLED
    assert written(engine) == []
    until(lambda: not kernel.outbox.running())
    item = kernel.outbox.get(execution.item_id or "")
    assert item is not None
    assert item.status in {ItemStatus.CANCELLED, ItemStatus.COMPLETED}


@HOW
def test_a_step_that_ends_its_own_execution_fails(
    kernel: Kernel, engine: sa.Engine, how: str
) -> None:
    """In its own transaction, here by a newer start of its lane: else it was called for ever."""

    @kernel.action("restart", transactional=True)
    def restart(call: Call) -> None:
        write("restarted")
        kernel.start("w", {"again": True}, transaction=call.transaction)

    define(
        kernel,
        {"id": "a", "action": "restart"},
        concurrency={"key": "{{ event.name }}", "limit": 1, "when_full": "cancel_older"},
    )
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error_code == "FAILED_PRECONDITION"
    assert "ended its own execution" in str(execution.error)
    assert "a step that isn't transactional" in str(execution.error)
    assert written(engine) == []
    assert [each.id for each in kernel.executions.find()] == [execution.id]


def test_who_passes_no_transaction_on_sqlite_is_told_to(sqlite_engine: sa.Engine) -> None:
    """The lock that it waits for is the step's own, and nobody else's."""

    @sa.event.listens_for(sqlite_engine, "connect")
    def hurried(connection: Any, _: object) -> None:
        connection.execute("PRAGMA busy_timeout = 10")

    kernel = Kernel(SqlAlchemyStorage(sqlite_engine), discover=False, secrets={})

    @kernel.action("note", transactional=True)
    def note(call: Call) -> None:
        call.transaction.exec_driver_sql("CREATE TABLE mine (word TEXT)")
        kernel.emit("noted")

    define(kernel, {"id": "a", "action": "note"})
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    assert "pass it on (transaction=...)" in str(execution.error)


# -- a database that fails -------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_fails_is_made_up_for(
    kernel: Kernel, storage: Failing, engine: sa.Engine, how: str, when: str
) -> None:
    """Rolled back, the call is made again; of a lost reply it is known that it was committed."""
    calls = []

    @kernel.action("book", transactional=True)
    def book() -> None:
        calls.append(1)
        write("once")
        if len(calls) == 1:
            storage.here.failure = when

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.COMPLETED
    assert written(engine) == ["once"]
    assert len(calls) == (2 if when == "before" else 1)


@HOW
def test_a_database_that_fails_for_long_is_no_failure_of_the_step(
    storage: Failing, engine: sa.Engine, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The execution goes back, and its one attempt is made later: nothing was written."""
    monkeypatch.setattr(transactional, "SAVE_SECONDS", 0.5)
    outbox = RowsOutboxStore(storage, lease_seconds=1.0, backoff=Backoff(0.01, 0.01))
    kernel = Kernel(storage, outbox=outbox, discover=False, secrets={})
    calls: list[float] = []

    @kernel.action("book", transactional=True)
    def book() -> None:
        calls.append(time.monotonic())
        write("once")
        # Counted from the first call, and in calls: on a busy machine it is a while until then.
        if len(calls) < 3 or calls[-1] < calls[0] + 1.5:
            storage.here.failure = "before"

    define(kernel, {"id": "a", "action": "book"})
    execution = run(kernel, how)
    assert execution.status is ExecutionStatus.COMPLETED
    assert written(engine) == ["once"]
    assert len(calls) > 2


# -- other ways to call it -------------------------------------------------------------------------


def test_a_call_by_hand_has_a_transaction_of_its_own(kernel: Kernel, engine: sa.Engine) -> None:
    @kernel.action("book", transactional=True)
    def book(word: str) -> str:
        write(word)
        if word == "bad":
            raise AutomateError(ErrorCodes.NOT_FOUND, "no")
        return word

    assert kernel.invoke("book", {"word": "good"}) == "good"
    assert asyncio.run(kernel.ainvoke("book", {"word": "fine"})) == "fine"
    with pytest.raises(AutomateError, match="no"):
        kernel.invoke("book", {"word": "bad"})
    assert written(engine) == ["fine", "good"]


def test_a_connectors_action_and_a_session(kernel: Kernel, engine: sa.Engine) -> None:
    """The same for connectors; an ORM session works on the connection."""

    class Books(Connector):
        key = "books"

        @action(transactional=True)
        def add(self, word: str, call: Call) -> None:
            with Session(bind=call.transaction) as session:
                session.execute(sa.text("INSERT INTO written VALUES (:word)"), {"word": word})
                session.flush()

    kernel.register(Books)
    define(kernel, {"id": "a", "action": "books.add", "input": {"word": "orm"}})
    assert kernel.run("w").status is ExecutionStatus.COMPLETED
    assert written(engine) == ["orm"]


def test_an_async_def_can_not_be_transactional() -> None:
    """It is refused where it is declared, or at the call where only that shows it."""
    kernel = Kernel(discover=False, secrets={})
    with pytest.raises(PluginError, match="async def"):

        @kernel.action("book", transactional=True)
        async def book() -> None:
            pass

    async def later() -> None:
        pass

    kernel.action("sly", transactional=True)(lambda: later())
    define(kernel, {"id": "a", "action": "sly"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no coroutine is left over
        execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    assert "asynchronous" in str(execution.error)


def test_in_memory_too() -> None:
    """There the transaction is rows of our own tables, as transactional handlers have it."""
    kernel = Kernel(MemoryStorage(), discover=False, secrets={})
    calls = []

    @kernel.action("note", transactional=True)
    def note(call: Call) -> None:
        calls.append(1)
        kernel.emit("noted", transaction=call.transaction)
        if len(calls) == 1:
            raise ConnectionError

    define(kernel, {"id": "a", "action": "note", "retry": {"attempts": 2, "delay": "0s"}})
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.steps[0].status is StepStatus.COMPLETED
    with kernel.storage.begin() as rows:
        assert len(rows.select(OUTBOX, [Where("kind", "eq", "automate.event")])) == 1


def test_a_step_in_memory_that_waits_for_a_call_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with the remedy, as on SQLite: it stood still for ever."""
    monkeypatch.setattr(memory, "_PATIENCE_SECONDS", 0.1)
    kernel = Kernel(discover=False, secrets={})

    @kernel.action("tell")
    async def tell() -> None:
        await kernel.aemit("booked")

    kernel.action("book", transactional=True)(lambda: kernel.invoke("tell"))
    steps = [{"id": "book", "action": "book"}]
    kernel.add_workflow({"name": "books", "trigger": {"type": "manual"}, "steps": steps})
    done = kernel.run("books")
    assert done.error_code == "UNAVAILABLE" and "pass it on (transaction=...)" in str(done.error)
    kernel.emit("booked")
    assert kernel.outbox.stats().total("PENDING") == 1
