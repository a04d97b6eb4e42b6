"""The input and output of the REST API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timezone
from functools import partial
from types import MappingProxyType
from typing import Any

from rest_framework import serializers

from automate_django.kernel import get_kernel
from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.item import (
    LENGTHS,
    MAX_DELAY_SECONDS,
    MAX_PRIORITY,
    ItemStatus,
    check_text,
)
from automate_kernel.outbox.labels import MAX_LABELS
from automate_kernel.secrets.masking import hide_named
from automate_kernel.workflows.execution import (
    ExecutionStatus,
    check_event_name,
    check_event_source,
)
from automate_kernel.workflows.steer.approvals import MOST_COMMENT

_ITEM_STATUSES = tuple(status.value for status in ItemStatus)
_EXECUTION_STATUSES = tuple(status.value for status in ExecutionStatus)


class Part(serializers.Serializer[Any]):
    """A part of our API. The schema calls it AutomateItem: a project has an Item of its own."""


class Strict(Part):
    """Input in which an unknown name is an error: likely it is misspelt."""

    more_schema: Mapping[str, Any] = MappingProxyType({})
    """The part of `validate` that the schema can express."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the valid values."""
        if isinstance(data, dict):
            unknown = [str(name) for name in data if name not in self.fields]
            if unknown:
                raise serializers.ValidationError(
                    {name[:40]: ["There is no such field."] for name in unknown}, code="unknown"
                )
        return super().to_internal_value(data)


Instant = partial(serializers.DateTimeField, default_timezone=timezone.utc)
"""A time, shown in UTC whatever the project's own zone."""


class Text(serializers.CharField):
    """Text of a request."""


class Word(serializers.CharField):
    """
    One of a few words.

    A ChoiceField's enum would need a name among those of the project's own fields with the same
    name. `automate_django.api.schema` describes the words.
    """

    def __init__(self, words: Sequence[str], **options: Any) -> None:
        self.words = words
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        """Return the word."""
        value: str = super().to_internal_value(data)
        if value not in self.words:
            text = f"This is none of: {', '.join(self.words)}."
            raise serializers.ValidationError(text, code="unknown")
        return value


# -- input -------------------------------------------------------------------------------------


class KernelText(Text):
    """Text as the kernel takes it: *check* raises `PayloadError`, and nothing is trimmed."""

    def __init__(self, check: Callable[[str], None], **options: Any) -> None:
        self.check = check
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        """Return the text."""
        value: str = super().to_internal_value(data)
        try:
            self.check(value)
        except PayloadError as error:
            raise serializers.ValidationError(str(error)) from None
        return value


class StartSerializer(Strict):
    """The start of an execution."""

    payload = serializers.JSONField(required=False, default=None, allow_null=True)
    tenant_id = KernelText(
        lambda value: check_text(value, "tenant_id"),
        required=False, max_length=LENGTHS["tenant_id"], help_text="For operators.",
    )  # fmt: skip
    labels: Any = serializers.DictField(
        child=Text(max_length=200),
        required=False,
        help_text="Keys to find it by, and what it starts.",
    )
    delay = serializers.FloatField(
        required=False, default=0.0, min_value=0, max_value=MAX_DELAY_SECONDS,
        help_text="In seconds.",
    )  # fmt: skip
    idempotency_key = KernelText(
        lambda value: check_text(value, "idempotency_key"),
        required=False, max_length=LENGTHS["idempotency_key"],
        help_text="A second one with it is the first one.",
    )  # fmt: skip
    priority = serializers.IntegerField(
        required=False, min_value=-MAX_PRIORITY, max_value=MAX_PRIORITY,
        help_text="For operators.",
    )  # fmt: skip


class EventSerializer(StartSerializer):
    """An event."""

    name = KernelText(check_event_name, max_length=LENGTHS["kind"])
    source = KernelText(  # type: ignore[assignment]  # a name of ours
        check_event_source,
        required=False, default="", allow_blank=True, max_length=LENGTHS["kind"],
    )  # fmt: skip


