"""The triggers of a workflow: an event, a webhook, a schedule, or a person."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from automate_kernel.base.durations import Duration, OptionalDuration
from automate_kernel.base.errors import ConfigError, did_you_mean
from automate_kernel.workflows.definition.fields import (
    Condition,
    DefinitionModel,
    Identifier,
    JsonTree,
    PlainText,
    refused,
)
from automate_kernel.workflows.execution import Event


class _Trigger(DefinitionModel):
    if TYPE_CHECKING:
        type: str
    if_: Condition | None = Field(default=None, validation_alias="if", serialization_alias="if")
    """The condition on the event; without it any event starts the workflow."""

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # `exclude_defaults` would leave out the type, which distinguishes triggers.
        return {"type": self.type, **handler(self)}

    def matches(self, event: Event, workflow: str) -> bool:
        """Return True if *event* is one for the workflow *workflow*; `if_` is not decided."""
        return event.type == self.type and event.name == workflow


class EventTrigger(_Trigger):
    """A trigger by events that the host emits: ``order.created``, or a pattern: ``order.*``."""

    type: Literal["event"] = "event"
    event: PlainText
    """The event's name; ``*``, ``?`` and ``[…]`` match as in file names."""

    def matches(self, event: Event, workflow: str) -> bool:
        """Return True if *event* is one of these; `if_` is not decided."""
        # A connector may give its webhooks names that workflows know them by.
        named = bool(event.source) and not event.name.startswith(f"{event.source}.")
        named = named and event.type == "webhook"
        return (event.type == "event" or named) and fnmatchcase(event.name, self.event)


class WebhookTrigger(_Trigger):
    """A trigger by webhooks that a connector has verified."""

    type: Literal["webhook"] = "webhook"
    connector: PlainText
    """The connector's key: ``github``."""
    trigger: PlainText
    """The connector's trigger, or a pattern: ``push``, ``pull_request.*``."""

    def matches(self, event: Event, workflow: str) -> bool:
        """Return True if *event* is one of these; `if_` is not decided."""
        prefix = f"{self.connector}."
        return (
            event.type == "webhook"
            and event.name.startswith(prefix)
            and fnmatchcase(event.name[len(prefix) :], self.trigger)
        )


class ManualTrigger(_Trigger):
    """A trigger by a person or the application's code, which asks for this workflow by its name."""

    type: Literal["manual"] = "manual"


def _check_timezone(name: str) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    try:
        ZoneInfo(name)
    except Exception:  # what it raises depends on the name, the system and the Python version
        near = did_you_mean(name, available_timezones())
        hint = near or "use a name like 'UTC' or 'Europe/Berlin'"
        raise refused("timezone", f"there is no time zone {name!r}", hint) from None
    return name


_FIELDS = "five fields: minute, hour, day of month, month, day of week"
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def cron_problem(text: str) -> tuple[str, str] | None:
    """
    Return the problem of a cron line and the remedy, or None if it has none.

    Without `cronsim` only the number of fields is checked.
    """
    shown = repr(text[:60])
    if text.strip().startswith("@"):
        line = _MACROS.get(text.strip().lower())
        remedy = f"write '{line}'" if line else "write the line out"
        return f"cron {shown} is a nickname, which is not supported", f"{remedy}: {_FIELDS}"
    if len(text) > 200 or len(text.split()) not in (5, 6):
        return f"cron {shown} has {len(text.split())} fields", f"give {_FIELDS}"
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        return None
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=timezone.utc)))
    except CronSimError as error:
        part = re.sub("^bad ", "", str(error).lower())
        return f"cron {shown} has a wrong {part}", f"give {_FIELDS}; for example '0 9 * * MON-FRI'"
    except StopIteration:
        return f"cron {shown} never fires", "check its day of month against its month"
    return None


def require_cron() -> None:
    """Raise `ConfigError` if the reader of cron lines is not installed."""
    try:
        import cronsim  # noqa: F401
    except ImportError:
        raise ConfigError(
            "cron lines need the package cronsim",
            hint="install it with: pip install 'automate-kernel[schedule]'",
        ) from None


def _check_cron(text: str) -> str:
    problem = cron_problem(text)
    if problem:
        raise refused("cron", *problem)
    return " ".join(text.split())


if TYPE_CHECKING:
    _Every = OptionalDuration
    _Jitter = OptionalDuration
else:
    _Every = Annotated[Duration, Field(ge=1)] | None
    _Jitter = Annotated[Duration, Field(gt=0, le=86_400)] | None


class ScheduleTrigger(_Trigger):
    """
    A trigger by the clock: at the times of a *cron* line, or *every* so many seconds.

    *cron* has five fields (minute, hour, day of month, month, day of week), or six with seconds in
    front, and is read in *timezone*. A time that the clock skips in spring fires right after the
    gap. A time that it shows twice in autumn fires once, the first time. Not so for lines whose
    minute or hour begins with ``*`` (``*/30 1-2 * * *`` too), and for those with seconds: they keep
    an even pace. They fire in both hours that the clock shows twice, and not at all in one that it
    skips. *every* counts from 1970-01-01 00:00 UTC, so all workers agree on it without talking.
    """

    type: Literal["schedule"] = "schedule"
    id: Identifier | None = None
    """Its name among the workflow's schedules. It tells two with the same times apart, which keep
    their pauses then wherever they stand in the list."""
    cron: Annotated[str, AfterValidator(_check_cron)] | None = None
    every: _Every = None  # type: ignore[assignment]
    timezone: Annotated[str, AfterValidator(_check_timezone)] = "UTC"
    catch_up: bool = False
    """Fire once for each time that was missed while no worker ran; by default only the last."""
    overlap: Literal["allow", "skip", "queue"] = "allow"
    """The fate of a time that comes while the last execution of this schedule goes on: a second
    one beside it (``allow``), none (``skip``), or one that begins when that has ended
    (``queue``)."""
    jitter: _Jitter = None  # type: ignore[assignment]
    """The longest time by which an execution begins later, so that not all schedules fire at the
    full hour. It is the same for one time on all workers."""
    payload: JsonTree = Field(default_factory=dict)
    """The workflow's ``event.payload``."""

    @model_validator(mode="after")
    def _one_clock(self) -> ScheduleTrigger:
        if (self.cron is None) == (self.every is None):
            what = "both cron and every are given" if self.cron else "it has no cron and no every"
            raise refused("schedule", what, "give one of them: cron: '0 9 * * *', or every: 5m")
        if self.every is not None and self.timezone != "UTC":
            message = "timezone means nothing beside every"
            raise refused("schedule", message, "take timezone out, or use cron")
        return self


Trigger = Annotated[
    EventTrigger | WebhookTrigger | ManualTrigger | ScheduleTrigger, Field(discriminator="type")
]


TRIGGERS: dict[str, type[BaseModel]] = {
    "event": EventTrigger,
    "webhook": WebhookTrigger,
    "manual": ManualTrigger,
    "schedule": ScheduleTrigger,
}
"""The trigger classes by their types in a definition."""
