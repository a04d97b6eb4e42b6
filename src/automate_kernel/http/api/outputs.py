"""The output of the API: the fields of answers, without secrets."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from automate_kernel.outbox.item import ItemStatus
from automate_kernel.workflows.execution import ExecutionStatus

# The paths of attributes that an answer's fields are read from.
_OF_EVENT = "event"


class ApiOutput(BaseModel):
    """A part of an answer, read from the attributes of the kernel's values."""

    model_config = ConfigDict(from_attributes=True)


def _shown(value: Any, info: ValidationInfo) -> Any:
    return value if value is None else (info.context or {})["show"](value)


def _text_of(value: Any) -> Any:
    return value if value is None else str(value)


def _utc(value: datetime) -> datetime:
    return value.astimezone(timezone.utc)


ShownText = Annotated[str, BeforeValidator(_shown)]
"""Text without secrets."""
MaybeShownText = Annotated[str | None, BeforeValidator(_shown)]
ShownJSON = Annotated[Any, BeforeValidator(_shown)]
"""JSON without known secrets, and without those under names like ``password``."""
ShownDict = Annotated[dict[str, Any], BeforeValidator(_shown)]
ShownLabels = Annotated[dict[str, str], BeforeValidator(_shown)]
Id = Annotated[UUID, BeforeValidator(_text_of)]
MaybeId = Annotated[UUID | None, BeforeValidator(_text_of)]
Time = Annotated[datetime, AfterValidator(_utc)]
"""A time in UTC, whatever the host's own zone."""
Word = Annotated[str, BeforeValidator(_text_of)]

_POSITION = "Which element of for_each; else -1."
_GROUP = "The error's type and place, the same for all of its kind."
_TRACE = "Where it was raised: files, lines and their source, no values."
_REF = "The key of the output in the output store; it is null here, and read at …/output/."
_WAITS = "Why it waits; none once it has ended."


class AcceptedOutput(ApiOutput):
    """The id of an accepted event or signal, or of a new execution."""

    id: str


class ChangedOutput(ApiOutput):
    """The number of changed rows."""

    changed: int


class BulkProgressOutput(ApiOutput):
    """The progress of a bulk action that a worker carries on."""

    id: str
    action: str = Field(validation_alias=AliasPath("request", "action", "command"))
    total: int = Field(
        validation_alias=AliasPath("request", "total"), description="How many there were."
    )
    seen: int = Field(validation_alias=AliasPath("request", "action", "seen"))
    changed: int = Field(validation_alias=AliasPath("request", "action", "done"))
    over: bool = Field(description="Whether nothing follows.")
    waits: bool = Field(description="Whether it waits for a worker.")
    problem: ShownText = Field(description="Why it ended early; empty if it did not.")


class WorkflowOutput(ApiOutput):
    """A workflow."""

    name: str = Field(validation_alias=AliasPath("workflow", "name"))
    title: str | None = Field(validation_alias=AliasPath("workflow", "title"))
    description: str | None = Field(validation_alias=AliasPath("workflow", "description"))
    tenant_id: str | None
    problem: MaybeShownText = Field(description="Why it can't run.")


class WorkflowDetailOutput(WorkflowOutput):
    """A workflow with its definition, and whether it is paused."""

    definition: ShownDict
    definition_id: str = Field(description="The hash that executions are pinned to.")
    paused: bool = Field(description="For the caller's executions.")


class WorkflowVersionOutput(ApiOutput):
    """A definition that executions of a workflow are pinned to."""

    definition_id: str
    first_used_at: Time = Field(description="The begin of the first of these executions.")
    current: bool = Field(description="Whether a start now would take it.")
    definition: ShownDict


class PausedOutput(ApiOutput):
    """A workflow, and whether it is paused."""

    name: str
    tenant_id: str | None
    paused: bool


