"""What the operators of templates do, each at a price that is known before it runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, ItemsView, Iterable, KeysView
from typing import Any

from automate_kernel.errors import TemplateError
from automate_kernel.templates.costs import compared, contained, division, searched
from automate_kernel.templates.limits import Budget, Counted

__all__ = ["BINARY", "COMPARISONS", "bounded", "compare", "contains", "sliced"]


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
    """*value* itself, unless it is too large a number."""
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


def contains(budget: Budget, item: Any, container: Any) -> bool:
    """Tell if *item* is in *container*."""
    if type(container) is not list and (
        hasattr(container, "__next__") or isinstance(container, Counted)
    ):
        return any(_same(budget, item, other) for other in container)
    if isinstance(container, (str, bytes)):
        part = len(item) if isinstance(item, (str, bytes)) else 0
        budget.charge("in", searched(len(container), part))
    else:
        budget.charge("in", contained(budget, item, container))
    return item in container


def _same(budget: Budget, left: Any, right: Any) -> bool:
    return left is right or bool(compare(budget, "eq", left, right))


COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("==", operator.eq),
    "ne": ("!=", operator.ne),
    "lt": ("<", operator.lt),
    "lteq": ("<=", operator.le),
    "gt": (">", operator.gt),
    "gteq": (">=", operator.ge),
}


def compare(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """What the comparison *name*, as Jinja's tree calls it, gives."""
    if name == "in":
        return contains(budget, left, right)
    if name == "notin":
        return not contains(budget, left, right)
    symbol, function = COMPARISONS[name]
    budget.charge(symbol, compared(budget, left, right))
    return function(left, right)


def sliced(budget: Budget, value: Any, parts: Iterable[Any]) -> Any:
    """A slice of *value*."""
    wanted = slice(*parts)
    if isinstance(value, (str, bytes, list, tuple)):
        size = len(range(*wanted.indices(len(value))))
        budget.charge("a slice", 10.0 * size)
        if isinstance(value, (str, bytes)):
            budget.allow(size)
            return value[wanted]
    return budget.weigh(value[wanted])