class ScheduleCommandSerializer(Strict):
    """The schedules of a workflow that are meant: all, or the one of a trigger."""

    number = serializers.IntegerField(
        required=False, min_value=0, max_value=1000, help_text="The trigger's position, from 0."
    )
    tenant_id = KernelText(
        lambda value: check_text(value, "tenant_id"),
        required=False, max_length=LENGTHS["tenant_id"], help_text="For operators.",
    )  # fmt: skip


class BackfillSerializer(ScheduleCommandSerializer):
    """The range of times to fire."""

    start = Instant()
    end = Instant()
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, default=1000,
        help_text="Nothing is fired if there are more times.",
    )  # fmt: skip


class SignalSerializer(Strict):
    """A signal to one execution."""

    name = KernelText(check_event_name, max_length=LENGTHS["kind"])
    payload = serializers.JSONField(required=False, default=None, allow_null=True)
    idempotency_key = KernelText(
        lambda value: check_text(value, "idempotency_key"),
        required=False, max_length=LENGTHS["idempotency_key"],
        help_text="A second signal with it is the first one.",
    )  # fmt: skip


class CancelSerializer(Strict):
    """The way to cancel an execution."""

    force = serializers.BooleanField(
        required=False, default=False, help_text="End it at once: nothing is undone or cleaned up."
    )


class RetryStepSerializer(Strict):
    """The failed step that runs again."""

    step = Text(max_length=200, help_text="Its id; a compensation is <step>.compensate.")
    position = serializers.IntegerField(
        required=False, default=-1, min_value=-1, help_text="The element of for_each, from 0."
    )


class ForkSerializer(Strict):
    """The first step that runs of a copy, and another payload."""

    step = Text(max_length=200)
    payload = serializers.JSONField(
        required=False, allow_null=True, help_text="Without it the copy has the same."
    )


class PauseSerializer(Strict):
    """The reason of a pause, and the tenant that it is for."""

    reason = Text(required=False, default="", allow_blank=True, max_length=1000)
    tenant_id = KernelText(
        lambda value: check_text(value, "tenant_id"),
        required=False, max_length=LENGTHS["tenant_id"], help_text="For operators.",
    )  # fmt: skip


class PausedSerializer(Part):
    """A workflow, and whether it is paused."""

    name = serializers.CharField()
    tenant_id = serializers.CharField(allow_null=True)
    paused = serializers.BooleanField()


class ResumeSerializer(Strict):
    """The step from which to go on, and the definition."""

    step = Text(
        required=False,
        max_length=200,
        help_text="Do this step and all that follow again, whatever the end was.",
    )
    definition = Word(
        ("current",), required=False, help_text="Go on with the workflow as it is now."
    )


