"""Many seeds of one scenario: each is run, judged, shrunk if it fails, and printed as a story."""

from __future__ import annotations

import functools
import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from automate_testing.simulation.faults import Fault, Faults, chosen
from automate_testing.simulation.fibers import Scheduler, StuckError
from automate_testing.simulation.invariants import check
from automate_testing.simulation.stand_ins import given
from automate_testing.simulation.world import Scenario, World

F = TypeVar("F", bound=Callable[..., Any])

# After the last thing that happens the workers have this time to do something that they should not.
_REST_SECONDS = 3.0
_STORY_LINES = 400


@dataclass
class History:
    """One run of one seed."""

    seed: int
    faults: list[Fault]
    problems: list[str]
    story: list[str] = field(repr=False)
    world: World = field(repr=False)
    digest: int = 0
    """A number that follows from each switch: equal for equal histories."""
    points: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        shown = self.story
        if len(shown) > _STORY_LINES:
            left = len(shown) - _STORY_LINES
            shown = [
                *shown[: _STORY_LINES // 4],
                f"  … {left} lines …",
                *shown[left + _STORY_LINES // 4 :],
            ]
        faults = ", ".join(f"{each.kind} after {each.after} points" for each in self.faults)
        return "\n".join(
            [
                f"seed {self.seed}, {self.points} points, faults: {faults or 'none'}",
                *shown,
                *(f"!! {problem}" for problem in self.problems),
            ]
        )


class SimulationError(AssertionError):
    """A seed of a scenario that did not end as it should; `history` has its story."""

    def __init__(self, history: History, tried: int) -> None:
        super().__init__(f"seed {history.seed} of {tried} failed:\n{history}")
        self.history: History = history


def run_seed(
    scenario: type[Scenario], seed: int, *, faults: Sequence[Fault] | None = None
) -> History:
    """Run one *seed* of *scenario*, with its own *faults* if none are given, and judge it."""
    its = scenario()
    rng = Random(seed * 2 + 1)
    faults = chosen(rng, its.faults, its.kinds_of_faults) if faults is None else list(faults)
    scheduler = Scheduler(seed, switches=rng.choice((0.05, 0.2, 0.5)))
    with _undisturbed(), given(scheduler, seed):
        world = World(its, scheduler, seed)
        try:
            _run(world, its, Faults(world, faults))
        finally:
            scheduler.end()
            world.forget()
    return History(
        seed, faults, world.problems, world.story, world, scheduler.digest,
        scheduler.points, scheduler.now,
    )  # fmt: skip


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no collection of garbage run code in the middle, and nothing of the seed be logged."""
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    gc.disable()
    gc.freeze()  # what was there before is not looked through again for each seed
    try:
        yield
        # Dropped generators and tasks of processes that died: here, where nobody hears of them.
        sys.unraisablehook = lambda _: None
        gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
        sys.unraisablehook = hook
        logging.disable(disabled)


def _run(world: World, scenario: Scenario, faults: Faults) -> None:
    scheduler, ended = world.scheduler, [False]
    scheduler.at_point = faults.at_point

    def act() -> None:
        world.open()
        scenario.act(world)
        world.acted = True

    def watch() -> None:
        while True:
            scheduler.sleep(1.0)
            if world.acted and scenario.over(world):
                faults.give_up()
                scheduler.sleep(_REST_SECONDS)
                if scenario.over(world):
                    break
        ended[0] = True

    scheduler.spawn("application", act, world.application)
    scheduler.spawn("watch", watch, world.application)
    try:
        scheduler.run(
            lambda: ended[0] or bool(scheduler.errors),
            seconds=scenario.seconds,
            points=scenario.points,
        )
    except StuckError as error:
        left = world.unfinished()
        world.problem(f"{error}: {'; '.join(left[:10]) or 'though nothing is left'}")
    for fiber, failure in scheduler.errors:
        world.problem(f"{fiber} ended with {failure!r}")
    if not world.problems:
        _check(world, scenario)


def _check(world: World, scenario: Scenario) -> None:
    for problem in check(world):
        world.problem(problem)
    try:
        scenario.check(world)
    except AssertionError as error:
        world.problem(str(error) or repr(error))


def simulate(
    scenario: type[Scenario], *, seeds: int | Iterable[int] = 100, shrink: bool = True
) -> list[History]:
    """
    Run *seeds* of *scenario*, a number or the seeds themselves, and return their histories.

    The first failing seed is shrunk to the faults that it needs, and raised as `SimulationError`,
    whose text is its story. Run it again by its number: ``simulate(scenario, seeds=[4711])``.
    """
    histories: list[History] = []
    numbers = range(seeds) if isinstance(seeds, int) else list(seeds)
    for seed in numbers:
        history = run_seed(scenario, seed)
        if history.problems:
            raise SimulationError(shrunk(scenario, history) if shrink else history, len(numbers))
        histories.append(history)
    return histories


def shrunk(scenario: type[Scenario], history: History) -> History:
    """Return a history of the same seed with a part of the faults that fails as well."""
    best = history
    for fault in history.faults:
        left = [each for each in best.faults if each is not fault]
        tried = run_seed(scenario, history.seed, faults=left)
        if tried.problems:
            best = tried
    return best


def replays(scenario: type[Scenario], *seeds: int) -> Callable[[F], F]:
    """
    Make a test of *seeds* that failed once: they run before it, and raise as `simulate` does.

    The test is called with their histories, for further assertions.
    """

    def decorate(test: F) -> F:
        @functools.wraps(test)
        def run() -> Any:
            return test(simulate(scenario, seeds=seeds))

        # pytest takes the names of arguments for fixtures.
        del run.__wrapped__
        return run  # type: ignore[return-value]

    return decorate
