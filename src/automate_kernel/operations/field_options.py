"""
Dynamic options: the choices of a field that only the service knows.

::

    class Slack(Connector):
        @action
        def post_message(self, channel: str, text: str) -> Receipt: ...

        @options("channel")
        def channels(self, search: str = "") -> list[FieldOption]:
            return [FieldOption(each.id, each.name) for each in self.client.channels(search)]
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PluginError,
    did_you_mean,
    type_name,
)
from automate_kernel.operations.schemas.fields import input_fields, written
from automate_kernel.operations.spec import OperationSpec

__all__ = ["FieldOption", "options"]

F = TypeVar("F", bound=Callable[..., Any])

MOST_OPTIONS = 1000
MOST_SEARCH = 200
_LONGEST_LABEL = 200
_LONGEST_VALUE = 2000
_MARK = "__automate_options__"
_OWN = ("search", "limit")
# They name no field.
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SCALARS = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class FieldOption:
    """One choice of a field: its *value*, a text, number or boolean, and a *label* for people."""

    value: str | int | float | bool
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", written(self.value))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"value": self.value, "label": self.label}


def options(field: str, *, of: str | Iterable[str] = ()) -> Callable[[F], F]:
    """
    Let a method of a connector or provider give the choices of *field*, in all its operations.

    With *of* it is only for the operations of these names. The method, ``def`` or ``async def``,
    returns texts, numbers, `FieldOption` or pairs of value and label. All its parameters are
    optional for the caller: ``search`` is the text that a person has typed, and ``limit`` the
    number of choices wanted. Any other parameter gets the value of the field of that name. Without
    a default, the field has to be chosen first. Without ``search`` the kernel itself looks for the
    text in the labels.
    """
    if not isinstance(field, str) or not field:
        raise TypeError('options() needs the name of a field: @options("channel")')
    operations = frozenset((of,) if isinstance(of, str) else of)

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise TypeError("decorate a plain method; put @options innermost")
        marks = getattr(function, _MARK, ())
        setattr(function, _MARK, (*marks, (field, operations)))
        return function

    return decorate


@dataclass(frozen=True, slots=True)
class OptionsMethod:
    """A method that gives the choices of *field*: its name, and the operations that it is for."""

    field: str
    method: str
    operations: frozenset[str] = frozenset()

    def serves(self, operation: str) -> bool:
        """Return True if it is for the operation of this name."""
        return not self.operations or operation in self.operations

    def call(
        self, plugin: Any, values: Mapping[str, Any], search: str, limit: int
    ) -> tuple[Any, bool]:
        """
        Return what the method gives, or an awaitable of it, and if it has searched itself.

        Raises ``FAILED_PRECONDITION`` if it needs a field that is not among *values*.
        """
        function = getattr(plugin, self.method)
        parameters = inspect.signature(function).parameters.values()
        given: dict[str, Any] = {}
        for each in parameters:
            if each.kind in _VARIADIC:
                continue
            if each.name in _OWN:
                given[each.name] = search if each.name == "search" else limit
            elif each.name in values:
                given[each.name] = values[each.name]
            elif each.default is each.empty:
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    f"the choices of {self.field!r} depend on {each.name!r}",
                    hint=f"fill in {each.name!r} first",
                )
        return function(**given), any(each.name == "search" for each in parameters)

    def fields_needed(self, plugin: type) -> list[str]:
        """Return the names of the fields whose values the method takes."""
        parameters = list(inspect.signature(getattr(plugin, self.method)).parameters.values())[1:]
        return [
            each.name for each in parameters if each.name not in _OWN and each.kind not in _VARIADIC
        ]


def options_methods(plugin: type) -> list[OptionsMethod]:
    """Return the methods of *plugin* that `options` marked; those for single operations first."""
    found: dict[str, list[OptionsMethod]] = {}
    for base in reversed(plugin.__mro__):
        for name, value in vars(base).items():
            marks = getattr(value, _MARK, None)
            if marks is not None:
                found[name] = [OptionsMethod(field, name, of) for field, of in marks]
            elif value is None:
                found.pop(name, None)
    listed = [each for methods in found.values() for each in methods]
    return sorted(listed, key=lambda each: not each.operations)


def find_options(plugin: type, operation: str, field: str) -> OptionsMethod | None:
    """Return the method for *field* of an *operation*, or None if there is none."""
    serving = (each for each in options_methods(plugin) if each.serves(operation))
    return next((each for each in serving if each.field == field), None)


def require_field(spec: OperationSpec, name: str) -> tuple[FieldOption, ...]:
    """
    Return the choices that the schema of *spec* itself has for the field *name*.

    Raises ``NOT_FOUND`` for a field that isn't there.
    """
    fields = {each.name: each for each in input_fields(spec.json_schema())}
    if name not in fields:
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"{spec.name!r} has no field {name[:80]!r}",
            hint=did_you_mean(name, fields, also=f"it has: {', '.join(fields) or 'none'}"),
        )
    field = fields[name]
    if field.kind == "boolean":
        return FieldOption(True), FieldOption(False)
    return tuple(FieldOption(each) for each in field.choices if isinstance(each, _SCALARS))


async def acollected(result: Any, limit: int) -> list[Any]:
    """Return at most *limit* of what an awaitable, or an asynchronous iterable, gives."""
    if inspect.isawaitable(result):
        result = await result
    if not isinstance(result, AsyncIterable):
        return collected(result, limit)
    found: list[Any] = []
    async for each in result:
        found.append(each)
        if len(found) >= limit:
            break
    return found


def collected(result: Any, limit: int) -> list[Any]:
    """Return at most *limit* of what a method has returned; raises `PluginError` for no list."""
    if isinstance(result, Mapping):
        result = list(result.items())
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise PluginError(
            f"a method of options returned {type_name(result)}",
            hint="return a list of texts, of FieldOption, or of pairs of value and label",
        )
    return list(islice(result, limit))


def as_options(found: Iterable[Any]) -> Iterator[FieldOption]:
    """Yield a `FieldOption` for each of *found*; raises `PluginError` for an invalid choice."""
    for each in found:
        value, label = each, ""
        if isinstance(each, FieldOption):
            value, label = each.value, each.label
        elif isinstance(each, (tuple, list)) and len(each) == 2:
            value, label = each[0], str(each[1])
        fits = isinstance(value, _SCALARS)
        if not fits or len(str(value)) > _LONGEST_VALUE:
            raise PluginError(
                f"a choice has more than {_LONGEST_VALUE} characters"
                if fits
                else f"a choice can't be {type_name(value)}",
                hint="return texts, numbers, FieldOption, or pairs of value and label",
            )
        yield FieldOption(value, label[:_LONGEST_LABEL])


def searched(found: Iterable[FieldOption], search: str) -> Iterator[FieldOption]:
    """Yield those of *found* that have the text *search* in their value or label, in any case."""
    wanted = search.casefold().strip()
    for each in found:
        if wanted in each.label.casefold() or wanted in written(each.value).casefold():
            yield each
