"""Turn what an expression gives into JSON of its own."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterable, KeysView, Mapping, ValuesView
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from automate_kernel.errors import TemplateError, type_name
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates.limits import Budget, allow_digits

__all__ = ["is_lazy", "json_copy", "unfit"]


def json_copy(value: Any, budget: Budget) -> Any:
    """
    A copy of *value* as JSON, in which references to secrets stay what they are.

    A copy, because an action may change its input, which must not change the event. Times,
    UUIDs and decimals become text, and what is computed lazily becomes a list.
    """
    kind = type(value)
    if kind is str:
        budget.emit(len(value) + 1)
        return value
    budget.emit(1)
    if value is None or kind is bool:
        return value
    if kind is int:
        allow_digits(value)
        return value
    if isinstance(value, Mapping):
        return {_key(key, budget): json_copy(item, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_copy(item, budget) for item in value]
    return _other(value, budget)


def _key(key: object, budget: Budget) -> str:
    if not isinstance(key, str):
        raise TemplateError(f"JSON's keys are text, not {type(key).__name__}")
    budget.emit(len(key))
    return str.__str__(key)


def _other(value: Any, budget: Budget) -> Any:
    if isinstance(value, (SecretRef, Sealed)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TemplateError("it gives a number that is not finite, which JSON can't hold")
        return float(value)
    if isinstance(value, str):
        budget.emit(len(value))
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if is_lazy(value):
        return [json_copy(item, budget) for item in value]
    # What Jinja gives for something that is missing can say what.
    fail = getattr(type(value), "_fail_with_undefined_error", None)
    raise unfit(value) if fail is None else fail(value)


def is_lazy(value: object) -> bool:
    """Tell if *value* gives its items one after the other, and is written as a list."""
    # Not sets, whose order changes from one process to the next.
    views = (range, KeysView, ValuesView, ItemsView)
    if isinstance(value, views):
        return True
    # What can be called as well is a loop itself, not its items.
    lazy = isinstance(value, Iterable) and hasattr(value, "__next__")
    return lazy and not callable(value)


def unfit(value: Any) -> TemplateError:
    """Give the error that says that *value* is neither JSON nor text, and what to write instead."""
    name = type(value).__name__
    if name in {"Method", "Macro"}:
        return TemplateError(f"{value.name!r} is a {name.lower()}", hint=f"write {value.name}()")
    if name == "LoopContext":
        return TemplateError("loop is no value", hint="write loop.index, or another of its fields")
    if name == "Namespace":
        return TemplateError("a namespace is no value", hint="write a name in it: ns.count")
    if value is range:
        return TemplateError("range is a function", hint="write range(10)")
    hint = "use | b64encode" if isinstance(value, bytes) else None
    return TemplateError(f"it gives {type_name(value)}, which is not JSON", hint=hint)
