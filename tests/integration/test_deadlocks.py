"""A call of the host's that loses a deadlock is made again, if its transaction was ours alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from workers import fire_due
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_kernel.outbox.item import new_id, NewItem, Outcome
from automate_kernel.outbox.rows_store import RowsOutboxStore
from automate_kernel.storage.errors import DeadlockError
from automate_kernel.storage.tables import DEBOUNCE, ORDERING_LOCK, OUTBOX, PAUSE, SCHEDULE
from automate_sqlalchemy import SqlAlchemyStorage, metadata
from lock_waits import until_awaited
from waiting import PATIENCE
from defined import define


@pytest.fixture
def kernel(mariadb_engine: sa.Engine) -> Iterator[Kernel]:
    with Kernel(SqlAlchemyStorage(mariadb_engine), discover=False, secrets={}) as kernel:
        kernel.action("do.it")(lambda: None)
        define(kernel, {"id": "a", "action": "do.it"}, debounce={"for": "1h"})
        yield kernel


class Rival:
    """A transaction that locks what the next start locks, in the other order, and weighs more."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect()
        self._outbox, self._gates = metadata.tables[OUTBOX], metadata.tables[DEBOUNCE]

    def lock_item(self) -> None:
        self._connection.execute(sa.select(self._outbox.c.id).with_for_update())
        # The database undoes the one of the two that has changed less.
        for n in range(50):
            self._connection.execute(self._outbox.update().values(last_error=f"{n}"))

    def lock_gate(self) -> None:
        """Lock the gate that the start has, once that waits for the item."""
        until_awaited(self._connection)
        self._connection.execute(sa.select(self._gates.c.id).with_for_update())

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()


def test_a_start_that_loses_a_deadlock_begins_again(
    kernel: Kernel, mariadb_engine: sa.Engine
) -> None:
    """Its caller sees nothing of it."""
    first = kernel.start("w", {"n": 1})
    started = list[str]()
    thread = threading.Thread(target=lambda: started.append(kernel.start("w", {"n": 2})))
    with Rival(mariadb_engine) as rival:
        rival.lock_item()
        thread.start()
        rival.lock_gate()
    thread.join(PATIENCE)
    assert started == [first]
    (execution,) = kernel.executions.find()
    assert execution.event.payload == {"n": 2}


def test_the_hosts_own_transaction_is_not_repeated(
    kernel: Kernel, mariadb_engine: sa.Engine
) -> None:
    """All of it is undone, and only the host knows what it had done: it gets the error."""
    kernel.start("w", {"n": 1})
    failures = list[StorageError]()

    def start() -> None:
        with mariadb_engine.connect() as connection, connection.begin():
            try:
                kernel.start("w", {"n": 2}, transaction=connection)
            except StorageError as error:
                failures.append(error)
                raise

    thread = threading.Thread(target=lambda: pytest.raises(StorageError, start))
    with Rival(mariadb_engine) as rival:
        rival.lock_item()
        thread.start()
        rival.lock_gate()
    thread.join(PATIENCE)
    assert [error.retryable for error in failures] == [True]
    (execution,) = kernel.executions.find()
    assert execution.event.payload == {"n": 1}


def test_asynchronous_work_that_loses_a_deadlock_begins_again(sqlite_engine: sa.Engine) -> None:
    """As the synchronous does, with nothing left of the first time."""
    storage, calls = SqlAlchemyStorage(sqlite_engine), list[int]()

    def work(rows: Any) -> None:
        calls.append(len(calls))
        rows.insert(SCHEDULE, [{"id": f"s{len(calls)}", "last_fired_at": rows.now()}])
        if len(calls) < 3:
            raise DeadlockError("the database has undone it", retryable=True)

    asyncio.run(storage.arun_in(None, work))
    with storage.begin() as rows:
        assert [row["id"] for row in rows.select(SCHEDULE, columns=("id",))] == ["s3"]


@pytest.mark.parametrize(
    "first",
    [{"ordering_key": "b"}, {"concurrency_key": "b", "concurrency_limit": 1}],
    ids=["ordering", "concurrency"],
)
def test_a_claim_with_keys_waits_for_no_earlier_key(
    postgresql_engine: sa.Engine, first: dict[str, Any]
) -> None:
    """Else two claims could each wait for the key that the other one has."""
    impatient = sa.create_engine(
        postgresql_engine.url, connect_args={"options": "-c lock_timeout=1s"}
    )
    store = RowsOutboxStore(SqlAlchemyStorage(impatient))
    # The second has to wait for the first, and the claim takes the third in its place.
    ids = store.enqueue_many(
        [NewItem("k", **first), NewItem("k", **first), NewItem("k", ordering_key="a")]
    )
    with postgresql_engine.connect() as rival:
        # Another claim, which is about to end one way or the other.
        lane = {"ordering_key": "a", "item_id": new_id(), "lease_token": new_id()}
        rival.execute(metadata.tables[ORDERING_LOCK].insert().values(lane))
        claimed = store.claim_batch("w", 2)
        rival.rollback()
    claimed += store.claim_batch("w", 2)
    impatient.dispose()
    assert [item.id for item in claimed] == [ids[0], ids[2]]


