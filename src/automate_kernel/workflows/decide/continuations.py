"""
Continue-as-new: an execution that ends, and another one of its workflow that goes on in its place.

The successor begins in the transaction that ends its predecessor. It has its tenant, labels,
priority, concurrency key and parent. All of a chain know the first execution of it, by which a
parent, or a cancellation, finds the one that goes on.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.decide.children import FindChild, inherited_headers
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Event, Execution

BEGUN_BY = "begun_by"
"""The name, among what a chain has taken, of the event that has begun it: that answers nothing."""

MORE = "more"
"""The name, among what a chain has taken, that says: of other keys there are rows."""

# Of so many keys an execution has itself what its chain has taken.
_MOST_KEYS = 100
_NAMESPACE = uuid.UUID("0a3f5a52-0d5e-5bd5-9a10-5d2f7f5d3c61")


@dataclass(frozen=True, slots=True)
class Successor:
    """
    The execution that follows one which ends: its id, definition and event.

    *waited* are the names of the events that a step of the one before has waited for.
    """

    id: str
    workflow: Workflow
    event: Event
    waited: frozenset[str] = frozenset()


def successor_of(
    execution: Execution,
    pinned: Workflow,
    payload: Any,
    now: datetime,
    find: FindChild | None,
) -> Successor:
    """
    Return the execution that follows *execution*, with this *payload*.

    It begins with the definition that its name has now, as *find* finds it, else with the *pinned*
    one. Raises ``FAILED_PRECONDITION`` if that can't be started with this payload.
    """
    encode_json(payload, "payload of the execution that follows")
    event = Event(
        # The same after a crash: an execution is continued once.
        id=str(uuid.uuid5(_NAMESPACE, execution.id)),
        name=execution.name,
        payload=payload,
        type="manual",
        source=execution.id,
        tenant_id=execution.tenant_id,
        occurred_at=now.isoformat(),
        headers=inherited_headers(execution.event),
        labels=execution.event.labels,
    )
    workflow = pinned
    if find is not None:
        try:
            workflow, _ = find(execution.name, event)
        except AutomateError as error:
            if getattr(error, "reason", None) != "UNKNOWN_WORKFLOW":
                raise
    return Successor(event.id, workflow, event)


def check_not_continued(row: Mapping[str, Any]) -> None:
    """Raise ``FAILED_PRECONDITION`` if the execution of *row* was continued by another one."""
    if row["successor_id"] is not None:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"execution {row['id']} was continued as {row['successor_id']}",
            hint="resume the last of the chain, or fork this one",
        )


# -- events ----------------------------------------------------------------------------------------


def events_since(execution: Execution) -> datetime | None:
    """
    Return the time from which events count: when that was sent which has begun the execution.

    Of one that continues another, those count, too, that its predecessors have left.
    """
    return execution.events_since or execution.created_at


def last_taken(taken: Mapping[str, Any], key: str) -> tuple[datetime | None, list[str]]:
    """Return the time of the last event with *key* that was taken, and the signals of that time."""
    time, ids = taken.get(key) or (None, [])
    return time and datetime.fromisoformat(time), ids


def events_left(
    execution: Execution,
    taken: dict[str, Any],
    found: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    kept: timedelta,
) -> tuple[datetime, dict[str, Any], dict[str, Any]]:
    """
    Return the time from which events count for the successor, and what was taken since then.

    *taken* is what those before *execution* have taken. *found* are the signals of the events that
    it has taken itself, in the order in which they came. Those of the time *kept* before now count
    in any case. What was taken comes in two parts: the second is for rows of its own.
    """
    first = {name: taken.pop(name) for name in (BEGUN_BY, MORE) if name in taken}
    if execution.event.type in ("event", "webhook"):
        first[BEGUN_BY] = execution.event.id
    for row in found:
        (time, ids), at = last_taken(taken, row["key"]), row["received_at"]
        if time is None or at > time:
            ids = []
        if time is None or at >= time:
            taken[row["key"]] = [at.isoformat(), [*ids, row["id"]]]
    # Not from the first of a chain on, which goes on for years: nothing could be purged.
    times = [now - kept, execution.created_at or now]
    since: datetime = min([*times, *(row["received_at"] for row in found)])
    since = max(since, events_since(execution) or since)
    taken = {key: its for key, its in taken.items() if datetime.fromisoformat(its[0]) >= since}
    oldest = sorted(taken, key=lambda each: str(taken[each][0]))[:-_MOST_KEYS]
    more = {key: taken.pop(key) for key in oldest}
    if more:
        first[MORE] = True
    return since, {**taken, **first}, more
