"""
The structure of a workflow's steps: their order, and the problems of it.

It works on ids and needs alone, so that it can judge a definition whose other fields are wrong.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice

from automate_kernel.base.errors import did_you_mean

FieldPath = tuple[str | int, ...]
"""The place of a value in a definition: ``("steps", 0, "retry", "delay")``."""

Needs = Mapping[str, Sequence[str]]

StepNeeds = tuple[FieldPath, str, Sequence[str] | None]
"""A step's path, its id and its own needs (None if it names none)."""

STEP_GROUPS = ("steps", "on_failure", "on_cancel", "finally")
"""The fields of a workflow that are lists of steps: all but the first clean up."""


_MOST_PROBLEMS, _SHOWN, _STARTS = 100, 20, 50
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
    (type(None), "nothing"),
)


def kind_of(value: object) -> str:
    """Return the kind of a definition's value, in words for its author."""
    return next((name for types, name in _KINDS if isinstance(value, types)), type(value).__name__)


@dataclass(frozen=True, slots=True)
class DefinitionProblem:
    """
    A problem in a definition: its place, a message, and a hint for the author.

    *line* is that of a place outside the value, as a key's second time. *see* is another place that
    has to do with it.
    """

    path: FieldPath
    message: str
    hint: str | None = None
    line: int | None = None
    see: FieldPath | None = None


def effective_needs(steps: Sequence[StepNeeds]) -> dict[str, tuple[str, ...]]:
    """Return the ids that each step waits for: its own needs, or the step before it."""
    before: tuple[str, ...] = ()
    needs: dict[str, tuple[str, ...]] = {}
    for _, step_id, own in steps:
        needs[step_id] = before if own is None else tuple(dict.fromkeys(own))
        before = (step_id,)
    return needs


def topological_order(needs: Needs) -> tuple[str, ...]:
    """
    Sort the keys of *needs*, each after all that it needs, otherwise in the order given.

    Steps of a cycle, and those behind a cycle, are left out: `find_cycle` names it.
    """
    place = {step_id: position for position, step_id in enumerate(needs)}
    sorter = TopologicalSorter(needs)
    with suppress(CycleError):
        sorter.prepare()  # it goes on as far as a cycle lets it
    order: list[str] = []
    ready = [(place[step_id], step_id) for step_id in sorter.get_ready()]
    heapq.heapify(ready)
    while ready:
        _, step_id = heapq.heappop(ready)
        order.append(step_id)
        sorter.done(step_id)
        for follower in sorter.get_ready():
            heapq.heappush(ready, (place[follower], follower))
    return tuple(order)


def find_cycle(needs: Needs) -> tuple[str, ...]:
    """
    Return a cycle's ids, each needing the next and the last the first, or nothing.

    It is a shortest of those that the first steps are in.
    """
    placed = set(topological_order(needs))
    left = {step_id: [n for n in own if n not in placed] for step_id, own in needs.items()}
    starts = islice((start for start in needs if start not in placed), _STARTS)
    cycles = (_cycle_through(start, left) for start in starts)
    return min((cycle for cycle in cycles if cycle), key=len, default=())


def _cycle_through(start: str, needs: Needs) -> tuple[str, ...]:
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        step_id = waiting.popleft()
        for need in needs[step_id]:
            if need == start:
                cycle = [step_id]
                while cycle[-1] != start:
                    cycle.append(came_from[cycle[-1]])
                return tuple(reversed(cycle))
            if need not in came_from:
                came_from[need] = step_id
                waiting.append(need)
    return ()


def ancestors(needs: Needs) -> dict[str, frozenset[str]]:
    """Return for each step the steps that have surely finished before it starts."""
    found: dict[str, frozenset[str]] = {}
    for step_id in topological_order(needs):
        found[step_id] = frozenset(needs[step_id]).union(*(found[n] for n in needs[step_id]))
    return found


def step_problems(groups: Mapping[str, Sequence[StepNeeds]]) -> list[DefinitionProblem]:
    """Find the problems in the ids and needs of a workflow's lists of steps, by their fields."""
    first: dict[str, FieldPath] = {}
    problems = []
    for path, step_id, _ in (each for group in groups.values() for each in group):
        if step_id in first:
            message, hint = f"another step is called {step_id!r}", "give each an id of its own"
            problems.append(DefinitionProblem((*path, "id"), message, hint, see=first[step_id]))
        first.setdefault(step_id, path)
    for name, group in groups.items():
        own = {step_id for _, step_id, _ in group}
        problems += _wrong_needs(name, group, set(first) - own)
    return problems


def _wrong_needs(
    name: str, group: Sequence[StepNeeds], others: set[str]
) -> list[DefinitionProblem]:
    known = dict.fromkeys(step_id for _, step_id, _ in group)
    problems: list[DefinitionProblem] = []
    for path, step_id, own in group:
        for position, need in enumerate(own or ()):
            if len(problems) > _MOST_PROBLEMS:
                return problems
            if need == step_id:
                message, hint = "a step can't need itself", f"take {need!r} out"
            elif need in known:
                continue
            elif need in others:
                message = f"{need!r} belongs to another list of steps"
                hint = f"steps under {name} need only each other"
                if name != "steps":
                    hint += ": they run after those under steps"
            else:
                message = f"there is no step {need!r}"
                there_is = ", ".join(map(repr, islice(known, _SHOWN)))
                hint = did_you_mean(need, known) or f"there is {there_is}"
            problems.append(DefinitionProblem((*path, "needs", position), message, hint))
    if not problems and len(known) == len(group):
        problems = _cycle_problem(group)
    return problems


def _cycle_problem(group: Sequence[StepNeeds]) -> list[DefinitionProblem]:
    needs = effective_needs(group)
    cycle = find_cycle(needs)
    if not cycle:
        return []
    # Blame a step that says what it needs: a step that only follows the step before is innocent.
    spoken = {step_id: path for path, step_id, own in group if own is not None}
    blamed = next(step_id for step_id in needs if step_id in cycle and step_id in spoken)
    start = cycle.index(blamed)
    ring = " → ".join([*cycle[start:], *cycle[:start], blamed])
    implicit = [step_id for step_id in cycle if step_id not in spoken]
    hint = "take one of these needs out"
    if implicit:
        hint += f"; {implicit[0]!r} needs the step before it, unless it says 'needs: []'"
    message = f"the steps need each other in a circle: {ring}"
    return [DefinitionProblem((*spoken[blamed], "needs"), message, hint)]
