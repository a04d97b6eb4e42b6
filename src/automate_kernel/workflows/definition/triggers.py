"""What starts a workflow: an event, a webhook, the clock, or a person."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from automate_kernel.errors import did_you_mean
from automate_kernel.workflows.definition.duration import Duration
from automate_kernel.workflows.definition.fields import Condition, JsonTree, Part, PlainText
from automate_kernel.workflows.engine.execution import Event

__all__ = [
    "EventTrigger",
    "ManualTrigger",
    "ScheduleTrigger",
    "Trigger",
    "WebhookTrigger",
    "trigger_types",
]


class _Trigger(Part):
    if_: Condition | None = Field(default=None, validation_alias="if", serialization_alias="if")
    """Starts the workflow only if this holds for the event."""

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # `exclude_defaults` would leave the type out, and with it what tells triggers apart.
        return {"type": getattr(self, "type"), **handler(self)}  # noqa: B009


class EventTrigger(_Trigger):
    """Starts on events that the host emits: ``order.created``, or a pattern like ``order.*``."""

    type: Literal["event"] = "event"
    event: PlainText
    """The event's name; ``*``, ``?`` and ``[…]`` match as in file names."""

    def matches(self, event: Event, workflow: str) -> bool:
        """Whether *event* is one of these. `if_` is not looked at."""
        # A connector may give its webhooks names that workflows know them by.
        named = bool(event.source) and not event.name.startswith(f"{event.source}.")
        named = named and event.type == "webhook"
        return (event.type == "event" or named) and fnmatchcase(event.name, self.event)


class WebhookTrigger(_Trigger):
    """Starts on a webhook that a connector has verified."""

    type: Literal["webhook"] = "webhook"
    connector: PlainText
    """The connector's key: ``github``."""
    trigger: PlainText
    """The connector's trigger, or a pattern: ``push``, ``pull_request.*``."""

    def matches(self, event: Event, workflow: str) -> bool:
        """Whether *event* is one of these. `if_` is not looked at."""
        prefix = f"{self.connector}."
        return (
            event.type == "webhook"
            and event.name.startswith(prefix)
            and fnmatchcase(event.name[len(prefix) :], self.trigger)
        )


class ManualTrigger(_Trigger):
    """Starts when a person or the host's code asks for this workflow by its name."""

    type: Literal["manual"] = "manual"

    def matches(self, event: Event, workflow: str) -> bool:
        """Whether *event* asks for the workflow called *workflow*. `if_` is not looked at."""
        return event.type == "manual" and event.name == workflow


def _check_timezone(name: str) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    try:
        ZoneInfo(name)
    except Exception:  # what it raises depends on the name, the system and the Python version
        example = "use a name like 'UTC' or 'Europe/Berlin'"
        hint = did_you_mean(name, available_timezones()) or example
        raise PydanticCustomError(
            "timezone", "there is no time zone {name}", {"name": repr(name), "hint": hint}
        ) from None
    return name


def _check_cron(text: str) -> str:
    from automate_kernel.workflows.engine.schedule import cron_problem

    problem = cron_problem(text)
    if problem:
        message, hint = problem
        raise PydanticCustomError("cron", "{problem}", {"problem": message, "hint": hint})
    return " ".join(text.split())


class ScheduleTrigger(_Trigger):
    """
    Starts by the clock: at the times of a *cron* line, or *every* so often.

    *cron* has five fields (minute, hour, day of month, month, day of week), or six with seconds in
    front, and is read in *timezone*. A time that the clock skips in spring fires right after the
    gap, and one that it shows twice in autumn fires once; lines with a ``*`` for minute or hour
    go on at their even pace through both. *every* counts from 1970-01-01 00:00 UTC, so all
    workers agree on it without talking.
    """

    type: Literal["schedule"] = "schedule"
    cron: Annotated[str, AfterValidator(_check_cron)] | None = None
    every: Annotated[Duration, Field(ge=1)] | None = None
    timezone: Annotated[str, AfterValidator(_check_timezone)] = "UTC"
    catch_up: bool = False
    """Whether fires that were missed while no worker ran are made up for, one by one."""
    payload: JsonTree = Field(default_factory=dict)
    """What the workflow sees as ``event.payload``."""

    @model_validator(mode="after")
    def _one_clock(self) -> ScheduleTrigger:
        if (self.cron is None) == (self.every is None):
            what = "both cron and every are given" if self.cron else "it has no cron and no every"
            raise PydanticCustomError(
                "schedule",
                "{what}",
                {"what": what, "hint": "give one of them: cron: '0 9 * * *', or every: 5m"},
            )
        if self.every is not None and self.timezone != "UTC":
            raise PydanticCustomError(
                "schedule",
                "timezone means nothing beside every",
                {"hint": "take timezone out, or use cron"},
            )
        return self

    def matches(self, event: Event, workflow: str) -> bool:
        """Whether *event* is a fire of the workflow called *workflow*. `if_` is not looked at."""
        return event.type == "schedule" and event.name == workflow


Trigger = Annotated[
    EventTrigger | WebhookTrigger | ManualTrigger | ScheduleTrigger, Field(discriminator="type")
]


def trigger_types() -> dict[str, type[BaseModel]]:
    """The trigger classes by what a definition calls them."""
    return {
        "event": EventTrigger,
        "webhook": WebhookTrigger,
        "manual": ManualTrigger,
        "schedule": ScheduleTrigger,
    }
