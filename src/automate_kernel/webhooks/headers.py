"""The headers of a received request, whatever the framework calls them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["HeadersLike", "WebhookHeaders"]

HeadersLike = Mapping[str, Any] | Iterable[tuple[Any, Any]]
"""A mapping, or pairs of name and value; as text or, as in ASGI, as bytes."""


class WebhookHeaders(Mapping[str, str]):
    """
    Headers by name in any case, which know what was sent more than once.

    Reading a header that was repeated raises KeyError, as if it were missing: which of the two
    values was meant is for nobody to guess, least of all where a signature is checked. `get_all`
    gives both. Made from anything that a framework has, including another `WebhookHeaders`.
    """

    __slots__ = ("_values",)

    def __init__(self, headers: HeadersLike = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _pairs(headers):
            self._values.setdefault(_text(name).lower(), []).append(_text(value))

    def __getitem__(self, name: str) -> str:
        values = self._values[name.lower()]
        if len(values) != 1:
            raise KeyError(name)
        return values[0]

    def __iter__(self) -> Iterator[str]:
        return (name for name, values in self._values.items() if len(values) == 1)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get_all(self, name: str) -> list[str]:
        """Every value that was sent under *name*, in order."""
        return list(self._values.get(name.lower(), ()))

    def items_all(self) -> list[tuple[str, str]]:
        """Every header that was sent, repeated ones too, with names in lower case."""
        return [(name, value) for name, values in self._values.items() for value in values]

    def __repr__(self) -> str:
        # Never the values: signatures and tokens are among them.
        return f"<WebhookHeaders {', '.join(self._values)}>"


def _pairs(headers: HeadersLike) -> Iterator[tuple[Any, Any]]:
    if isinstance(headers, WebhookHeaders):
        yield from headers.items_all()
    elif not isinstance(headers, Mapping):
        yield from headers
    elif callable(multi := getattr(headers, "multi_items", None)):
        # httpx's and Starlette's mappings, whose items() may join or drop what was repeated.
        yield from multi()
    else:
        for name, value in headers.items():
            values = value if isinstance(value, (list, tuple)) else (value,)
            yield from ((name, each) for each in values)


def _text(value: Any) -> str:
    # latin-1 is what HTTP says, and can't fail.
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
