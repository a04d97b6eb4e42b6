"""The values of expressions as JSON and as text, and string methods in linear time."""

from __future__ import annotations

import itertools
import math
import re
import string
from collections.abc import ItemsView, Iterable, KeysView, Mapping, ValuesView
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from automate_kernel.base.errors import TemplateError, type_name
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates.limits import Budget, allow_digits, linear


def json_copy(value: Any, budget: Budget) -> Any:
    """
    Copy *value* as JSON, in which references to secrets stay.

    An action may change its input, which must not change the event. Times, UUIDs and decimals
    become text, and a lazy value becomes a list.
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
        budget.emit(Sealed(value).size)
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
    # Jinja's value for a missing one can name it.
    fail = getattr(type(value), "_fail_with_undefined_error", None)
    if fail is not None:
        raise fail(value)
    return json_copy(plain_of(value), budget)


def plain_of(value: Any) -> Any:
    """Return a time, a UUID or a decimal as text, and a lazy value as a list."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if _is_lazy(value):
        return list(value)
    raise unfit(value)


def _is_lazy(value: object) -> bool:
    """Return True if *value* yields items one after the other, and is written as a list."""
    # Not sets, whose order changes from one process to the next.
    if isinstance(value, (range, KeysView, ValuesView, ItemsView)):
        return True
    # A loop itself, which can be called, has no items to write.
    return isinstance(value, Iterable) and hasattr(value, "__next__") and not callable(value)


def unfit(value: Any) -> TemplateError:
    """Return the error for a *value* that is neither JSON nor text, with a remedy."""
    name = type(value).__name__
    if name in {"Method", "Macro"}:
        return TemplateError(f"{value.name!r} is a {name.lower()}", hint=f"write {value.name}()")
    if name == "LoopContext":
        return TemplateError("loop is no value", hint="write loop.index, or another of its fields")
    if name == "Namespace":
        return TemplateError("a namespace is no value", hint="write a name in it: ns.count")
    if value is range:
        return TemplateError("range is a function", hint="write range(10)")
    hint = "let the filter that made it return text, numbers, lists or mappings"
    if isinstance(value, bytes):
        hint = "use | b64encode"
    elif isinstance(value, (set, frozenset)):
        hint = "let the filter that made it return a list"
    return TemplateError(f"it gives {type_name(value)}, which is not JSON", hint=hint)


MAX_WIDTH = 200
_FEW = 32
_MANY = 10_000
_PLAIN = (int, float, type(None))


