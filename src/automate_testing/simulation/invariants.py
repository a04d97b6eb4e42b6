"""The invariants of every scenario: what must hold at the end of each seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from automate_testing.simulation.faults import INTERRUPTS
from automate_testing.simulation.world import World


def check(world: World) -> Iterator[str]:
    """Yield a sentence for each invariant that does not hold."""
    yield from _leases(world)
    yield from _events(world)
    yield from _repeats(world)


def _leases(world: World) -> Iterator[str]:
    """Nothing is leased or holds a place when all is over."""
    for kind, id_ in world.storage.read(
        "SELECT kind, id FROM automate_outbox WHERE lease_expires_at IS NOT NULL"
    ):
        yield f"the item {kind} {id_} is leased at the end"
    for table in ("automate_ordering_lock", "automate_outbox_slot"):
        for (item_id,) in world.storage.read(f"SELECT item_id FROM {table}"):
            yield f"{table} keeps a place for {item_id} at the end"


def _events(world: World) -> Iterator[str]:
    """Each accepted event has started each of its workflows exactly once."""
    wanted: Counter[tuple[str, str]] = Counter()
    for event_id, name in world.emitted.items():
        for entry in world.kernel.workflows.entries():
            for trigger in entry.workflow.triggers:
                if trigger.type == "event" and getattr(trigger, "event", None) == name:
                    wanted[event_id, entry.workflow.name] += 1
    started: Counter[tuple[str, str]] = Counter(world.started)
    for (event_id, workflow), times in wanted.items():
        if started[event_id, workflow] != times and not world.scenario.expected(workflow):
            yield (
                f"the event {world.emitted[event_id]} {event_id} has started {workflow}"
                f" {started[event_id, workflow]} times"
            )


def _repeats(world: World) -> Iterator[str]:
    """No call that went well is made again, unless a fault has interrupted calls."""
    if any(kind in INTERRUPTS for kind in world.faults_met):
        return
    well = Counter((each.operation, each.key) for each in world.calls if each.went_well)
    for (operation, key), times in well.items():
        if key is not None and times > 1:
            yield f"{operation} was called {times} times for {key}, though nothing interrupted it"
