"""Random workflows under random crashes, answers and repairs come to what a plain model says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from automate_kernel.storage import MemoryStorage, Storage
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from example_counts import examples
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from workflow_machine import Machine


def run_machine(
    open_storage: Callable[[FakeClock], Storage], number: int, *, by_worker: bool = False
) -> None:
    """Run the machine on storages, for so many examples."""
    given = {"open_storage": staticmethod(open_storage), "by_worker": by_worker}
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("Machine", (Machine,), given),
        settings=settings(
            max_examples=number, stateful_step_count=15, deadline=None,
            suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False,
        ),
    )  # fmt: skip


@pytest.mark.timeout(1800)
def test_any_workflow_comes_to_its_end() -> None:
    """Its steps, their order and its end are the model's, and no finished step is called again."""
    run_machine(MemoryStorage, examples(600, 10))


@pytest.mark.timeout(1800)
def test_any_workflow_comes_to_its_end_in_an_engine() -> None:
    """With the threads, the event loop and the grouped checkpoints of a worker."""
    run_machine(MemoryStorage, examples(160, 3), by_worker=True)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("by_worker", [False, True])
@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_any_workflow_comes_to_its_end_in_a_database(
    database: str,
    by_worker: bool,
    request: pytest.FixtureRequest,
    emptied: Callable[[sa.Engine], sa.Engine],
) -> None:
    """Where transactions and statements are the database's."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")

    def open_storage(clock: FakeClock) -> Storage:
        return SqlAlchemyStorage(emptied(engine), clock=clock)

    run_machine(open_storage, examples(80, 2), by_worker=by_worker)
