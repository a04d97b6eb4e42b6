"""Replacements of operations in tests: a fake is called instead, and the calls are noted."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.context import Call, current_call
from automate_kernel.operations.outputs import json_output
from automate_kernel.operations.schemas.checks import is_model
from automate_kernel.operations.spec import OperationSpec

__all__ = ["ReplacedCall", "Replacement"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ReplacedCall:
    """
    One call of a replaced operation: its input, in which secrets are ``[secret KEY]``.

    *number* grows over all calls of the process, so that those of several operations can be put in
    order.
    """

    input: Any
    call: Call
    number: int


class Replacement:
    """
    A fake in the place of an operation, until `undo` or the end of its ``with`` block.

    The input is checked against the schema of the real operation. Secrets are not looked up: the
    fake sees ``[secret KEY]``.
    """

    def __init__(self, spec: OperationSpec, fake: Any, undo: Callable[[Replacement], None]) -> None:
        self.name: str = spec.name
        self.made: list[ReplacedCall] = []
        """The calls, refused ones too, in the order in which they were made."""
        self._spec = spec
        self._fake = fake
        self._undo = undo
        self._results = list(fake) if isinstance(fake, list) else None
        self._lock = new_lock()

    @property
    def calls(self) -> list[Any]:
        """The inputs of all calls so far."""
        return [one.input for one in self.made]

    @property
    def asynchronous(self) -> bool:
        """True if the fake is an ``async def``."""
        return inspect.iscoroutinefunction(self._fake)

    def undo(self) -> None:
        """Put the operation back. It may be called twice."""
        self._undo(self)

    def __enter__(self) -> Replacement:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<Replacement of {self.name!r}, {len(self.made)} calls>"

    def perform(self, shown: Any) -> Any:
        """Return the fake's output for an input without secrets; an awaitable if it is async."""
        call = current_call() or Call(self.name)
        with self._lock:
            self.made.append(ReplacedCall(shown, call, next(_numbers)))
            number = len(self.made)
        value = self._spec.validate(shown, called=self.name)
        result = self._answer(self._next(number), value, call)
        return self._dumped(result) if inspect.isawaitable(result) else self._written(result)

    async def _dumped(self, result: Any) -> Any:
        return self._written(await result)

    def _written(self, result: Any) -> Any:
        return self._spec.dump(result, called=self.name)

    def _next(self, number: int) -> Any:
        if self._results is None:
            return self._fake
        if number > len(self._results):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"{self.name!r} is called for the {number}. time, and its replacement has"
                f" {len(self._results)} results",
                hint="give it one for each call, or one function for all of them",
                retryable=False,
            )
        return self._results[number - 1]

    def _answer(self, fake: Any, value: Any, call: Call) -> Any:
        if isinstance(fake, BaseException):
            raise fake.with_traceback(None)
        if isinstance(fake, type) and issubclass(fake, BaseException):
            raise fake
        if not callable(fake):
            return fake
        return fake(**_arguments(self._spec, fake, value, call))


def _arguments(
    spec: OperationSpec, fake: Callable[..., Any], value: Any, call: Call
) -> dict[str, Any]:
    """Return the arguments of *fake*: the fields that it takes, or the whole input."""
    try:
        parameters = inspect.signature(fake, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError):  # its annotations, or a builtin's
        parameters = inspect.signature(fake).parameters.values()
    given = _fields_of(value)
    arguments = {one.name: call for one in parameters if one.annotation is Call}
    rest = [one for one in parameters if one.name not in arguments]
    if any(one.kind is one.VAR_KEYWORD for one in rest):
        return {**given, **arguments}
    if len(rest) == 1 and rest[0].name not in given and rest[0].default is inspect.Parameter.empty:
        whole = value if is_model(rest[0].annotation) else json_output(value, "input")
        return {rest[0].name: whole, **arguments}
    return {**{one.name: given[one.name] for one in rest if one.name in given}, **arguments}


def _fields_of(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    fields = type(value).model_fields
    named = {one.alias or name: getattr(value, name) for name, one in fields.items()}
    return {**named, **(getattr(value, "model_extra", None) or {})}


class Replacements:
    """The operations that are replaced now, by their names, and those that may be called."""

    def __init__(self) -> None:
        self.real: frozenset[str] | None = None
        """The operations that may be called though they aren't replaced; None: all."""
        self._by_name: dict[str, list[Replacement]] = {}
        self._lock = new_lock()

    def add(self, name: str, spec: OperationSpec, fake: Any) -> Replacement:
        """Replace the operation *name*, though it may be replaced already, and return how."""

        def undo(replacement: Replacement) -> None:
            with self._lock:
                left = [one for one in self._by_name.get(name, ()) if one is not replacement]
                if left:
                    self._by_name[name] = left
                else:
                    self._by_name.pop(name, None)

        replacement = Replacement(spec, fake, undo)
        replacement.name = name
        with self._lock:
            self._by_name[name] = [*self._by_name.get(name, ()), replacement]
        return replacement

    def find(self, operation: str | OperationSpec) -> Replacement | None:
        """Return the replacement of *operation* that was made last, or None."""
        name = operation if isinstance(operation, str) else operation.name
        found = self._by_name.get(name)
        return found[-1] if found else None

    def called(self, operation: str | OperationSpec) -> Replacement | None:
        """Return the same for a call; raises ``FAILED_PRECONDITION`` if it may not be made."""
        name = operation if isinstance(operation, str) else operation.name
        found = self.find(name)
        if found is None and self.real is not None and name not in self.real:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the test doesn't replace {name!r}, and so it isn't called",
                hint="add it to replace, or to real",
                retryable=False,
            )
        return found
