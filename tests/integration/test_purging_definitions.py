"""Definitions that nothing is pinned to are deleted, and never under an execution that begins."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from suites.executions import executions_in
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import DEFINITION, EXECUTION
from automate_testing.clock import FakeClock
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.store.definitions import (
    find_definition,
    newest_definition,
    pinned_executions,
    purge_definitions,
)
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.execution import Event
from automate_sqlalchemy import SqlAlchemyStorage
from lock_waits import until_awaited

DAY = 86_400.0
ENGINES = ["sqlite_engine", "postgresql_engine", "mariadb_engine"]


def workflow(version: int, name: str = "w") -> Workflow:
    """One of many definitions."""
    steps = [{"id": "a", "action": "do.it", "input": {"v": version}}]
    return Workflow.from_dict({"name": name, "trigger": {"type": "manual"}, "steps": steps})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", *ENGINES])
def storage(request: pytest.FixtureRequest, clock: FakeClock) -> Storage:
    """Each database."""
    if request.param == "memory":
        return MemoryStorage(clock)
    return SqlAlchemyStorage(request.getfixturevalue(request.param), clock=clock)


@pytest.fixture(params=ENGINES[1:])
def shared(request: pytest.FixtureRequest, clock: FakeClock) -> Storage:
    """Each database in which several transactions write at once."""
    return SqlAlchemyStorage(request.getfixturevalue(request.param), clock=clock)


def executions(storage: Storage) -> ExecutionStore:
    return executions_in(storage, RowsOutboxStore(storage))


def start(rows: Rows, storage: Storage, version: int, number: int = 0) -> str:
    event = Event(id=f"01890000-0000-7000-8000-{number:012x}", name="e")
    return executions(storage).starts.start(rows, workflow(version), event)


def unused(storage: Storage, *versions: int) -> None:
    """Leave definitions without executions behind."""
    for version in versions:
        with storage.begin() as rows:
            start(rows, storage, version, version)
            rows.delete(EXECUTION, [Where("definition_id", "eq", workflow(version).hash())])


def stored(storage: Storage) -> set[str]:
    with storage.begin() as rows:
        return {row["id"] for row in rows.select(DEFINITION, columns=("id",))}


def test_old_definitions_without_executions_go(storage: Storage, clock: FakeClock) -> None:
    """Those that are kept, used or young stay."""
    unused(storage, 1, 2, 3)
    with storage.begin() as rows:
        start(rows, storage, 4, 4)
    clock.advance(2 * DAY)
    unused(storage, 5)
    purged = purge_definitions(storage, older_than_seconds=DAY, keep={workflow(3).hash()}, limit=1)
    assert purged == 1
    assert purge_definitions(storage, older_than_seconds=DAY, keep={workflow(3).hash()}) == 1
    assert purge_definitions(storage, older_than_seconds=DAY, keep={workflow(3).hash()}) == 0
    assert stored(storage) == {workflow(version).hash() for version in (3, 4, 5)}


def test_an_execution_that_begins_keeps_its_definition(shared: Storage, clock: FakeClock) -> None:
    """Though nobody can see the execution before its transaction commits."""
    unused(shared, 1)
    clock.advance(2 * DAY)
    with shared.begin() as rows:
        start(rows, shared, 1, 7)
        assert purge_definitions(shared, older_than_seconds=DAY) == 0
    assert stored(shared) == {workflow(1).hash()}
    assert purge_definitions(shared, older_than_seconds=DAY) == 0


def test_an_execution_that_begins_during_a_purge_brings_its_definition(
    shared: Storage, clock: FakeClock
) -> None:
    """It waits for the purge, finds the definition gone, and stores it again."""
    unused(shared, 1)
    clock.advance(2 * DAY)
    begun: list[Any] = []

    def begin() -> None:
        with shared.begin() as rows:
            begun.append(start(rows, shared, 1, 7))

    thread = threading.Thread(target=begin)
    with shared.begin() as rows:
        rows.keep_writers_out(DEFINITION)
        mine = [Where("id", "eq", workflow(1).hash())]
        assert rows.select(DEFINITION, mine, lock=True, skip_locked=True)
        thread.start()
        until_awaited(rows.native)
        rows.delete(DEFINITION, mine)
    thread.join(30)
    assert begun
    assert stored(shared) == {workflow(1).hash()}


def test_two_purges_at_once_hold_nothing_up(shared: Storage, clock: FakeClock) -> None:
    """The second leaves the rest to the first."""
    unused(shared, 1)
    clock.advance(2 * DAY)
    with shared.begin() as rows:
        rows.keep_writers_out(DEFINITION)
        rows.select(DEFINITION, [Where("id", "eq", workflow(1).hash())], lock=True)
        assert purge_definitions(shared, older_than_seconds=DAY) == 0
    assert purge_definitions(shared, older_than_seconds=DAY) == 1


def test_many_begin_while_others_purge(shared: Storage, clock: FakeClock) -> None:
    """Whatever the moment: no execution is left without its definition."""
    clock.advance(2 * DAY)
    stopping, errors = threading.Event(), list[BaseException]()

    def purge() -> None:
        try:
            while not stopping.is_set():
                purge_definitions(shared, older_than_seconds=0.0)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=purge) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(120):
            version = number % 3
            with shared.begin() as rows:
                start(rows, shared, version, number)
            missing = {workflow(version).hash()} - stored(shared)
            assert not missing, number
            with shared.begin() as rows:
                rows.delete(EXECUTION, [Where("definition_id", "eq", workflow(version).hash())])
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)
    assert not errors


def test_a_kernel_purges_them_with_the_executions(clock: FakeClock) -> None:
    """The definition of a workflow that it has stays, used or not."""
    kernel = Kernel(MemoryStorage(clock), discover=False)

    @kernel.action("do.it")
    def do_it(v: int) -> int:
        return v

    first, second = workflow(1), workflow(2)
    kernel.add_workflow(first)
    kernel.run("w")
    other = Kernel(kernel.storage, workflows=[second], discover=False)
    other.action("do.it")(do_it)
    other.run("w")
    assert stored(kernel.storage) == {first.hash(), second.hash()}
    clock.advance(2 * DAY)
    assert other.purge(older_than_seconds=DAY) >= 3
    assert stored(kernel.storage) == {second.hash()}


def test_definitions_are_found_and_counted(storage: Storage) -> None:
    """By the beginning of a hash, by the newest execution, and how many go on with one."""
    with storage.begin() as rows:
        start(rows, storage, 1, 1)
    with storage.begin() as rows:
        start(rows, storage, 1, 2)
    digest = workflow(1).hash()
    assert find_definition(storage, digest[:8]) == workflow(1) == find_definition(storage, digest)
    with pytest.raises(AutomateError, match="no stored definition"):
        find_definition(storage, "0123456789")
    with pytest.raises(AutomateError, match="too short"):
        find_definition(storage, digest[:3])
    assert newest_definition(storage, "w") == workflow(1)
    assert newest_definition(storage, "other") is None
    assert (pinned_executions(storage, workflow(1)), pinned_executions(storage, workflow(2))) == (
        2,
        0,
    )


def test_a_lock_that_is_held_is_no_failure_of_the_database(
    postgresql_engine: sa.Engine, clock: FakeClock
) -> None:
    """The transaction that could not have it ends, and the connection goes on."""
    storage = SqlAlchemyStorage(postgresql_engine, clock=clock)
    with storage.begin() as rows:
        rows.keep_writers_out(DEFINITION)
        with pytest.raises(AutomateError, match="lock timeout"), storage.begin() as others:
            others.keep_writers_out(DEFINITION)
    assert stored(storage) == set()


@pytest.mark.parametrize("engine_name", ENGINES)
def test_many_definitions_cost_one_look_at_the_executions(
    engine_name: str, request: pytest.FixtureRequest, clock: FakeClock
) -> None:
    """Those of a workflow may be millions, and a look for each definition took a worker minutes."""
    engine: sa.Engine = request.getfixturevalue(engine_name)
    storage = SqlAlchemyStorage(engine, clock=clock)
    unused(storage, *range(1, 21))
    with storage.begin() as rows:
        for version in range(21, 26):
            start(rows, storage, version, version)
    clock.advance(2 * DAY)
    looks = list[str]()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "automate_execution" in statement:
            looks.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        assert purge_definitions(storage, older_than_seconds=DAY, limit=15) == 15
        assert purge_definitions(storage, older_than_seconds=DAY, limit=15) == 5
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    # For each purge: at all of them, at those of late, and at those that go on.
    assert len(looks) == 6
    assert stored(storage) == {workflow(version).hash() for version in range(21, 26)}