class ScheduleOutput(ApiOutput):
    """A schedule of a workflow."""

    workflow: str = Field(validation_alias=AliasPath("workflow", "name"))
    number: int = Field(description="The trigger's position in the workflow, from 0.")
    about: str = Field(description="Its times.")
    overlap: str = Field(validation_alias=AliasPath("trigger", "overlap"))
    catch_up: bool = Field(validation_alias=AliasPath("trigger", "catch_up"))
    tenant_id: str | None
    last_fired_at: Time | None
    next_at: Time | None
    paused_at: Time | None
    execution_id: str | None = Field(description="The last one.")


class FailedAttemptOutput(ApiOutput):
    """One attempt that failed."""

    attempt: int = Field(description="From 1; 0 is before the step's call.")
    step: str | None = Field(validation_alias="step_id", description="Of an execution: its step.")
    position: int = Field(description=_POSITION)
    error_code: str
    error_group: str
    error: ShownText
    trace: MaybeShownText = Field(description=_TRACE)
    failed_at: Time | None
    started_at: Time | None = Field(description="Of a step's.")
    duration_seconds: float | None
    worker_id: str | None = Field(description="The worker that made it.")


class StepAttemptOutput(ApiOutput):
    """One attempt of a step, however it ended."""

    step: str = Field(validation_alias="step_id")
    position: int = Field(description=_POSITION)
    attempt: int = Field(description="From 1; 0 is before the step's call.")
    status: Word = Field(description="RUNNING, or how it ended.")
    started_at: Time | None
    ended_at: Time | None
    duration_seconds: float | None
    worker_id: str | None = Field(description="The worker that made it.")
    error_code: str | None
    error_group: str | None = Field(description=_GROUP)
    error: MaybeShownText


class ErrorGroupOutput(ApiOutput):
    """Failures that come from one place."""

    kind: str = Field(description="The items' kind, or the workflow.")
    error_group: str = Field(validation_alias="group")
    error_code: str
    count: int
    latest_id: str = Field(description="The newest of them.")
    first_at: Time | None = Field(description="When the oldest of them failed.")
    latest_at: Time | None
    error: ShownText = Field(description="Of the newest.")


class ExecutionOutput(ApiOutput):
    """An execution."""

    id: Id
    workflow: str
    status: ExecutionStatus
    tenant_id: str | None
    event: str = Field(
        validation_alias=AliasPath(_OF_EVENT, "name"), description="The event's name."
    )
    labels: ShownLabels
    error_code: str | None
    error_group: str | None = Field(description=_GROUP)
    error: MaybeShownText
    created_at: Time
    updated_at: Time
    completed_at: Time | None


class StepOutput(ApiOutput):
    """A run of a step."""

    id: str
    position: int = Field(description=_POSITION)
    action: str | None
    place: str | None = Field(description="The line that calls it, of a workflow in code.")
    status: Word
    attempts: int
    input: ShownJSON = Field(description="As the workflow has it, with its templates.")
    output: ShownJSON
    output_ref: str | None = Field(description=_REF)
    progress: ShownJSON = Field(
        description="The value and message that its call reported last, or null."
    )
    error_code: str | None
    error_group: str | None = Field(description=_GROUP)
    error: MaybeShownText
    trace: MaybeShownText = Field(description=_TRACE)
    started_at: Time | None
    next_attempt_at: Time | None
    completed_at: Time | None


class AnsweredOutput(ApiOutput):
    """The output of an execution, of a step or of an operation."""

    output: ShownJSON


class CalledOutput(ApiOutput):
    """The output of an operation."""

    output: Any


class WaitOutput(ApiOutput):
    """A wait of a step: for an event, a signal, an approval or a workflow."""

    step_id: str
    position: int = Field(description=_POSITION)
    about: str = Field(description="event, signal, approval or workflow.")
    details: ShownJSON = Field(description="Its name, and what it must match.")
    created_at: Time
    expires_at: Time | None


class HandoverOutput(ApiOutput):
    """The note of a worker that handed an execution over."""

    code: str
    reason: ShownText
    worker: str
    since: Time
    times: int = Field(description="How often it was handed over since then.")


