"""The types of a workflow's fields, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from automate_kernel.base import runtime
from automate_kernel.base.durations import DurationField, format_duration
from automate_kernel.base.errors import ErrorCodes, WorkflowError
from automate_kernel.operations.schemas.checks import validation_problems
from automate_kernel.storage.values import UnstorableError, plain_json
from automate_kernel.workflows.definition.structure import FieldPath

# Less than a value may be stored with, since the definition's own levels come in addition.
_DEEPEST = 50


class DefinitionModel(BaseModel):
    """The base of a definition's parts: frozen, and strict about its fields and their types."""

    # Errors don't show the input: a definition may hold what should have been a secret.
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, hide_input_in_errors=True,
        defer_build=True,
    )  # fmt: skip


def refused(
    kind: str, message: str, hint: str | None, **context: FieldPath | None
) -> PydanticCustomError:
    """Return the error for a value that a field refuses, with a *hint* for the author."""
    return PydanticCustomError(kind, "{problem}", {"problem": message, "hint": hint, **context})


Identifier = Annotated[
    str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]*$", min_length=1, max_length=100)
]
"""A step's id."""

# Behind the plugin's key a service names its operations itself: `github.2fa`, `tools.repos/list`.
OperationName = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]*(\.[a-zA-Z0-9_][a-zA-Z0-9_/-]*)*$", max_length=300),
]
"""The action that a step calls: ``connector.action``, or an action of the host."""


def _check_json(value: Any) -> Any:
    try:
        # Lists and mappings of our own: the author may change theirs later.
        return plain_json(value, _DEEPEST)
    except UnstorableError as found:
        raise refused("json", f"it {found.message}", found.hint, at=found.path) from None


def _check_input(value: Any) -> Any:
    if isinstance(value, Mapping) or (isinstance(value, str) and "{{" in value):
        return value
    hint = 'or one template that gives a mapping: "{{ event.payload }}"'
    raise refused("step_input", "the input must be a mapping of the action's fields", hint)


def _check_condition(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value.strip()):
        return value
    if info.field_name == "switch":
        hint = 'for example "{{ event.payload.kind }}", with the steps for each value in cases'
        raise refused("condition", "a switch is a template that gives a value", hint)
    hint = 'for example "{{ event.payload.total > 100 }}"'
    raise refused("condition", "a condition is a template, true or false", hint)


def _check_text(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        message = "it has spaces around it, or characters that can't be printed"
        raise refused("text", message, "take them out")
    return value


PlainText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]
"""A name: printable, on one line, no spaces around it."""

JsonTree = Annotated[Any, AfterValidator(_check_json)]
"""Any JSON value; text in it may be a template."""

StepInput = Annotated[
    Any,
    BeforeValidator(_check_input),
    AfterValidator(_check_json),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "pattern": r"\{\{"}]}),
]
"""A mapping of the action's fields, or one template that gives a mapping."""

Condition = Annotated[
    bool | str,
    BeforeValidator(_check_condition),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "minLength": 1}]}),
]
"""A template whose value decides, or true or false."""


_Codes = Annotated[
    Sequence[Annotated[ErrorCodes, Field(strict=False)]], Field(min_length=1), AfterValidator(tuple)
]


class RetryPolicy(DefinitionModel):
    """
    The number of attempts of a step, and the waits between them.

    The wait before attempt *n* + 1 is *delay* (``fixed``), *n* times *delay* (``linear``) or twice
    the wait before (``exponential``), at most *max_delay*. With *jitter* it is a random part of
    that, so that many executions that failed together don't come back together.
    """

    attempts: int = Field(default=3, ge=1, le=1000)
    """The number of attempts, the first one included."""
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    delay: DurationField = 1.0  # type: ignore[assignment]
    max_delay: DurationField = 300.0  # type: ignore[assignment]
    jitter: bool = True
    on: _Codes | None = None
    """The failures that are tried again; None leaves it to the failure itself."""

    if not TYPE_CHECKING:  # where the fields are the parameters

        def __init__(self, **fields: Any) -> None:
            """
            Make the policy that a workflow in code gives a step.

            Raises `WorkflowError`: what the workflow raises is all that its execution tells.
            """
            try:
                super().__init__(**fields)
            except ValidationError as error:
                problems = "; ".join(map(str, validation_problems(error, fields)))
                known = ", ".join(type(self).model_fields)
                raise WorkflowError(
                    f"a RetryPolicy is not as it must be: {problems}", hint=f"it takes {known}"
                ) from None

        # Part of a definition, it is read without this, and its problems stand with the others.
        __init__.__pydantic_base_init__ = True

    @model_validator(mode="after")
    def _delay_fits(self) -> RetryPolicy:
        if self.delay > self.max_delay:
            delay, most = format_duration(self.delay), format_duration(self.max_delay)
            message = f"delay ({delay}) is longer than max_delay ({most})"
            raise refused("retry", message, f"set max_delay: {delay}, or more")
        return self

    def delay_for(self, attempt: int, *, random: Callable[[], float] = runtime.chance) -> float:
        """Return the seconds to wait after attempt number *attempt* (the first is 1) has failed."""
        factor: int = 1
        if self.backoff == "linear":
            factor = attempt
        elif self.backoff == "exponential":
            factor = 2 ** min(attempt - 1, 64)  # past any max_delay, and far from overflowing
        delay = min(self.delay * factor, self.max_delay)
        return delay * random() if self.jitter else delay

    def allows(self, error_code: ErrorCodes | str | None, *, retryable: bool | None = None) -> bool:
        """
        Return True if a failure with *error_code* is tried again, if an attempt is left.

        *retryable* is the error's own answer, and counts where `on` names no codes. An unknown code
        counts as INTERNAL.
        """
        code = ErrorCodes.of(error_code)
        if self.on is not None:
            return code in self.on
        return code.retryable if retryable is None else retryable
