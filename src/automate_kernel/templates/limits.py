"""
The limits of a template, the budget that counts them down, and the price of each call.

The bounds hold together. No value that a template makes is larger than ``output``, and all of them
together have at most eight times that. Each loop counts its turns as ``steps``, and ends after
``seconds``. During a call of C code nobody can look at the clock: its time is reckoned before, from
the sizes of its values, and refused above ``call_seconds``. So memory and time are bounded without
a process for each rendering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import TemplateError
from automate_kernel.secrets.handles import Sealed

MAX_DIGITS = 4300
"""The most digits of a number as text: Python's own default, which a process may lift."""
_MAX_BITS = 14_300
_PLAIN_INT = 10**18
_CLOCK_EVERY = 64
_COSTLY = 20_000  # nanoseconds: looking at the clock takes some 500
_MEMORABLE = 32
_LARGE = 10_000
_ALL_VALUES = 8  # the size of all values of a rendering together, in that of the largest


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one template."""

    source: int = 65_536
    """Characters of one text of the author's."""
    depth: int = 64
    """Nesting of one expression or of blocks."""
    output: int = 1_000_000
    """Size of the result of one rendering, and of any value on the way: characters plus values."""
    steps: int = 100_000
    """Turns of loops, calls of filters, and items in these, in one rendering."""
    bits: int = 4096
    """Size of an integer that arithmetic makes."""
    seconds: float = 2.0
    """Processor time of one rendering."""
    call_seconds: float = 0.1
    """Processor time of one method, filter, test or operator, as reckoned before it runs."""
    passed: int = 1_000_000
    """
    Size of all values together that one rendering passes on as they are: ``{{ steps.a.output }}``.

    Up to `output` they are counted with all others.
    """


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a value as a tree. Both are infinite above `Limits.output`."""

    chars: float
    nodes: float


_ONE = Measure(0, 1)
_SMALL = frozenset({float, bool, type(None)})
_ENDLESS = Measure(math.inf, math.inf)


class Budget:
    """The rest of the limits in one rendering."""

    __slots__ = ("_deadline", "_known", "_made", "_size", "_steps", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self._steps = limits.steps
        self._size = limits.output
        self._made: float = limits.output * _ALL_VALUES
        # Not started yet: most renderings end before the clock is first needed.
        self._deadline = 0.0
        # Measures of large containers. No template can change a container, and the entry keeps it
        # alive, so its id stays its own.
        self._known: dict[int, tuple[Any, Measure]] = {}

    def spend(self, steps: int = 1) -> None:
        """Count *steps*, and look at the clock now and then."""
        before = self._steps
        self._steps = left = before - steps
        if left < 0:
            raise _over(f"it takes more than {self.limits.steps:,} steps", "steps")
        if before // _CLOCK_EVERY != left // _CLOCK_EVERY:
            self.look_at_clock()

    def look_at_clock(self) -> None:
        """Refuse to go on if the time is up."""
        now = runtime.thread_time()
        if not self._deadline:
            self._deadline = now + self.limits.seconds
        elif now > self._deadline:
            raise _over(f"it takes longer than {self.limits.seconds:g} seconds", "seconds")

    def charge(self, name: str, nanoseconds: float) -> None:
        """Refuse the call of *name*, before it runs, if it could take too long."""
        if nanoseconds <= _COSTLY:
            return
        if nanoseconds > self.limits.call_seconds * 1e9:
            hint = "give it smaller values, or let an action do it; Limits.call_seconds bounds it"
            raise TemplateError(f"{name} would take too long on values of this size", hint=hint)
        self.look_at_clock()

    def turns(self, numbers: range) -> range:
        """Return *numbers* unless there are too many for a loop."""
        if len(numbers) > self.limits.steps:
            self.spend(self.limits.steps + 1)
        return numbers

    def emit(self, size: int) -> None:
        """Count *size* towards the result of the rendering."""
        self._size -= size
        if self._size < 0:
            raise self._too_large()

    def allow(self, size: float) -> None:
        """Refuse a value of *size*, before it is made, if it is too large or one too many."""
        self._made -= size
        if size > self.limits.output or self._made < 0:
            raise self._too_large()

    def allow_bits(self, bits: float) -> None:
        """Refuse an integer of so many *bits*, before it is made."""
        if bits > self.limits.bits:
            raise _over(f"it gives a number of over {self.limits.bits:,} bits", "bits")

    def weigh(self, value: Any) -> Any:
        """
        Return *value* if it is within the output limit as a tree.

        A list that holds one other list many times is small in memory and huge when printed.
        """
        if isinstance(value, int):
            allow_digits(value)
        size = self.size(value)
        self.allow(size)
        if size > _LARGE:
            self.look_at_clock()
        return value

    def size(self, value: Any) -> float:
        """Return the size of *value* as a tree; infinite over the output limit."""
        if isinstance(value, (str, bytes)):
            return len(value)
        found = self.measure(value)
        return found.chars + found.nodes

    def measure(self, value: Any) -> Measure:
        """Return the characters and nodes of *value* as a tree."""
        if isinstance(value, (str, bytes)):
            return Measure(len(value), 1)
        kind = type(value)
        if kind in _SMALL:
            return _ONE
        if kind is int:
            return Measure(_chars(value), 1)
        # Only other types are tested for their abstract class, which takes its time.
        plain = kind is list or kind is dict or kind is tuple
        if not plain and isinstance(value, (KeysView, ValuesView, ItemsView)):
            # A dict's own views have their dict; others' may have anything.
            value = getattr(value, "mapping", None)
        if isinstance(value, range):
            return Measure(0, 1 + len(value))
        if not plain and not isinstance(value, (list, tuple, Mapping)):
            return Measure(_chars(value), 1)
        if len(value) <= _MEMORABLE:
            return self._measured(value)
        known = self._known.get(id(value))
        if known is None:
            known = (value, self._measured(value))
            self._known[id(value)] = known
        return known[1]

    def _measured(self, tree: Any) -> Measure:
        chars: float = 0
        nodes: float = 1
        limit = self.limits.output
        known = self._known
        seen: float = 0
        pending: list[Any] = [tree]
        while pending:
            value = pending.pop()
            if type(value) is not list and isinstance(value, Mapping):
                chars += sum(len(key) for key in value if isinstance(key, str))
                value = value.values()
            nodes += len(value)
            if chars + nodes > limit:
                return _ENDLESS
            for item in value:
                if type(item) is str:
                    chars += len(item)
                elif type(item) in _SMALL:
                    continue
                elif id(item) in known:
                    chars += known[id(item)][1].chars
                    nodes += known[id(item)][1].nodes - 1  # itself is counted
                elif isinstance(item, (list, tuple, Mapping)):
                    pending.append(item)
                else:
                    chars += _chars(item)
            if nodes - seen > _LARGE:
                seen = nodes
                self.look_at_clock()
        return Measure(chars, nodes) if chars + nodes <= limit else _ENDLESS

    def _too_large(self) -> TemplateError:
        return _over(f"it gives more than {self.limits.output:,} characters", "output")


def _over(message: str, limit: str) -> TemplateError:
    return TemplateError(message, hint=f"Limits.{limit} bounds it")


def _chars(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Sealed):
        return value.size
    if isinstance(value, int):
        if -_PLAIN_INT < value < _PLAIN_INT:
            return 0
        return math.inf if _is_huge(value) else value.bit_length() / 3
    if isinstance(value, Decimal):
        # Written out, or as an integer, 1E+999999 has a million digits.
        return abs(value.adjusted()) + len(value.as_tuple().digits) if value.is_finite() else 1
    return 0


def allow_digits(number: int) -> None:
    """Refuse a *number* that can't be written."""
    if _is_huge(number):
        raise TemplateError(f"it gives a number of over {MAX_DIGITS:,} digits")