class RescheduleSerializer(Strict):
    """The new due time of an item."""

    delay = serializers.FloatField(required=False, min_value=0, max_value=MAX_DELAY_SECONDS)
    run_at = Instant(required=False)
    more_schema = MappingProxyType({"minProperties": 1, "maxProperties": 1})

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require one of them."""
        if len(attrs) != 1:
            raise serializers.ValidationError("Say either delay or run_at.")
        return attrs


class DecisionSerializer(Strict):
    """A decision on an approval."""

    comment = Text(
        required=False, default="", allow_blank=True, trim_whitespace=False, max_length=MOST_COMMENT
    )
    form = serializers.DictField(required=False, help_text="As the approval's form asks for it.")
    position = serializers.IntegerField(
        required=False, default=-1, min_value=-1, max_value=2**31 - 1,
        help_text="Which element of for_each; else -1.",
    )  # fmt: skip


# -- filters -----------------------------------------------------------------------------------


class _TenantFilter(Strict):
    tenant_id = Text(required=False, max_length=200, help_text="For operators.")


class ErrorQuerySerializer(_TenantFilter):
    """A filter of failed items, which are then grouped."""

    kind = Text(required=False, max_length=200)


class ExecutionErrorQuerySerializer(_TenantFilter):
    """A filter of failed executions, which are then grouped."""

    workflow = Text(required=False, max_length=200)


class OutputQuerySerializer(Strict):
    """The step whose output is read; without one it is the execution's."""

    step = Text(required=False, max_length=200, source="step_id")
    position = serializers.IntegerField(required=False, min_value=0, help_text="Of an element.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require the step of a position."""
        if "position" in attrs and "step_id" not in attrs:
            raise serializers.ValidationError({"step": "Say of which step."})
        return attrs


class _TimeFilter(_TenantFilter):
    created_after = Instant(required=False)
    created_before = Instant(required=False)


class _ItemFilter(_TimeFilter):
    status = Word(_ITEM_STATUSES, required=False)
    kind = Text(required=False, max_length=200)
    error_code = Text(required=False, max_length=64)
    error_group = Text(required=False, max_length=200, help_text="As errors/ names it.")


def _label() -> Any:
    return Text(required=False, max_length=300, help_text="`order=4711`, or `4711` under any name.")


class ItemQuerySerializer(_ItemFilter):
    """A filter of items."""

    label = _label()


class ExecutionQuerySerializer(_TimeFilter):
    """A filter of executions."""

    status = Word(_EXECUTION_STATUSES, required=False)
    workflow = Text(required=False, max_length=200)
    error_group = Text(required=False, max_length=200, help_text="As errors/ names it.")
    label: Any = serializers.ListField(
        child=Text(max_length=300),
        required=False,
        max_length=MAX_LABELS,
        source="labels",
        help_text="`order=4711`, or `4711` under any name. Again for one more: all must hold.",
    )


class ApprovalQuerySerializer(_TenantFilter):
    """A filter of approvals."""

    workflow = Text(required=False, max_length=200)
    mine = serializers.BooleanField(
        required=False, default=False, help_text="Only those that the caller may decide."
    )


class PositionSerializer(Strict):
    """The element of a step's for_each."""

    position = serializers.IntegerField(
        required=False, default=-1, min_value=-1, max_value=2**31 - 1
    )


class _Bulk(Strict):
    """A command for rows with these ids, or for those that match a filter."""

    ids = serializers.ListField(
        child=serializers.UUIDField(), required=False, allow_empty=False, max_length=1000
    )
    per_second = serializers.FloatField(required=False, min_value=0.01, max_value=10_000)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either ids or a filter."""
        if "ids" in attrs and len(attrs) > 2:
            raise serializers.ValidationError("Say either ids or a filter.")
        return attrs


class BulkSerializer(_Bulk, _ItemFilter):
    """A command for several items: by ids, or by a filter."""

    action = Word(("requeue", "cancel", "discard"))
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=100_000, help_text="10,000 if a filter has none."
    )
    more_schema = MappingProxyType(
        {
            "allOf": [
                {"anyOf": [{"maxProperties": 2}, {"not": {"required": ["ids"]}}]},
                {
                    "anyOf": [
                        {"properties": {"action": {"enum": ["requeue"]}}},
                        {"not": {"required": ["per_second"]}},
                    ]
                },
            ]
        }
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either ids or a filter, and a rate for requeue alone."""
        if super().validate(attrs)["action"] != "requeue" and "per_second" in attrs:
            raise serializers.ValidationError({"per_second": "This is for requeue alone."})
        return attrs


class ExecutionBulkSerializer(_Bulk, _TimeFilter):
    """A command for several executions: by ids, or by a filter."""

    action = Word(("resume", "cancel", "pause", "unpause"))
    status = Word(
        ("FAILED", "PENDING", "RUNNING", "PAUSED"), required=False,
        help_text="FAILED is for resume, PAUSED for unpause and cancel, the others for the rest.",
    )  # fmt: skip
    workflow = Text(required=False, max_length=200)
    error_code = Text(required=False, max_length=64)
    error_group = Text(required=False, max_length=200, help_text="As errors/ names it.")
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=10_000, help_text="1,000 if a filter has none."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either ids or a filter, and a rate for resume alone."""
        if not super().validate(attrs).keys() - {"action", "limit", "per_second"}:
            raise serializers.ValidationError("Say which: ids, or a filter like status FAILED.")
        if attrs["action"] != "resume" and "per_second" in attrs:
            raise serializers.ValidationError({"per_second": "This is for resume alone."})
        return attrs


# -- output ------------------------------------------------------------------------------------


class Whole:
    """A value of the kernel's, with more attributes for its serializer."""

    def __init__(self, value: object, **more: Any) -> None:
        self._value = value
        vars(self).update(more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)


class _Shown(serializers.Field):  # type: ignore[type-arg]
    """A value without known secrets, and without those under names like ``password``."""

    def to_representation(self, value: Any) -> Any:
        return super().to_representation(hide_named(get_kernel().redactor.redact_value(value)))


class ShownText(_Shown, serializers.CharField):
    """Text without secrets."""


class ShownJSON(_Shown, serializers.JSONField):
    """JSON without secrets."""


class ShownDict(_Shown, serializers.DictField):
    """A JSON object without secrets."""


_text = partial(serializers.CharField, allow_null=True)
_group = partial(_text, help_text="The error's type and place, the same for all of its kind.")
_trace = partial(
    ShownText,
    allow_null=True,
    help_text="Where it was raised: files, lines and their source, no values.",
)


class AcceptedSerializer(Part):
    """The id of an accepted event or of a new execution."""

    id = serializers.CharField()


class ChangedSerializer(Part):
    """The number of changed rows."""

    changed = serializers.IntegerField()


class WorkflowSerializer(Part):
    """A workflow."""

    name = serializers.CharField(source="workflow.name")
    title = _text(source="workflow.title")
    description = _text(source="workflow.description")
    tenant_id = _text()
    problem = ShownText(source="error.message", allow_null=True, help_text="Why it can't run.")


class WorkflowDetailSerializer(WorkflowSerializer):
    """A workflow with its definition."""

    definition = ShownDict(source="workflow.to_dict")


class ScheduleSerializer(Part):
    """A schedule of a workflow."""

    number = serializers.IntegerField(help_text="The trigger's position in the workflow, from 0.")
    about = serializers.CharField(help_text="Its times.")
    overlap = serializers.CharField(source="trigger.overlap")
    catch_up = serializers.BooleanField(source="trigger.catch_up")
    tenant_id = _text()
    last_fired_at = Instant(allow_null=True)
    next_at = Instant(allow_null=True)
    paused_at = Instant(allow_null=True)
    execution_id = serializers.CharField(allow_null=True, help_text="The last one.")


class FailedAttemptSerializer(Part):
    """One attempt that failed."""

    attempt = serializers.IntegerField(help_text="From 1; 0 is before the step's call.")
    step = _text(source="step_id", help_text="Of an execution: its step.")
    position = serializers.IntegerField(help_text="Which element of for_each; else -1.")
    error_code = serializers.CharField()
    error_group = serializers.CharField()
    error = ShownText()
    trace = _trace()
    failed_at = Instant(allow_null=True)
    started_at = Instant(allow_null=True, help_text="Of a step's.")
    duration_seconds = serializers.FloatField(allow_null=True)
    worker_id = _text(help_text="The worker that made it.")


class StepAttemptSerializer(Part):
    """One attempt of a step, however it ended."""

    step = serializers.CharField(source="step_id")
    position = serializers.IntegerField(help_text="Which element of for_each; else -1.")
    attempt = serializers.IntegerField(help_text="From 1; 0 is before the step's call.")
    status = serializers.CharField(help_text="RUNNING, or how it ended.")
    started_at = Instant(allow_null=True)
    ended_at = Instant(allow_null=True)
    duration_seconds = serializers.FloatField(allow_null=True)
    worker_id = _text(help_text="The worker that made it.")
    error_code = _text()
    error_group = _group()
    error = ShownText(allow_null=True)


class ErrorGroupSerializer(Part):
    """Failures that come from one place."""

    kind = serializers.CharField(help_text="The items' kind, or the workflow.")
    error_group = serializers.CharField(source="group")
    error_code = serializers.CharField()
    count = serializers.IntegerField()
    latest_id = serializers.CharField(help_text="The newest of them.")
    first_at = Instant(allow_null=True, help_text="When the oldest of them failed.")
    latest_at = Instant(allow_null=True)
    error = ShownText(help_text="Of the newest.")


def _output_ref() -> Any:
    text = "The key of the output in the output store; it is null here, and read at …/output/."
    return serializers.CharField(allow_null=True, help_text=text)


class ExecutionSerializer(Part):
    """An execution."""

    id = serializers.UUIDField()
    workflow = serializers.CharField()
    status = Word(_EXECUTION_STATUSES)
    tenant_id = _text()
    event = serializers.CharField(source="event.name", help_text="The event's name.")
    labels: Any = ShownDict(child=serializers.CharField())
    error_code = _text()
    error_group = _group()
    error = ShownText(allow_null=True)
    created_at = Instant()
    updated_at = Instant()
    completed_at = Instant(allow_null=True)


class StepSerializer(Part):
    """A run of a step."""

    id = serializers.CharField()
    position = serializers.IntegerField(help_text="Which element of for_each; else -1.")
    action = _text()
    place = _text(help_text="The line that calls it, of a workflow in code.")
    status = serializers.CharField()
    attempts = serializers.IntegerField()
    input = ShownJSON(help_text="As the workflow has it, with its templates.")
    output = ShownJSON()
    output_ref = _output_ref()
    progress = ShownJSON(help_text="The value and message that its call reported last, or null.")
    error_code = _text()
    error_group = _group()
    error = ShownText(allow_null=True)
    trace = _trace()
    started_at = Instant(allow_null=True)
    next_attempt_at = Instant(allow_null=True)
    completed_at = Instant(allow_null=True)


class OutputSerializer(Part):
    """The output of an execution or of a step."""

    output = ShownJSON()


class WaitSerializer(Part):
    """A wait of a step: for an event, a signal, an approval or a workflow."""

    step_id = serializers.CharField()
    position = serializers.IntegerField(help_text="Which element of for_each; else -1.")
    about = serializers.CharField(help_text="event, signal, approval or workflow.")
    details = ShownJSON(help_text="Its name, and what it must match.")
    created_at = Instant()
    expires_at = Instant(allow_null=True)


class HandoverSerializer(Part):
    """The note of a worker that handed an execution on."""

    code = serializers.CharField()
    reason = ShownText()
    worker = serializers.CharField()
    since = Instant()
    times = serializers.IntegerField(help_text="How often it was handed on since then.")


class WaitReasonSerializer(Part):
    """A reason why an execution or an item does not go on now."""

    code = serializers.CharField(help_text="Such as concurrency, kind_paused, event, no_worker.")
    text = ShownText()
    hint = serializers.CharField(help_text="What makes it go on; may be empty.")
    until = Instant(allow_null=True, help_text="When it ends by itself.")
    details = ShownJSON(help_text="The names and ids in the text.")


class ExecutionDetailSerializer(ExecutionSerializer):
    """An execution with its event, its output and its steps."""

    payload = ShownJSON(source="event.payload", help_text="The event's.")
    output = ShownJSON()
    output_ref = _output_ref()
    handed_on = HandoverSerializer(
        allow_null=True, help_text="The reason why it waits for another worker, if it does."
    )
    definition_id = serializers.CharField()
    item_id = serializers.UUIDField()
    parent_id = serializers.UUIDField(
        allow_null=True, help_text="The execution whose step waits for this one."
    )
    predecessor_id = serializers.UUIDField(
        allow_null=True, help_text="The execution that this one continues as new."
    )
    successor_id = serializers.UUIDField(
        allow_null=True, help_text="The execution that has continued this one as new."
    )
    reasons = WaitReasonSerializer(many=True, help_text="Why it waits; none once it has ended.")
    steps = StepSerializer(many=True)
    waits = WaitSerializer(many=True)
    attempts = StepAttemptSerializer(many=True)
    failed_attempts = FailedAttemptSerializer(many=True)


class ApprovalSerializer(Part):
    """A step that waits for a person."""

    execution_id = serializers.UUIDField()
    step = serializers.CharField(source="step_id")
    position = serializers.IntegerField(help_text="Which element of for_each; else -1.")
    workflow = serializers.CharField()
    tenant_id = _text()
    title = ShownText()
    description = ShownText(allow_null=True)
    by = serializers.ListField(
        child=serializers.CharField(),
        help_text="Who may decide: users, and groups as role:NAME. Empty: anybody.",
    )
    may_decide = serializers.BooleanField(help_text="Whether the caller is among them.")
    form = ShownDict(source="form_schema", help_text="The form, as JSON Schema.")
    created_at = Instant()
    expires_at = Instant(allow_null=True)


class DecidedSerializer(Part):
    """A decision as the step's output has it."""

    approved = serializers.BooleanField()
    by = serializers.CharField()
    comment = ShownText()
    form = ShownDict()
    at = serializers.CharField()
    timed_out = serializers.BooleanField()


class ItemSerializer(Part):
    """An outbox item, without what it carries."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    status = Word(_ITEM_STATUSES)
    priority = serializers.IntegerField()
    attempt_count = serializers.IntegerField()
    max_attempts = serializers.IntegerField()
    next_attempt_at = Instant()
    lease_owner = _text()
    lease_expires_at = Instant(allow_null=True)
    tenant_id = _text()
    error_code = _text(source="last_error_code")
    error_group = _group(source="last_error_group")
    error = ShownText(source="last_error", allow_null=True)
    created_at = Instant()
    updated_at = Instant()
    completed_at = Instant(allow_null=True)


class ItemDetailSerializer(ItemSerializer):
    """An outbox item with its payload, in which secrets are hidden."""

    payload = ShownJSON()
    headers = ShownDict()
    labels: Any = ShownDict(child=serializers.CharField())
    reasons = WaitReasonSerializer(many=True, help_text="Why it waits; none once it has ended.")
    failed_attempts = FailedAttemptSerializer(many=True)


class StatsSerializer(Part):
    """Figures of the outbox."""

    counts = serializers.DictField(
        child=serializers.DictField(child=serializers.IntegerField()),
        help_text="By kind, then by status.",
    )
    counted_among = serializers.IntegerField(
        allow_null=True,
        help_text="For a tenant in a large outbox: among how many of all items, the newest ones,"
        " they were counted. FAILED is exact.",
    )
    oldest_due_seconds = serializers.FloatField(allow_null=True)
    paused = serializers.ListField(child=serializers.CharField())


class OperationSerializer(Part):
    """An operation that can be called."""

    name = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    description = serializers.CharField(allow_blank=True)
    read_only = serializers.BooleanField()  # type: ignore[assignment]
    idempotent = serializers.BooleanField()
    destructive = serializers.BooleanField()
    input_schema = serializers.DictField()
    output_schema = serializers.DictField(allow_null=True)
    choices = serializers.ListField(
        child=serializers.CharField(), help_text="The fields whose choices can be listed."
    )


class CallSerializer(Strict):
    """The input of an operation."""

    input: Any = serializers.DictField(required=False, default=dict)
    tenant_id = KernelText(
        lambda value: check_text(value, "tenant_id"),
        required=False, max_length=LENGTHS["tenant_id"], help_text="For operators.",
    )  # fmt: skip


class ChoicesQuerySerializer(Strict):
    """A question for the choices of a field."""

    search = Text(required=False, default="", allow_blank=True, max_length=200)
    values: Any = serializers.DictField(required=False, default=dict)
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=1000)
    tenant_id = KernelText(
        lambda value: check_text(value, "tenant_id"),
        required=False, max_length=LENGTHS["tenant_id"], help_text="For operators.",
    )  # fmt: skip


class ChoiceSerializer(Part):
    """One choice of a field."""

    value = serializers.JSONField()
    label = serializers.CharField()  # type: ignore[assignment]


class PluginSerializer(Part):
    """A plugin."""

    kind = serializers.CharField()
    key = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    version = _text()
    state = serializers.CharField(source="state.value")
    usable = serializers.BooleanField()
    error = ShownText(allow_null=True)
    remedy = ShownText(allow_null=True)
