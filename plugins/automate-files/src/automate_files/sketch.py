"""Sketches: sets of any size in a few kilobytes, of which the difference is exact."""

# ruff: noqa: SLF001 - of other sketches
from __future__ import annotations

import base64
import struct
from array import array
from collections.abc import Iterable
from hashlib import blake2b

# Up to about 300 differences are found (three quarters of the cells), whatever the sets' sizes are.
_CELLS = 402
_EACH = 3
_THIRD = _CELLS // _EACH
_FORMAT = struct.Struct(f"<I{_CELLS}H{_CELLS}Q{_CELLS}I")
_COUNTS = 1 << 16


class Sketch:
    """
    A set of numbers of 64 bits, as an invertible Bloom filter.

    Each number is in three cells, and a cell has the count and the exclusive or of its numbers. In
    the difference of two sketches all that both have is gone. A cell with one number left shows
    it, and without that one other cells show theirs.

    Eppstein, Goodrich, Uyeda, Varghese: What's the Difference? Efficient Set Reconciliation without
    Prior Context (2011).
    """

    __slots__ = ("_checks", "_counts", "_numbers", "size")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self.size: int = 0
        """The count of its numbers."""
        self._counts = array("H", bytes(2 * _CELLS))
        self._numbers = array("Q", bytes(8 * _CELLS))
        self._checks = array("I", bytes(4 * _CELLS))
        for number in numbers:
            self._toggle(number, 1)

    def without(self, numbers: Iterable[int]) -> Sketch:
        """Return a sketch that lacks *numbers*, which it has."""
        result = self._copy()
        for number in numbers:
            result._toggle(number, -1)
        return result

    def difference(self, other: Sketch) -> tuple[set[int], set[int]] | None:
        """
        Return the numbers that only this set has, and those that only *other* has.

        None if they are too many to be found, or two of them are in the same three cells: of 300
        different numbers two are in one case of fifty.
        """
        left = self._copy()
        for at in range(_CELLS):
            left._counts[at] = (left._counts[at] - other._counts[at]) % _COUNTS
            left._numbers[at] ^= other._numbers[at]
            left._checks[at] ^= other._checks[at]
        found: dict[int, set[int]] = {1: set(), _COUNTS - 1: set()}
        waiting = list(range(_CELLS))
        while waiting:
            at = waiting.pop()
            count, number = left._counts[at], left._numbers[at]
            if count not in found or left._checks[at] != _check(number) or at not in _cells(number):
                continue
            if number in found[count]:
                return None  # found before: this is no sketch of sets
            found[count].add(number)
            left._toggle(number, -1 if count == 1 else 1)
            waiting += _cells(number)
        if any(left._counts) or any(left._numbers) or any(left._checks):
            return None
        return found[1], found[_COUNTS - 1]

    def to_text(self) -> str:
        """Return it as text of 7,040 characters."""
        packed = _FORMAT.pack(self.size, *self._counts, *self._numbers, *self._checks)
        return base64.b85encode(packed).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Sketch:
        """Return the sketch of `to_text`; raise `ValueError` for other text."""
        try:
            size, *cells = _FORMAT.unpack(base64.b85decode(text))
        except (struct.error, ValueError) as error:
            raise ValueError("it is no sketch") from error
        result = cls()
        result.size = size
        result._counts = array("H", cells[:_CELLS])
        result._numbers = array("Q", cells[_CELLS : 2 * _CELLS])
        result._checks = array("I", cells[2 * _CELLS :])
        return result

    def _copy(self) -> Sketch:
        result = Sketch()
        result.size = self.size
        result._counts, result._numbers = self._counts[:], self._numbers[:]
        result._checks = self._checks[:]
        return result

    def _toggle(self, number: int, count: int) -> None:
        check = _check(number)
        for at in _cells(number):
            self._counts[at] = (self._counts[at] + count) % _COUNTS
            self._numbers[at] ^= number
            self._checks[at] ^= check
        self.size += count


def fingerprint(*parts: object) -> int:
    """Return a number of 64 bits for *parts*, that others hardly have."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _cells(number: int) -> tuple[int, int, int]:
    """Return a cell in each third."""
    # The numbers are hashes, so their bits are as good as another hash of them.
    return (
        number % _THIRD,
        _THIRD + (number >> 20) % _THIRD,
        2 * _THIRD + (number >> 40) % _THIRD,
    )


def _check(number: int) -> int:
    return (number * 0x9E3779B97F4A7C15 >> 29) & 0xFFFFFFFF
