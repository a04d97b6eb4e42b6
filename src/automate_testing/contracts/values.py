"""Values to try a store with: those that JSON has, and those that it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import pytest

DEEPEST = 100
"""The most lists and objects in each other."""


class Colour(Enum):
    """An enum, which JSON doesn't have."""

    RED = "red"


class Point(NamedTuple):
    """A tuple whose names would be lost."""

    x: int
    y: int


def nested(levels: int, inside: Any = None) -> Any:
    """Return *inside* with *levels* lists and objects around it, in turn."""
    for level in range(levels):
        inside = [inside] if level % 2 else {"in": inside}
    return inside


KEPT: dict[str, Any] = {
    "a large integer": 2**70,
    "the largest integer": 2**1023 - 1,
    "the smallest integer": -(2**1023) + 1,
    "beyond 64 bits": [2**64, -(2**63) - 1],
    "a whole number with a fraction": 1.0,
    "whole numbers inside": {"n": [1, 1.0, 100.0, 0, 0.0, True]},
    "a large number": 1e308,
    "numbers that are written with exponents": [1e16, -1.5e17, 1e22, 1.7976931348623157e308, 1e-7],
    "the smallest number": 5e-324,
    "zeros with and without a sign": {"zeros": [0.0, -0.0, 0]},
    "a negative zero": -0.0,
    "text that looks like numbers": ["1e+16", "-0.0", '"1e+400', "\\", '\\"-0.0'],
    "text that is a number": "1.0",
    "text that is null": "null",
    "thirty-two levels": nested(32),
    "the deepest": nested(DEEPEST),
    "the deepest, empty": nested(DEEPEST - 1, []),
    "keys that look alike": {"1": 1, "1.0": 2, "true": 3, "": 4, " ": 5, "a ": 6, "a": 7},
}
"""Values that come back equal and of the same types."""

REFUSED: dict[str, Any] = {
    "an integer that no double holds": 2**1023,
    "an integer of many digits": 10**400,
    "an integer that Python doesn't write": {"n": [10**5000]},
    "NaN": [float("nan")],
    "infinity": {"n": float("inf")},
    "keys that are numbers": {1: "a"},
    "keys that would become one": {"1": "a", 1: "b"},
    "None as a key": {"a": [{None: 1}]},
    "True as a key": {True: 1},
    "a tuple as a key": {(1, 2): 1},
    "a set": {"tags": {1, 2}},
    "an enum": [Colour.RED],
    "a named tuple": {"at": Point(1, 2)},
    "bytes": [b"x"],
    "complex": 1j,
    "a level too deep": nested(DEEPEST + 1),
    "an empty one too deep": nested(DEEPEST, {}),
}
"""Values that are refused before anything is written."""


def is_json(value: Any, levels: int = DEEPEST) -> bool:
    """Return True if *value* is JSON that can be stored, by the simplest definition."""
    if isinstance(value, (list, dict)):
        if not levels or type(value) not in (list, dict):
            return False
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        keyed = not isinstance(value, dict) or all(type(key) is str for key in value)
        return keyed and all(is_json(part, levels - 1) for part in parts)
    if type(value) is str:
        return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
    if type(value) is int:
        return abs(value) < 2**1023
    return value is None or type(value) is bool or (type(value) is float and math.isfinite(value))


def same(left: Any, right: Any) -> bool:
    """Return True if two JSON values are equal and of the same types, and zeros of one sign."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right)


def each_case(cases: Mapping[str, Any] | Iterable[Any], check: Callable[[Any], None]) -> None:
    """
    Call *check* with each of the *cases*, and fail with the names of all that it fails for.

    A test for each of them would set up a store each time, only to look at an argument.
    """
    named = cases.items() if isinstance(cases, Mapping) else ((repr(each), each) for each in cases)
    failed: list[str] = []
    first: BaseException | None = None
    for name, case in named:
        try:
            check(case)
        except (Exception, pytest.fail.Exception) as error:
            first = first or error
            failed.append(f"{name:.200}: {error!r:.500}")
    if failed:
        raise AssertionError("\n".join(["these cases fail:", *failed])) from first


def each_value(check: Callable[[Any], None], examples: int = 100) -> None:
    """
    Call *check* with values of all sorts, most of them JSON, found by hypothesis.

    Skips the test where hypothesis isn't installed.
    """
    hypothesis: Any = pytest.importorskip("hypothesis", reason="the package hypothesis is missing")
    settings = hypothesis.settings(max_examples=examples, deadline=None, database=None)

    def run(value: Any) -> None:
        check(value)

    settings(hypothesis.given(_values())(run))()


_ODD_TEXTS = (
    "\U0001f468\u200d\U0001f469",
    "i\u0307\u0130\u0131",
    "\u202eabc",
    "e\u0301\u1e9e",
    "\x7f\x85",
)
"""Texts that are easily changed: joined signs, letters with two cases, directions, controls."""


def _texts(st: Any) -> Any:
    """
    Return a strategy for texts of all characters but surrogates.

    Not hypothesis's own, which begins with a table of all that there are: a second in a new
    project, and four with the codec that it takes by default.
    """
    ranges = ((0x20, 0x7E), (1, 0xFF), (0x100, 0xD7FF), (0xE000, 0x10FFFF))
    characters = st.one_of(*(st.integers(*each) for each in ranges)).map(chr)
    return st.lists(characters, max_size=20).map("".join)


def _values() -> Any:
    from hypothesis import strategies as st

    text = _texts(st) | st.sampled_from(["1e+16", "-0.0", "null", '\\"', "{}", *_ODD_TEXTS])
    integers = st.integers() | st.integers(-(2**1100), 2**1100)
    floats = st.floats() | st.floats(min_value=1e15, allow_infinity=False)
    sound = st.none() | st.booleans() | integers | floats | text
    # Most samples have none of these: hypothesis would else spend its time on refusals.
    strange = st.sampled_from(
        ["\0", "\ud83d", Colour.RED, Point(1, 2), frozenset({1}), b"", 1j, {1: 1}, {None: 0}]
    )
    leaves = st.one_of(*[sound] * 15, strange)
    keys = st.one_of(*[text] * 15, st.sampled_from(["\0", "\udc00"]))
    trees = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=15,
    )
    return trees | st.builds(nested, st.integers(25, DEEPEST + 2), leaves)
