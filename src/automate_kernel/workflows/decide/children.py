"""Sub-workflows: executions that a step of another execution starts."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.item import ACCEPTED_MAX_ATTEMPTS, NewItem
from automate_kernel.storage.statuses import ExecutionStatus
from automate_kernel.workflows.decide.admission import Admission
from automate_kernel.workflows.decide.waits import child_key, plain_value, signal_item
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Event, Execution, StepKey, StepRun, StepStatus

CANCEL = "automate.cancel"
"""The kind of the outbox item that cancels sub-workflows whose parent goes on without them."""

MOST_DEPTH = 50
"""So many executions may wait for each other in a row."""

FindChild = Callable[[str, Event], tuple[Workflow, Admission | None]]
"""Finds the workflow called so that an event may start, and its conditions on a start."""

_NAMESPACE = uuid.UUID("5b6d7a3e-6c59-5f0e-8f0e-2f4f3c1d9a77")
_DEPTH, _HELD_KEYS, _STEP, _UNREAD = "depth", "held_keys", "step", "unread"


@dataclass(frozen=True, slots=True)
class Child:
    """
    A sub-workflow that begins: its id, definition and event, and if its parent waits for it.

    *admission* has the workflow's own conditions on a start. One that *goes_on* has begun before
    its parent was resumed, and is resumed with it.
    """

    id: str
    workflow: Workflow
    event: Event
    waited: bool
    admission: Admission | None = None
    goes_on: bool = False


def child_id(parent: Execution, run: StepRun) -> str:
    """
    Return the id of the execution that the attempt of *run* starts.

    It is the same after a crash. The item is another one once the parent was resumed.
    """
    parts = (parent.id, parent.item_id, run.step_id, run.position, run.attempts)
    return str(uuid.uuid5(_NAMESPACE, "\n".join(map(str, parts))))


def child_event(
    parent: Execution,
    run: StepRun,
    execution_id: str,
    name: str,
    payload: Any,
    at: str,
    *,
    waited: bool,
) -> Event:
    """
    Return the event of the sub-workflow *name*, which *run* starts.

    It is manual, with its parent's id as the source.

    Raises ``FAILED_PRECONDITION`` if too many wait for each other.
    """
    # One that nobody waits for begins a row of its own, and may start itself for ever.
    depth = _depth(parent.event) + 1 if waited else 0
    if depth > MOST_DEPTH:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{MOST_DEPTH} sub-workflows wait for each other already",
            hint="end the recursion with an if, or start the next one with wait: false",
        )
    return Event(
        id=execution_id,
        name=name,
        payload=payload,
        type="manual",
        source=parent.id,
        tenant_id=parent.tenant_id,
        occurred_at=at,
        headers=_headers(depth, _keys_around(parent), _step_text(run.key)) if waited else {},
        labels=parent.labels,
    )


def check_held_keys(event: Event, name: str, admission: Admission | None) -> None:
    """
    Raise ``FAILED_PRECONDITION`` if the sub-workflow *name* of *event* could never begin.

    Those that wait for it would hold all places of its concurrency key until it ends.
    """
    concurrency = None if admission is None else admission.concurrency
    if admission is None or concurrency is None or concurrency.limit > MOST_DEPTH:
        return
    held = _held_keys(event).count(admission.concurrency_key or "")
    if held >= concurrency.limit:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"sub-workflow {name!r} would wait for ever: {held} of its concurrency key may go on"
            " at once, and wait for it themselves",
            hint="give it another key, raise the limit, or start it with wait: false",
        )


def inherited_headers(event: Event) -> dict[str, str]:
    """Return the headers of one that goes on in the place of *event*'s: the same wait for it."""
    return _headers(_depth(event), _held_keys(event), event.headers.get(_STEP))


