"""What templates can reach from a value by a dot, and at what price."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from types import ModuleType
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

from automate_kernel.errors import TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates import builtin, texts
from automate_kernel.templates.costs import (
    FREE,
    Cost,
    contained,
    linear,
    searched,
    searching,
    stripping,
)
from automate_kernel.templates.limits import Budget
from automate_kernel.templates.values import unfit

__all__ = ["INNER", "LOOP_METHODS", "Method", "check_values", "member"]


class Method:
    """A method of a value, ready to be called with the budget."""

    __slots__ = ("cost", "function", "name", "owner")

    def __init__(self, name: str, function: Callable[..., Any], cost: Cost, owner: Any) -> None:
        self.name: str = name
        self.function: Callable[..., Any] = function
        self.cost: Cost = cost
        self.owner: Any = owner

    def __call__(self, budget: Budget, *args: Any, **kwargs: Any) -> Any:
        """What the method gives, within *budget*."""
        check_values(f"{self.name}()", (*args, *kwargs.values()))
        budget.charge(f"{self.name}()", self.cost(budget, self.owner, *args, **kwargs))
        if self.function in _BUDGETED:
            return self.function(budget, self.owner, *args, **kwargs)
        return budget.weigh(self.function(self.owner, *args, **kwargs))


_PLAIN = frozenset({str, bytes, int, float, bool, list, tuple, dict, type(None)})
INNER = (Method, Macro, LoopContext, Namespace, type, ModuleType)


def check_values(name: str, values: Iterable[Any]) -> None:
    """Refuse secrets, and what belongs to the template itself, among the *values* for *name*."""
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


def _search_in(budget: Budget, values: Any, item: Any = None, *_: Any) -> float:
    return contained(budget, item, values)


def _hash_key(budget: Budget, values: Any, key: Any = None, *_: Any) -> float:
    return contained(budget, key, values)


_BUDGETED = frozenset({builtin.join, builtin.replace, texts.format_fields})
# Nothing stands here without a price, so nothing that has none can be reached.
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
    (dict, _priced(dict, "items keys values", FREE) | _priced(dict, "get", _hash_key)),
    (Mapping, _priced(Mapping, "items keys values", FREE) | _priced(Mapping, "get", _hash_key)),
    (list, _priced(list, "count index", _search_in)),
    (datetime, _priced(datetime, "date isoformat isoweekday timestamp weekday", linear(1))),
    (date, _priced(date, "isoformat isoweekday weekday", FREE)),
    (timedelta, _priced(timedelta, "total_seconds", FREE)),
    (time, _priced(time, "isoformat", linear(1))),
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


def member(obj: Any, name: str) -> Any:
    """The method or field *name* of *obj* if templates may use it, else None."""
    for kind, methods in _METHODS:
        if isinstance(obj, kind):
            found = methods.get(name)
            if found is not None:
                return Method(name, *found, obj)
    if isinstance(obj, LoopContext):
        return getattr(obj, name) if name in _LOOP else None
    if name.startswith("_") or isinstance(obj, (*INNER, SecretRef, Sealed)):
        return None
    if type(obj) in _PLAIN:
        return None
    # A date's year, or a field of what a filter gave. Code is out of reach.
    value = getattr(obj, name, None)
    return None if callable(value) or isinstance(value, ModuleType) else value
