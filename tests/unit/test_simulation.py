"""Simulations: one seed is one history, its faults lose and repeat nothing, and what is broken is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scenarios import Chains, Lines, Quiet, Shop, Trips
from automate_kernel import Kernel
from automate_kernel.outbox import RowsOutboxStore
from automate_testing.simulation import (
    Fault,
    Scenario,
    SimulationError,
    World,
    replays,
    run_seed,
    simulate,
)


@pytest.mark.parametrize(
    ("scenario", "seeds"), [(Shop, 30), (Lines, 70), (Chains, 50), (Trips, 15), (Quiet, 30)]
)
def test_nothing_is_lost_or_repeated_or_waits_for_ever(
    scenario: type[Scenario], seeds: int
) -> None:
    """Under deaths, stops, lost replies, wrong clocks, deploys and operators."""
    histories = simulate(scenario, seeds=seeds)
    assert len({history.digest for history in histories}) == seeds
    assert len({fault for history in histories for fault in history.world.faults_met}) > 6


SHOW = """
import sys
from scenarios import Shop
from automate_testing.simulation import run_seed
for seed in (3, 5):
    history = run_seed(Shop, seed)
    print(history.digest, *history.story, sep="\\n")
"""


def test_one_seed_is_one_history() -> None:
    """To the byte, in this process and in another, whatever the order of its sets is."""
    shown = []
    for seed in (3, 5):
        history = run_seed(Shop, seed)
        shown += [str(history.digest), *history.story]
    support = Path(__file__).parents[1] / "support"
    for hash_seed in ("0", "7"):
        answer = subprocess.run(
            [sys.executable, "-c", SHOW],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(support)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.splitlines() == shown


class Single(Scenario):
    """An event, and a workflow of two steps."""

    faults = 0

    def set_up(self, kernel: Kernel, world: World) -> None:
        kernel.action("one.step")(lambda: world.work(8.0))
        steps = [{"id": name, "action": "one.step"} for name in ("a", "b")]
        trigger = {"type": "event", "event": "go"}
        kernel.add_workflow({"name": "one", "trigger": trigger, "steps": steps})

    def act(self, world: World) -> None:
        world.emit("go")


def problems(scenario: type[Scenario], seeds: range, *faults: Fault) -> list[str]:
    """Return what is found by so many seeds."""
    found = []
    for seed in seeds:
        found += run_seed(scenario, seed, faults=faults or None).problems
    return found


def test_leases_that_nobody_renews_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes longer than a lease is called by two workers then."""
    monkeypatch.setattr(Single, "lease_seconds", 3.0)
    assert problems(Single, range(2)) == []
    monkeypatch.setattr(RowsOutboxStore, "extend", lambda *_: set())
    assert any("though nothing interrupted it" in each for each in problems(Single, range(4)))


def test_an_item_that_is_never_given_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody recovers the items of a worker that died."""
    death = Fault(60, "kill", 0.5)
    monkeypatch.setattr(Single, "seconds", 600.0)
    assert problems(Single, range(3), death) == []
    monkeypatch.setattr(RowsOutboxStore, "reap", lambda *_, **__: 0)
    assert any("it goes on after 600 s" in each for each in problems(Single, range(3), death))


def test_an_event_that_starts_its_workflow_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each accepted event ends in exactly its executions."""

    class Twice(Single):
        def act(self, world: World) -> None:
            world.started.append((world.emit("go"), "one"))

    assert any("has started one 2 times" in each for each in problems(Twice, range(1)))


def test_a_thread_that_dies_is_found() -> None:
    """Its error is a part of the story."""

    class Dies(Single):
        def act(self, world: World) -> None:
            world.aside("dies", lambda: 1 // 0)
            world.work(1.0)

    with pytest.raises(SimulationError, match="ZeroDivisionError") as caught:
        simulate(Dies, seeds=3)
    assert "PROBLEM" in str(caught.value)


def test_a_failing_seed_is_shrunk_to_the_faults_that_it_needs() -> None:
    """And the story shows who did what."""

    class Fragile(Single):
        faults = 6

        def check(self, world: World) -> None:
            assert "lost reply" not in world.faults_met, "a reply was lost"

    with pytest.raises(SimulationError, match="a reply was lost") as caught:
        simulate(Fragile, seeds=300)
    history = caught.value.history
    assert {fault.kind for fault in history.faults} == {"lost reply"}
    assert "does not hear that its transaction was committed" in str(history)


@replays(Quiet, 137, 195, 213)
def test_the_last_version_is_indexed_in_whatever_order_events_are_taken(histories: Any) -> None:
    """An event that was sent earlier took the place of the last one, which was lost."""


@replays(Shop, 3, 5)
def test_a_seed_can_be_kept_as_a_test(histories: Any) -> None:
    """The test has its history."""
    assert [history.seed for history in histories] == [3, 5]


def test_a_simulation_leaves_the_real_clock_and_threads_behind() -> None:
    """A kernel that is made after it runs as ever."""
    run_seed(Single, 0)
    kernel = Kernel(discover=False, secrets={})
    kernel.action("say")(lambda: "hello")
    assert kernel.invoke("say", {}) == "hello"
    kernel.close()
