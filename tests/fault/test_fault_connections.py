"""Connections to PostgreSQL are ended, or freeze, or lose the reply to a commit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import fault_kernel
import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import StorageError
from automate_kernel.outbox import ItemStatus, RowsOutboxStore
from fault_proxy import Proxy
from fault_scene import Scene, until
from leases import pass_leases

SEED = 20261125


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    proxy = Proxy(postgresql_url)
    yield proxy
    proxy.close()


def test_connections_that_the_server_ends(
    open_postgresql: Callable[..., Scene], full: bool
) -> None:
    """Workers take new connections, whatever they were doing, and finish what they hold."""
    # Of a lease that a pause of some seconds takes from nobody who lives.
    scene, choose = open_postgresql(15.0), random.Random(SEED)
    accepted = [scene.outbox.enqueue("job", ordering_key=f"key-{n % 5}") for n in range(40)]
    accepted += [scene.outbox.enqueue("effect", max_attempts=50) for _ in range(60)]
    # The ends come at random points of the work, and before it can be over.
    stops = [scene.stop_at(f"stop-{n}") for n in range(40 if full else 8)]
    payloads = [None] * ((1000 if full else 100) - len(stops)) + stops
    choose.shuffle(payloads)
    accepted += [scene.outbox.enqueue("job", payload) for payload in payloads]
    executions = [scene.kernel.start("crash", {"n": n}) for n in range(5)]
    workers = [scene.start(most_seconds=0.03) for _ in range(2)]
    until(scene.all_report)
    for _ in stops:
        name, _ = scene.stopped()
        until(lambda: end_sessions(scene))
        scene.go_on(name)
    scene.drain()
    assert all(worker.alive for worker in workers)
    told = scene.stop_all()
    assert all(one["failed"] == 0 for one in told)
    scene.check(accepted)
    for execution_id in executions:
        assert scene.kernel.executions.get(execution_id).status.value == "COMPLETED"
    # Nobody died: so nothing runs again but what a handler's own transaction took with it.
    assert scene.words("job")
    assert scene.ran_again() == []


def end_sessions(scene: Scene) -> int:
    """End what sessions the workers have: how many; none if they have not come back yet."""
    return scene.rows(
        "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity"
        " WHERE application_name LIKE 'worker-%%' AND datname = current_database()"
    )[0].n


@pytest.mark.parametrize("kind", ["job", "effect"])
def test_a_connection_that_freezes(
    open_postgresql: Callable[..., Scene], proxy: Proxy, kind: str
) -> None:
    """
    A worker that is cut off for longer than its lease can't finish what it held.

    When the network is back, what it said late is refused, and it goes on with other work.
    """
    # Long, so that none but the test ends it: a busy machine keeps a worker from its heartbeat.
    scene = open_postgresql(60.0)
    item_id = scene.outbox.enqueue(kind)
    hold = scene.ledger.switch("hold")
    hold.touch()
    worker = scene.start(url=proxy.url, worker_id="cut-off")
    until(lambda: scene.words("holding"))
    proxy.freeze()
    hold.unlink()  # its handler ends, and it can't tell
    pass_leases(scene.kernel)
    until(lambda: len(scene.outbox.reap()))
    rescuer = RowsOutboxStore(scene.kernel.storage, lease_seconds=600)
    claimed: list[Any] = []

    def claim() -> bool:
        claimed.extend(rescuer.claim_batch("cut-off"))
        return bool(claimed)

    until(claim)
    assert [item.id for item in claimed] == [item_id]
    proxy.thaw()
    other = scene.outbox.enqueue("job")
    until(lambda: scene.outbox.get(other).status is ItemStatus.COMPLETED)
    assert worker.alive
    [told] = scene.stop_all()
    assert (told["completed"], told["lost"]) == (1, 1)
    item = scene.outbox.get(item_id)
    assert (item.status, item.lease_token) == (ItemStatus.RUNNING, claimed[0].lease_token)
    assert scene.rows("SELECT * FROM effects") == []
    rescuer.mark_success(item_id, "cut-off")
    scene.check_idle()


@pytest.mark.parametrize("keyed", [False, True])
def test_an_acknowledgement_whose_reply_is_lost(
    open_postgresql: Callable[..., Scene], proxy: Proxy, keyed: bool
) -> None:
    """The worker says it again: that is no late result, and nothing runs a second time."""
    scene = open_postgresql(60.0)
    # Without keys it is one statement, which commits by itself.
    proxy.cut_after([b'"completed_at" = ', *([b"COMMIT"] if keyed else [])])
    keys = [f"key-{n % 5}" if keyed else None for n in range(20)]
    accepted = [scene.outbox.enqueue("job", ordering_key=key) for key in keys]
    scene.start(url=proxy.url)
    scene.drain()
    [told] = scene.stop_all()
    assert proxy.was_cut.is_set()
    assert (told["completed"], told["lost"], told["retried"]) == (20, 0, 0)
    assert sorted(words[0] for words in scene.words("job")) == sorted(accepted)
    scene.check(accepted)


def test_a_claim_whose_reply_is_lost(open_postgresql: Callable[..., Scene], proxy: Proxy) -> None:
    """Nobody knows of the lease: its items run when it has ended, and are counted."""
    scene = open_postgresql(0.5)
    proxy.cut_after([b"'RUNNING'"])
    often = {"max_attempts": 50}  # a busy machine keeps a worker from its heartbeat for so little
    accepted = [scene.outbox.enqueue("job", ordering_key=f"key-{n % 2}", **often) for n in range(6)]
    scene.start(url=proxy.url)
    scene.drain()
    scene.stop_all()
    assert proxy.was_cut.is_set()
    scene.check(accepted)


def test_an_effect_whose_commit_has_no_reply(
    open_postgresql: Callable[..., Scene], proxy: Proxy
) -> None:
    """What a transactional handler wrote is there once, though its worker could not know."""
    scene = open_postgresql(0.5)
    proxy.cut_after([b"INSERT INTO effects", b"COMMIT"])
    accepted = [scene.outbox.enqueue("effect", max_attempts=50) for _ in range(5)]
    scene.start(url=proxy.url)
    scene.drain()
    scene.stop_all()
    assert proxy.was_cut.is_set()
    scene.check(accepted)


@pytest.mark.parametrize("transaction", ["the host's", "none"])
def test_an_emit_whose_reply_is_lost(
    open_postgresql: Callable[..., Scene], proxy: Proxy, transaction: str
) -> None:
    """The host can't know whether it was accepted; saying it again with its key does no harm."""
    scene = open_postgresql(60.0)
    kernel = fault_kernel.open_kernel(proxy.url, scene.ledger, 60.0, 0.0)

    def emit() -> str:
        if transaction == "none":
            return kernel.emit("order.created", {"id": 7}, idempotency_key="order-7")
        with kernel.storage.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO orders VALUES (7) ON CONFLICT DO NOTHING")
            return kernel.emit(
                "order.created", {"id": 7}, idempotency_key="order-7", transaction=connection
            )

    proxy.cut_after([b"order-7", b"COMMIT"])
    expected = StorageError if transaction == "none" else sa.exc.OperationalError
    with pytest.raises(expected):
        emit()
    assert proxy.was_cut.is_set()
    [kept] = scene.rows("SELECT id FROM automate_outbox")
    assert emit() == str(kept.id)
    assert len(scene.rows("SELECT id FROM automate_outbox")) == 1
    if transaction != "none":
        assert len(scene.rows("SELECT id FROM orders")) == 1
    kernel.run_until_idle()
    assert scene.outbox.get(str(kept.id)).status is ItemStatus.COMPLETED
    kernel.close()
    kernel.storage.engine.dispose()
    scene.check_idle()
