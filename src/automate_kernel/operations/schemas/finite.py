"""JSON Schemas whose numbers are numbers of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_VALUES = frozenset({"default", "example", "examples", "const", "enum"})


def finite_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """
    Return *schema* without the defaults and bounds that are NaN or infinite.

    Python has them (``limit: float = math.inf``) and JSON has not: no reader of the document that
    is made of such a schema could read the rest of it. A bound that is infinite bounds nothing.
    """
    return schema if _is_finite(schema) else _without(schema)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(_is_finite, value))


def _without(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            name: _without(part)
            for name, part in schema.items()
            # A value of the data is whole, or it isn't there.
            if _is_finite(part) or not (name in _VALUES or isinstance(part, float))
        }
    return [_without(part) for part in schema] if isinstance(schema, (list, tuple)) else schema
