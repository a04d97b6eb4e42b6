"""Template filters: their registry, the built-in filters, and their prices."""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Protocol, TypeVar, overload

from automate_kernel.base.errors import AutomateError, ConfigError, TemplateError
from automate_kernel.base.forks import new_rlock
from automate_kernel.storage.values import read_json
from automate_kernel.templates.limits import (
    FREE,
    MAX_DIGITS,
    Budget,
    Cost,
    CountedItems,
    allow_digits,
    digits,
    division,
    linear,
    searched,
    stripping,
)
from automate_kernel.templates.values import (
    MAX_WIDTH,
    check_pattern,
    check_widths,
    plain_of,
    text_of,
)

_MAX_PRECISION = 30
_MAX_JSON_INDENT = 8
_FORMAT = re.compile(
    r"%[-#0 +]*(?P<width>\*|\d*)(?:\.(?P<precision>\*|\d*))?(?P<kind>.|$)", re.DOTALL
)

_NUMBERS = (int, float, Decimal)
_TWO_FORMATS = "write '%.2f' | format(price), or '{:,.2f}'.format(price)"


def to_json(budget: Budget, value: Any, indent: int | None = None) -> str:
    """Write *value* as JSON text."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    if not 0 <= indent <= _MAX_JSON_INDENT:
        raise TemplateError(f"an indent is from 0 to {_MAX_JSON_INDENT}")
    # In chunks, because the indentation of a deep value can be far larger than the value.
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent, allow_nan=False, default=_plain)
    chunks: list[str] = []
    size = 0
    for chunk in encoder.iterencode(value):
        size += len(chunk)
        if size > budget.limits.output:
            break
        chunks.append(chunk)
    budget.allow(size)
    return "".join(chunks)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else plain_of(value)


def from_json(value: str) -> Any:
    """Read the value of JSON text."""
    try:
        return read_json(value, parse_int=_integer)
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # of NaN, Infinity and -Infinity
        raise TemplateError(str(error)) from None


def _integer(text: str) -> int:
    # Python reads an integer in the square of its digits, and a process may have lifted its limit.
    if len(text) > MAX_DIGITS:
        raise TemplateError(f"it has a number of over {MAX_DIGITS:,} digits")
    return int(text)


def b64encode(value: str | bytes) -> str:
    """Encode text (as UTF-8) in base64."""
    return base64.b64encode(_bytes(value)).decode("ascii")


def b64decode(value: str) -> str:
    """Decode base64 text (UTF-8), in either alphabet, padded or not."""
    padded = value.strip().translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    padded += "=" * (-len(padded) % 4)
    return base64.b64decode(padded, validate=True).decode("utf-8")


def sha256(value: str | bytes) -> str:
    """Return the SHA-256 of text (as UTF-8), in hex."""
    return hashlib.sha256(_bytes(value)).hexdigest()


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode("utf-8")


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise TemplateError(f"it needs text, not {type(value).__name__}", hint="use | json first")
    if isinstance(value, int):
        allow_digits(value)
    return str(value)


def slug(value: str) -> str:
    """Return *value* for an address: ``Größe & Preis`` gives ``grosse-preis``."""
    text = _text(value).casefold()
    # Letter by letter: in a whole text Python sorts the accents, in the square of their number,
    # and they are dropped here anyway.
    plain = {ord(char): _ascii(char) for char in set(text) if char > "\x7f"}
    return re.sub(r"[^a-z0-9]+", "-", text.translate(plain)).strip("-")


def _ascii(char: str) -> str:
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode("ascii")


def to_datetime(value: str | float | datetime) -> datetime:
    """Return the time of ISO 8601 text or seconds since 1970; in UTC if it names no zone."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, timezone.utc)
    if isinstance(value, str):
        # Before Python 3.11 the Z is not understood.
        value = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def format_datetime(value: str | float | datetime, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """Write a time by a pattern of ``strftime``."""
    check_pattern(pattern)
    return to_datetime(value).strftime(pattern)


def escape(value: Any) -> str:
    """Escape text for HTML: ``& < > " '``."""
    return html.escape(_text(value))


def round_number(value: float, precision: int = 0, method: str = "common") -> float:
    """Round a number as Jinja does: ``common``, ``ceil`` or ``floor``."""
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
    """Join mappings; of equal keys the last one counts."""
    result: dict[str, Any] = {}
    for mapping in (value, *others):
        if not isinstance(mapping, Mapping):
            raise TemplateError(f"it needs mappings, not {type(mapping).__name__}")
        result.update(mapping)
    return result


def format_text(budget: Budget, value: str, *args: Any) -> str:
    """Format as printf does: ``{{ "%.2f"|format(total) }}``."""
    text = _text(value)
    for match in _FORMAT.finditer(text):
        check_widths((match["width"] or "0", match["precision"] or "0"))
        if match["kind"] == "(":
            raise TemplateError("it takes values by position only")
    budget.allow(len(text) + sum(MAX_WIDTH + budget.size(arg) for arg in args))
    values = tuple(arg if isinstance(arg, _NUMBERS) else text_of(budget, arg) for arg in args)
    for number in values:
        if isinstance(number, int):
            allow_digits(number)
    if args and "%" not in text:
        raise TemplateError("there is no % in the format", hint=_TWO_FORMATS)
    return text % values


def replace(budget: Budget, value: Any, old: str, new: str, count: int | None = None) -> str:
    """Replace *old* by *new* in *value*, at most *count* times."""
    text, new = _text(value), _text(new)
    limit = -1 if count is None else count
    found = text.count(old) if limit < 0 else min(text.count(old), limit)
    budget.allow(len(text) + found * max(0, len(new) - len(old)))
    return text.replace(old, new, limit)


def indent(budget: Budget, value: str, width: int = 4, first: bool = False) -> str:
    """Put *width* spaces before each line but the first, empty lines excepted."""
    if not 0 <= width <= MAX_WIDTH:
        raise TemplateError(f"a width is from 0 to {MAX_WIDTH}")
    lines = _text(value).splitlines(keepends=True)
    budget.allow(len(value) + len(lines) * width)
    space = " " * width
    return "".join(
        space + line if line.strip() and (number or first) else line
        for number, line in enumerate(lines)
    )


def join(budget: Budget, separator: str, items: Any) -> str:
    """Join *items* with *separator* between them."""
    texts = [_text(item) for item in CountedItems(items, budget)]
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
"""The filters that take the budget as their first argument."""


def _searching_text(budget: Budget, value: Any, old: Any = "", *_: Any, **__: Any) -> float:
    text, part = (len(v) if isinstance(v, str) else 20 for v in (value, old))
    return 2 * searched(text, part) + 30.0 * text / max(1, part)


def _filling(budget: Budget, value: Any, *args: Any, **__: Any) -> float:
    return linear(100)(budget, value, *args) + 5000.0 * len(args)


def _writing(budget: Budget, value: Any, indent: Any = None) -> float:
    return linear(15, 150 if indent is None else 2500)(budget, value)


def _halving(budget: Budget, value: Any, divisor: Any = 2) -> float:
    return division(value, divisor)


LAZY_FILTERS = frozenset(
    {"d", "default", "first", "map", "reject", "rejectattr", "select", "selectattr", "unique"}
)
"""The filters that take a lazy value as it comes, one item after the other."""

FILTER_PRICES: dict[str, Cost] = {
    **dict.fromkeys(LAZY_FILTERS, FREE),
    # These count each item, and charge for all of them once they know them.
    **dict.fromkeys(["dictsort", "groupby", "join", "max", "min", "sort", "sum"], FREE),
    **dict.fromkeys(["count", "items", "last", "length", "round"], FREE),
    **dict.fromkeys(["capitalize", "lower", "upper"], linear(25)),
    **dict.fromkeys(("e", "escape"), linear(25)),
    **dict.fromkeys(("json", "tojson"), _writing),
    **dict.fromkeys(("b64encode", "float", "string"), linear(20)),
    **dict.fromkeys(("format_datetime", "to_datetime"), linear(50)),
    **dict.fromkeys(("from_json", "wordcount"), linear(100)),
    **dict.fromkeys(("indent", "slug", "title"), linear(200)),
    "abs": linear(1),
    "b64decode": linear(40),
    "combine": linear(1, 150),
    "format": _filling,
    "int": digits,
    "list": linear(30, 50),
    "replace": _searching_text,
    "reverse": linear(5, 10),
    "sha256": linear(30),
    "trim": stripping,
    "truncate": linear(5),
    "urlencode": linear(400),
}
"""The price of each filter, charged before its call. Templates can't reach one without."""
JINJA_FILTERS: frozenset[str] = frozenset(FILTER_PRICES) - BUILTIN_FILTERS.keys()

COMPARING: dict[str, str] = {
    "==": "eq", "eq": "eq", "equalto": "eq", "!=": "ne", "ne": "ne",
    ">": "gt", "gt": "gt", "greaterthan": "gt", ">=": "gteq", "ge": "gteq",
    "<": "lt", "lt": "lt", "lessthan": "lt", "<=": "lteq", "le": "lteq", "in": "in",
}  # fmt: skip
"""The tests that are comparisons, and cost as much."""

_FREE_TESTS = (
    "boolean", "defined", "false", "float", "integer", "iterable", "mapping", "none", "number",
    "sequence", "string", "true", "undefined",
)  # fmt: skip
TEST_PRICES: dict[str, Cost] = {
    **dict.fromkeys(_FREE_TESTS, FREE),
    **dict.fromkeys(("divisibleby", "even", "odd"), _halving),
    **dict.fromkeys(("lower", "upper"), linear(15)),
}
JINJA_TESTS: frozenset[str] = frozenset({*COMPARING, *TEST_PRICES})

Filter = Callable[..., Any]
F = TypeVar("F", bound=Filter)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MOST_SHOWN = 200


def wrong_arguments(
    name: str, function: Filter, count: int, keywords: Iterable[str]
) -> tuple[str, str] | None:
    """
    Return what is wrong with a call of the filter *name*, and how it is written; None if it fits.

    It has *count* arguments by position, without the value that is filtered, and *keywords*.
    """
    lent = function in BOUNDED_FILTERS or hasattr(function, "jinja_pass_arg")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one that is written in C
        return None
    try:
        signature.bind(*[None] * (lent + 1 + count), **dict.fromkeys(keywords))
    except TypeError as error:
        parameters = list(signature.parameters.values())
        takes = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
        if len(parameters) <= lent or parameters[lent].kind in takes:
            hint = "the first parameter of its function is what is filtered"
            return f"filter {name!r} takes no value", hint
        bare = [each.replace(annotation=each.empty) for each in parameters[lent + 1 :]]
        shown = str(inspect.Signature(bare)) if bare else ""
        return f"filter {name!r}: {error}", f"write it as | {name}{shown[:_MOST_SHOWN]}"
    return None


class FilterRegistry:
    """
    Template filters by name.

    A name that is missing here is looked up in *parent*. All methods may be called from several
    threads.
    """

    def __init__(self, parent: FilterRegistry | None = None) -> None:
        self._parent = parent
        self._own: dict[str, Filter] = {}
        self._announced: dict[str, Callable[[], Filter]] = {}
        self._lock = new_rlock()

    @overload
    def register(self, name: F, /) -> F: ...
    @overload
    def register(
        self, name: str | None = None, /, *, replace: bool = False
    ) -> Callable[[F], F]: ...
    @overload
    def register(self, name: str | None, function: F, /, *, replace: bool = False) -> F: ...
    def register(
        self, name: Any = None, function: Filter | None = None, /, *, replace: bool = False
    ) -> Any:
        """
        Add a filter: ``@register("name")``, ``@register`` or ``register("name", function)``.

        The function gets the value to filter, then the arguments in the template. It runs
        whenever a step is rendered, again after a crash, so it should depend on its arguments
        only. A name that is taken is refused unless *replace* is given.
        """
        if callable(name):
            return self._add(None, name, replace=replace)
        if function is not None:
            return self._add(name, function, replace=replace)
        return lambda decorated: self._add(name, decorated, replace=replace)

    def _add(self, name: str | None, function: Filter, *, replace: bool) -> Filter:
        name = function.__name__ if name is None else name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't be a filter's name", hint="use letters, digits, _")
        if inspect.iscoroutinefunction(function):
            hint = "do the waiting in a step of the workflow"
            raise ConfigError(f"filter {name!r} is async, and templates are not", hint=hint)
        with self._lock:
            taken = self.taken(name)
            if not replace and taken not in {"", _where(function)}:
                message = f"filter {name!r} exists already: {taken}"
                raise ConfigError(message, hint="choose another name, or pass replace=True")
            self._announced.pop(name, None)
            self._own[name] = function
        return function

    def announce(self, name: str, load: Callable[[], Filter]) -> None:
        """Add a filter that *load* imports when a template is compiled that uses it."""
        with self._lock:
            self._own.pop(name, None)
            self._announced[name] = load

    def taken(self, name: str) -> str:
        """Return the place that defines the filter called *name*; empty if the name is free."""
        if name in self._own:
            return _where(self._own[name])
        if name in self._announced:
            return "an installed plugin"
        if self._parent is not None:
            return self._parent.taken(name)
        return "built in" if name in BUILTIN_FILTERS or name in JINJA_FILTERS else ""

    def get(self, name: str) -> Filter | None:
        """Return the filter called *name*, or None; raises `TemplateError` for a broken plugin."""
        found = self.registered(name)
        return BUILTIN_FILTERS.get(name) if found is None else found

    def registered(self, name: str) -> Filter | None:
        """Return the filter called *name* unless it is built in."""
        found = self._own.get(name)
        load = self._announced.get(name) if found is None else None
        if load is not None:
            try:
                # Without the lock: its import may ask for filters in another thread.
                loaded = load()
            except AutomateError as error:
                raise TemplateError(f"filter {name!r}: {error.message}", hint=error.hint) from error
            try:
                found = self._add(name, loaded, replace=True)
            except AutomateError as error:
                raise TemplateError(error.message, hint=error.hint) from error
        if found is None and self._parent is not None:
            found = self._parent.registered(name)
        return found

    def __contains__(self, name: str) -> bool:
        return name in JINJA_FILTERS or self.get(name) is not None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        inherited = self._parent.names() if self._parent else [*BUILTIN_FILTERS, *JINJA_FILTERS]
        return sorted({*self._own, *self._announced, *inherited})


def _where(function: Filter) -> str:
    # A module that is loaded twice makes two functions of one filter.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"


class _Registering(Protocol):
    # The type of `FilterRegistry.register` of one registry.
    @overload
    def __call__(self, name: F, /) -> F: ...
    @overload
    def __call__(
        self, name: str | None = None, /, *, replace: bool = False
    ) -> Callable[[F], F]: ...
    @overload
    def __call__(self, name: str | None, function: F, /, *, replace: bool = False) -> F: ...


default_filters: FilterRegistry = FilterRegistry()
"""The filters that every engine has unless it is given others."""

register_filter: _Registering = default_filters.register
"""
Add a filter to `default_filters`, for all kernels of the process::

    @register_filter("format_currency")
    def format_currency(value, currency="USD"):
        return f"{currency} {value:,.2f}"
"""
