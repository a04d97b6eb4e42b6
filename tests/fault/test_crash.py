"""Worker processes are killed at random moments of their work: all of it is done in the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from automate_kernel.outbox import NewItem
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from fault_scene import Scene, until
from leases import pass_leases

SEED = 20261125
KEYS = 5
# Jobs, effects and executions; kills.
QUICK, FULL = (60, 30, 20, 5), (400, 150, 150, 30)


def test_kills_at_random_moments(open_scene: Callable[..., Scene], full: bool) -> None:
    """
    Whenever its workers are killed, all that was accepted is done in the end.

    No step runs again once its result was saved, what a transactional handler writes is there
    exactly once, and items with one ordering key begin in their order.
    """
    scene, choose = open_scene(30.0), random.Random(SEED)
    job_count, effect_count, execution_count, kills = FULL if full else QUICK
    keyed: dict[str, list[str]] = {f"key-{n}": [] for n in range(KEYS)}
    # The kills come at random points of the work, not of the clock, and before it can be over.
    stops = [f"stop-{n}" for n in range(kills - kills // 2)]
    payloads = [None] * (job_count * 2 // 3 - len(stops)) + [scene.stop_at(one) for one in stops]
    choose.shuffle(payloads)
    jobs = [scene.outbox.enqueue("job", payload, max_attempts=50) for payload in payloads]
    for n in choose.sample(range(11, execution_count), kills // 2):
        scene.stop_at(f"value-{n * choose.choice((1, 10))}")  # at its first step, or the last
    for n in range(job_count // 3):
        key = f"key-{n % KEYS}"
        keyed[key].append(scene.outbox.enqueue("job", ordering_key=key, max_attempts=50))
    jobs += [item_id for ids in keyed.values() for item_id in ids]
    effects = [scene.outbox.enqueue("effect", max_attempts=50) for _ in range(effect_count)]
    executions = [scene.kernel.start("crash", {"n": n}) for n in range(execution_count)]

    for _ in range(2):
        scene.start()
    killed_while_working = 0
    for _ in range(kills):
        name, process = scene.stopped()
        killed_while_working += scene.unfinished() > 0
        scene.kill(process)
        scene.lapse(process)
        scene.go_on(name)
        scene.start()
    scene.drain()
    stats = scene.stop_all()

    assert killed_while_working >= 3, "the work was done too soon: the test shows little"
    assert all(one["failed"] == 0 for one in stats)
    scene.check([*jobs, *effects])
    begun = Counter(words[0] for words in scene.words("job"))
    assert set(begun) == set(jobs)
    assert sum(begun.values()) > len(jobs), "no kill hit a job: the test shows nothing"
    for ids in keyed.values():
        order = [words[0] for words in scene.words("job") if words[0] in ids]
        assert list(dict.fromkeys(order)) == ids
        assert order == sorted(order)
    check_executions(scene, executions)


def check_executions(scene: Scene, executions: list[str]) -> None:
    for n, execution_id in enumerate(executions):
        execution = scene.kernel.executions.get(execution_id)
        assert execution is not None
        assert execution.status is ExecutionStatus.COMPLETED, execution.error
        assert execution.output == [n * 100, [10, 20, 30, 40]]
        assert {run.status for run in execution.steps} == {StepStatus.COMPLETED}
        assert len(execution.steps) == 8
    saved: set[str] = set()
    calls: Counter[str] = Counter()
    for kind, *words in scene.ledger.lines():
        if kind == "saved":
            saved.add(words[0])
        elif kind == "call":
            assert words[0] not in saved, f"{words[0]} ran again after it was saved"
            calls[words[0]] += 1
    assert len(calls) == len(executions) * 7
    assert max(calls.values()) > 1, "no kill hit a step: the test shows nothing"


@pytest.mark.parametrize("cancelled", [False, True])
def test_poison_items_end_as_failed(
    open_scene: Callable[..., Scene], full: bool, cancelled: bool
) -> None:
    """
    An item that kills its worker each time is given up when its attempts are spent.

    One that is cancelled meanwhile ends sooner, and nothing else suffers.
    """
    scene = open_scene(60.0)
    poison = [scene.outbox.enqueue("poison", max_attempts=3) for _ in range(8 if full else 2)]
    jobs = [scene.outbox.enqueue("job", {"seconds": 0.001}) for _ in range(100)]
    deaths = 0
    while scene.unfinished():
        assert deaths <= 3 * len(poison), "it kills for ever"
        process = scene.start()
        until(lambda process=process: not process.alive or scene.unfinished() == 0)
        if not process.alive:
            deaths += 1
            scene.kill(process)
            if cancelled:
                scene.outbox.cancel(poison[:1])
            # There is no other worker: all leases were its own, and nobody waits for their ends.
            pass_leases(scene.kernel)
            scene.outbox.reap()
    scene.stop_all()
    ended = poison[1:] if cancelled else poison
    scene.check(jobs, failed=ended)
    begun = Counter(words[0] for words in scene.words("poison"))
    assert all(begun[item_id] <= 3 for item_id in poison)
    assert 3 <= deaths <= sum(begun.values())
    assert {scene.outbox.get(item_id).last_error_code for item_id in ended} == {"LEASE_EXPIRED"}
    if cancelled:
        assert begun[poison[0]] < 3
        assert scene.outbox.get(poison[0]).status.value == "CANCELLED"


def test_killers_take_no_neighbour_with_them(open_scene: Callable[..., Scene], full: bool) -> None:
    """Items that kill their workers end as FAILED, and all that they were claimed with is done."""
    scene = open_scene(60.0)
    kinds = ["poison" if n % 5 == 2 else "job" for n in range(240 if full else 30)]
    ids = scene.outbox.enqueue_many(NewItem(kind) for kind in kinds)
    killers = [one for one, kind in zip(ids, kinds, strict=True) if kind == "poison"]
    until_done_by_the_living(scene, 5 * len(killers))
    begun = Counter(words[0] for words in scene.words("poison"))
    assert all(begun[one] <= 5 for one in killers)
    scene.check(set(ids).difference(killers), failed=killers)


def test_killing_executions_take_no_neighbour_with_them(
    open_scene: Callable[..., Scene], full: bool
) -> None:
    """Of executions that are claimed together only those fail that kill their workers."""
    scene = open_scene(60.0)
    kills = [n % 6 == 2 for n in range(60 if full else 12)]
    ids = [scene.kernel.start("deadly", {"kills": one}) for one in kills]
    until_done_by_the_living(scene, 10 * sum(kills))
    for execution_id, deadly in zip(ids, kills, strict=True):
        execution = scene.kernel.executions.get(execution_id)
        assert execution.status is (ExecutionStatus.FAILED if deadly else ExecutionStatus.COMPLETED)
    deaths = Counter(words[0] for words in scene.words("kills"))
    assert set(deaths) == {one for one, deadly in zip(ids, kills, strict=True) if deadly}


def until_done_by_the_living(scene: Scene, most_deaths: int) -> None:
    """Start a worker with its default slots whenever one has died, until all is finished."""
    deaths = 0
    while scene.unfinished():
        assert deaths <= most_deaths, "it kills for ever"
        process = scene.start(slots=10)
        until(lambda process=process: not process.alive or scene.unfinished() == 0)
        if not process.alive:
            deaths += 1
            scene.kill(process)
            # There is no other worker: all leases were its own, and nobody waits for their ends.
            pass_leases(scene.kernel)
            scene.outbox.reap()
    scene.stop_all()
    scene.check_idle()
