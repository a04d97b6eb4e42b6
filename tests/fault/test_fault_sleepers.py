"""A worker is stopped for longer than its lease, and then goes on as if nothing had been."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fault_kernel
import pytest
import sqlalchemy as sa
from automate_kernel.outbox import ItemStatus, RowsOutboxStore
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX, SLOT
from automate_sqlalchemy import SqlAlchemyStorage
from fault_scene import Scene, until
from fault_scripts import recover
from leases import pass_leases

_WAITING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.mark.parametrize("name", ["another", "sleeper"])
@pytest.mark.parametrize("kind", ["job", "effect", "execution"])
def test_a_worker_that_wakes_after_its_lease(
    open_scene: Callable[..., Scene], kind: str, name: str
) -> None:
    """
    A process that others took for dead can't finish what it held.

    Nor can it if the new holder goes by its own name: the claim's token tells them apart.
    """
    # Long, so that none but the test ends it: a busy machine keeps a worker from its heartbeat.
    scene = open_scene(60.0)
    kernel, outbox = scene.kernel, scene.outbox
    if kind == "effect" and not scene.postgresql:
        pytest.skip("on SQLite a transaction that is open keeps all others out")
    if kind == "execution":
        execution_id = kernel.start("crash", {"n": 1})
        item_id = kernel.executions.get(execution_id).item_id
    else:
        execution_id, item_id = "", outbox.enqueue(kind)
    hold = scene.ledger.switch("hold")
    hold.touch()
    process = scene.start(worker_id="sleeper")
    until(lambda: scene.words("holding"))
    until(lambda: scene.stops_free_of_locks(process, item_id))
    pass_leases(kernel)
    until(lambda: len(outbox.reap()))

    # With a long lease: the process recovers items too, once it is awake.
    rescuer = RowsOutboxStore(kernel.storage, lease_seconds=600)
    claimed: list[Any] = []

    def claim() -> bool:
        claimed.extend(rescuer.claim_batch(name))
        return bool(claimed)

    until(claim)
    assert [item.id for item in claimed] == [item_id]
    process.send(signal.SIGCONT)
    hold.unlink()
    if kind == "execution":
        until(lambda: len(scene.words("call")) == 1)
    [late] = scene.stop_all()
    assert (late["completed"], late["lost"]) == (0, 1)
    item = outbox.get(item_id)
    assert (item.status, item.lease_owner) == (ItemStatus.RUNNING, name)
    if kind == "execution":
        assert scene.words("saved") == []
        assert {run.output for run in kernel.executions.get(execution_id).steps} <= {None}
    assert scene.rows("SELECT * FROM effects") == []
    rescuer.mark_success(item_id, name)
    assert outbox.get(item_id).status is ItemStatus.COMPLETED
    scene.check_idle()


def test_workers_that_sleep_in_turn(open_postgresql: Callable[..., Scene], full: bool) -> None:
    """
    Under load too: whoever is stopped, wherever, nothing is done by two holders or lost.

    The others go on meanwhile: the server ends a transaction that is left open for too long.
    """
    scene = open_postgresql(0.4)
    accepted: list[str] = []
    often = {"max_attempts": 100}
    options = {"options": "-c idle_in_transaction_session_timeout=300"}
    url = sa.make_url(scene.url).update_query_dict(options).render_as_string(False)
    names = ("first", "second")
    workers = [scene.start(url=url, most_seconds=0.05, worker_id=name) for name in names]

    def held(name: str) -> int:
        its = f"status = 'RUNNING' AND lease_owner = '{name}'"
        [row] = scene.rows(f"SELECT count(*) FROM {OUTBOX} WHERE {its}")
        return int(row[0])

    def stopped_with_work(number: int) -> bool:
        workers[number].send(signal.SIGSTOP)
        if held(names[number]):
            return True
        workers[number].send(signal.SIGCONT)
        return False

    def lost_all(name: str) -> bool:
        # The other worker takes back what is overdue too.
        scene.outbox.reap()
        return not held(name)

    for turn in range(20 if full else 4):
        for n in range(40):
            accepted += [
                scene.outbox.enqueue("job", {"seconds": 0.1}, **often),
                scene.outbox.enqueue("job", ordering_key=f"key-{n % 7}", **often),
            ]
            if n % 8 == 0:
                slot = {"concurrency_key": "slot", "concurrency_limit": 2}
                accepted.append(scene.outbox.enqueue("job", **slot, **often))
        number = turn % 2
        until(lambda number=number: stopped_with_work(number))
        until(lambda number=number: lost_all(names[number]))
        workers[number].send(signal.SIGCONT)
    scene.drain()
    told = scene.stop_all()
    assert sum(one["lost"] for one in told) > 0
    scene.check(accepted)


def test_a_transaction_that_stays_open_stops_no_recovery(
    open_postgresql: Callable[..., Scene],
) -> None:
    """A worker that froze with rows locked, those of waiting items too, keeps the reaper from none."""
    scene = open_postgresql(0.2)
    ids = [
        scene.outbox.enqueue("job", **keys)
        for keys in (
            {"ordering_key": "lane"}, {"ordering_key": "lane"},
            {"concurrency_key": "slot", "concurrency_limit": 1},
            {"concurrency_key": "slot", "concurrency_limit": 1}, {},
        )
    ]  # fmt: skip
    scene.outbox.claim_batch("dead", 10)
    # What held the others up is gone: so it is for the reaper to wake them.
    for table in (ORDERING_LOCK, SLOT):
        scene.run(f"DELETE FROM {table}")
    url = sa.make_url(scene.url).update_query_dict({"options": "-c lock_timeout=2000"})
    impatient = fault_kernel.open_engine(url.render_as_string(False))
    reaper = RowsOutboxStore(SqlAlchemyStorage(impatient), lease_seconds=0.2)
    reaped: list[str] = []

    def reap() -> bool:
        reaped.extend(item.id for item in reaper.reap().retried)
        return ids[-1] in reaped

    with scene.engine.begin() as frozen:
        frozen.exec_driver_sql(f"SELECT id FROM {OUTBOX} WHERE id <> '{ids[-1]}' FOR UPDATE")
        until(reap)
    impatient.dispose()
    assert reaped == ids[-1:]
    recover(scene.kernel)
    scene.check(ids)


def test_nobody_enters_a_lane_before_who_comes_back(open_postgresql: Callable[..., Scene]) -> None:
    """
    An item that goes back to wait keeps its place, at whichever moment it does.

    Here in the middle of the claim of the next one, between any two of its statements.
    """
    scene = open_postgresql(600.0)
    statements = 0
    for moment in range(1, 40):
        first, second = (scene.outbox.enqueue("job", ordering_key="lane") for _ in range(2))
        [held] = scene.outbox.claim_batch("slow", 1)
        assert held.id == first
        other = fault_kernel.open_kernel(scene.url, scene.ledger, 600.0, 0.0)
        statements = 0
        back = list[Any]()

        def come_back(*_: object, moment: int = moment, first: str = first) -> None:
            nonlocal statements
            statements += 1
            if statements == moment:
                back.append(pool.submit(scene.outbox.mark_retry, first, "slow", 60.0))
                # Or it waits for the claim, which has found the key taken.
                until(lambda: back[0].done() or scene.rows(_WAITING))

        sa.event.listen(other.storage.engine, "before_cursor_execute", come_back)
        with ThreadPoolExecutor(1) as pool:
            claimed = [item.id for item in other.outbox.claim_batch("quick", 1)]
        for each in back:
            each.result()
        other.close()
        other.storage.engine.dispose()
        assert claimed == [], f"{second} overtook {first}"
        if statements < moment:
            break
        recover(scene.kernel)
        scene.check([first, second])
    assert 3 < statements < 39
