"""
How much a template may use, and the budget that counts it down.

The bounds hold together: no value that a template makes is larger than ``output``, all of them
have at most eight times that, and whatever goes over one is counted in ``steps`` and cut off by
``seconds``. So memory and time are bounded without a process of its own for each rendering.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from automate_kernel.errors import TemplateError
from automate_kernel.secrets.handles import Sealed

__all__ = ["Budget", "Counted", "Limits"]

_CLOCK_EVERY = 64
_LARGE = 10_000
_ALL_VALUES = 8  # what all values of a rendering may have together, in the size of the largest


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one template."""

    source: int = 65_536
    """Characters of one text of the author's."""
    depth: int = 64
    """Nesting of one expression or of blocks."""
    output: int = 1_000_000
    """Size of what one rendering gives, and of any value on the way: characters plus values."""
    steps: int = 100_000
    """Turns of loops, calls of filters and items that these go over, in one rendering."""
    bits: int = 4096
    """Size of an integer that arithmetic gives."""
    seconds: float = 2.0
    """Processor time of one rendering."""


class Budget:
    """What is left for one rendering."""

    __slots__ = ("_deadline", "_made", "_size", "_steps", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._steps = limits.steps
        self._size = limits.output
        self._made = limits.output * _ALL_VALUES
        # Not started yet: most renderings end before the clock is first needed.
        self._deadline = 0.0

    def spend(self, steps: int = 1) -> None:
        """Count *steps*, and look at the clock now and then."""
        before = self._steps
        self._steps = left = before - steps
        if left < 0:
            limit = self.limits.steps
            raise TemplateError(
                f"it takes more than {limit:,} steps", hint="Limits.steps bounds it"
            )
        if before // _CLOCK_EVERY != left // _CLOCK_EVERY:
            self.look_at_clock()

    def look_at_clock(self) -> None:
        """Refuse to go on if the time is up."""
        now = time.thread_time()
        if not self._deadline:
            self._deadline = now + self.limits.seconds
        elif now > self._deadline:
            limit = self.limits.seconds
            raise TemplateError(
                f"it takes longer than {limit:g} seconds", hint="Limits.seconds bounds it"
            )

    def turns(self, numbers: range) -> range:
        """*numbers* themselves, if there are not too many to go over."""
        if len(numbers) > self.limits.steps:
            self.spend(self.limits.steps + 1)
        return numbers

    def emit(self, size: int) -> None:
        """Count *size* towards what the rendering gives in all."""
        self._size -= size
        if self._size < 0:
            raise self._too_large()

    def allow(self, size: int) -> None:
        """Refuse a value of *size*, before it is made, if it is too large or one too many."""
        self._made -= size
        if size > self.limits.output or self._made < 0:
            raise self._too_large()

    def allow_bits(self, bits: float) -> None:
        """Refuse an integer of so many *bits*, before it is made."""
        if bits > self.limits.bits:
            limit = self.limits.bits
            raise TemplateError(
                f"it gives a number of over {limit:,} bits", hint="Limits.bits bounds it"
            )

    def weigh(self, value: Any) -> Any:
        """
        *value* itself, if it is within the output limit as a tree.

        A list that holds one other list many times is small in memory and huge when printed.
        """
        size = self.size(value)
        self.allow(size)
        if size > _LARGE:
            self.look_at_clock()
        return value

    def size(self, value: Any) -> int:
        """The size of *value* as a tree, or anything over the output limit."""
        if isinstance(value, (str, bytes)):
            return len(value)
        if isinstance(value, (list, tuple, Mapping)):
            return _weight(value, self.limits.output)
        return 1

    def _too_large(self) -> TemplateError:
        limit = self.limits.output
        return TemplateError(
            f"it gives more than {limit:,} characters", hint="Limits.output bounds it"
        )


def _weight(tree: Any, limit: int) -> int:
    weight = 1
    pending: list[Any] = [tree]
    while pending and weight <= limit:
        value = pending.pop()
        if isinstance(value, Mapping):
            weight += sum(len(key) for key in value if isinstance(key, str))
            value = value.values()
        weight += len(value)
        if weight > limit:
            break
        for item in value:
            if type(item) is str:
                weight += len(item)
            elif isinstance(item, (list, tuple, Mapping)):
                pending.append(item)
            elif isinstance(item, Sealed):
                weight += item.size
            elif isinstance(item, (str, bytes)):
                weight += len(item)
    return weight


class Counted:
    """An iterable that counts each item that is taken from it."""

    __slots__ = ("_budget", "_items")

    def __init__(self, items: Any, budget: Budget) -> None:
        self._items = items
        self._budget = budget

    def __iter__(self) -> Iterator[Any]:
        spend = self._budget.spend
        for item in self._items:
            spend()
            yield item

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True  # a generator has no length, and is not empty for that
