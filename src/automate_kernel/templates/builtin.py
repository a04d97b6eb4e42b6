"""
The filters that are always there.

Most of Jinja's are taken as they are. Those that can turn little into much are written anew with
a bound, and those that make no sense here are left out: ``attr``, ``random``, ``safe``, and the
ones that lay out text or make HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from automate_kernel.errors import TemplateError
from automate_kernel.templates.limits import Budget

__all__ = ["BOUNDED_FILTERS", "BUILTIN_FILTERS", "JINJA_FILTERS", "JINJA_TESTS"]

JINJA_FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "float",
        "groupby",
        "int",
        "items",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "sort",
        "string",
        "sum",
        "title",
        "trim",
        "join",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
JINJA_TESTS = frozenset(
    [
        "boolean",
        "defined",
        "divisibleby",
        "eq",
        "equalto",
        "even",
        "false",
        "float",
        "ge",
        "greaterthan",
        "gt",
        "in",
        "integer",
        "iterable",
        "le",
        "lessthan",
        "lower",
        "lt",
        "mapping",
        "ne",
        "none",
        "number",
        "odd",
        "sequence",
        "string",
        "true",
        "undefined",
        "upper",
        "==",
        "!=",
        ">",
        ">=",
        "<",
        "<=",
    ]
)

_MAX_WIDTH = 200
_MAX_PRECISION = 30
_MAX_JSON_INDENT = 8
_MAX_DIGITS = 3
_FORMAT = re.compile(
    r"%[-#0 +]*(?P<width>\*|\d*)(?:\.(?P<precision>\*|\d*))?(?P<kind>.|$)", re.DOTALL
)


def to_json(budget: Budget, value: Any, indent: int | None = None) -> str:
    """*value* as JSON text."""
    if indent is not None and not 0 <= indent <= _MAX_JSON_INDENT:
        raise TemplateError(f"an indent is from 0 to {_MAX_JSON_INDENT}")
    # In chunks, because the indentation of a deep value can be far larger than the value.
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent, allow_nan=False)
    chunks: list[str] = []
    size = 0
    for chunk in encoder.iterencode(_plain(value)):
        size += len(chunk)
        budget.allow(size)
        chunks.append(chunk)
    return "".join(chunks)


def from_json(value: str) -> Any:
    """The value that JSON text stands for."""
    return json.loads(value, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise TemplateError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    # What the sandbox passes around lazily, json can't write.
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) or hasattr(value, "__next__") or isinstance(value, range):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def b64encode(value: str | bytes) -> str:
    """Text (as UTF-8) in base64."""
    return base64.b64encode(_bytes(value)).decode("ascii")


def b64decode(value: str) -> str:
    """The text (UTF-8) in base64, with either alphabet, padded or not."""
    padded = value.strip().translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    padded += "=" * (-len(padded) % 4)
    return base64.b64decode(padded, validate=True).decode("utf-8")


def sha256(value: str | bytes) -> str:
    """The SHA-256 of text (as UTF-8), in hex."""
    return hashlib.sha256(_bytes(value)).hexdigest()


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode("utf-8")


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise TemplateError(f"it needs text, not {type(value).__name__}", hint="use | json first")
    return str(value)


def slug(value: str) -> str:
    """*value* for an address: ``Größe & Preis`` gives ``grosse-preis``."""
    plain = unicodedata.normalize("NFKD", _text(value).casefold())
    ascii_only = plain.encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")


def to_datetime(value: str | float | datetime) -> datetime:
    """The time that ISO 8601 text or seconds since 1970 stand for; in UTC if it names no zone."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, timezone.utc)
    if isinstance(value, str):
        # Before Python 3.11 the Z is not understood.
        value = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def format_datetime(value: str | float | datetime, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """A time in the words of ``strftime``."""
    if len(pattern) > _MAX_WIDTH:
        raise TemplateError(f"a pattern has at most {_MAX_WIDTH} characters")
    return to_datetime(value).strftime(pattern)


def escape(value: Any) -> str:
    """Text for HTML, with ``& < > " '`` escaped."""
    return html.escape(_text(value))


def round_number(value: float, precision: int = 0, method: str = "common") -> float:
    """A number rounded as Jinja does: ``common``, ``ceil`` or ``floor``."""
    if not -_MAX_PRECISION <= precision <= _MAX_PRECISION:
        raise TemplateError(f"a precision is from -{_MAX_PRECISION} to {_MAX_PRECISION}")
    if method == "common":
        return round(value, precision)
    if method not in {"ceil", "floor"}:
        raise TemplateError("a method is common, ceil or floor")
    factor = 10**precision
    scaled = value * factor
    return float(-(-scaled // 1) / factor if method == "ceil" else (scaled // 1) / factor)


def combine(value: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of all; where keys are the same, the last one counts."""
    result: dict[str, Any] = {}
    for mapping in (value, *others):
        if not isinstance(mapping, Mapping):
            raise TemplateError(f"it needs mappings, not {type(mapping).__name__}")
        result.update(mapping)
    return result


def format_text(budget: Budget, value: str, *args: Any) -> str:
    """printf-style: ``{{ "%.2f"|format(total) }}``."""
    text = _text(value)
    for match in _FORMAT.finditer(text):
        numbers = (match["width"] or "0", match["precision"] or "0")
        if any(len(n) > _MAX_DIGITS or n == "*" or int(n) > _MAX_WIDTH for n in numbers):
            raise TemplateError(f"a width or precision is a number up to {_MAX_WIDTH}")
        if match["kind"] == "(":
            raise TemplateError("it takes values by position only")
    budget.allow(len(text) + sum(_MAX_WIDTH + budget.size(arg) for arg in args))
    return text % args


def replace(budget: Budget, value: Any, old: str, new: str, count: int | None = None) -> str:
    """*value* with *old* replaced by *new*, at most *count* times."""
    text, new = _text(value), _text(new)
    limit = -1 if count is None else count
    found = text.count(old) if limit < 0 else min(text.count(old), limit)
    budget.allow(len(text) + found * max(0, len(new) - len(old)))
    return text.replace(old, new, limit)


def indent(budget: Budget, value: str, width: int = 4, first: bool = False) -> str:
    """*value* with *width* spaces before each line but the first, empty lines excepted."""
    if not 0 <= width <= _MAX_WIDTH:
        raise TemplateError(f"a width is from 0 to {_MAX_WIDTH}")
    lines = _text(value).splitlines(keepends=True)
    budget.allow(len(value) + len(lines) * width)
    space = " " * width
    return "".join(
        space + line if line.strip() and (number or first) else line
        for number, line in enumerate(lines)
    )


def join(budget: Budget, separator: str, items: Any) -> str:
    """``separator.join(items)``."""
    texts = [_text(item) for item in items]
    budget.allow(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


BUILTIN_FILTERS: dict[str, Callable[..., Any]] = {
    "b64decode": b64decode,
    "b64encode": b64encode,
    "combine": combine,
    "e": escape,
    "escape": escape,
    "format": format_text,
    "format_datetime": format_datetime,
    "from_json": from_json,
    "indent": indent,
    "json": to_json,
    "replace": replace,
    "round": round_number,
    "sha256": sha256,
    "slug": slug,
    "to_datetime": to_datetime,
    "tojson": to_json,
}
BOUNDED_FILTERS = frozenset({format_text, indent, replace, to_json})
"""Those that take the budget as their first argument."""
