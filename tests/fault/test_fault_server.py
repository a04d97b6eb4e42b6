"""The server is restarted under work, and workers on other machines lose it from sight."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from automate_kernel.outbox import ItemStatus
from fault_network import Machine, why_no_machines
from fault_scene import Scene, until
from fault_server import Server
from leases import pass_leases

SEED = 20261125


@pytest.fixture
def machines(server: Server) -> Iterator[list[Machine]]:
    """Two networks that reach the server, and not each other."""
    if reason := why_no_machines():
        pytest.skip(f"needs root on Linux: {reason}")
    machines: list[Machine] = []
    try:
        machines += [Machine(), Machine()]
        server.listen([machine.server_address for machine in machines])
        yield machines
        server.listen([])
    finally:
        for machine in machines:
            machine.close()


def test_a_server_that_is_restarted(
    server: Server, open_scene_at: Callable[..., Scene], full: bool
) -> None:
    """Workers outlive the server, whether it ends gently or not, and finish what they held."""
    scene, choose = open_scene_at(server.url(), lease_seconds=3.0), random.Random(SEED)
    modes = ["fast", "immediate", "kill"] * (6 if full else 1)
    accepted = [scene.outbox.enqueue("job", ordering_key=f"key-{n % 5}") for n in range(60)]
    accepted += [scene.outbox.enqueue("effect", max_attempts=50) for _ in range(60)]
    # The restarts come at random points of the work, and before it can be over.
    stops = [scene.stop_at(f"stop-{n}") for n in range(len(modes))]
    payloads = [None] * ((2000 if full else 120) - len(stops)) + stops
    choose.shuffle(payloads)
    accepted += [scene.outbox.enqueue("job", payload) for payload in payloads]
    executions = [scene.kernel.start("crash", {"n": n}) for n in range(10)]
    workers = [scene.start(most_seconds=0.05) for _ in range(2)]
    until(scene.all_report)
    under_work = 0
    for mode in modes:
        name, _ = scene.stopped()
        server.restart(mode)
        scene.engine.dispose()
        under_work += scene.unfinished() > 0
        scene.go_on(name)
    scene.drain()
    assert under_work > len(modes) * 0.7, "the work was done too soon: the test shows little"
    assert all(worker.alive for worker in workers)
    told = scene.stop_all()
    assert all(one["failed"] == 0 for one in told)
    scene.check(accepted)
    for execution_id in executions:
        execution = scene.kernel.executions.get(execution_id)
        assert execution.status.value == "COMPLETED", execution.error


def test_workers_on_machines_of_their_own(
    server: Server, open_scene_at: Callable[..., Scene], machines: list[Machine], full: bool
) -> None:
    """
    They share the work, and one whose cable is pulled loses what it held to the other.

    With the cable back in, what it says late is refused, and it works on.
    """
    scene = open_scene_at(server.url(), lease_seconds=60.0)
    near, far = machines
    item_id = scene.outbox.enqueue("job")
    hold = scene.ledger.switch("hold")
    hold.touch()
    cut_off = scene.start(machine=far.name, url=server.url(far.server_address))
    until(lambda: scene.words("holding"))
    far.unplug()
    hold.unlink()
    pass_leases(scene.kernel)
    until(lambda: len(scene.outbox.reap()))
    scene.start(machine=near.name, url=server.url(near.server_address))
    until(lambda: scene.outbox.get(item_id).status is ItemStatus.COMPLETED)
    token = scene.outbox.get(item_id).lease_token
    assert [words[0] for words in scene.words("job")] == [item_id, item_id]
    far.plug()
    lost = f"lost {item_id}"
    until(lambda: lost in scene.ledger.file.read_text())
    assert scene.outbox.get(item_id).lease_token == token

    # Of more than one has slots for each gets some, however long the other's connections need.
    hold.touch()
    accepted = [item_id, *(scene.outbox.enqueue("job") for _ in range(6))]
    until(lambda: len({pid for pid, _ in scene.words("holding")[1:]}) == 2)
    hold.unlink()
    for _ in range(10 if full else 1):
        more = [scene.outbox.enqueue("job", {"seconds": 0.02}) for _ in range(100)]
        more += [scene.outbox.enqueue("job", ordering_key=f"key-{n % 3}") for n in range(30)]
        accepted += more
        scene.drain()
    assert cut_off.alive
    until(scene.all_report)
    hosts = {worker.host for worker in scene.outbox.workers()}
    assert hosts == {near.name, far.name}
    told = scene.stop_all()
    assert all(one["completed"] for one in told), "one did nothing: they shared no work"
    assert told[0]["lost"] == 1
    scene.check(accepted)