def _is_huge(number: int) -> bool:
    """Return True if *number* has too many digits to be written: this takes their square."""
    return number.bit_length() > _MAX_BITS and abs(number) >= 10**MAX_DIGITS


class CountedItems:
    """An iterable that counts each item taken from it."""

    __slots__ = ("_budget", "_items")

    def __init__(self, items: Any, budget: Budget) -> None:
        self._items = items
        self._budget = budget

    def __iter__(self) -> Iterator[Any]:
        # No generator: its frame would lead from a template to the process.
        return map(self._count, self._items)

    def _count(self, item: Any) -> Any:
        self._budget.spend()
        return item

    def __len__(self) -> int:
        return len(self._items)

    def __reversed__(self) -> Iterator[Any]:
        return map(self._count, reversed(self._items))

    def __bool__(self) -> bool:
        return True  # an iterator has no length, and is not empty for that


Cost = Callable[..., float]
"""A function from the budget, the value and the arguments of a call to nanoseconds."""

_CHAR = 0.3  # of comparing or copying, where memcmp and memcpy do it
_NODE = 30.0  # of comparing or hashing a value in a container
_NAIVE_SHIFTS = 2000


def FREE(*_: Any, **__: Any) -> float:  # noqa: N802 - a constant to its readers
    """Charge nothing: the time doesn't depend on the values."""
    return 0.0


