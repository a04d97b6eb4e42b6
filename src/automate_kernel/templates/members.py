"""What templates can reach from a value by a dot, and what operators may do to it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from types import ModuleType
from typing import Any

from jinja2.runtime import LoopContext

from automate_kernel.errors import TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates import builtin
from automate_kernel.templates.limits import Budget

__all__ = ["BINARY", "LOOP_METHODS", "Method", "bounded", "member"]


class Method:
    """A method of a value, ready to be called with the budget."""

    __slots__ = ("function", "name", "owner")

    def __init__(self, name: str, function: Callable[..., Any], owner: Any) -> None:
        self.name = name
        self.function = function
        self.owner = owner

    def __call__(self, budget: Budget, *args: Any, **kwargs: Any) -> Any:
        """What the method gives, within *budget*."""
        if self.function in _BOUNDED_METHODS:
            return self.function(budget, self.owner, *args, **kwargs)
        return budget.weigh(self.function(self.owner, *args, **kwargs))


def _methods(kind: type, names: str) -> dict[str, Callable[..., Any]]:
    return {name: getattr(kind, name) for name in names.split()}


_BOUNDED_METHODS = frozenset({builtin.join, builtin.replace})
_METHODS: tuple[tuple[type, dict[str, Callable[..., Any]]], ...] = (
    (
        str,
        _methods(
            str,
            "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit "
            "islower isnumeric isspace istitle isupper lower lstrip partition removeprefix "
            "removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith "
            "strip swapcase title upper",
        )
        | {"join": builtin.join, "replace": builtin.replace},
    ),
    (dict, _methods(dict, "get items keys values")),
    (Mapping, _methods(Mapping, "get items keys values")),
    (list, _methods(list, "count index")),
    (datetime, _methods(datetime, "date isoformat isoweekday timestamp weekday")),
    (date, _methods(date, "isoformat isoweekday weekday")),
    (timedelta, _methods(timedelta, "total_seconds")),
    (time, _methods(time, "isoformat")),
)
_LOOP = frozenset(
    [
        "changed",
        "cycle",
        "depth",
        "depth0",
        "first",
        "index",
        "index0",
        "last",
        "length",
        "nextitem",
        "previtem",
        "revindex",
        "revindex0",
    ]
)
LOOP_METHODS = (LoopContext.changed, LoopContext.cycle)
_PLAIN = (str, bytes, int, float, bool, list, tuple, dict, type(None))


def member(obj: Any, name: str) -> Any:
    """The method or field *name* of *obj* if templates may use it, else None."""
    for kind, methods in _METHODS:
        if isinstance(obj, kind):
            method = methods.get(name)
            if method is not None:
                return Method(name, method, obj)
    if isinstance(obj, LoopContext):
        return getattr(obj, name) if name in _LOOP else None
    if name.startswith("_") or isinstance(obj, (type, ModuleType, SecretRef, Sealed, Method)):
        return None
    if type(obj) in _PLAIN:
        return None
    # A date's year, or a field of what a filter gave. Code is out of reach.
    value = getattr(obj, name, None)
    return None if callable(value) or isinstance(value, ModuleType) else value


def _add(budget: Budget, left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes, list, tuple)):
        budget.allow(len(left) + len(right))
        result = left + right
        return result if isinstance(left, str) else budget.weigh(result)
    return bounded(budget, left + right)


def _multiply(budget: Budget, left: Any, right: Any) -> Any:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes, list, tuple)):
            budget.allow(len(sequence) * max(0, operator.index(times)))
            return budget.weigh(sequence * times)
    if isinstance(left, int) and isinstance(right, int):
        budget.allow_bits(left.bit_length() + right.bit_length())
    return left * right


def _power(budget: Budget, left: Any, right: Any) -> Any:
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        raise TypeError("unsupported operand type(s) for **")
    if isinstance(left, int) and isinstance(right, int):
        budget.allow_bits(left.bit_length() * abs(right))
    return left**right


def _modulo(budget: Budget, left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes)):
        raise TemplateError("% doesn't format text", hint='write "..." | format(...)')
    return left % right


def bounded(budget: Budget, value: Any) -> Any:
    """*value* itself, unless it is too large a number."""
    if isinstance(value, int):
        budget.allow_bits(value.bit_length())
    return value


BINARY: dict[str, Callable[[Budget, Any, Any], Any]] = {
    "+": _add,
    "*": _multiply,
    "%": _modulo,
    "**": _power,
}
