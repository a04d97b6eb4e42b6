"""A process is killed before and after each statement and each commit: clean ones finish its work."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest
from automate_kernel.outbox import ItemStatus
from automate_kernel.workflows.execution import Execution, ExecutionStatus
from fault_kernel import ROUNDS
from fault_scene import Process, Scene, until
from fault_scripts import SCRIPTS, recover, recover_approvals, recover_waits

SEED = 20261125
# How many of the moments of each script the quick form tries, and of a worker's first ones.
MOMENTS, WORKER_MOMENTS = 7, 6
# Long, so that no time but the one that we let pass counts.
LEASE_SECONDS = 600.0
RECOVERIES = {"waits": recover_waits, "approval": recover_approvals, "chain": recover_waits}


@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_at_every_statement(open_scene: Callable[..., Scene], name: str, full: bool) -> None:
    """Whatever a process had just said to the database, or was about to say, nothing is lost."""
    scene = open_scene(LEASE_SECONDS)
    alive = run_script(scene, name, 0)
    assert alive.code == 0, alive.complained()
    moments = range(1, moments_of(alive) + 1)
    if not full:
        moments = sorted(random.Random(f"{SEED}{name}").sample(moments, MOMENTS))
    deaths = 0
    for die_at in moments:
        process = run_script(scene, name, die_at)
        if process.code == 0 and moments_of(process) < die_at:
            # It waited in fewer looks than the first one, and was done before: so at its last.
            process = run_script(scene, name, moments_of(process))
        assert process.code in (0, -signal.SIGKILL), process.complained()
        deaths += process.code != 0
    assert deaths > len(moments) * 0.8, "hardly any died: the test shows little"


def moments_of(process: Process) -> int:
    """How many moments it had, which lived."""
    return int(process.said().splitlines()[-1])


def run_script(scene: Scene, name: str, die_at: int) -> Process:
    """Run it, recover from its death, and see whether all is well."""
    scene.empty()
    arguments = SCRIPTS[name].prepare(scene.kernel, die_at)
    if name == "steer":
        scene.requeued.add(arguments[1][0])
    process = scene.start(
        script=name, arguments=arguments, die_at=die_at, most_seconds=0.0, seed=SEED
    )
    scene.ended(process)
    RECOVERIES.get(name, recover)(scene.kernel)
    check(scene, name)
    return process


def check(scene: Scene, name: str) -> None:
    waiting = scene.outbox.find(status=ItemStatus.PENDING, limit=10)
    assert waiting == [], "cleaned up and not finished"
    accepted = check_orders(scene) if name == "enqueue" else []
    failed = [item.id for item in scene.outbox.find(status=ItemStatus.FAILED, limit=1000)]
    if name in (
        "enqueue", "work", "workflow", "waits", "approval", "booking", "chain", "hold", "line"
    ):  # fmt: skip
        assert failed == []
    scene.check(accepted, failed=failed)
    if name == "waits":
        check_waits(scene)
    if name == "approval":
        check_approval(scene)
    if name == "booking":
        check_bookings(scene)
    if name == "chain":
        check_chain(scene)
    if name in ("workflow", "waits", "approval", "booking", "chain"):
        for execution in scene.kernel.executions.find(limit=500):
            assert execution.status is ExecutionStatus.COMPLETED, execution.error


def check_waits(scene: Scene) -> None:
    """Each element has started one execution, and no wait is left."""
    executions = scene.kernel.executions.find(limit=500)
    parents = [each for each in executions if each.name == "waiting"]
    for parent in parents:
        children = [each for each in executions if each.parent_id == parent.id]
        assert sorted(each.event.payload["n"] for each in children) == [1, 2]
        assert parent.output == [each.output for each in sorted(children, key=_number)]
    assert scene.rows("SELECT count(*) AS n FROM automate_wait")[0].n == 0


def check_chain(scene: Scene) -> None:
    """Each round was done once, each execution followed by one, and the parent had the last."""
    every = scene.kernel.executions.find(limit=500)
    (parent,) = (each for each in every if each.name == "chain")
    chain = [each for each in every if each.chain_id is None and each.name == "looping"]
    while chain[-1].successor_id is not None:
        chain += [each for each in every if each.id == chain[-1].successor_id]
    assert len(chain) == len(every) - 1 == len(ROUNDS)
    assert [each.output for each in chain] == [*ROUNDS]
    assert parent.output == ROUNDS[-1]
    booked = [
        f"{each.id}:rounds[{number}].book:-1"
        for each, rounds in zip(chain, ROUNDS, strict=True)
        for number in range(rounds)
    ]
    booked += [f"{each.id}:more:{number}" for each in chain for number in range(2)]
    assert sorted(row.step for row in scene.rows("SELECT step FROM booked")) == sorted(booked)
    assert len(chain[0].runs_of("rounds")) < ROUNDS[0]
    assert scene.rows("SELECT count(*) AS n FROM automate_wait")[0].n == 0


def check_approval(scene: Scene) -> None:
    """A decision that was accepted is the answer; people were told; no wait is left."""
    (execution,) = scene.kernel.executions.find()
    decided = scene.words("decided") != []
    assert execution.output == "ann" or (execution.output == "another" and not decided)
    assert scene.words("told")
    assert scene.rows("SELECT count(*) AS n FROM automate_wait")[0].n == 0


def _number(execution: Execution) -> int:
    return int(execution.event.payload["n"])


def check_bookings(scene: Scene) -> None:
    """Each step has written once: it and its row were committed together."""
    keys = [
        f"{execution.id}:{run.step_id}:{run.position}"
        for execution in scene.kernel.executions.find(limit=500)
        for run in execution.steps
        if (run.step_id, run.position) != ("each", -1)
    ]
    assert sorted(row.step for row in scene.rows("SELECT step FROM booked")) == sorted(keys)
    assert keys


def check_orders(scene: Scene) -> list[str]:
    """The host's rows are there exactly if the items are."""
    items = "SELECT idempotency_key FROM automate_outbox WHERE idempotency_key IS NOT NULL"
    orders = sorted(f"order-{row.id}" for row in scene.rows("SELECT id FROM orders"))
    assert sorted(row.idempotency_key for row in scene.rows(items)) == orders
    total = scene.rows("SELECT count(*) AS n FROM automate_outbox")[0].n
    assert total == 62 * len(orders)
    accepted = scene.words("accepted")
    assert {f"order-{words[0]}" for words in accepted} <= set(orders)
    return [item_id for words in accepted for item_id in words[1:]]


