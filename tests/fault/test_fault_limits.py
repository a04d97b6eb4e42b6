"""Limits hold exactly while several workers are killed and started again."""

from __future__ import annotations

import random
from collections.abc import Callable

from fault_invariants import most_at_once
from fault_kernel import NARROW
from fault_scene import Scene, until

SEED = 20261125
WORKERS = 4


def test_limits_hold_under_kills(open_scene: Callable[..., Scene], full: bool) -> None:
    """
    At most so many of a kind, of a concurrency key and of an ordering key run at once.

    Handlers note their begin and end, and a machine has one clock: so it is seen by what really ran,
    in whichever process. Afterwards the limits are used up, so dead workers leave no place taken.
    """
    scene, choose = open_scene(30.0), random.Random(SEED)
    count, kills = (400, 25) if full else (40, 5)
    several = {"concurrency_key": "slot", "concurrency_limit": 2}
    options = {"narrow": {}, "slot": several, "lane": {"ordering_key": "lane"}}
    kinds = {"narrow": "narrow", "slot": "job", "lane": "job"}

    def enqueue(count: int) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {name: [] for name in kinds}
        for _ in range(count):
            for name, kind in kinds.items():
                one = scene.outbox.enqueue(kind, max_attempts=50, **options[name])
                ids[name].append(one)
        return ids

    def at_once(ids: dict[str, list[str]]) -> list[int]:
        lines = scene.ledger.lines()
        return [most_at_once(lines, ids[name], kind) for name, kind in kinds.items()]

    most, ids = [NARROW, 2, 1], enqueue(count)
    for _ in range(WORKERS):
        scene.start(most_seconds=0.05)
    total = scene.unfinished()
    for left in sorted((choose.uniform(0.2, 0.97) for _ in range(kills)), reverse=True):
        until(lambda left=left: scene.unfinished() <= total * left)
        process = scene.processes[choose.randrange(WORKERS)]
        scene.kill(process)
        scene.lapse(process)
        scene.start(most_seconds=0.05)
    scene.drain()
    # How many of the quick ones met is the machine's affair; of these as many as may.
    hold = scene.ledger.switch("hold")
    hold.touch()
    held = enqueue(NARROW + 2)
    until(lambda: at_once(held) == most)
    hold.unlink()
    scene.drain()
    scene.stop_all()
    both = {name: ids[name] + held[name] for name in kinds}
    scene.check([one for name in kinds for one in both[name]])
    assert all(got <= limit for got, limit in zip(at_once(both), most, strict=True))
    assert at_once(held) == most