def text_of(budget: Budget, value: Any) -> str:
    """
    Return *value* as text. Raises `TemplateError` if it has no text of its own.

    Python's text for any object would show its class and its place in memory.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        allow_digits(value)
    elif _is_lazy(value):
        value = list(value)
    if isinstance(value, (list, tuple, Mapping)):
        budget.weigh(value)
        budget.charge("text", linear(10, 150)(budget, value))
        _check(budget, value)
    else:
        _check_one(value)
    return str.__str__(str(value))


def _check(budget: Budget, tree: Any) -> None:
    seen = 0
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(key for key in value if type(key) is not str)
            value = value.values()
        seen += len(value) + 1
        if seen > _MANY:
            seen = 0
            budget.look_at_clock()
        for item in value:
            if type(item) is str or isinstance(item, _PLAIN):
                continue
            if isinstance(item, (list, tuple, Mapping)):
                pending.append(item)
            elif not isinstance(item, (SecretRef, Sealed)):
                _check_one(item)


def _check_one(value: Any) -> None:
    if isinstance(value, _PLAIN):
        return
    own: object = type(value).__str__
    if isinstance(value, (type, SecretRef, Sealed)) or own is object.__str__:
        raise unfit(value)


_NUMBERS = re.compile(r"[0-9]+")
_FORMATTED = (str, int, float, Decimal, date, time)


def format_fields(budget: Budget, text: str, /, *args: Any, **kwargs: Any) -> str:
    """Do ``text.format(...)`` with fields that are whole values: no dots, no brackets."""
    parts: list[str] = []
    size = 0
    numbers = itertools.count()
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:
        raise TemplateError("the braces of the format don't match") from None
    for literal, field, spec, conversion in fields:
        parts.append(literal)
        size += len(literal)
        if field is not None:
            budget.spend()
            value = _chosen(field or str(next(numbers)), args, kwargs)
            if conversion not in {None, "s"}:
                raise TemplateError("a format's ! takes s only")
            parts.append(_formatted(budget, value, spec or "", as_text=conversion == "s"))
            size += len(parts[-1])
        if size > budget.limits.output:
            break
    budget.allow(size)
    return "".join(parts)


def _chosen(field: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "." in field or "[" in field:
        hint = "pass the value itself: '{:.2f}'.format(event.payload.price)"
        raise TemplateError("a format's field is a whole value, without . and [ ]", hint=hint)
    if field.isdecimal() and len(field) < 6 and int(field) < len(args):
        return args[int(field)]
    if field in kwargs:
        return kwargs[field]
    raise TemplateError("the format has a field without a value")


def _formatted(budget: Budget, value: Any, spec: str, *, as_text: bool) -> str:
    if isinstance(value, (SecretRef, Sealed)):
        raise TemplateError("a secret can't be formatted", hint="join it to text with ~")
    if as_text or not spec:
        value = text_of(budget, value)
    if not spec:
        return str.__str__(value)
    if not isinstance(value, _FORMATTED):
        raise TemplateError(f"a {type(value).__name__} takes no format", hint="leave {} empty")
    _check_spec(value, spec)
    try:
        return format(value, spec)
    except (ValueError, OverflowError):
        raise TemplateError(f"the format doesn't fit a {type(value).__name__}") from None


def _check_spec(value: Any, spec: str) -> None:
    if "{" in spec:
        raise TemplateError("a format's width can't be a field")
    if isinstance(value, (datetime, date, time)):
        check_pattern(spec)
    else:
        check_widths(_NUMBERS.findall(spec))
    if isinstance(value, int):
        allow_digits(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > 4300:
        raise TemplateError("it gives a number of over 4,300 digits")


def check_pattern(pattern: str) -> None:
    """Refuse a *pattern* of ``strftime`` that is too long."""
    if len(pattern) > MAX_WIDTH:
        raise TemplateError(f"a pattern has at most {MAX_WIDTH} characters")


def check_widths(numbers: Iterable[str]) -> None:
    """Refuse widths and precisions of a format that are too large, or no numbers."""
    if any(len(n) > 3 or not n.isdecimal() or int(n) > MAX_WIDTH for n in numbers):
        raise TemplateError(f"a width or precision is a number up to {MAX_WIDTH}")


def rfind(text: str, part: str, start: int | None = None, end: int | None = None) -> int:
    """Search from the right, as `str.rfind` does, in linear time."""
    _check_text(part)
    begin, stop, _ = slice(start, end).indices(len(text))
    if (0 if start is None else start) > len(text) or begin > stop:
        return -1
    found = text[begin:stop][::-1].find(part[::-1])
    return -1 if found < 0 else stop - found - len(part)


def rindex(text: str, part: str, start: int | None = None, end: int | None = None) -> int:
    """Search from the right, as `str.rindex` does, in linear time."""
    found = rfind(text, part, start, end)
    if found < 0:
        raise TemplateError("rindex didn't find the text", hint="rfind gives -1 instead")
    return found


def rpartition(text: str, separator: str) -> tuple[str, str, str]:
    """Part at the last *separator*, as `str.rpartition` does, in linear time."""
    _check_text(separator)
    after, found, before = text[::-1].partition(separator[::-1])
    return (before[::-1], found[::-1], after[::-1])


def rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """Split from the right, as `str.rsplit` does, in linear time."""
    if sep is None or len(sep) == 1:
        return text.rsplit(sep, maxsplit)
    _check_text(sep)
    return [piece[::-1] for piece in text[::-1].split(sep[::-1], maxsplit)][::-1]


def _check_text(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"must be str, not {type(value).__name__}")


def stripped(text: str, chars: str | None = None, *, left: bool = True, right: bool = True) -> str:
    """Take the *chars* off both ends of *text*, as `str.strip` does, in linear time."""
    if chars is not None:
        _check_text(chars)
        known = frozenset(chars)
        if len(known) > _FEW:
            return _stripped(text, known, left=left, right=right)
        chars = "".join(known)
    if left and right:
        return text.strip(chars)
    return text.lstrip(chars) if left else text.rstrip(chars)


def _stripped(text: str, chars: frozenset[str], *, left: bool, right: bool) -> str:
    start, stop = 0, len(text)
    while left and start < stop and text[start] in chars:
        start += 1
    while right and stop > start and text[stop - 1] in chars:
        stop -= 1
    return text[start:stop]
