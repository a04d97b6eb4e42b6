"""A received webhook: its headers, its JSON body and its delivery id."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base.arguments import check_object
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.values import MAX_DEPTH, MOST_DIGITS, NestingError, is_plain, read_json

HeadersLike = Mapping[str, Any] | Iterable[tuple[Any, Any]]
"""A mapping, or pairs of name and value; as text or, as in ASGI, as bytes."""


class WebhookHeaders(Mapping[str, str]):
    """
    Headers by name in any case, including repeated headers.

    Reading a repeated header raises KeyError, as if it were missing: nobody should guess the value
    that was meant, least of all for a signature. `get_all` returns all. It is made from the headers
    of any framework, including another `WebhookHeaders`.
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
        """Return every value that was sent under *name*, in order."""
        return list(self._values.get(name.lower(), ()))

    def items_all(self) -> list[tuple[str, str]]:
        """Return every header, also repeated headers, with names in lower case."""
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
        # httpx's and Starlette's mappings, whose items() may join or drop repeated headers.
        yield from multi()
    else:
        for name, value in headers.items():
            values = value if isinstance(value, (list, tuple)) else (value,)
            yield from ((name, each) for each in values)


def _text(value: Any) -> str:
    # latin-1 is what HTTP says, and can't fail.
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


class BodyError(ValueError):
    """A body that can't be read; its text has the reason, and nothing of the body."""


def parse_json(body: bytes) -> Any:
    """
    Return the JSON value in *body*, which is UTF-8.

    Raises `BodyError` for other text (``NaN`` and ``Infinity`` too). It also does for a value that
    is nested too deep to be stored, and for an integer of more than `MOST_DIGITS` digits.
    """
    try:
        text = body.decode("utf-8")
        value = read_json(text, parse_int=_integer)
    except BodyError:
        raise
    except UnicodeDecodeError:
        raise BodyError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise BodyError("it is not JSON") from None
    except NestingError:
        raise BodyError(_TOO_DEEP) from None
    except ValueError as error:  # of NaN, Infinity and -Infinity
        raise BodyError(f"it is not JSON: {error}") from None
    # Counting is cheap, and spares nearly every body the look at all of it.
    if text.count("[") + text.count("{") > MAX_DEPTH and not is_plain(value, most=len(text)):
        raise BodyError(_TOO_DEEP)
    return value


def _integer(text: str) -> int:
    # Before it is read: reading takes time with the square of the length.
    if len(text) > MOST_DIGITS:
        raise BodyError(f"it has a number of more than {MOST_DIGITS:,} digits")
    return int(text)


@dataclass(frozen=True, slots=True)
class Ignored:
    """
    The answer to a webhook that is accepted and starts nothing.

    A connector's `parse_webhook` returns it in place of a payload. The sender and the log get the
    *reason*. *answer*, a JSON object, is the whole body of the answer, for services that wait for a
    certain answer.
    """

    reason: str = "it starts nothing here"
    answer: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        # Not when it is sent: there nobody could say whose slip it was.
        check_object(self.answer, "the answer", 'Ignored("a ping", {"challenge": …})')


logger: logging.Logger = get_logger(__name__)
# The request or an outage causes these, not a bug in the connector.
_NOT_BUGS = (ErrorCodes.INVALID_ARGUMENT, ErrorCodes.UNAVAILABLE)


def delivery_id_of(connector: Any, spec: Any, headers: Any, raw_body: bytes) -> str | None:
    """
    Return the id of a verified delivery, from the connector or else from its trigger's scheme.

    It is None if neither has an id, which happens only without a scheme. A connector that raises or
    returns an invalid id has a bug: the bug is logged, and the scheme's id guards the delivery.
    Raises ``INVALID_ARGUMENT`` if the trigger requires the service's own id and there is none.
    Without a scheme the connector's error is raised.
    """
    of_scheme = getattr(spec.signature, "delivery_id", None)
    try:
        found = _text_of(connector.delivery_id(spec.name, headers, raw_body))
    except Exception as error:
        theirs = isinstance(error, AutomateError) and error.code in _NOT_BUGS
        if theirs or not callable(of_scheme):
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
    """Return *found* as an id; None if it is blank. Raises ``INTERNAL`` for an invalid id."""
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
