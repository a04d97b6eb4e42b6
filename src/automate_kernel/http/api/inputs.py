"""The input of the API: the fields of queries and bodies, with their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import core_schema

from automate_kernel.access.roles import ROLES
from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.item import (
    LENGTHS,
    MAX_DELAY_SECONDS,
    MAX_PRIORITY,
    ItemStatus,
    check_text,
)
from automate_kernel.outbox.labels import MAX_LABELS
from automate_kernel.workflows.definition.document import LARGEST
from automate_kernel.workflows.execution import (
    ExecutionStatus,
    check_event_name,
    check_event_source,
)
from automate_kernel.workflows.steer.approvals import MOST_COMMENT

# No NUL anywhere, and one character that is no blank: blanks are cut off at both ends. The class
# has Python's blanks; the \s of other languages has fewer.
_BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TEXT = rf"^[^\x00]*[^\x00{_BLANK}][^\x00]*$"
_TRIMMED = rf"^[^\x00{_BLANK}]([^\x00]*[^\x00{_BLANK}])?$"
_MOST_POSITION = 2**31 - 1


class ApiInput(BaseModel):
    """Input in which an unknown name is an error: likely it is misspelt."""

    model_config = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class TextRule:
    """
    The rule for a text of at most *most* characters, without NUL.

    It is trimmed, and not empty unless it may be *blank*. A text that the kernel checks itself
    stays as it is: *check* raises `PayloadError`.
    """

    most: int
    blank: bool = False
    check: Callable[[str], None] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        text = _TEXT if self.check is None else _TRIMMED
        if self.blank:
            text = rf"^$|{_TRIMMED}" if self.check else r"^[^\x00]*$"
        bounds = {"maxLength": self.most, "pattern": text}
        return {**handler(schema), **bounds, **({} if self.blank else {"minLength": 1})}

    def read(self, text: str) -> str:
        """Return the text as it is taken; raises `ValueError`."""
        if self.check is not None:
            try:
                self.check(text)
            except PayloadError as error:
                raise ValueError(str(error)) from None
            return text
        if "\0" in text:
            raise ValueError("No text has a NUL character in it.")
        found = text if self.blank else text.strip()
        if not found and not self.blank:
            raise ValueError("This may not be empty.")
        if len(found) > self.most:
            raise ValueError(f"This has more than {self.most} characters.")
        return found


def _column(what: str, column: str = "") -> TextRule:
    """Return the rule for a text of a *column* of the outbox."""
    name = column or what
    return TextRule(LENGTHS[name], check=partial(check_text, what=what, column=name))


def _only_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise ValueError("This is a text.")


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("There is no such time.") from None


def _whole(text: Any) -> Any:
    """Return the number in a query's text; more than digits is none."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("This has to be a whole number from 0 on.")
    return text


Instant = Annotated[
    datetime,
    BeforeValidator(_only_text),
    AfterValidator(_in_utc),
    Field(strict=False, json_schema_extra={"type": "string", "format": "date-time"}),
]
"""A time; without an offset it is in UTC."""
Tenant = Annotated[str, _column("tenant_id"), Field(description="For operators.")]
Name = Annotated[str, TextRule(200)]
ErrorCode = Annotated[str, TextRule(64)]
Reason = Annotated[str, TextRule(1000, blank=True)]
Key = Annotated[
    str, _column("idempotency_key"), Field(description="A second one with it is the first one.")
]
EventName = Annotated[str, TextRule(LENGTHS["kind"], check=check_event_name)]
EventSource = Annotated[str, TextRule(LENGTHS["kind"], blank=True, check=check_event_source)]
LabelFilter = Annotated[
    str, TextRule(300), Field(description="`order=4711`, or `4711` under any name.")
]
GroupFilter = Annotated[str, TextRule(200), Field(description="As errors/ names it.")]
Position = Annotated[
    int, Field(ge=-1, le=_MOST_POSITION, description="The element of for_each, from 0; else -1.")
]
Size = Annotated[
    int, Field(ge=1, description="Rows on a page; never over the most."), BeforeValidator(_whole)
]
Cursor = Annotated[str, Field(max_length=20_000, description="As next leads to it.")]
Ids = Annotated[
    list[Annotated[UUID, BeforeValidator(_only_text), Field(strict=False)]],
    Field(min_length=1, max_length=1000),
]
Rate = Annotated[float, Field(ge=0.01, le=10_000, allow_inf_nan=False)]
ItemStatusFilter = Annotated[ItemStatus, Field(strict=False)]
_UNSET: Any = None


# -- bodies ------------------------------------------------------------------------------------


class NoInput(ApiInput):
    """No fields at all."""


