"""
Events, the executions that they start, and the runs of their steps.

::

    execution  PENDING ─▶ RUNNING ─┬▶ COMPLETED
                 │ ▲        ▲ │    ├▶ FAILED
                 ▼ │        │ ▼    └▶ CANCELLED
                PAUSED      PAUSED
               PENDING, RUNNING or PAUSED ─cancel─▶ CANCELLING ─cleaned up─▶ CANCELLED

    step run   PENDING ◀▶ RUNNING ─┬▶ COMPLETED
                 │ │        ▲ ▼    ├▶ FAILED
                 │ │       RETRY   ├▶ CANCELLED
                 │ └▶ WAITING ─────┘
                 └▶ SKIPPED

Only an operator's resume leads out of a finished status. An execution may end before it runs. A
workflow with nothing to clean up is CANCELLED at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.failed_attempts import FailedAttempt, seconds_between
from automate_kernel.outbox.item import check_text
from automate_kernel.outbox.labels import checked_labels, joined_labels
from automate_kernel.storage.statuses import ExecutionStatus as ExecutionStatus  # noqa: PLC0414  (given on)
from automate_kernel.storage.statuses import StepStatus as StepStatus  # noqa: PLC0414  (given on)

EventType = Literal["event", "webhook", "manual", "schedule"]

StepKey = tuple[str, int]
"""A step's id, and the position of an element of its ``for_each``, or -1."""


def check_event_name(name: Any) -> None:
    """Raise `PayloadError` if *name* can't be the name of an event."""
    what = "the event's name"
    check_text(name, what, column="kind", hint='for example "order.created"')
    if not name.isprintable():
        raise PayloadError(f"{what} has characters that can't be printed", hint="take them out")