class WaitReasonOutput(ApiOutput):
    """A reason why an execution or an item does not go on now."""

    code: str = Field(description="Such as concurrency, kind_paused, event, no_worker.")
    text: ShownText
    hint: str = Field(description="What makes it go on; may be empty.")
    until: Time | None = Field(description="When it ends by itself.")
    details: ShownJSON = Field(description="The names and ids in the text.")


class ExecutionDetailOutput(ExecutionOutput):
    """An execution with its event, its output and its steps."""

    payload: ShownJSON = Field(
        validation_alias=AliasPath(_OF_EVENT, "payload"), description="The event's."
    )
    output: ShownJSON
    output_ref: str | None = Field(description=_REF)
    handed_over: HandoverOutput | None = Field(
        description="The reason why it waits for another worker, if it does."
    )
    definition_id: str
    item_id: MaybeId
    parent_id: MaybeId = Field(description="The execution whose step waits for this one.")
    predecessor_id: MaybeId = Field(description="The execution that this one continues as new.")
    successor_id: MaybeId = Field(description="The execution that has continued this one as new.")
    reasons: list[WaitReasonOutput] = Field(description=_WAITS)
    steps: list[StepOutput]
    waits: list[WaitOutput]
    attempts: list[StepAttemptOutput]
    failed_attempts: list[FailedAttemptOutput]


class WaitingOutput(ApiOutput):
    """All that an execution waits for."""

    reasons: list[WaitReasonOutput] = Field(description=_WAITS)
    waits: list[WaitOutput]


class ApprovalOutput(ApiOutput):
    """A step that waits for a person."""

    execution_id: Id
    step: str = Field(validation_alias="step_id")
    position: int = Field(description=_POSITION)
    workflow: str
    tenant_id: str | None
    title: ShownText
    description: MaybeShownText
    by: list[str] = Field(
        description="Who may decide: users, and groups as role:NAME. Empty: anybody."
    )
    may_decide: bool = Field(description="Whether the caller is among them.")
    form: ShownDict = Field(validation_alias="form_fields", description="The form, as JSON Schema.")
    created_at: Time
    expires_at: Time | None


class DecidedOutput(ApiOutput):
    """A decision as the step's output has it."""

    approved: bool
    by: str
    comment: ShownText
    form: ShownDict
    at: str
    timed_out: bool


class MadeDecisionOutput(ApiOutput):
    """A decision that a person made on an approval."""

    execution_id: Id
    step_id: str
    position: int = Field(description=_POSITION)
    workflow: str
    title: ShownText
    approved: bool
    decided_by: ShownText
    comment: ShownText
    tenant_id: str | None
    decided_at: Time


class ItemOutput(ApiOutput):
    """An outbox item, without what it carries."""

    id: Id
    kind: str
    status: ItemStatus
    priority: int
    attempt_count: int
    max_attempts: int
    next_attempt_at: Time
    lease_owner: str | None
    lease_expires_at: Time | None
    tenant_id: str | None
    error_code: str | None = Field(validation_alias="last_error_code")
    error_group: str | None = Field(validation_alias="last_error_group", description=_GROUP)
    error: MaybeShownText = Field(validation_alias="last_error")
    created_at: Time
    updated_at: Time
    completed_at: Time | None


class ItemDetailOutput(ItemOutput):
    """An outbox item with its payload, in which secrets are hidden."""

    payload: ShownJSON
    headers: ShownDict
    labels: ShownLabels
    reasons: list[WaitReasonOutput] = Field(description=_WAITS)
    failed_attempts: list[FailedAttemptOutput]


class StatsOutput(ApiOutput):
    """Figures of the outbox."""

    counts: dict[str, dict[str, int]] = Field(description="By kind, then by status.")
    counted_among: int | None = Field(
        description="For a tenant in a large outbox: among how many of all items, the newest"
        " ones, they were counted. FAILED is exact."
    )
    oldest_due_seconds: float | None
    paused: list[str]


class LimitOutput(ApiOutput):
    """The limit of a kind."""

    concurrency: int | None
    rate: int | None
    per_seconds: float
    burst: int | None
    declared: bool = Field(description="Whether it comes from code, and not from an operator.")


