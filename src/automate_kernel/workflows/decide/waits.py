"""
Waits: what a step waits for, and the signals that answer it.

A step that waits has a row in `automate_kernel.storage.tables.WAIT` with a key. Whatever may end
the wait comes in as an outbox item of the kind `SIGNAL` with the same key, in the transaction of
whoever sends it. A worker wakes the executions that wait for its key. The signal is kept before:
what is sent to one execution in the transaction that sends it, an event in that which finishes its
own item, of the kind `EVENT`. So none is ever on its way without an item as old as itself.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from automate_kernel.outbox.item import ACCEPTED_MAX_ATTEMPTS, NewItem
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import MAX_PAYLOAD_BYTES, Redaction, encode_around
from automate_kernel.workflows.execution import Event, Execution, StepKey, StepRun

EVENT = "automate.event"
"""The kind of the outbox item that is an event."""

DELAY = "automate.delay"
"""The header of an event's item that has the seconds after which it was to be sent."""

RESUMED = "automate.resumed"
"""The header of the item that drives an execution which had ended, and goes on: another text for
each time that it was resumed."""

STARTED = "automate.started"
"""The header of an event's item that FAILED with the workflows that it has started."""

ADVANCE = "automate.advance"
"""The kind of the outbox item that is an execution's wake-up."""

SIGNAL = "automate.signal"
"""The kind of the outbox item that brings a signal."""

SENT = "signal"
"""The source of an event that is a signal to one execution."""

_NAMESPACE = uuid.UUID("0d2ff7ef-3b8a-5a3c-9b53-0a7a3a1a2d3e")
ANYONE = ""
"""The name under which an approval is found that anybody may decide on."""
MOST_BYTES = 2 * MAX_PAYLOAD_BYTES
"""The most bytes of a signal: an event was accepted already, and the key comes in addition."""


def wait_key(*parts: Any) -> str:
    """Return the key of a wait: the SHA-256 (hex) over its *parts*, which are JSON."""
    return hashlib.sha256(_text(parts).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def approval_key(execution_id: str, step_id: str, position: int) -> str:
    """Return the key of the decision on one approval."""
    return wait_key("approval", execution_id, step_id, position)


def signal_key(execution: Execution, name: str) -> str:
    """Return the key of the signals called *name* that are sent to one execution, or its chain."""
    return wait_key("signal", execution.chain_id or execution.id, name)


def child_key(execution_id: str) -> str:
    """Return the key of the end of a sub-workflow's execution."""
    return wait_key("workflow", execution_id)


def event_key(tenant_id: str | None, name: str, field: str, value: Any) -> str:
    """Return the key of the events called *name* that have *value* in *field*."""
    return wait_key("event", tenant_id, name, field, plain_value(value))


def plain_value(value: Any) -> Any:
    """Return *value* so that equal numbers are the same: JSON has 5 and 5.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain_value(each) for key, each in value.items()}
    return [plain_value(each) for each in value] if isinstance(value, list) else value


def are_equal(one: Any, other: Any) -> bool:
    """Return True if two values are the same JSON: 5 and 5.0 are, 1 and true are not."""
    # Python takes 1 for True.
    return one == other and _text(plain_value(one)) == _text(plain_value(other))


def values_at(payload: Any, path: str) -> list[Any]:
    """Return the value in the field *path* of *payload* as a list of one; empty without it."""
    for name in path.split("."):
        if not isinstance(payload, Mapping) or name not in payload:
            return []
        payload = payload[name]
    return [payload]


def wait_id(execution_id: str, step_id: str, position: int) -> str:
    """Return the id of the row of a wait: a step waits for one thing at a time."""
    return str(uuid.uuid5(_NAMESPACE, f"{execution_id}\n{step_id}\n{position}"))


def approver_id(waits_id: str, who: str) -> str:
    """Return the id of the row of a person or role that may decide on a wait."""
    return str(uuid.uuid5(_NAMESPACE, f"{waits_id}\n{who}"))


def signal_id(item_id: str, key: str) -> str:
    """Return the id of the row of a signal: an item that comes twice brings it once."""
    return str(uuid.uuid5(_NAMESPACE, f"{item_id}\n{key}"))


@dataclass(frozen=True, slots=True)
class Wait:
    """
    A wait that begins: *run* waits for signals with *key*, or without one for its time alone.

    *about* is "time", "event", "signal", "approval", "workflow" or "task", and *details* are for
    people. It times out after so many *seconds*. *awaited* are the name and the field of its
    events: these are kept from now on.
    """

    run: StepRun
    about: str
    key: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    awaited: tuple[str, str] | None = None
    items: Sequence[NewItem] = ()
    """The items that are enqueued as it begins, each with an id of its own."""


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """
    A wait of a step, for people: *about* an "event", a "signal", an "approval", a "workflow", or
    a "task" of an executor.

    *details* name it. It times out when it *expires_at*.
    """

    step_id: str
    position: int
    about: str
    details: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(slots=True)
class OpenWait:
    """A wait that goes on, and the ids of the signals that have been looked at for it."""

    key: str
    about: str
    details: Mapping[str, Any]
    expires_at: datetime | None = None
    seen: set[str] = field(default_factory=set)
    saved: bool = True
    """False until its row, and the sub-workflow that it is about, are committed."""

    @property
    def subject(self) -> str:
        """The id of the execution whose end is waited for, if it is one."""
        return str(self.details.get("execution_id", ""))


@dataclass(frozen=True, slots=True)
class Arrived:
    """
    The news for a *wait*: the events of its signals, and the ids of their rows.

    With *over* its time is over too, and nothing more comes that was sent in time.
    """

    wait: OpenWait
    events: Sequence[Event] = ()
    ids: AbstractSet[str] = frozenset()
    over: bool = False


Inbox = MutableMapping[StepKey, Arrived]
"""The news for the waits of an execution: whoever drives it puts them in, a turn takes them out."""


class _SignalItem(NewItem):
    """An item whose payload is a key and an event around the caller's own payload."""

    __slots__ = ()

    def _encoded(self, redact: Redaction | None = None) -> JsonText:
        own = self.payload["event"]["payload"]
        return encode_around(self.payload, own, inside=2, redact=redact)


def signal_item(key: str, event: Event, **options: Any) -> NewItem:
    """Return the outbox item that brings *event* to those that wait for *key*."""
    payload = {"key": key, "event": event.to_json()}
    return _SignalItem(
        SIGNAL, payload, max_attempts=ACCEPTED_MAX_ATTEMPTS, lane=event.name, **options
    )


def kept_signal_items(
    event: Event, awaited: Iterable[tuple[str, str]], *, priority: int = 0
) -> Iterator[NewItem]:
    """
    Yield the items that wake the steps that wait for *event*, whose signals are kept beside them.

    *awaited* are the names and fields that some workflow waits for. The ids follow from the event:
    one that is handled twice is brought once.
    """
    for name, path in sorted(set(awaited)):
        values = values_at(event.payload, path) if path else [None]
        if name != event.name or not values:
            continue
        key = event_key(event.tenant_id, name, path, values[0])
        item_id = str(uuid.uuid5(_NAMESPACE, f"{event.id}\n{key}"))
        yield NewItem(
            SIGNAL, {"key": key}, id=item_id, tenant_id=event.tenant_id, priority=priority,
            max_attempts=ACCEPTED_MAX_ATTEMPTS, lane=name,
        )  # fmt: skip
