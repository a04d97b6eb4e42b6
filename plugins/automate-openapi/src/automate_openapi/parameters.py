"""Parameters of an operation, and their values as parts of a path, a query, headers and cookies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from automate_http.content import encode_json
from automate_http.urls import utf8
from automate_kernel.base.errors import AutomateError, ErrorCodes

Location = Literal["path", "query", "header", "cookie"]
Pair = tuple[str, str]

STYLES: Mapping[str, tuple[str, ...]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""The styles of each location, its default first."""

_DELIMITERS = {"spaceDelimited": (" ", "%20"), "pipeDelimited": ("|", "%7C")}
# What a query may have unquoted, less what would end or split the parameter.
_RESERVED = "/:?@!$'()*,;"
_TEMPLATE = re.compile(r"\{([^{}/]+)\}")
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as the document describes it. *key* is its name in the action's input."""

    name: str
    location: Location
    key: str
    style: str
    explode: bool
    required: bool = False
    reserved: bool = False
    """True if reserved characters stay as they are."""
    json: bool = False
    """True if the value is written as JSON, whatever the style."""
    schema: Any = field(default=None, repr=False)
    base: str = ""
    description: str = ""

    def pairs(self, value: Any) -> list[Pair]:
        """Return the names and values for a query or a form, quoted for a URL."""
        quoting = _quoting(_RESERVED if self.reserved else "")
        if self.json:
            return [(_quoted(self.name), quoting(encode_json(value).decode()))]
        return query_pairs(self.name, value, self.style, self.explode, quoting)

    def segment(self, value: Any) -> str:
        """Return the text for the path."""
        if self.json:
            return _quoted(encode_json(value).decode())
        return _segment(self.name, value, self.style, self.explode)

    def header(self, value: Any) -> str:
        """Return the text for a header."""
        if self.json:
            # Headers are ASCII, and JSON can be.
            import json

            return json.dumps(value, separators=(",", ":"))
        return _listed(value, ",", "=" if self.explode else ",", text_of)


def text_of(value: Any) -> str:
    """Return a scalar as the text that JSON has for it, without quotes. Raises `AutomateError`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _wrong("a list or an object stands where the service takes text, a number or a flag")


def query_pairs(
    name: str, value: Any, style: str, explode: bool, quoting: Callable[[str], str] | None = None
) -> list[Pair]:
    """
    Return the names and values of *value* in a query, quoted.

    An empty list or object has none.
    """
    quoting = quoting or _quoting("")
    if style == "deepObject" and isinstance(value, Mapping):
        return list(_deep(_quoted(name), value, quoting, 0))
    if isinstance(value, (Mapping, list)):
        if not value:
            return []
        if style in _DELIMITERS and not explode:
            return [(_quoted(name), _delimited(value, style, quoting))]
        if explode and isinstance(value, Mapping):
            return [(_quoted(key), quoting(text_of(each))) for key, each in value.items()]
        if explode:
            return [(_quoted(name), quoting(text_of(each))) for each in value]
        return [(_quoted(name), _listed(value, ",", ",", _text_in(quoting, ",")))]
    return [(_quoted(name), quoting(text_of(value)))]


def _delimited(value: Any, style: str, quoting: Callable[[str], str]) -> str:
    delimiter, written = _DELIMITERS[style]
    texts = [text_of(each) for each in _flat(value)]
    if any(delimiter in text for text in texts):
        raise _wrong(f"an item has {delimiter!r} in it, which separates the items")
    return written.join(map(quoting, texts))


def _flat(value: Mapping[str, Any] | Sequence[Any]) -> Iterable[Any]:
    if not isinstance(value, Mapping):
        return value
    return [part for pair in value.items() for part in pair]


def _text_in(quoting: Callable[[str], str], delimiter: str) -> Callable[[Any], str]:
    def text(value: Any) -> str:
        # Also where reserved characters stay: this one would split the item.
        return quoting(text_of(value)).replace(delimiter, f"%{ord(delimiter):02X}")

    return text


def _deep(prefix: str, value: Any, quoting: Callable[[str], str], depth: int) -> Iterable[Pair]:
    if depth > _DEEPEST:
        raise _wrong("an object is too deep for a query")
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _deep(f"{prefix}%5B{_quoted(str(key))}%5D", each, quoting, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield prefix, quoting(text_of(each))
    else:
        yield prefix, quoting(text_of(value))


def _segment(name: str, value: Any, style: str, explode: bool) -> str:
    if isinstance(value, (Mapping, list)) and not value:
        raise _wrong(f"{name!r} is a part of the path, and can't be empty")
    if style == "matrix":
        if explode and isinstance(value, (Mapping, list)):
            pairs = (
                value.items() if isinstance(value, Mapping) else [(name, each) for each in value]
            )
            return "".join(f";{_quoted(key)}={_quoted(text_of(each))}" for key, each in pairs)
        return f";{_quoted(name)}={_listed(value, ',', ',', _quoted_text)}"
    if style == "label":
        between = "." if explode else ","
        return "." + _listed(value, between, "=" if explode else ",", _text_in(_quoted, between))
    return _listed(value, ",", "=" if explode else ",", _quoted_text)


def _listed(value: Any, between: str, equals: str, text: Callable[[Any], str]) -> str:
    if isinstance(value, Mapping):
        return between.join(f"{text(key)}{equals}{text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return between.join(map(text, value))
    return text(value)


def filled(path: str, parameters: Iterable[Parameter], values: Mapping[str, Any]) -> str:
    """Return *path* with the values in it; none leads elsewhere."""
    texts = {each.name: each.segment(values[each.key]) for each in parameters}
    parts = []
    for part in path.split("/"):
        found = _TEMPLATE.sub(lambda match: texts[match[1]], _literal(part))
        if "{" in part and found in ("", ".", ".."):
            # An empty one would mean the whole collection, for DELETE too.
            raise _wrong(f"a value in the path's part {part!r} can't be {found!r}")
        parts.append(found)
    return "/".join(parts)


def template_names(path: str) -> list[str]:
    """Return the names in the braces of *path*."""
    return list(dict.fromkeys(_TEMPLATE.findall(path)))


def _literal(part: str) -> str:
    return quote(part, safe="{}%:@!$&'()*+,;=~-._")


def _quoting(safe: str) -> Callable[[str], str]:
    return lambda text: quote(utf8(text), safe=safe)


_quoted = _quoting("")


def _quoted_text(value: Any) -> str:
    return _quoted(text_of(value))


def _wrong(problem: str) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"the input can't be sent: {problem}")
