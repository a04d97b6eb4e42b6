"""A worker that stands still in the middle of a transaction, and what that has locked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_kernel.operations.context import current_call
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.storage import Rows
from automate_kernel.storage.rows import write
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.execution import ExecutionStatus
from automate_sqlalchemy import SqlAlchemyStorage

BOUND = "SHOW idle_in_transaction_session_timeout"


def bound_in(connection: Any) -> str:
    return str(connection.exec_driver_sql(BOUND).scalar())


def test_what_a_frozen_worker_has_locked_is_free_soon(
    postgresql_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends its transaction; once it wakes, it has written nothing, and tries again."""
    known = DIALECTS["postgresql"]
    quick = replace(known, bounds_idle=known.bounds_idle.replace("15s", "300ms"))
    monkeypatch.setitem(DIALECTS, "postgresql", quick)
    storage = SqlAlchemyStorage(postgresql_engine)
    item_id = RowsOutboxStore(storage).enqueue("k")
    its, frozen, wakes = [Where("id", "eq", item_id)], threading.Event(), threading.Event()

    def freeze(rows: Rows) -> None:
        rows.update(OUTBOX, its, {"priority": 1})
        frozen.set()
        assert wakes.wait(60)
        rows.update(OUTBOX, its, {"priority": 2})

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write, storage, None, freeze)
        assert frozen.wait(60)
        with storage.begin() as rows:  # waits until the lock is gone
            rows.update(OUTBOX, its, {"priority": 3})
        wakes.set()
        with pytest.raises(StorageError) as lost:
            late.result()
    assert lost.value.retryable
    with storage.begin() as rows:
        assert [row["priority"] for row in rows.select(OUTBOX, its)] == [3]


def test_an_applications_code_takes_its_time(postgresql_engine: sa.Engine) -> None:
    """Only what the kernel alone does in a transaction is bounded, and nothing after it."""
    storage = SqlAlchemyStorage(postgresql_engine)
    kernel = Kernel(storage, discover=False, secrets={})
    seen: list[str] = []

    @kernel.action("look", transactional=True)
    def look() -> None:
        call = current_call()
        assert call is not None
        seen.append(bound_in(call.transaction))

    @kernel.handler("k", transactional=True)
    def handle(item: object, connection: sa.Connection) -> None:
        seen.append(bound_in(connection))

    with storage.begin() as rows:
        assert bound_in(rows.native) == "15s"
    steps = [{"id": "one", "action": "look"}]
    kernel.add_workflow({"name": "looks", "trigger": {"type": "manual"}, "steps": steps})
    assert kernel.run("looks").status is ExecutionStatus.COMPLETED
    kernel.invoke("look")
    kernel.outbox.enqueue("k")
    kernel.run_until_idle()
    with postgresql_engine.begin() as connection:
        kernel.emit("asked", transaction=connection)
        seen.append(bound_in(connection))
    assert seen == ["0"] * 4


def test_a_bound_of_the_databases_own_stays(postgresql_engine: sa.Engine) -> None:
    """Who has set one knows better."""
    options = {"options": "-c idle_in_transaction_session_timeout=60s"}
    engine = sa.create_engine(postgresql_engine.url, connect_args=options)
    storage = SqlAlchemyStorage(engine)
    with storage.begin() as rows:
        assert bound_in(rows.native) == "1min"
    with RowsOutboxStore(storage).transaction() as connection:
        assert bound_in(connection) == "1min"
    engine.dispose()