class TenantInput(ApiInput):
    """The tenant that is meant."""

    tenant_id: Tenant = _UNSET


class StartInput(TenantInput):
    """The start of an execution."""

    payload: Any = None
    labels: Annotated[
        dict[str, Name],
        Field(description="Keys to find it by, and what it starts."),
    ] = _UNSET
    delay: Annotated[
        float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False, description="In seconds.")
    ] = 0.0
    idempotency_key: Key = _UNSET
    priority: Annotated[
        int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="For operators.")
    ] = _UNSET


class EventInput(StartInput):
    """An event."""

    name: EventName
    source: EventSource = ""


class ScheduleCommandInput(TenantInput):
    """The schedules of a workflow that are meant: all, or the one of a trigger."""

    number: Annotated[int, Field(ge=0, le=1000, description="The trigger's position, from 0.")] = (
        _UNSET
    )


class BackfillInput(ScheduleCommandInput):
    """The range of times to fire."""

    start: Instant
    end: Instant
    limit: Annotated[
        int, Field(ge=1, le=1000, description="Nothing is fired if there are more times.")
    ] = 1000


class SignalInput(ApiInput):
    """A signal to one execution."""

    name: EventName
    payload: Any = None
    idempotency_key: Key = _UNSET


class CancelInput(ApiInput):
    """The way to cancel an execution."""

    force: Annotated[
        bool, Field(description="End it at once: nothing is undone or cleaned up.")
    ] = False


class RetryStepInput(ApiInput):
    """The failed step that runs again."""

    step: Annotated[
        Name,
        Field(description="Its id; a compensation is <step>.compensate."),
    ]
    position: Position = -1


class ForkInput(ApiInput):
    """The first step that runs of a copy, and another payload."""

    step: Name
    payload: Annotated[Any, Field(description="Without it the copy has the same.")] = None


class PauseInput(TenantInput):
    """The reason of a pause, and the tenant that it is for."""

    reason: Reason = ""


class ResumeInput(ApiInput):
    """The step from which to go on, and the definition."""

    step: Annotated[
        Name,
        Field(description="Do this step and all that follow again, whatever the end was."),
    ] = _UNSET
    definition: Annotated[
        Literal["current"], Field(description="Go on with the workflow as it is now.")
    ] = _UNSET


class RescheduleInput(ApiInput):
    """The new due time of an item: a delay in seconds, or a time."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    delay: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False)] = _UNSET
    run_at: Instant = _UNSET

    @model_validator(mode="after")
    def _one(self) -> RescheduleInput:
        if len(self.model_fields_set) != 1:
            raise ValueError("Say either delay or run_at.")
        return self


class KindPauseInput(ApiInput):
    """The reason of a pause of a kind."""

    reason: Reason = ""


class KindLimitInput(ApiInput):
    """The limit of a kind: items at once, starts in a time, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["concurrency"]}, {"required": ["rate"]}],
            "dependentRequired": {"burst": ["rate"]},
        }
    )

    concurrency: Annotated[int, Field(ge=1, le=10**9, description="Items at once.")] = _UNSET
    rate: Annotated[int, Field(ge=1, le=10**9, description="Starts per per_seconds.")] = _UNSET
    per_seconds: Annotated[float, Field(ge=0.001, le=10**6, allow_inf_nan=False)] = 1.0
    burst: Annotated[
        int, Field(ge=1, le=10**9, description="Starts at once after a lull; as many as rate.")
    ] = _UNSET


class DecisionInput(ApiInput):
    """A decision on an approval."""

    comment: Annotated[str, TextRule(MOST_COMMENT, blank=True)] = ""
    form: Annotated[dict[str, Any], Field(description="As the approval's form asks for it.")] = (
        _UNSET
    )
    position: Position = -1


class CallInput(TenantInput):
    """The input of an operation."""

    input: dict[str, Any] = Field(default_factory=dict)


class ChoicesInput(TenantInput):
    """A question for the choices of a field."""

    search: Annotated[str, TextRule(200, blank=True)] = ""
    values: dict[str, Any] = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def _known_role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"There are {', '.join(ROLES)}.")
    return role


