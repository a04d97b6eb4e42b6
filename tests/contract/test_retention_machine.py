"""Whatever waits is answered, and no key is forgotten that counts, however much is purged."""

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
from retention_machine import Machine


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("database", "number"), [("memory", examples(300, 5)), ("sqlite", examples(90, 2))]
)
def test_any_purge_between_any_two_steps_loses_nothing(
    database: str,
    number: int,
    request: pytest.FixtureRequest,
    emptied: Callable[[sa.Engine], sa.Engine],
) -> None:
    """Signals, events, timers, approvals, children, polls, deliveries, outputs: each once."""

    def open_storage(clock: FakeClock) -> Storage:
        if database == "memory":
            return MemoryStorage(clock)
        engine: sa.Engine = request.getfixturevalue(f"{database}_engine")
        return SqlAlchemyStorage(emptied(engine), clock=clock)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        type("Machine", (Machine,), {"open_storage": staticmethod(open_storage)}),
        settings=settings(
            max_examples=number, stateful_step_count=25, deadline=None,
            suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False,
        ),
    )  # fmt: skip
