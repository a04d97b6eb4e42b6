"""The fields of a step that waits: for a time, an event or a signal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from automate_kernel.base.durations import (
    OptionalDuration,
    format_duration,
    parse_duration,
)
from automate_kernel.workflows.definition.fields import (
    Condition,
    DefinitionModel,
    JsonTree,
    PlainText,
    refused,
)

UNTIL_REMEDY = (
    'for example until: "2030-01-31T09:00:00+01:00", or a template that gives such a text'
)
_SLEEP = 'for example sleep: 3d, or sleep: {until: "{{ event.payload.due_at }}"}'


def read_instant(text: object) -> datetime:
    """Return the instant that ISO 8601 *text* names; raises ValueError without an offset."""
    if not isinstance(text, str):
        # One kind of error for all problems.
        raise ValueError(f"a time is text, not a {type(text).__name__}")  # noqa: TRY004
    try:
        # Python 3.10 doesn't read the Z.
        instant = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a time in ISO 8601") from None
    if instant.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no offset from UTC")
    return instant


def _is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def _check_until(value: str) -> str:
    if not _is_template(value):
        try:
            read_instant(value)
        except ValueError as error:
            raise refused("until", str(error), UNTIL_REMEDY) from None
    return value


class SleepUntil(DefinitionModel):
    """A time to sleep until."""

    until: Annotated[str, Field(min_length=1), AfterValidator(_check_until)]
    """ISO 8601 text with an offset from UTC, or a template that gives one."""


def _check_pause(value: Any) -> Any:
    if _is_template(value):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise refused("duration", str(error), None) from None


def _check_sleep(value: Any) -> Any:
    if isinstance(value, (SleepUntil, Mapping)):
        known = isinstance(value, SleepUntil) or set(value) == {"until"}
        until = value if isinstance(value, SleepUntil) else value.get("until")
        if not known or not isinstance(until, (str, SleepUntil)):
            raise refused("sleep", "it is neither a duration nor {until: …}", _SLEEP)
        return SleepUntil(until=_check_until(until)) if isinstance(until, str) else until
    return _check_pause(value)


def _plain_sleep(value: Any) -> Any:
    if isinstance(value, SleepUntil):
        return {"until": value.until}
    return value if isinstance(value, str) else format_duration(value)


Sleep = Annotated[
    float | str | SleepUntil,
    BeforeValidator(_check_sleep),
    PlainSerializer(_plain_sleep),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "number", "minimum": 0},
                {
                    "type": "object",
                    "properties": {"until": {"type": "string", "minLength": 1}},
                    "required": ["until"],
                    "additionalProperties": False,
                },
            ],
            "examples": ["3d", "{{ event.payload.hours * 3600 }}", {"until": "2030-01-31T09:00Z"}],
        }
    ),
]
"""A duration, a template that gives one, or `SleepUntil`."""


Pause = Annotated[
    float | str,
    BeforeValidator(_check_pause),
    PlainSerializer(_plain_sleep),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "minLength": 1}, {"type": "number", "minimum": 0}],
            "examples": ["30s", "{{ [2 ** index, 300] | min }}"],
        }
    ),
]
"""A duration, or a template that gives one."""


def _check_exact(value: str) -> str:
    if any(character in value for character in "*?["):
        hint = "name one event; several steps, each with needs: [], can wait at once"
        raise refused("event", "a step waits for one name, not for a pattern", hint)
    return value


_ExactName = Annotated[PlainText, AfterValidator(_check_exact)]
_MatchedField = Annotated[str, Field(min_length=1, max_length=200)]
if TYPE_CHECKING:
    _Match = Mapping[str, Any]
else:
    # A mapping of our own: the author may change theirs later.
    _Match = Annotated[Mapping[_MatchedField, JsonTree], AfterValidator(dict)]


class WaitFor(DefinitionModel):
    """An event or a signal to wait for."""

    event: _ExactName | None = None
    """The event's name; ``connector.trigger`` for a webhook."""
    signal: _ExactName | None = None
    """The name of a signal that is sent to this execution."""
    match: _Match = Field(default_factory=dict)
    """Fields of the awaited payload, each with a value or a template. Dots go into objects."""
    if_: Condition | None = Field(default=None, validation_alias="if", serialization_alias="if")
    """A condition on the awaited event, which it sees as ``signal``."""
    timeout: OptionalDuration = None  # type: ignore[assignment]
    """Seconds to wait; None is for ever."""
    on_timeout: Literal["fail", "continue"] = "fail"
    """``fail`` lets the step fail; with ``continue`` it completes, and its output is null."""

    @model_validator(mode="after")
    def _waits_for_one(self) -> WaitFor:
        if (self.event is None) == (self.signal is None):
            message = "it waits for an event or for a signal, for one of them"
            raise refused("wait_for", message, "for example wait_for: {event: order.paid}")
        if self.timeout is None and "on_timeout" in self.model_fields_set:
            message = "on_timeout means nothing without timeout"
            raise refused("wait_for", message, "add timeout, or take on_timeout out")
        return self

    @property
    def leading(self) -> str:
        """The field by which its events are found; empty if it matches none."""
        return min(self.match, default="")