class TokenRequestInput(TenantInput):
    """A new token: its name, what it may do by roles or scopes, and for how long."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"minItems": 1}}}
                for name in ("roles", "scopes")
            ]
        }
    )

    name: Annotated[str, _column("the name", "kind")]
    roles: Annotated[
        list[
            Annotated[str, AfterValidator(_known_role), Field(json_schema_extra={"enum": [*ROLES]})]
        ],
        Field(max_length=20),
    ] = Field(default_factory=list)
    scopes: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    expires_in_seconds: Annotated[
        float, Field(ge=1, le=100 * 365 * 86_400.0, allow_inf_nan=False)
    ] = _UNSET

    @model_validator(mode="after")
    def _able(self) -> TokenRequestInput:
        if not self.roles and not self.scopes:
            raise ValueError("The token could do nothing: give it roles or scopes.")
        return self


# -- filters -----------------------------------------------------------------------------------


class ErrorQueryInput(TenantInput):
    """A filter of failed items, which are then grouped."""

    kind: Name = _UNSET


class ExecutionErrorQueryInput(TenantInput):
    """A filter of failed executions, which are then grouped."""

    workflow: Name = _UNSET


class OutputQueryInput(ApiInput):
    """The step whose output is read; without one it is the execution's."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"position": ["step"]}})

    step: Name = _UNSET
    position: Annotated[
        int, Field(ge=0, le=_MOST_POSITION, description="Of an element."), BeforeValidator(_whole)
    ] = _UNSET

    @model_validator(mode="after")
    def _of_a_step(self) -> OutputQueryInput:
        if "position" in self.model_fields_set and "step" not in self.model_fields_set:
            raise ValueError("Say of which step.")
        return self


class _TimeFilter(TenantInput):
    created_after: Instant = _UNSET
    created_before: Instant = _UNSET
    error_group: GroupFilter = _UNSET


class ItemQueryInput(_TimeFilter):
    """A filter of items."""

    status: ItemStatusFilter = _UNSET
    kind: Name = _UNSET
    error_code: ErrorCode = _UNSET
    label: LabelFilter = _UNSET
    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class ExecutionQueryInput(_TimeFilter):
    """A filter of executions."""

    status: Annotated[ExecutionStatus, Field(strict=False)] = _UNSET
    workflow: Name = _UNSET
    label: Annotated[
        list[LabelFilter],
        Field(max_length=MAX_LABELS, description="Again for another label: all must hold."),
    ] = _UNSET
    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class ApprovalQueryInput(TenantInput):
    """A filter of approvals."""

    workflow: Name = _UNSET
    mine: Annotated[bool, Field(description="Only those that the caller may decide.")] = False
    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class DecisionQueryInput(TenantInput):
    """A filter of decisions that were made."""

    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class PositionQueryInput(ApiInput):
    """The element of a step's for_each."""

    position: Position = -1


class TokenQueryInput(TenantInput):
    """A filter of tokens."""

    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class DeliveryQueryInput(ApiInput):
    """A filter of accepted deliveries."""

    connector: Name = _UNSET
    cursor: Cursor = _UNSET
    page_size: Size = _UNSET


class RefusedDeliveryQueryInput(ApiInput):
    """A filter of deliveries that started nothing."""

    connector: Name = _UNSET
    outcome: Literal["refused", "failed", "ignored", "repeated"] = _UNSET


class RedeliverInput(ApiInput):
    """The state in which the caller saw a delivery."""

    seen: Annotated[
        int,
        Field(
            ge=0,
            description="The `redeliveries` that it had: with more by now, nothing is done.",
        ),
    ] = _UNSET


# -- workflows that are edited -----------------------------------------------------------------

Source = Annotated[
    str,
    Field(min_length=1, description=f"The text of the workflow, {LARGEST:,} characters at most."),
]
DocumentFormat = Annotated[Literal["yaml", "json"], Field(description="yaml by default.")]
Publish = Annotated[bool, Field(description="False saves a draft, which starts nothing.")]
VersionComment = Annotated[str, TextRule(500, blank=True)]
BasedOn = Annotated[
    int,
    Field(
        ge=1, le=_MOST_POSITION,
        description="The version that the change was made in: with a newer one, nothing is saved.",
    ),
]  # fmt: skip


class SourceInput(ApiInput):
    """The text of a workflow."""

    source: Source
    format: DocumentFormat = _UNSET


class DocumentInput(SourceInput):
    """A new workflow."""

    publish: Publish = _UNSET
    comment: VersionComment = _UNSET
    tenant_id: Tenant = _UNSET
    enabled: bool = _UNSET


class DocumentSaveInput(SourceInput):
    """A new version of a workflow."""

    publish: Publish = _UNSET
    comment: VersionComment = _UNSET
    based_on: BasedOn = _UNSET


class DocumentRestoreInput(ApiInput):
    """The reason why a former version counts again."""

    comment: VersionComment = _UNSET
    based_on: BasedOn = _UNSET


# -- many at once ------------------------------------------------------------------------------