def check_event_source(source: Any) -> None:
    """Raise `PayloadError` if *source* can't be the source of an event; None and "" may."""
    if source is not None and source != "":
        check_text(source, "the event's source", column="kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that happened, and that workflows may start on.

    *name* is the event's own name for type ``event``, ``connector.trigger`` for ``webhook``, and
    the workflow's name for ``manual`` and ``schedule``. *source* is its origin: for a webhook the
    connector's key. *headers* are those of a webhook that its trigger keeps, by their names in
    lower case. *occurred_at* is ISO 8601 text, because an event is stored as JSON and templates see
    it as it is stored. *labels* are the host's own keys; the executions that it starts are found by
    them.
    """

    id: str
    name: str
    payload: Any = None
    type: EventType = "event"
    source: str | None = None
    tenant_id: str | None = None
    occurred_at: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: dict[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object; templates see it as ``event``."""
        return {name: getattr(self, name) for name in _EVENT_FIELDS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """
        Read the event that `to_json` wrote.

        Fields that a newer version added are ignored, so that a worker can be rolled back.
        Raises `PayloadError` if *data* is not an event.
        """
        missing = [name for name in ("id", "name") if not isinstance(data.get(name), str)]
        if missing:
            raise PayloadError(f"not an event: {' and '.join(missing)} must be text")
        types = get_args(EventType)
        if data.get("type", "event") not in types:
            raise PayloadError(
                "not an event: its type is unknown", hint=f"one of {', '.join(types)}"
            )
        if not isinstance(data.get("headers", {}), Mapping):
            raise PayloadError("not an event: its headers must be an object")
        return cls(**{key: value for key, value in data.items() if key in _EVENT_FIELDS})


_EVENT_FIELDS = tuple(each.name for each in fields(Event))


@dataclass(slots=True, kw_only=True)
class StepRun:
    """
    One step of an execution, as far as it has come.

    *step_id* of a step inside a block is its path: ``lines[3].charge``.
    A step with ``for_each`` has a run per element, at *position* 0, 1, …; any other step has one
    run, at -1. *attempts* counts at the start of a call, so an attempt that kills its worker
    counts. *place* is the line that calls it, in a workflow that is code. With *output_ref* the
    output is in the application's output store, and *output* is None until it is read.
    """

    execution_id: str
    step_id: str
    position: int = -1
    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    failures: int = 0
    """The attempts that have failed; of *attempts* some may have died with their worker."""
    output: Any = None
    error_code: str | None = None
    error: str | None = None
    error_group: str | None = None
    trace: str | None = None
    started_at: datetime | None = None
    next_attempt_at: datetime | None = None
    completed_at: datetime | None = None
    place: str | None = None
    output_ref: str | None = None
    progress: Any = None
    """The last report of its call, a ``value`` and a ``message``; see `Call.progress`."""
    attempted_at: datetime | None = None
    """The beginning of its latest attempt."""
    worker_id: str | None = None
    """The worker that made its latest attempt."""
    key: StepKey = field(init=False, repr=False, compare=False)
    """The step's id and the position."""

    def __post_init__(self) -> None:
        # Once: the engine looks runs up by it all the time.
        self.key = (self.step_id, self.position)

    @property
    def id(self) -> str:
        """The step's id in its workflow."""
        return self.step_id

    @property
    def duration_seconds(self) -> float | None:
        """The seconds from its first attempt to its end, waits included, or None before that."""
        return seconds_between(self.started_at, self.completed_at)

    def failed_attempt(self) -> FailedAttempt:
        """Return the attempt that has just failed."""
        return FailedAttempt(
            attempt=self.attempts,
            error_code=self.error_code or "",
            error_group=self.error_group or "",
            error=self.error or "",
            trace=self.trace,
            step_id=self.step_id,
            position=self.position,
            started_at=self.attempted_at,
            worker_id=self.worker_id,
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StepRun:
        """Read the run that a row of `automate_kernel.storage.tables.STEP` holds."""
        values = {name: row[name] for name in _RUN_FIELDS}
        return cls(**{**values, "status": StepStatus(row["status"])})


_RUN_FIELDS = tuple(each.name for each in fields(StepRun) if each.init)


@dataclass(slots=True, kw_only=True)
class Execution:
    """One run of a workflow for one event, pinned to the definition that it started with."""

    id: str
    name: str
    definition_id: str
    event: Event
    status: ExecutionStatus = ExecutionStatus.PENDING
    tenant_id: str | None = None
    item_id: str | None = None
    parent_id: str | None = None
    """The execution whose step waits for this one."""
    chain_id: str | None = None
    """The first execution of its chain, of one that continues another."""
    successor_id: str | None = None
    """The execution that has continued this one as new."""
    events_since: datetime | None = None
    """The time from which events count: at which its own was sent; None is its own beginning."""
    events_taken: dict[str, Any] | None = None
    """The events that those before it have taken, by key: the last time, and its signals."""
    concurrency_key: str | None = None
    """The key of which so many executions go on at once, as a hash; None without a limit."""
    output: Any = None
    error_code: str | None = None
    error: str | None = None
    error_group: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    output_ref: str | None = None
    own_labels: dict[str, str] = field(default_factory=dict)
    """The labels that the workflow itself has set."""
    seed: str | None = None
    """The id that chance in its code follows from, of a copy: that of the original."""
    steps: list[StepRun] = field(default_factory=list)

    @property
    def workflow(self) -> str:
        """The workflow's name, another word for *name*."""
        return self.name

    @property
    def owner(self) -> str | None:
        """The tenant that the execution belongs to."""
        return self.tenant_id

    @property
    def predecessor_id(self) -> str | None:
        """The execution that this one continues, or None."""
        return None if self.chain_id is None else self.event.source

    @property
    def labels(self) -> dict[str, str]:
        """The keys by which it is found: the workflow's own and its event's, ten at most."""
        return joined_labels(self.own_labels, self.event.labels)

    def changed_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """
        Return those of *labels* that are new, or have changed, beside its own.

        Raises `PayloadError` if they are too many.
        """
        checked_labels({**self.own_labels, **labels})
        return {name: value for name, value in labels.items() if self.own_labels.get(name) != value}

    def set_labels(self, changed: Mapping[str, str]) -> None:
        """Set labels of its own."""
        self.own_labels = {**self.own_labels, **changed}

    @property
    def duration_seconds(self) -> float | None:
        """The seconds from its creation to its end, or None while it goes on."""
        return seconds_between(self.created_at, self.completed_at)

    def step(self, step_id: str, position: int = -1) -> StepRun | None:
        """Return the run of one step, or None if it has not begun."""
        return next((run for run in self.steps if run.key == (step_id, position)), None)

    def runs_of(self, step_id: str) -> list[StepRun]:
        """Return all runs of one step by position; a step with ``for_each`` has many."""
        runs = (run for run in self.steps if run.step_id == step_id)
        return sorted(runs, key=lambda run: run.position)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], steps: Iterable[StepRun] = ()) -> Execution:
        """
        Read the execution that a row of `automate_kernel.storage.tables.EXECUTION` holds.

        The row is written when the status changes; with its *steps* it is as new as the newest.
        """
        found = cls(
            name=row["workflow"],
            event=Event.from_json(row["event"]),
            status=ExecutionStatus(row["status"]),
            steps=list(steps),
            own_labels=dict(row["labels"] or {}),
            **{name: row[name] for name in _SAME},
        )
        ends = [run.completed_at for run in found.steps if run.completed_at is not None]
        if found.updated_at is not None:
            found.updated_at = max([found.updated_at, *ends])
        return found


# The fields that are columns as they are.
_SAME = {each.name for each in fields(Execution)} - {
    "name",
    "event",
    "status",
    "steps",
    "own_labels",
}
