"""
Deadlocks: executions that wait for each other's concurrency places, so that none ever goes on.

One holds a place and waits for its sub-workflow, which waits for a place itself; and all who hold
those wait in the same way. `children.check_held_keys` refuses a sub-workflow that would wait for
those above it. Executions that don't know of each other can come to stand in a circle all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import EXECUTION, OUTBOX, SLOT, WAIT
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.execution import Execution


@dataclass(frozen=True, slots=True)
class BlockedChild:
    """A sub-workflow that waits for a place of its key, and the executions that hold them."""

    execution: Execution
    holders: tuple[Execution, ...]


@dataclass(frozen=True, slots=True)
class Deadlock:
    """The sub-workflows of one circle. It goes on once one of its executions is cancelled."""

    blocked: tuple[BlockedChild, ...]


@dataclass(slots=True)
class _Picture:
    """A picture of who waits for whom: executions by their ids, and places by their keys."""

    holders: dict[str, set[str]] = field(default_factory=dict)
    children: dict[str, set[str]] = field(default_factory=dict)
    blocked: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The key that a sub-workflow waits for, and how many may have it at once."""

    def stuck(self) -> dict[str, set[str]]:
        """Return those that deadlock, each with those of them that it waits for."""
        edges = {one: set(its) for one, its in self.children.items()}
        edges |= {one: set(self.holders.get(key, ())) for one, (key, _) in self.blocked.items()}
        least = {one: limit for one, (_, limit) in self.blocked.items()}
        # A place is free again once one of its holders goes on; a parent needs all its children.
        return _without(edges, lambda one, its: len(its) >= least.get(one, 1))

    def circles(self) -> Iterator[set[str]]:
        """Yield the members of each circle, without those that only wait behind it."""
        edges = self.stuck()
        waiting: dict[str, set[str]] = {one: set() for one in edges}
        for one, its in edges.items():
            for other in its:
                waiting[other].add(one)
        left = _without(waiting, lambda _, its: bool(its))
        while left:
            circle, new = set[str](), {next(iter(left))}
            while new:
                circle |= new
                near = (left[one] | (edges[one] & left.keys()) for one in new)
                new = set[str]().union(*near) - circle
            yield circle
            left = {one: its for one, its in left.items() if one not in circle}


def _without(
    edges: Mapping[str, set[str]], stays: Callable[[str, set[str]], bool]
) -> dict[str, set[str]]:
    """Return *edges* without those that don't stay, and so on until all that are left do."""
    left = {one: its & edges.keys() for one, its in edges.items()}
    while True:
        kept = {one: its for one, its in left.items() if stays(one, its)}
        if len(kept) == len(left):
            return kept
        left = {one: its & kept.keys() for one, its in kept.items()}


def find_deadlocks(rows: Rows) -> list[Deadlock]:
    """Return the circles of executions that wait for each other's places."""
    picture = _picture(rows)
    found = []
    for circle in picture.circles():
        known = {
            row["id"]: Execution.from_row(row)
            for row in _each(rows, EXECUTION, "id", circle, order_by=("created_at", "id"))
        }
        blocked = tuple(
            BlockedChild(
                execution,
                tuple(known[one] for one in known if one in picture.holders[key]),
            )
            for execution, key in (
                (known[one], picture.blocked[one][0]) for one in known if one in picture.blocked
            )
        )
        if blocked and all(each.holders for each in blocked):  # none of them has ended meanwhile
            found.append(Deadlock(blocked))
    return sorted(found, key=lambda each: each.blocked[0].execution.id)


def _picture(rows: Rows) -> _Picture:
    picture = _Picture()
    asleep = [
        Where("concurrency_key", "ne", None), Where("waiting_for", "eq", ItemWait.KEY.value),
        Where("kind", "eq", ADVANCE),
    ]  # fmt: skip
    keys = [row["concurrency_key"] for row in rows.count(OUTBOX, ("concurrency_key",), asleep)]
    slots = _each(rows, SLOT, "concurrency_key", keys, columns=("concurrency_key", "item_id"))
    item_ids = {slot["item_id"] for slot in slots}
    items = _each(rows, OUTBOX, "id", item_ids, columns=("id", "kind", "payload"))
    executions = {
        row["id"]: row["payload"]["execution_id"] for row in items if row["kind"] == ADVANCE
    }
    for slot in slots:
        # One of another kind is somebody who goes on.
        if (holder := executions.get(slot["item_id"])) is not None:
            picture.holders.setdefault(slot["concurrency_key"], set()).add(holder)
    _descend(rows, picture, set(executions.values()))
    return picture


def _descend(rows: Rows, picture: _Picture, parents: set[str]) -> None:
    """Note the sub-workflows that *parents* wait for, and those that these wait for."""
    while parents:
        waits = _each(
            rows, WAIT, "execution_id", parents, Where("about", "eq", "workflow"),
            columns=("execution_id", "details"),
        )  # fmt: skip
        first = [(row["execution_id"], row["details"]["execution_id"]) for row in waits]
        live = _going_on(rows, {child for _, child in first})
        for parent, child in first:
            if child in live:
                picture.children.setdefault(parent, set()).add(live[child]["id"])
        by_item = {row["item_id"]: row["id"] for row in live.values()}
        wanted = ("id", "waiting_for", "concurrency_key", "concurrency_limit")
        for item in _each(rows, OUTBOX, "id", by_item, columns=wanted):
            if item["waiting_for"] == ItemWait.KEY and item["concurrency_key"] is not None:
                key = item["concurrency_key"], item["concurrency_limit"]
                picture.blocked[by_item[item["id"]]] = key
        known = picture.children.keys() | picture.blocked.keys() | parents
        parents = set(by_item.values()) - known


def _going_on(rows: Rows, first: set[str]) -> dict[str, Row]:
    """Return the rows of the executions that go on, by the first of the chain of each."""
    going, columns = Where("status", "in", LIVE), ("id", "item_id", "chain_id")
    found = {row["id"]: row for row in _each(rows, EXECUTION, "id", first, going, columns=columns)}
    continued = _each(rows, EXECUTION, "chain_id", first - found.keys(), going, columns=columns)
    return found | {row["chain_id"]: row for row in continued}


def _each(
    rows: Rows,
    table: str,
    column: str,
    values: Iterable[str],
    *where: Where,
    columns: tuple[str, ...] = (),
    order_by: tuple[str, ...] = (),
) -> list[Row]:
    """Return the rows of *table* with one of *values* in *column*."""
    its = [Where(column, "in", sorted(values)), *where]
    return rows.select(table, its, columns=columns, order_by=order_by)