def _ids_or_filter(given: BaseModel, *paced: str) -> None:
    """Raise `ValueError` for ids beside a filter, and for a rate of another action than *paced*."""
    if "ids" in given.model_fields_set and given.model_fields_set & set(_FILTERS):
        raise ValueError("Say either ids or a filter.")
    if "per_second" in given.model_fields_set and getattr(given, "action", "") not in paced:
        raise ValueError(f"per_second is for {' and '.join(paced)} alone.")


_FILTERS = (
    "status", "kind", "workflow", "error_code", "error_group", "per_second", "limit", "tenant_id",
    "created_after", "created_before",
)  # fmt: skip


def _bulk_schema(*paced: str) -> Any:
    """Return the schema of what `_ids_or_filter` checks."""
    is_paced = {"properties": {"action": {"enum": list(paced)}}}
    filtered = {"anyOf": [{"required": [name]} for name in _FILTERS]}
    return {
        "allOf": [
            {"anyOf": [{"not": filtered}, {"not": {"required": ["ids"]}}]},
            {"anyOf": [is_paced, {"not": {"required": ["per_second"]}}]},
        ]
    }


def _begun_bulk_schema() -> Any:
    """Return the schema of what `BulkBeginInput` checks."""
    forks = {"properties": {"action": {"enum": ["fork"]}}, "required": ["step"]}
    others = {
        "properties": {"action": {"not": {"enum": ["fork"]}}},
        "not": {"anyOf": [{"required": ["step"]}, {"required": ["definition"]}]},
    }
    schema = _bulk_schema("resume", "fork")
    return {"allOf": [*schema["allOf"], {"anyOf": [forks, others]}]}


class BulkInput(_TimeFilter):
    """A command for several items: by ids, or by a filter."""

    model_config = ConfigDict(json_schema_extra=_bulk_schema("requeue"))

    action: Literal["requeue", "cancel", "discard"]
    ids: Ids = _UNSET
    status: ItemStatusFilter = _UNSET
    kind: Name = _UNSET
    error_code: ErrorCode = _UNSET
    per_second: Rate = _UNSET
    limit: Annotated[int, Field(ge=1, le=100_000, description="10,000 if a filter has none.")] = (
        _UNSET
    )

    @model_validator(mode="after")
    def _fits(self) -> BulkInput:
        _ids_or_filter(self, "requeue")
        return self


class ExecutionBulkInput(_TimeFilter):
    """A command for several executions: by ids, or by a filter."""

    model_config = ConfigDict(json_schema_extra=_bulk_schema("resume"))

    action: Literal["resume", "cancel", "pause", "unpause"]
    ids: Ids = _UNSET
    status: Annotated[
        Literal["FAILED", "PENDING", "RUNNING", "PAUSED"],
        Field(
            description="FAILED is for resume, PAUSED for unpause and cancel, others for the rest."
        ),
    ] = _UNSET
    workflow: Name = _UNSET
    error_code: ErrorCode = _UNSET
    per_second: Rate = _UNSET
    limit: Annotated[int, Field(ge=1, le=10_000, description="1,000 if a filter has none.")] = (
        _UNSET
    )

    @model_validator(mode="after")
    def _fits(self) -> ExecutionBulkInput:
        _says_which(self, "limit")
        _ids_or_filter(self, "resume")
        return self


class BulkBeginInput(_TimeFilter):
    """A command for several executions that a worker carries on: by ids, or by a filter."""

    model_config = ConfigDict(json_schema_extra=_begun_bulk_schema())

    action: Literal["resume", "cancel", "pause", "unpause", "fork"]
    ids: Ids = _UNSET
    status: Annotated[
        Literal["FAILED", "PENDING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED"],
        Field(description="Only what the action can change; fork is for what has ended."),
    ] = _UNSET
    workflow: Name = _UNSET
    error_code: ErrorCode = _UNSET
    per_second: Rate = _UNSET
    step: Annotated[
        Name, Field(description="For fork: the first step that runs; those before are copied.")
    ] = _UNSET
    definition: Annotated[
        Literal["current"], Field(description="For fork: with the workflow as it is now.")
    ] = _UNSET

    @model_validator(mode="after")
    def _fits(self) -> BulkBeginInput:
        _says_which(self, "step", "definition")
        if (self.action == "fork") != ("step" in self.model_fields_set):
            raise ValueError("fork needs a step, and no other action takes one.")
        if "definition" in self.model_fields_set and self.action != "fork":
            raise ValueError("definition is for fork alone.")
        _ids_or_filter(self, "resume", "fork")
        return self


def _says_which(given: BaseModel, *others: str) -> None:
    if not given.model_fields_set - {"action", "per_second", *others}:
        raise ValueError("Say which: ids, or a filter like status FAILED.")
