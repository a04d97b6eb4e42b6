"""Executions end with their items, whoever ends those, without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from suites.executions import executions_in
from automate_kernel import Kernel
from automate_kernel.outbox import OutboxItem, RowsOutboxStore
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows import Workflow
from automate_sqlalchemy import SqlAlchemyStorage
from automate_sqlalchemy.outbox import (
    OptimisticClaimOutboxStore,
    OutboxReaper,
    SkipLockedClaimOutboxStore,
)

SHIP = {
    "name": "ship",
    "trigger": {"type": "event", "event": "order.created"},
    "steps": [{"id": "wait", "action": "shop.wait"}],
}


@pytest.fixture
def engine(sqlite_engine: sa.Engine) -> sa.Engine:
    SqlAlchemyStorage(sqlite_engine).create_tables()
    return sqlite_engine


@pytest.fixture
def begin(engine: sa.Engine) -> Callable[[], tuple[str, str]]:
    """Begin an execution; returns its id and that of its wake-up."""
    with Kernel(SqlAlchemyStorage(engine), discover=False) as kernel:
        workflow = Workflow.from_dict(SHIP)

    def started() -> tuple[str, str]:
        from automate_kernel.workflows import Event

        store = kernel.executions
        event = Event.from_json({"id": _new_id(), "name": "order.created", "payload": {}})
        with store.storage.begin() as rows:
            execution_id = store.starts.start(rows, workflow, event)
        execution = store.get(execution_id)
        assert execution is not None and execution.item_id is not None
        return execution_id, execution.item_id

    return started


def _new_id() -> str:
    from automate_kernel.outbox.item import new_id

    return new_id()


def status_of(engine: sa.Engine, execution_id: str) -> str:
    """Where the execution stands."""
    storage = SqlAlchemyStorage(engine)
    execution = executions_in(storage, RowsOutboxStore(storage)).get(execution_id)
    assert execution is not None
    return execution.status.value


@pytest.mark.parametrize("store_class", [SkipLockedClaimOutboxStore, OptimisticClaimOutboxStore])
def test_a_store_by_itself_ends_executions(
    engine: sa.Engine, begin: Callable[[], tuple[str, str]], store_class: Any
) -> None:
    """What is cancelled or fails ends its execution, and what waits again resumes it."""
    store = store_class(engine)
    execution_id, item_id = begin()
    assert store.cancel([item_id]) == 1
    assert status_of(engine, execution_id) == "CANCELLED"
    assert store.requeue([item_id]) == 1
    assert status_of(engine, execution_id) == "PENDING"
    (item,) = store.claim_batch("worker")
    store.mark_failed(item.id, "worker", "BAD")
    assert status_of(engine, execution_id) == "FAILED"


def test_a_reaper_by_itself_ends_executions(
    engine: sa.Engine, begin: Callable[[], tuple[str, str]]
) -> None:
    """What was asked to stop, and whose worker died, ends its execution."""
    store = SkipLockedClaimOutboxStore(engine)
    execution_id, item_id = begin()
    store.claim_batch("worker")
    assert store.cancel([item_id]) == 1
    with store.storage.begin() as rows:
        long_ago = rows.now() - timedelta(days=1)
        rows.update(OUTBOX, [Where("id", "eq", item_id)], {"lease_expires_at": long_ago})
    OutboxReaper(engine).reap_stale_items()
    assert status_of(engine, execution_id) == "CANCELLED"


class Heard:
    """A listener that writes down what it hears, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.ended_ids: list[str] = []
        self.refused: set[str] = set()

    def ended(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        self.ended_ids += [f"{item.id} {item.status.value}" for item in items]

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        return item.id not in self.refused


def test_several_listeners(engine: sa.Engine) -> None:
    """Each hears of each end; one that refuses keeps an item as it is."""
    heard = Heard()
    store = SkipLockedClaimOutboxStore(engine, listeners=[heard])
    first, second = store.enqueue("a"), store.enqueue("a")
    store.cancel([first, second])
    assert sorted(heard.ended_ids) == sorted([f"{first} CANCELLED", f"{second} CANCELLED"])
    heard.refused.add(first)
    assert store.requeue([first, second]) == 1
    assert [item.id for item in store.claim_batch("worker")] == [second]
    store.listen(Heard())
    assert [type(each).__name__ for each in store.listeners] == ["Heard", "ExecutionListener"]