class KindOutput(ApiOutput):
    """A kind of items: its counts, whether it is paused, and its limit."""

    kind: str
    counts: dict[str, int] = Field(description="By status.")
    late_seconds: float | None = Field(description="The lateness of its oldest due item.")
    paused: bool
    limit: LimitOutput | None


class OperationOutput(ApiOutput):
    """An operation that can be called."""

    name: str
    title: str
    description: str
    read_only: bool
    idempotent: bool
    destructive: bool
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    choices: list[str] = Field(description="The fields whose choices can be listed.")


class ChoiceOutput(ApiOutput):
    """One choice of a field."""

    value: Any
    label: str


class PluginOutput(ApiOutput):
    """A plugin."""

    kind: str
    key: str
    source: str
    version: str | None
    state: Annotated[str, BeforeValidator(lambda state: getattr(state, "value", state))]
    usable: bool
    error: MaybeShownText
    remedy: MaybeShownText


class WorkerOutput(ApiOutput):
    """A worker, as it last reported."""

    id: str
    host: str
    pid: int
    started_at: Time | None
    seen_at: Time | None
    kinds: list[str]
    slots: int
    in_flight: int
    stopping: bool
    alive: bool = Field(description="Whether it works, as far as anybody knows.")
    lost: bool = Field(description="Whether it has not reported for a minute.")
    problem: MaybeShownText
    version: str | None


class HealthOutput(ApiOutput):
    """The state of the service: its database, and its workers."""

    ready: bool
    problems: list[ShownText]


class TokenOutput(ApiOutput):
    """A token, without its text."""

    prefix: str
    name: str
    tenant_id: str | None
    all_tenants: bool
    roles: list[str]
    scopes: list[str]
    state: str = Field(description="usable, expired or revoked.")
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None


class DocumentOutput(ApiOutput):
    """A workflow that people edit, by the numbers of its versions."""

    id: Id
    name: str
    tenant_id: str | None
    enabled: bool = Field(description="Whether events and schedules start it.")
    version: int | None = Field(description="The published one; null before any is.")
    latest: int
    is_draft: bool = Field(description="Whether the latest version is not published.")
    created_at: Time
    updated_at: Time


class DocumentDetailOutput(DocumentOutput):
    """A workflow that people edit, with the text of its latest version."""

    format: str
    source: ShownText


class DocumentVersionOutput(ApiOutput):
    """A version of a workflow, whose text never changes."""

    number: int
    format: str
    definition_id: str = Field(validation_alias="digest")
    restored_from: int | None
    comment: ShownText
    author: str
    created_at: Time
    published_at: Time | None
    published_by: str


class DocumentSourceOutput(DocumentVersionOutput):
    """A version of a workflow, with its text."""

    source: ShownText


class CheckedSourceOutput(ApiOutput):
    """A text that is a workflow, and what it would lack here."""

    name: str
    definition_id: str
    missing: list[ShownText] = Field(description="Actions that are not there, for example.")


class DeliveryOutput(ApiOutput):
    """An accepted delivery of a webhook or a poll, and the item that it became."""

    id: str
    connector: str
    trigger: str = Field(description="That of a poll begins with `poll:`.")
    item_id: Id
    received_at: Time
    redeliveries: int
    redelivered_at: Time | None


class RefusedDeliveryOutput(ApiOutput):
    """Deliveries that started nothing, for one reason."""

    connector: str = Field(description="Empty if there is no such connector.")
    trigger: str
    outcome: str = Field(description="refused, failed, ignored or repeated.")
    reason: ShownText
    times: int
    first_at: Time
    received_at: Time = Field(description="The time of the last.")


class NewTokenOutput(TokenOutput):
    """A new token with its text, which can't be shown again."""

    text: str


class FieldProblemOutput(ApiOutput):
    """One wrong field of a request."""

    pointer: str = Field(default="", description="JSON pointer into the body")
    parameter: str = Field(default="", description="name of a query parameter")
    detail: str
    code: str


class ProblemOutput(ApiOutput):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblemOutput] = Field(default_factory=list)
