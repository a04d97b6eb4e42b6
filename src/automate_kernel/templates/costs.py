"""
What a call may cost, in nanoseconds, reckoned from the sizes of its values before it runs.

A method, filter or test that isn't priced here can't be reached. The factors are the dearest that
were measured on Python 3.10 to 3.13 with contents made to be slow, rounded up; the test of the
costs measures every call again. Loops that go over items in Python count each of them as a step,
so that only what happens in one call of C code matters here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from automate_kernel.templates.limits import Budget

__all__ = [
    "FREE",
    "Cost",
    "compared",
    "contained",
    "digits",
    "division",
    "linear",
    "searched",
    "searching",
    "sorting",
    "stripping",
]

Cost = Callable[..., float]
"""Gets the budget, the value and the arguments of a call; gives nanoseconds."""

_CHAR = 0.3  # of comparing or copying, where memcmp and memcpy do it
_NODE = 30.0  # of comparing or hashing a value in a container
_NAIVE_SHIFTS = 2000


def FREE(*_: Any, **__: Any) -> float:  # noqa: N802 - a constant to its readers
    """Nothing: the time doesn't depend on the values."""
    return 0.0


def linear(per_char: float, per_node: float = 100.0) -> Cost:
    """So much for each character and each node of all values."""

    def cost(budget: Budget, *args: Any, **kwargs: Any) -> float:
        total = 0.0
        for value in (*args, *kwargs.values()):
            if type(value) is str:
                total += per_char * len(value)
            else:
                found = budget.measure(value)
                total += per_char * found.chars + per_node * found.nodes
        return total

    return cost


def searched(size: int, part: int) -> float:
    """The cost of finding a text of *part* characters in one of *size*, from the left."""
    if part <= 1 or part > size:
        return 2.0 * size
    shifts = size - part + 1
    if part < 6 or size < 2500 or (part < 100 and size < 30_000):
        # Each place is tried, and each try may go on to the end.
        return 2.0 * shifts * min(part, size) + size
    if 3 * part < size:
        return 10.0 * size
    # Python goes over to the linear algorithm late, and not at all for the last places.
    return 1.5 * min(shifts, _NAIVE_SHIFTS) * part + 10.0 * size


def searching(per_char: float = 0.0) -> Cost:
    """A search in the value for the first argument, and *per_char* for what is made of it."""

    def cost(budget: Budget, text: str, part: Any = "", *_: Any, **__: Any) -> float:
        size = len(text)
        part = len(part) if isinstance(part, (str, bytes)) else 0
        return searched(size, part) + per_char * size

    return cost


def compared(budget: Budget, left: Any, right: Any) -> float:
    """The cost of ``==`` or ``<``: they end with the smaller value."""
    if type(left) is Decimal or type(right) is Decimal:
        # An integer beside one is written out for it.
        return digits(budget, left) + digits(budget, right)
    if type(left) in _QUICK or type(right) in _QUICK:
        return 0.0
    if isinstance(left, (str, bytes)) or isinstance(right, (str, bytes)):
        sizes = [len(v) for v in (left, right) if isinstance(v, (str, bytes))]
        return _CHAR * min(sizes) if len(sizes) > 1 else 0.0
    return min(_equality(budget, left), _equality(budget, right))


_QUICK = frozenset({bool, float, int, type(None)})  # of a number at most its digits


def _equality(budget: Budget, value: Any) -> float:
    found = budget.measure(value)
    return _CHAR * found.chars + _NODE * found.nodes


def contained(budget: Budget, item: Any, container: Any) -> float:
    """The cost of ``item in container``."""
    if isinstance(container, str):
        return searched(len(container), len(item)) if isinstance(item, str) else 0.0
    if isinstance(container, Mapping):
        return _equality(budget, item)
    return _equality(budget, container)


def division(left: Any, right: Any) -> float:
    """The cost of ``//``, ``%`` and ``/``, which multiplies the sizes of integers."""
    if isinstance(left, int) and isinstance(right, int):
        return 2.0 * (left.bit_length() / 30 + 1) * (right.bit_length() / 30 + 1)
    return 0.0


def stripping(budget: Budget, value: Any, chars: Any = None, *_: Any, **__: Any) -> float:
    """The cost of `texts.stripped`, which goes over the text in Python for many characters."""
    found = budget.measure(value)
    many = isinstance(chars, str) and len(chars) > 32
    more = 60.0 * len(chars) if isinstance(chars, str) else 0.0
    return (250.0 if many else 10.0) * found.chars + 100.0 * found.nodes + more


def digits(budget: Budget, value: Any, *_: Any, **__: Any) -> float:
    """The cost of turning text or a decimal into a number, which takes the square of its digits."""
    if not isinstance(value, (str, bytes)):
        size = budget.measure(value).chars
        return math.inf if math.isinf(size) else 0.02 * size * size
    return 0.02 * len(value) ** 2 + 5.0 * len(value)


def sorting(budget: Budget, keys: list[Any]) -> float:
    """The cost of sorting by *keys*."""
    found = budget.measure(keys)
    rounds = math.log2(len(keys) + 1) + 1
    return rounds * (_CHAR * found.chars + _NODE * found.nodes)
