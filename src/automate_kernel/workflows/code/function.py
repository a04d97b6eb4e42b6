"""Functions as steps: their arguments as JSON, and the values that the stored JSON makes again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError, WorkflowError
from automate_kernel.operations.annotated import Results, Values
from automate_kernel.operations.signature import Binding, type_hints
from automate_kernel.operations.spec import OperationSpec, step_operation


class StepFunction:
    """
    A function that steps call: an operation without a name of the application's.

    *registered* is its spec, if it is an action of the application too.
    """

    def __init__(
        self, function: Callable[..., Any], registered: OperationSpec | None = None
    ) -> None:
        self.name: str = name_of(function)
        """The name of its steps."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise PluginError(
                f"{self.name}() is a generator, whose values can't be stored one by one",
                hint="return a list of them",
            )
        self.registered: bool = registered is not None
        """True if the application knows it by its spec's name."""
        self.spec: OperationSpec = registered or step_operation(function)
        """The operation that it is."""
        self.undoing: OperationSpec = replace(self.spec, is_unread=True)
        """The same for a call that undoes something, whose result no workflow sees."""
        binding = cast("Binding", self.spec.binding)
        hints = type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        own = [each for each in parameters if each.name != binding.call]
        self._signature = inspect.Signature(own)
        self._whole = binding.whole
        # With a value for each parameter nothing is left to find out.
        self._plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in own)
        self._arguments = {
            each.name: Values(
                hints.get(each.name),
                f"argument {each.name!r} of {self.name}()",
                base64=not self.registered,
            )
            for each in own
        }
        self._result = (
            Results(hints.get("return"), f"the result of {self.name}()")
            if self.registered
            else self.spec.results()
        )

    def input(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Return the input of the operation for a call with these arguments."""
        if self._plain and not named and len(arguments) == len(self._arguments):
            given: dict[str, Any] = dict(zip(self._arguments, arguments, strict=True))
        else:
            given = self._bound(arguments, named)
        if self._whole is not None:
            return self._arguments[self._whole].write(given[self._whole])
        return {
            name: self._arguments[name].write(value) if name in self._arguments else value
            for name, value in given.items()
        }

    def _bound(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        try:
            given = dict(self._signature.bind(*arguments, **named).arguments)
        except TypeError as error:
            raise TypeError(f"{self.name}() can't be called so: {error}") from None
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name, {})
        return given

    def read(self, output: Any) -> Any:
        """Return the value that the stored *output* of a call makes."""
        return self._result.read(output)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for people; raises `PluginError` if it has none."""
    name = getattr(function, "__name__", None)
    if isinstance(name, str):
        return "lambda" if name == "<lambda>" else name
    raise PluginError(
        f"a step can't call {type(function).__name__} objects", hint="pass a function or a method"
    )


@lru_cache(maxsize=2_000)
def _cached(function: Callable[..., Any], registered: OperationSpec | None) -> StepFunction:
    return StepFunction(function, registered)


def step_function(
    function: Callable[..., Any],
    find: Callable[[Callable[..., Any]], OperationSpec | None] = lambda _: None,
) -> tuple[StepFunction, tuple[Any, ...], Mapping[str, Any]]:
    """
    Return *function* as a step's, and the arguments that a `functools.partial` of it has.

    *find* returns the spec of an action of the application that was made from a function.
    """
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while isinstance(function, partial):
        arguments, named = (*function.args, *arguments), {**function.keywords, **named}
        function = function.func
    if not callable(function):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a step calls a function, not {type(function).__name__}",
            hint='pass the function itself, and its arguments after it; ctx.call("name") calls'
            " an action by its name",
        )
    try:
        return _cached(function, find(function)), arguments, named
    except TypeError:  # a method of an object that can't be a key
        return StepFunction(function, find(function)), arguments, named


def _may_be_context(annotation: Any) -> bool:
    """Return False if *annotation* is a type of which the context of a workflow is none."""
    kind = get_origin(annotation) or annotation
    if kind in (Union, UnionType):
        return any(map(_may_be_context, get_args(annotation)))
    # From Python 3.11 on Any is a class.
    anything = kind is Any or kind is object or getattr(kind, "_is_protocol", False)
    if anything or not inspect.isclass(kind):
        return True
    # Told by what all contexts have: their module is made of this one.
    return hasattr(kind, "execution_id") and hasattr(kind, "label")


def _check_context(function: Callable[..., Any], annotation: Any, name: str) -> None:
    """Raise `WorkflowError` if *annotation* is the context of the other sort of function."""
    asynchronous = inspect.iscoroutinefunction(function)
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    # An attribute says which it is: the contexts' module imports this module.
    sorts = {each: getattr(each, "_asynchronous", None) for each in kinds if inspect.isclass(each)}
    contexts = [each for each, sort in sorts.items() if sort is not None]
    if contexts and asynchronous not in sorts.values():
        own, other = ("an async def", "a def") if asynchronous else ("a def", "an async def")
        needed = "WorkflowContext" if asynchronous else "SyncWorkflowContext"
        raise WorkflowError(
            f"workflow {name!r} is {own}, which gets no {contexts[0].__name__}",
            hint=f"annotate its first parameter as {needed}, or make it {other}",
        )


def payload_values(function: Callable[..., Any], name: str) -> tuple[Values | None, bool]:
    """
    Return the values that a workflow's second parameter takes, and True if it may be left out.

    There are none if the context is its only parameter. Raises `WorkflowError` for other
    parameters.
    """
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    hints = type_hints(function)
    if (
        not 1 <= len(parameters) <= 2
        or any(each.kind not in positional for each in parameters)
        or not _may_be_context(hints.get(parameters[0].name))
    ):
        raise WorkflowError(
            f"workflow {name!r} takes {inspect.signature(function)}",
            hint="it takes the context, and the event's payload if it needs it: (ctx, order)",
        )
    _check_context(function, hints.get(parameters[0].name), name)
    if len(parameters) == 1:
        return None, True
    payload = parameters[1]
    values = Values(hints.get(payload.name), f"the payload of workflow {name!r}")
    return values, payload.default is not inspect.Parameter.empty
