"""Comparison of what a test expects with what came: what is not named is not compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LONGEST = 200


def differences(expected: Any, actual: Any, where: str) -> Iterator[str]:
    """
    Yield a line for each part of *actual* that is not as *expected*.

    A mapping may have more fields than are expected; a list has exactly the elements.
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            place = f"{where}.{key}" if where else str(key)
            if key in actual:
                yield from differences(value, actual[key], place)
            else:
                there = f"there is {', '.join(map(str, actual))}" if actual else "it is empty"
                yield f"{place}: expected {shown(value)}, and it is not there ({there})"
    elif isinstance(expected, list) and isinstance(actual, list):
        for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
        if len(expected) != len(actual):
            yield f"{where}: expected {len(expected)} elements, got {len(actual)}: {shown(actual)}"
    elif not _equal(expected, actual):
        yield f"{where}: expected {shown(expected)}, got {shown(actual)}"


def matches(expected: Any, actual: Any) -> bool:
    """Return True if *actual* is as *expected*."""
    return next(differences(expected, actual, ""), None) is None


def _equal(one: Any, other: Any) -> bool:
    # In Python 1 is True; in JSON it is not.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def shown(value: Any) -> str:
    """Return *value* as JSON, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def unmatched(fits: Sequence[Sequence[int]]) -> list[int]:
    """
    Return the rows that are left over when as many as can be have a column of their own.

    ``fits[row]`` are the columns that fit it: an augmenting path is looked for from each row.
    """
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in fits[row]:
            if column in seen:
                continue
            seen.add(column)
            if column not in taken or place(taken[column], seen):
                taken[column] = row
                return True
        return False

    return [row for row in range(len(fits)) if not place(row, set())]
