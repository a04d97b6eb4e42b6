"""Methods, fields and operators of values in a template, each with its price."""

from __future__ import annotations

import operator
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from functools import partial
from types import ModuleType
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

from automate_kernel.base.errors import TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates import filters as builtin
from automate_kernel.templates import values as texts
from automate_kernel.templates.limits import (
    FREE,
    Budget,
    Cost,
    CountedItems,
    compared,
    contained,
    division,
    linear,
    searched,
    searching,
    stripping,
)
from automate_kernel.templates.values import unfit


@dataclass(eq=False, repr=False, slots=True)
class Method:
    """A method of a value, ready to be called with the budget."""

    name: str
    function: Callable[..., Any]
    cost: Cost
    owner: Any

    def __call__(self, budget: Budget, *args: Any, **kwargs: Any) -> Any:
        """Call the method within *budget*."""
        check_values(f"{self.name}()", (*args, *kwargs.values()))
        budget.charge(f"{self.name}()", self.cost(budget, self.owner, *args, **kwargs))
        if self.function in _BUDGETED:
            return self.function(budget, self.owner, *args, **kwargs)
        return budget.weigh(self.function(self.owner, *args, **kwargs))


_PLAIN = frozenset({str, bytes, int, float, bool, list, tuple, dict, type(None)})
INNER = (Method, Macro, LoopContext, Namespace, type, ModuleType)


def check_values(name: str, values: Iterable[Any]) -> None:
    """Refuse secrets and the template's own objects among the *values* for *name*."""
    for value in values:
        if type(value) in _PLAIN:
            continue
        if isinstance(value, (SecretRef, Sealed)):
            raise TemplateError(f"a secret can't go through {name}")
        if isinstance(value, INNER):
            raise unfit(value)


def _splitting(per_piece: float) -> Cost:
    def cost(
        budget: Budget, text: str, sep: Any = None, maxsplit: Any = -1, *_: Any, **__: Any
    ) -> float:
        length = len(sep) if isinstance(sep, str) else 1
        pieces = len(text) // max(1, length) + 1
        if isinstance(maxsplit, int) and maxsplit >= 0:
            pieces = min(pieces, maxsplit)
        return searched(len(text), length) + 6.0 * len(text) + per_piece * pieces

    return cost


def _priced(kind: type, names: str, cost: Cost) -> dict[str, tuple[Callable[..., Any], Cost]]:
    return {name: (getattr(kind, name), cost) for name in names.split()}


def _containing(budget: Budget, values: Any, item: Any = None, *_: Any) -> float:
    return contained(budget, item, values)


_BUDGETED = frozenset({builtin.join, builtin.replace, texts.format_fields})
# Each has a price here, so templates reach nothing without a price.
_METHODS: tuple[tuple[type, dict[str, tuple[Callable[..., Any], Cost]]], ...] = (
    (
        str,
        {
            **_priced(str, "capitalize casefold lower swapcase title upper", linear(25)),
            **_priced(
                str,
                "isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper",
                linear(15),
            ),
            **_priced(str, "endswith removeprefix removesuffix startswith", linear(1)),
            **_priced(str, "count find index partition", searching()),
            "split": (str.split, _splitting(60)),
            **_priced(str, "splitlines", linear(60)),
            "format": (texts.format_fields, linear(200)),
            "join": (builtin.join, FREE),  # it counts the items, then the characters
            "lstrip": (partial(texts.stripped, right=False), stripping),
            "replace": (builtin.replace, searching(1)),
            "rfind": (texts.rfind, searching(3)),
            "rindex": (texts.rindex, searching(3)),
            "rpartition": (texts.rpartition, searching(5)),
            "rsplit": (texts.rsplit, _splitting(250)),
            "rstrip": (partial(texts.stripped, left=False), stripping),
            "strip": (texts.stripped, stripping),
        },
    ),
    (dict, _priced(dict, "items keys values", FREE) | _priced(dict, "get", _containing)),
    (Mapping, _priced(Mapping, "items keys values", FREE) | _priced(Mapping, "get", _containing)),
    (list, _priced(list, "count index", _containing)),
    (datetime, _priced(datetime, "date isoformat isoweekday timestamp weekday", linear(1))),
    (date, _priced(date, "isoformat isoweekday weekday", FREE)),
    (timedelta, _priced(timedelta, "total_seconds", FREE)),
    (time, _priced(time, "isoformat", linear(1))),
)
# Data alone: all that isn't listed, as a frame of an iterator, is out of reach.
_FIELDS: tuple[tuple[type, frozenset[str]], ...] = (
    (date, frozenset({"year", "month", "day"})),
    (datetime, frozenset({"hour", "minute", "second", "microsecond", "fold"})),
    (time, frozenset({"hour", "minute", "second", "microsecond", "fold"})),
    (timedelta, frozenset({"days", "seconds", "microseconds"})),
    (range, frozenset({"start", "stop", "step"})),
)
_LOOP = frozenset({
    "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length",
    "nextitem", "previtem", "revindex", "revindex0",
})  # fmt: skip
LOOP_METHODS = (LoopContext.changed, LoopContext.cycle)