def left_headers(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a sub-workflow's *event* while nobody waits for it."""
    step = event["headers"].get(_STEP)
    return {_STEP: step} if step else {}


def _headers(depth: int, held: list[str], step: str | None) -> dict[str, str]:
    known = {_DEPTH: str(depth) if depth else "", _HELD_KEYS: " ".join(held), _STEP: step or ""}
    return {name: text for name, text in known.items() if text}


def _step_text(key: StepKey) -> str:
    step_id, position = key
    return f"{position} {step_id}"


def _depth(event: Event) -> int:
    text = event.headers.get(_DEPTH, "") if event.type == "manual" else ""
    return int(text) if text.isascii() and text.isdigit() else 0


def _held_keys(event: Event) -> list[str]:
    """Return the concurrency keys of the executions that wait for that of *event*."""
    return event.headers.get(_HELD_KEYS, "").split() if event.type == "manual" else []


def _keys_around(parent: Execution) -> list[str]:
    own = parent.concurrency_key
    return [*_held_keys(parent.event), *([own] if own is not None else [])]


# -- going on with one that has begun --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BegunChild:
    """
    The sub-workflow that a step had begun before its execution was resumed.

    *definition* and *payload* are what it has begun with, the one by its hash, the other likewise.
    """

    execution_id: str
    definition: str
    payload: str

    @classmethod
    def of_rows(cls, first: Mapping[str, Any], last: Mapping[str, Any]) -> BegunChild:
        """Return what the rows of the *first* and the *last* execution of a chain tell."""
        return cls(first["id"], last["definition_id"], _digest(first["event"]["payload"]))

    @classmethod
    def of_run(cls, run: StepRun) -> BegunChild | None:
        """Return what `to_json` wrote as the output of *run*, or None."""
        if run.status is not StepStatus.RETRY or not isinstance(run.output, dict):
            return None
        return cls(**run.output) if run.output.keys() == set(cls.__slots__) else None

    def to_json(self) -> dict[str, str]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def has_input(self, payload: Any) -> bool:
        """Return True if it has begun with *payload*."""
        return self.payload == _digest(payload)


def begun_for(row: Mapping[str, Any]) -> StepKey | None:
    """Return the step of its parent that the execution of *row* was begun for, if that is known."""
    position, _, step_id = str(row["event"].get("headers", {}).get(_STEP, "")).partition(" ")
    return (step_id, int(position)) if step_id else None


def _digest(payload: Any) -> str:
    text = json.dumps(plain_value(payload), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# -- ends ------------------------------------------------------------------------------------------


def end_event(row: Mapping[str, Any] | None, execution_id: str) -> Event:
    """Return the end of a sub-workflow as an event; None as its *row* means that it is gone."""
    names = ("status", "output", "error_code", "error")
    row = row or {"workflow": "", "error_code": "DATA_LOSS", "error": "its execution is gone"}
    payload = {"execution_id": execution_id, **{name: row.get(name) for name in names}}
    # The parent has a copy of its own, once it is made.
    payload |= {"output_ref": None, _UNREAD: row.get("output_ref")}
    return Event(id=execution_id, name=row["workflow"] or "?", payload=payload, type="manual")


def unread_output(event: Event) -> str | None:
    """Return the key of the output of the sub-workflow that has ended, until it is copied."""
    key: str | None = event.payload[_UNREAD]
    return key


def take_output(event: Event, key: str, output: Any) -> None:
    """Give the end of a sub-workflow the *key* of the copy, and the *output* if it is read."""
    event.payload.update({_UNREAD: None, "output_ref": key, "output": output})


def lose_output(event: Event) -> None:
    """Let a sub-workflow have failed whose output is not in the output store any more."""
    failed = {
        "status": ExecutionStatus.FAILED.value,
        "error_code": "DATA_LOSS",
        "error": "its output is gone",
    }
    event.payload.update({_UNREAD: None, **failed})


def error_of(name: str, payload: Mapping[str, Any]) -> AutomateError | None:
    """Return the error of a sub-workflow that has ended, or None if it has COMPLETED."""
    if payload["status"] == ExecutionStatus.COMPLETED:
        return None
    if payload["status"] == ExecutionStatus.CANCELLED:
        return AutomateError(ErrorCodes.CANCELLED, f"sub-workflow {name!r} was cancelled")
    code = ErrorCodes.of(payload["error_code"])
    return AutomateError(code, f"sub-workflow {name!r} failed: {payload['error']}")


# -- items -----------------------------------------------------------------------------------------


def end_items(execution: Execution) -> list[NewItem]:
    """Return the item that tells the parent of *execution* of its end; none without a parent."""
    if execution.parent_id is None:
        return []
    event = Event(id=execution.id, name=execution.name, type="manual")
    # The parent waits for the one that it has started, the first of its chain.
    key = child_key(execution.chain_id or execution.id)
    return [signal_item(key, event, tenant_id=execution.tenant_id)]


def cancel_items(execution: Execution, children: list[str]) -> list[NewItem]:
    """Return the item that cancels these *children* of an execution; none without children."""
    if not children:
        return []
    return [cancel_item(execution, {"execution_ids": children})]


def cancel_item(execution: Execution, payload: dict[str, Any]) -> NewItem:
    """Return the item that cancels the children of *execution* that *payload* names."""
    most = ACCEPTED_MAX_ATTEMPTS
    return NewItem(CANCEL, payload, tenant_id=execution.tenant_id, max_attempts=most)
