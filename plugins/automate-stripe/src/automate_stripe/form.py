"""Stripe's way to write nested values in a form: ``items[0][price]=…``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Pair = tuple[str, str | int | float | bool]


def form_of(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the fields of *values*. None is left out; an empty text deletes at Stripe's."""
    return dict(pair for name, value in values.items() for pair in _pairs(name, value))


def _pairs(name: str, value: Any) -> Iterator[Pair]:
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pairs(f"{name}[{key}]", inner)
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _pairs(f"{name}[{place}]", inner)
    else:
        yield name, value
