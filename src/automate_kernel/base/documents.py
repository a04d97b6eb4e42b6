"""Documents of JSON that are shown: in a log, on a terminal, in an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from automate_kernel.base.errors import printed

_MOST_BITS = 14_000  # Python writes no integer of more than 4,300 digits


def shown_document(
    value: Any,
    *,
    indent: int | None = None,
    ascii_only: bool = False,
    default: Callable[[Any], Any] = printed,
) -> str:
    """
    Return *value* as a document that every reader of JSON takes.

    A value that JSON doesn't have is what *default* makes of it; NaN and infinity, which Python
    would write all the same, are text. What an operation returns is refused instead, by
    `automate_kernel.operations.outputs.answered_output`: its caller may count with it.

    Raises `TypeError` for a key that JSON doesn't have, and `ValueError` or `RecursionError` for
    something that holds itself.
    """
    options: dict[str, Any] = {
        "indent": indent, "ensure_ascii": ascii_only, "allow_nan": False,
    }  # fmt: skip
    try:
        return json.dumps(value, default=default, **options)
    except ValueError:
        return json.dumps(_finite(value), default=lambda part: _finite(default(part)), **options)


def _finite(value: Any) -> Any:
    """Return *value* with text in the place of each number that JSON doesn't have."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return printed(value)
    if isinstance(value, Mapping):
        return {_finite(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value