def member(obj: Any, name: str) -> Any:
    """Return the method or field *name* of *obj* if templates may use it, else None."""
    for kind, methods in _METHODS:
        if isinstance(obj, kind):
            found = methods.get(name)
            if found is not None:
                return Method(name, *found, obj)
    if isinstance(obj, LoopContext):
        return getattr(obj, name) if name in _LOOP else None
    value = getattr(obj, name, None) if _is_field(obj, name) else None
    return None if callable(value) else value


def _is_field(obj: Any, name: str) -> bool:
    """Return True if *name* is a field that templates may read: of a time, or of a filter's."""
    if name.startswith("_") or isinstance(obj, (*INNER, SecretRef, Sealed)):
        return False
    if isinstance(obj, tuple):  # a named one, as groupby gives
        return name in getattr(type(obj), "_fields", ())
    if is_dataclass(obj):
        return any(name == each.name for each in fields(obj))
    return any(isinstance(obj, kind) and name in names for kind, names in _FIELDS)


def _add(budget: Budget, left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes, list, tuple)):
        budget.allow(len(left) + len(right))
        result = left + right
        return result if isinstance(left, str) else budget.weigh(result)
    return bounded(budget, left + right)


def _subtract(budget: Budget, left: Any, right: Any) -> Any:
    if isinstance(left, (KeysView, ItemsView)) or isinstance(right, (KeysView, ItemsView)):
        raise TypeError("unsupported operand type(s) for -")
    return bounded(budget, left - right)


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
    budget.charge("%", division(left, right))
    return left % right


def _divide(budget: Budget, left: Any, right: Any) -> Any:
    budget.charge("/", division(left, right))
    return left / right


def _floor(budget: Budget, left: Any, right: Any) -> Any:
    budget.charge("//", division(left, right))
    return left // right


def bounded(budget: Budget, value: Any) -> Any:
    """Return *value* unless it is too large a number."""
    if isinstance(value, int):
        budget.allow_bits(value.bit_length())
    return value


BINARY: dict[str, Callable[[Budget, Any, Any], Any]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "//": _floor,
    "%": _modulo,
    "**": _power,
}


def _contains(budget: Budget, item: Any, container: Any) -> bool:
    if type(container) is not list and (
        hasattr(container, "__next__") or isinstance(container, CountedItems)
    ):
        return any(item is other or compare(budget, "eq", item, other) for other in container)
    if isinstance(container, (str, bytes)):
        part = len(item) if isinstance(item, (str, bytes)) else 0
        budget.charge("in", searched(len(container), part))
    else:
        budget.charge("in", contained(budget, item, container))
    return item in container


_COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("==", operator.eq),
    "ne": ("!=", operator.ne),
    "lt": ("<", operator.lt),
    "lteq": ("<=", operator.le),
    "gt": (">", operator.gt),
    "gteq": (">=", operator.ge),
}


def compare(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """Do the comparison *name*, as Jinja's tree calls it."""
    if name == "in":
        return _contains(budget, left, right)
    if name == "notin":
        return not _contains(budget, left, right)
    symbol, function = _COMPARISONS[name]
    budget.charge(symbol, compared(budget, left, right))
    return function(left, right)


def sliced(budget: Budget, value: Any, parts: Iterable[Any]) -> Any:
    """Return a slice of *value*."""
    wanted = slice(*parts)
    if isinstance(value, (str, bytes, list, tuple)):
        size = len(range(*wanted.indices(len(value))))
        budget.charge("a slice", 10.0 * size)
        if isinstance(value, (str, bytes)):
            budget.allow(size)
            return value[wanted]
    return budget.weigh(value[wanted])