@pytest.mark.parametrize("table", [PAUSE, ORDERING_LOCK])
def test_a_claim_waits_for_a_pause_before_it_locks_what_others_wait_for(
    postgresql_engine: sa.Engine, table: str
) -> None:
    """Else the other claim, which holds that pause, could wait for what this one has."""
    engine = postgresql_engine
    store = RowsOutboxStore(SqlAlchemyStorage(engine))
    store.pause("a")
    # What is claimed first: it waits for its pause as well, or for the one before it in its line.
    if table == PAUSE:
        store.pause("b")
        store.enqueue("b")
    else:
        store.enqueue("b", ordering_key="b", delay=60)
        store.enqueue("b", ordering_key="b")
    store.enqueue("a")
    pauses, lanes = metadata.tables[PAUSE], metadata.tables[ORDERING_LOCK]
    claimed = list[Any]()
    claim = threading.Thread(target=lambda: claimed.append(store.claim_batch("w", 1)))
    with engine.connect() as rival:
        rival.execute(sa.select(pauses).where(pauses.c.kind == "a").with_for_update())
        claim.start()
        until_awaited(rival)
        # Less than that after which the database looks for a deadlock.
        rival.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))
        if table == PAUSE:
            rival.execute(sa.select(pauses).where(pauses.c.kind == "b").with_for_update())
        else:
            lane = {"ordering_key": "b", "item_id": new_id(), "lease_token": new_id()}
            rival.execute(lanes.insert().values(lane))
        rival.rollback()
    claim.join(PATIENCE)
    assert claimed == [[]]


def test_who_leaves_ordering_keys_wakes_in_the_order_of_a_command(
    postgresql_engine: sa.Engine,
) -> None:
    """Else it and an operator who reschedules many items could wait for each other."""
    store = RowsOutboxStore(SqlAlchemyStorage(postgresql_engine))
    ids = store.enqueue_many(NewItem("k", ordering_key=key) for key in ("a", "b", "b", "a"))
    running = store.claim_batch("w")
    assert [item.id for item in running] == ids[:2]
    done = [Outcome(item.id, token=item.lease_token) for item in running]
    leave = threading.Thread(target=lambda: store.acknowledge("w", done))
    outbox = metadata.tables[OUTBOX]
    with postgresql_engine.connect() as operator:
        one, other = (sa.select(outbox.c.id).where(outbox.c.id == each) for each in ids[2:])
        operator.execute(one.with_for_update())
        leave.start()
        until_awaited(operator)
        assert operator.execute(other.with_for_update(skip_locked=True)).all()
        operator.rollback()
    leave.join(PATIENCE)
    assert [item.id for item in store.claim_batch("w")] == ids[2:]


def test_a_schedule_that_is_fired_by_hand_waits_for_no_gate_first(
    postgresql_engine: sa.Engine,
) -> None:
    """Else it and the ticker, which has moved the schedule on, would wait for each other."""
    engine = postgresql_engine
    with Kernel(SqlAlchemyStorage(engine), discover=False, secrets={}) as kernel:
        kernel.action("do.it")(lambda: None)
        kernel.add_workflow(
            {
                "name": "w", "steps": [{"id": "a", "action": "do.it"}],
                "trigger": {"type": "schedule", "every": "1h"},
                "rate_limit": {"limit": 100, "per": "1s"},
            }
        )  # fmt: skip
        fire_due(kernel)
        kernel.schedules.trigger("w")
        fired = list[str]()
        fire = threading.Thread(target=lambda: fired.append(kernel.schedules.trigger("w")))
        with engine.connect() as ticker:
            ticker.execute(sa.select(metadata.tables[SCHEDULE].c.id).with_for_update())
            fire.start()
            until_awaited(ticker)
            gates = sa.select(metadata.tables[DEBOUNCE].c.id)
            assert ticker.execute(gates.with_for_update(skip_locked=True)).all()
            ticker.rollback()
        fire.join(PATIENCE)
        assert len(fired) == 1
