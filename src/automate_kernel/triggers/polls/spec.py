"""Declarations of polls, and the results of their methods."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from automate_kernel.base.errors import ConfigError, PluginError, type_name
from automate_kernel.operations.schemas.checks import Schema, schema_problems

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__automate_poll__"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_SHORTEST_SECONDS, _LONGEST_CALL_SECONDS = 1.0, 3_600.0
_LONGEST_ID = 1_000
_RESULT = "return PollResult([PolledEvent(id, payload)], cursor)"


@dataclass(frozen=True, slots=True)
class PolledEvent:
    """
    One event: the service's own *id* of it, and its *payload* as a JSON value.

    The same id again starts nothing. Where the service has no id, make an id of what doesn't
    change, such as the row's key and the time of its change.
    """

    id: str
    payload: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not 0 < len(self.id) <= _LONGEST_ID:
            raise PluginError(
                f"the id of a polled event is text, not {type_name(self.id)}"
                if not isinstance(self.id, str)
                else f"the id of a polled event has 1 to {_LONGEST_ID} characters",
                hint="two events with one id count as one",
            )


@dataclass(frozen=True, slots=True)
class PollResult:
    """
    The *events* since the last poll, the oldest first, and the *cursor* to go on from.

    The next call gets *cursor*, any JSON value, as it is. With *more* it comes at once: return a
    page at a time.
    """

    events: Sequence[PolledEvent] = ()
    cursor: Any = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class PollSpec:
    """
    One poll of a connector: its *name*, its method's *attribute*, the seconds between two calls.

    Its events are called ``connector.name``, and their payloads fit *payload_schema*, a pydantic
    model or a JSON Schema. A call returns *max_events* at most, and takes *timeout_seconds* at
    most.
    """

    name: str
    attribute: str
    every_seconds: float
    max_events: int = 500
    timeout_seconds: float = 60.0
    description: str = field(default="", compare=False)
    payload_schema: Schema = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for problem, hint in self._problems():
            raise ConfigError(f"poll {self.name!r}: {problem}", hint=hint)

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            yield "its name can't stand in a workflow", "use lower-case letters, digits, _ - and ."
        if self.every_seconds < _SHORTEST_SECONDS:
            yield "it is called more than once in a second", 'use every="1s" or longer'
        whole = isinstance(self.max_events, int) and not isinstance(self.max_events, bool)
        if not whole or not 0 < self.max_events <= 10_000:
            yield (
                "max_events is a whole number from 1 to 10,000",
                "return a page at a time, with more=True",
            )
        number = isinstance(self.timeout_seconds, (int, float))
        if not number or not 0 < self.timeout_seconds <= _LONGEST_CALL_SECONDS:
            yield (
                "timeout_seconds is a number above 0, an hour at most",
                "return a page at a time, with more=True",
            )


def poll(
    name: str,
    *,
    every: str | float,
    max_events: int = 500,
    timeout_seconds: float = 60.0,
    payload_schema: Schema = None,
) -> Callable[[F], F]:
    """
    Make a method of a connector a poll: ``@poll("new_row", every="1m")``.

    It is called with the cursor, None at the first time, and returns a `PollResult`. It may be
    ``async``. With *payload_schema*, a pydantic model or a JSON Schema, the catalogue says what the
    events hold. A payload that doesn't fit is then an error of the plugin.
    """
    # Here, as it brings pydantic along, and most connectors declare none.
    from automate_kernel.base.durations import parse_duration

    try:
        seconds = parse_duration(every)
    except ValueError as error:
        raise ConfigError(f"poll {name!r}: every: {error}") from None

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise TypeError("decorate a plain method; put this decorator innermost")
        words = (inspect.getdoc(function) or "").partition("\n\n")[0]
        spec = PollSpec(
            name,
            function.__name__,
            seconds,
            max_events,
            timeout_seconds,
            " ".join(words.split()),
            payload_schema,
        )
        try:
            inspect.signature(function).bind("self", "cursor")
        except TypeError:
            raise ConfigError(
                f"poll {name!r}: {function.__name__}() can't be called with a cursor",
                hint=f"write def {function.__name__}(self, cursor)",
            ) from None
        setattr(function, _MARK, spec)
        return function

    return decorate


def is_poll(value: object) -> bool:
    """Return True for a method that `poll` has marked."""
    return isinstance(getattr(value, _MARK, None), PollSpec)


def polls_of(owner: type) -> list[PollSpec]:
    """Return the polls of a connector's class, base classes' first."""
    found: dict[str, PollSpec] = {}
    for base in reversed(owner.__mro__):
        for attribute, value in vars(base).items():
            spec = getattr(value, _MARK, None)
            if isinstance(spec, PollSpec):
                # Not the function's own name: another decorator may have put a function around it.
                found[attribute] = replace(spec, attribute=attribute)
            elif attribute in found and value is None:
                del found[attribute]
    names = [spec.name for spec in found.values()]
    for name in names:
        if names.count(name) > 1:
            problem = f"{owner.__name__} declares the poll {name!r} twice"
            raise PluginError(problem, hint="rename one of them")
    return list(found.values())


def checked_result(spec: PollSpec, result: object) -> PollResult:
    """Return *result* if it is a `PollResult` within the spec's bounds."""
    if not isinstance(result, PollResult):
        raise PluginError(
            f"the poll {spec.name!r} returned {type_name(result)}",
            hint="return PollResult(events, cursor)",
        )
    for name, value, kind, hint in (
        ("events", result.events, Sequence, _RESULT),
        ("more", result.more, bool, "return PollResult(events, cursor, more=True)"),
    ):
        if not isinstance(value, kind):
            problem = f"the {name} of the poll {spec.name!r} can't be {type_name(value)}"
            raise PluginError(problem, hint=hint)
    if len(result.events) > spec.max_events:
        raise PluginError(
            f"the poll {spec.name!r} returned {len(result.events)} events, and {spec.max_events} "
            "is the most",
            hint="return a page at a time, with more=True, or raise max_events",
        )
    if not all(isinstance(event, PolledEvent) for event in result.events):
        raise PluginError(
            f"the poll {spec.name!r} returned other things than events",
            hint=_RESULT,
        )
    if spec.payload_schema is not None:
        _check_payloads(spec, result.events)
    return result


def _check_payloads(spec: PollSpec, events: Sequence[PolledEvent]) -> None:
    for event in events:
        problems = schema_problems(spec.payload_schema, event.payload, f"payload of {spec.name!r}")
        if problems:
            raise PluginError(
                f"the poll {spec.name!r} returned a payload that doesn't fit its payload_schema: "
                + "; ".join(str(each) for each in problems[:3]),
                hint="correct the payload_schema, or what the method makes of the answer",
            )