def linear(per_char: float, per_node: float = 100.0) -> Cost:
    """Return a price for each character and each node of all values."""

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
    """Return the cost of finding a text of *part* characters in a text of *size*, from the left."""
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
    """Return the price of a search in the value for the first argument, and *per_char* more."""

    def cost(budget: Budget, text: str, part: Any = "", *_: Any, **__: Any) -> float:
        size = len(text)
        part = len(part) if isinstance(part, (str, bytes)) else 0
        return searched(size, part) + per_char * size

    return cost


def compared(budget: Budget, left: Any, right: Any) -> float:
    """Return the cost of ``==`` or ``<``: they end with the smaller value."""
    if type(left) is Decimal or type(right) is Decimal:
        # An integer beside a decimal is written out for the comparison.
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
    """Return the cost of ``item in container``."""
    if isinstance(container, str):
        return searched(len(container), len(item)) if isinstance(item, str) else 0.0
    if isinstance(container, Mapping):
        return _equality(budget, item)
    return _equality(budget, container)


def division(left: Any, right: Any) -> float:
    """Return the cost of ``//``, ``%`` and ``/``, which multiplies the sizes of integers."""
    if isinstance(left, int) and isinstance(right, int):
        return 2.0 * (left.bit_length() / 30 + 1) * (right.bit_length() / 30 + 1)
    return 0.0


def stripping(budget: Budget, value: Any, chars: Any = None, *_: Any, **__: Any) -> float:
    """Return the cost of `values.stripped`, which is a loop in Python for many characters."""
    found = budget.measure(value)
    many = isinstance(chars, str) and len(chars) > 32
    more = 60.0 * len(chars) if isinstance(chars, str) else 0.0
    return (400.0 if many else 10.0) * found.chars + 100.0 * found.nodes + more


def digits(budget: Budget, value: Any, *_: Any, **__: Any) -> float:
    """Return the cost of text or a decimal as a number, the square of its digits."""
    if not isinstance(value, (str, bytes)):
        size = budget.measure(value).chars
        return math.inf if math.isinf(size) else 0.02 * size * size
    return 0.02 * len(value) ** 2 + 5.0 * len(value)


def sorting(budget: Budget, keys: list[Any]) -> float:
    """Return the cost of sorting by *keys*."""
    found = budget.measure(keys)
    rounds = math.log2(len(keys) + 1) + 1
    return rounds * (_CHAR * found.chars + _NODE * found.nodes)
