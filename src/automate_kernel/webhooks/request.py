"""The headers of a received request, whatever the framework calls them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.logs import get_logger

__all__ = [
    "MOST_DEPTH",
    "MOST_DIGITS",
    "BodyError",
    "HeadersLike",
    "Ignored",
    "WebhookHeaders",
    "delivery_id_of",
    "parse_json",
]

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


MOST_DEPTH = 100
"""How deep lists and objects may be nested: no payload that is deeper can be stored."""
MOST_DIGITS = 4_300
"""How many digits an integer may have: as many as Python reads without being told otherwise."""


class BodyError(ValueError):
    """A body that can't be read; its text says why, and shows nothing of it."""


def parse_json(body: bytes) -> Any:
    """
    The JSON value that *body* is, in UTF-8.

    Raises `BodyError` for what is no JSON (``NaN`` and ``Infinity`` aren't), is nested deeper than
    `MOST_DEPTH`, or has an integer of more than `MOST_DIGITS` digits.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyError("it is not UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
    except BodyError:
        raise
    except ValueError:
        raise BodyError("it is not JSON") from None
    except RecursionError:
        raise _too_deep() from None
    # Counting is cheap, and clears nearly every body of what is dear to look for.
    if text.count("[") + text.count("{") > MOST_DEPTH and _is_deep(value):
        raise _too_deep()
    return value


def _no_constant(name: str) -> NoReturn:
    # NaN and Infinity are not JSON, and no database stores them as such.
    raise BodyError(f"it is not JSON: {name} is no number there")


def _integer(text: str) -> int:
    # Before it is read: reading takes time with the square of the length.
    if len(text) > MOST_DIGITS:
        raise BodyError(f"it has a number of more than {MOST_DIGITS:,} digits")
    return int(text)


def _too_deep() -> BodyError:
    return BodyError(f"it is nested deeper than {MOST_DEPTH} levels")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Ignored:
    """
    The answer to a webhook that is accepted and starts nothing.

    A connector's `parse_webhook` returns it in place of a payload. *reason* is told to the sender
    and to the log. *answer*, a JSON object, is the whole body of the answer, for services that
    wait for a certain one.
    """

    reason: str = "it starts nothing here"
    answer: Mapping[str, Any] | None = field(default=None, hash=False)


logger: logging.Logger = get_logger(__name__)


def delivery_id_of(connector: Any, spec: Any, headers: Any, raw_body: bytes) -> str | None:
    """
    The id of a verified delivery: what the connector says, or else what its trigger's scheme says.

    None if neither knows one, as only a connector without a scheme doesn't. A connector that fails
    to tell, or tells something that is no id, has a bug: that is logged, and the scheme's id
    guards the delivery. Raises ``INVALID_ARGUMENT`` if the trigger requires an id of the service's
    own and there is none, and what the connector raised if there is no scheme to fall back on.
    """
    of_scheme = getattr(spec.signature, "delivery_id", None)
    try:
        found = _text_of(connector.delivery_id(spec.name, headers, raw_body))
    except Exception as error:
        if not callable(of_scheme) or _tells_the_sender(error):
            raise
        found = None
        logger.error(
            "%s: delivery_id failed for %r, so the scheme's own id is taken: %s",
            connector.key, spec.name, type(error).__name__,
        )  # fmt: skip
    required = spec.replay_guard == "required"
    if found is None and callable(of_scheme):
        found = of_scheme(headers, raw_body, hashed=not required)
    if found is None and required:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the {spec.name!r} webhook has no delivery id, and its trigger requires one",
            hint="the header with the id must be there once, and not be blank",
        )
    return found


def _text_of(found: Any) -> str | None:
    """*found* as an id; None for what says nothing. Raises ``INTERNAL`` for what is no id."""
    if isinstance(found, bytes):
        found = found.decode("utf-8", "backslashreplace")
    elif isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if found is None or (isinstance(found, str) and not found.strip()):
        return None
    if not isinstance(found, str):
        raise AutomateError(
            ErrorCodes.INTERNAL,
            f"delivery_id gave {type(found).__name__}",
            hint="return text, or None where there is no id",
            retryable=False,
        )
    return found


def _tells_the_sender(error: Exception) -> bool:
    """Whether it is about the request, or passes by; not a bug in the connector."""
    told = (ErrorCodes.INVALID_ARGUMENT, ErrorCodes.UNAVAILABLE)
    return isinstance(error, AutomateError) and error.code in told
