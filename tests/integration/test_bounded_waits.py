"""What a person asks for doesn't stand still behind a transaction that was left open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.outbox import NewItem
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.tables import EXECUTION, OUTBOX, PAUSE, SCHEDULE, STEP, WAIT
from automate_sqlalchemy import SqlAlchemyStorage, metadata

BOUND = "-c lock_timeout=300ms"
WAITS = {
    "name": "waits",
    "trigger": {"type": "manual"},
    "steps": [{"id": "ask", "approval": {"title": "Go on?", "by": ["ada"]}}],
}
FAILS = {
    "name": "fails",
    "trigger": [{"type": "manual"}, {"type": "schedule", "cron": "0 0 1 1 *"}],
    "steps": [{"id": "go", "action": "acts.fail"}],
}


@dataclass(frozen=True)
class Scene:
    """A kernel, with what commands change."""

    kernel: Kernel
    waiting: str
    failed: str
    pending: str
    dead: str


@pytest.fixture
def scene(postgresql_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Its transactions wait for no lock for half a minute, which is a fifth of a second here."""
    dialect = DIALECTS["postgresql"]
    short = dialect.bounds_waits.replace("30s", "200ms")
    assert short != dialect.bounds_waits
    monkeypatch.setitem(DIALECTS, "postgresql", replace(dialect, bounds_waits=short))
    kernel = Kernel(SqlAlchemyStorage(postgresql_engine), discover=False, secrets={})

    @kernel.action("acts.fail")
    def fail() -> None:
        raise ValueError("no")

    for workflow in (WAITS, FAILS):
        kernel.add_workflow(workflow)
    waiting, failed = (kernel.start(each["name"]) for each in (WAITS, FAILS))
    kernel.run_until_idle()
    pending, dead = kernel.outbox.enqueue_many([NewItem("k", delay=600), NewItem("k", delay=600)])
    kernel.outbox.cancel([dead])
    kernel.outbox.pause("k")
    yield Scene(kernel, waiting, failed, pending, dead)
    kernel.close()


COMMANDS: dict[str, Callable[[Scene], Any]] = {
    "cancel": lambda scene: scene.kernel.executions.cancel(scene.waiting),
    "pause": lambda scene: scene.kernel.executions.pause(scene.waiting),
    "resume": lambda scene: scene.kernel.executions.resume(scene.failed),
    "resume many": lambda scene: scene.kernel.executions.resume_matching(workflow="fails"),
    "retry a step": lambda scene: scene.kernel.executions.retry_step(scene.failed, "go"),
    "decide": lambda scene: scene.kernel.approvals.approve(scene.waiting, "ask", by="ada"),
    "pause a schedule": lambda scene: scene.kernel.schedules.pause("fails"),
    "resume a kind": lambda scene: scene.kernel.outbox.resume("k"),
    "cancel an item": lambda scene: scene.kernel.outbox.cancel([scene.pending]),
    "reschedule an item": lambda scene: scene.kernel.outbox.reschedule([scene.pending], delay=9),
    "requeue an item": lambda scene: scene.kernel.outbox.requeue([scene.dead]),
    "discard an item": lambda scene: scene.kernel.outbox.discard([scene.dead]),
}


def _lock_all(connection: sa.Connection) -> None:
    for name in (EXECUTION, STEP, WAIT, OUTBOX, PAUSE, SCHEDULE):
        connection.execute(sa.select(metadata.tables[name]).with_for_update())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_waits_for_another_transaction_within_a_bound(
    scene: Scene, postgresql_engine: sa.Engine, command: str
) -> None:
    """It fails with a remedy then, and works as soon as that transaction has ended."""
    with postgresql_engine.connect() as forgotten:
        _lock_all(forgotten)
        with pytest.raises(LockedError) as caught:
            COMMANDS[command](scene)
        assert "pg_stat_activity" in (caught.value.hint or "")
        forgotten.rollback()
    COMMANDS[command](scene)


def test_a_bound_of_the_connection_stays(postgresql_engine: sa.Engine) -> None:
    """An application that wants to hear of locks sooner does."""
    impatient = sa.create_engine(postgresql_engine.url, connect_args={"options": BOUND})
    kernel = Kernel(SqlAlchemyStorage(impatient), discover=False, secrets={})
    item_id = kernel.outbox.enqueue("k", delay=600)
    with postgresql_engine.connect() as forgotten:
        _lock_all(forgotten)
        with pytest.raises(LockedError):
            kernel.outbox.cancel([item_id])
    kernel.close()
    impatient.dispose()