def test_a_worker_killed_at_its_nth_statement(open_scene: Callable[..., Scene], full: bool) -> None:
    """A whole worker too, with its threads: heartbeat, reaper, reports and all."""
    scene, choose = open_scene(0.5), random.Random(SEED)
    accepted: list[str] = []
    moments = range(1, 200, 3) if full else sorted(choose.sample(range(1, 120), WORKER_MOMENTS))
    died = 0
    for die_at in moments:
        for n in range(4):
            key = f"key-{n % 3}"
            accepted.append(scene.outbox.enqueue("job", ordering_key=key, max_attempts=50))
            accepted.append(scene.outbox.enqueue("effect", max_attempts=50))
        process = scene.start(die_at=die_at, most_seconds=0.02, seed=SEED)
        until(lambda process=process: not process.alive or scene.unfinished() == 0)
        died += not process.alive
        scene.kill(process)
    scene.start()
    scene.drain()
    scene.stop_all()
    assert died > len(moments) // 3, "hardly any died: the test shows little"
    scene.check(accepted)


def test_workers_killed_between_a_write_and_its_commit(
    open_scene: Callable[..., Scene], full: bool
) -> None:
    """Transactional steps of a whole worker, on its threads, write once each."""
    scene, choose = open_scene(0.5), random.Random(SEED)
    # Its first moments are those of its start.
    moments = (
        range(1, 250, 3) if full else sorted(choose.sample(range(20, 160), WORKER_MOMENTS * 2))
    )
    died = 0
    for die_at in moments:
        for n in range(3):
            scene.kernel.start("booking", {"n": n})
        process = scene.start(die_at=die_at, most_seconds=0.02, seed=SEED)
        until(lambda process=process: not process.alive or scene.unfinished() == 0)
        died += not process.alive
        scene.kill(process)
    # One between a write and its commit, wherever the machine let the others be.
    scene.kernel.start("booking", {"n": 0})
    hold = scene.ledger.switch("hold")
    hold.touch()
    process = scene.start(most_seconds=0.02)
    until(lambda: scene.words("holding"))
    scene.kill(process)
    hold.unlink()
    scene.start()
    scene.drain()
    scene.stop_all()
    assert died > len(moments) // 3, "hardly any died: the test shows little"
    again = len(scene.words("booking")) - len(scene.rows("SELECT step FROM booked"))
    assert again > 0, "no death was between a write and its commit"
    check_bookings(scene)
    found = scene.kernel.executions.find(limit=1000)
    assert len(found) == 3 * len(moments) + 1
    assert {execution.status for execution in found} == {ExecutionStatus.COMPLETED}
