"""
Storable values: the one definition of JSON, for every way in and every database.

A value is None, a bool, an int that a double can hold, a finite float, text, or a list or dict of
such values, whose keys are text. It comes back equal and of the same type. There is one conversion:
a subclass of one of these types, another mapping and a plain tuple become the plain type (a tuple
becomes a list). All else is refused before anything is written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

from automate_kernel.base.errors import PayloadError, type_name
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.storage.codec import JsonText, json_text

MAX_PAYLOAD_BYTES = 1_000_000
MAX_DEPTH = 100
"""The most lists and dicts in each other: any Python stack can read that."""
_MOST = MAX_PAYLOAD_BYTES // 2
_BYTES_OF_A_CHARACTER = 4  # at most, in UTF-8

_LARGEST = 2**1023  # from here on other readers of JSON make it infinite
# A number so long may be larger; the look-behind makes it look at a run of digits once. Every 50th
# character shows at next to no cost that nearly no payload has one.
_LONG_NUMBER = re.compile(r"(?<!\d)\d{308}")
_SIX_DIGITS = re.compile(r"\d{6}")
_UNDECODED = re.compile("[\udc80-\udcff]")
# PostgreSQL can't hold these in text or jsonb, though Python can: NUL, half a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

MOST_DIGITS = 4_300
"""The most digits of an integer: as many as Python itself reads by default."""
_SCALARS = frozenset({str, int, float, bool, type(None)})
_SHOWN = 100  # characters of a path
_USUAL = "pass dicts, lists, text, numbers, booleans and None"
_ELSEWHERE = "store the data elsewhere and pass a reference"
_INSTEAD: tuple[tuple[tuple[type, ...], str], ...] = (
    ((set, frozenset), "pass a list, sorted if its order matters"),
    ((Enum,), "pass its .value"),
    ((bytes, bytearray, memoryview), "pass text: decode it, or encode it as base64"),
    ((date, time), "pass text: its .isoformat()"),
    ((Decimal, UUID), "pass text: str() of it"),
)


class Redaction(Protocol):
    """Takes secrets out of a value that is about to be stored."""

    def __call__(self, value: Any, /) -> Any:
        """Return a copy of the JSON *value* without the secrets."""

    def finds(self, text: str, /) -> bool:
        """Return True if there may be a secret in *text*, a document of JSON."""


class TooLongError(PayloadError):
    """A value takes more JSON than may be stored of it."""


class UnstorableError(Exception):
    """
    A part of a value can't be stored: the place, the reason and the remedy.

    If it is *typed*, one who knows its type could write it. If there is *too_much* of it, the whole
    is longer than it may be.
    """

    def __init__(
        self,
        path: tuple[str | int, ...],
        message: str,
        hint: str,
        *,
        typed: bool = False,
        too_much: bool = False,
    ) -> None:
        self.path: tuple[str | int, ...] = path
        self.message: str = message
        self.hint: str = hint
        self.typed: bool = typed
        self.too_much: bool = too_much
        super().__init__(message)

    def about(self, name: str, inside: int = 0, *, verb: str = "stored") -> PayloadError:
        """Return the error about the value *name*, without the first *inside* parts of the path."""
        where = _shown(self.path[inside:])
        error = TooLongError if self.too_much else PayloadError
        return error(f"the {name} can't be {verb}: {where} {self.message}", hint=self.hint)


class UnawaitedError(UnstorableError):
    """A part of a value is a coroutine or the like, for which nobody has waited."""


def encode_json(
    value: Any,
    name: str,
    limit: int = MAX_PAYLOAD_BYTES,
    *,
    inside: int = 0,
    around: int = 0,
    redact: Redaction | None = None,
) -> JsonText:
    """
    Return *value* as JSON that every database here keeps as it is, of at most *limit* bytes.

    *redact* takes the secrets out. Raises `PayloadError` with *name*, the place in the value, the
    reason and the remedy. The *inside* levels that the kernel itself has put around the caller's
    value don't count, nor do their *around* bytes.
    """
    most = (limit + around) // 2  # values in so much JSON: each takes a character and a comma
    if not is_plain(value, MAX_DEPTH + inside, most):
        value = _plain(value, name, inside, most)
    try:
        text = json_text(value)
    except ValueError:
        # json's own text may show the value.
        _plain(value, name, inside, most)
        raise PayloadError(f"the {name} can't be stored as JSON", hint=_USUAL) from None
    # Cheap tests first: they spare nearly every payload the costly ones.
    ascii_only = text.isascii()
    if (
        (not ascii_only and _UNSTORABLE.search(text))
        or ("\\u0000" in text and _UNSTORABLE_ESCAPE.search(text))
        or has_long_number(text)
    ):
        _plain(value, name, inside, most)
    size = len(text) if ascii_only or len(text) > limit + around else len(text.encode())
    if size > limit + around:
        raise TooLongError(f"the {name} is too long: over {limit:,} bytes of JSON", hint=_ELSEWHERE)
    if redact is not None and redact.finds(text):
        # As it would be stored, so that no type of Python's hides anything.
        return encode_json(redact(json.loads(text)), name, limit, inside=inside, around=around)
    return text


def encode_around(
    value: Any, payload: Any, *, inside: int = 1, redact: Redaction | None = None
) -> JsonText:
    """
    Return *value*, which the kernel has put around the caller's *payload*, as `encode_json` does.

    The payload alone counts against `MAX_PAYLOAD_BYTES`, and what is around it as much again.
    """
    text = encode_json(value, "payload", 2 * MAX_PAYLOAD_BYTES, inside=inside, redact=redact)
    if len(text) * _BYTES_OF_A_CHARACTER > MAX_PAYLOAD_BYTES:
        encode_json(payload, "payload", redact=redact)
    return text


def has_long_number(text: str) -> bool:
    """Return True if *text*, a document of JSON, may have a number that readers can't hold."""
    long = len(text) > 307 and _SIX_DIGITS.search(text[::50]) and _LONG_NUMBER.search(text)
    return bool(long)


def is_too_large(number: int) -> bool:
    """Return True for an integer that other readers of JSON make infinite."""
    return not -_LARGEST < number < _LARGEST


def _plain(value: Any, name: str, inside: int, most: int) -> Any:
    try:
        return plain_json(value, inside=inside, most=most)
    except UnstorableError as error:
        raise error.about(name, inside) from None


def is_plain(value: Any, levels: int = MAX_DEPTH, most: int = _MOST) -> bool:
    """
    Return True if *value* has JSON's own types at all places, at most *levels* deep.

    It is also False beyond *most* lists and dicts: the value is too long, or shares its parts.
    """
    try:
        return type(value) in _SCALARS or _is_plain(value, levels, [most])
    except TypeError:
        return False  # a key that is not text


_joined = "".join


def _is_plain(value: Any, levels: int, left: list[int]) -> bool:
    # This is done to every payload, so each part costs one look-up.
    left[0] -= 1
    if levels <= 0 or left[0] < 0:
        return False
    parts = value
    if type(value) is dict:
        _joined(value)  # fails for a key that is not text, sooner than a loop finds it
        parts = value.values()
    elif type(value) is not list:
        return False
    for part in parts:
        if type(part) not in _SCALARS and not _is_plain(part, levels - 1, left):
            return False
    return True


def plain_json(
    value: Any,
    levels: int = MAX_DEPTH,
    *,
    inside: int = 0,
    most: int = _MOST,
    other: Callable[[Any], Any] | None = None,
) -> Any:
    """
    Return *value* in JSON's own types; raise `UnstorableError` for a part that has none of them.

    It may have *levels* lists and dicts in each other, beside the *inside* ones that the kernel has
    put around it, and *most* values. *other* converts a value of another type; it returns
    `NotImplemented` for one that it doesn't know, and the error for one that it can't convert.
    """
    try:
        return _Copy(levels, inside, most, other).of(value, ())
    except UnawaitedError:
        # Else Python warns of each of them later, and at an innocent place.
        _close_coroutines(value, levels + inside, set())
        raise


def _close_coroutines(value: Any, levels: int, seen: set[int]) -> None:
    """Close the coroutines in *value*, however many there are: a list of them is a usual slip."""
    if isinstance(value, Coroutine):
        value.close()
    elif levels > 0 and isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
        seen.add(id(value))
        for part in value.values() if isinstance(value, Mapping) else value:
            if type(part) not in _SCALARS:
                _close_coroutines(part, levels - 1, seen)


@dataclass(slots=True)
class _Copy:
    """Copies a value in JSON's own types, and looks at every part of it."""

    levels: int
    inside_of: int
    left: int
    """Few objects that share their parts many times over would be copied without end."""
    other: Callable[[Any], Any] | None
    around: set[int] = field(default_factory=set)

    def of(self, value: Any, path: tuple[str | int, ...]) -> Any:
        kind = type(value)
        self.left -= 1
        if kind is str:
            return self._text(value, path)
        if value is None or kind is bool:
            return value
        if isinstance(value, (str, int, float)):
            return self._scalar(value, path)
        if isinstance(value, (Mapping, list, tuple)):
            return self._inside(value, path)
        written = NotImplemented if self.other is None else self.other(value)
        if isinstance(written, UnstorableError):
            raise UnstorableError(path, written.message, written.hint)
        if written is not NotImplemented:
            return self.of(written, path)
        raise _foreign(path, value)

    def _text(self, value: str, path: tuple[str | int, ...]) -> str:
        if problem := text_problem(value):
            raise UnstorableError(path, *problem)
        return value

    def _scalar(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, str):
            return self._text(str.__str__(value), path)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise UnstorableError(
                    path, "is NaN or infinite, not a number that JSON has", "use null, or text"
                )
            return float.__float__(value)
        if is_too_large(value):
            raise UnstorableError(
                path, "is larger than the numbers that JSON readers take", "make it text"
            )
        return int.__int__(value)

    def _inside(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if hasattr(value, "_fields") and isinstance(value, tuple):
            raise UnstorableError(
                path,
                f"is {type_name(value)}, a named tuple",
                "pass its ._asdict()",
                typed=True,
            )
        if id(value) in self.around:
            hint = "pass the parts once, without what holds them"
            raise UnstorableError(path, "is a circular reference", hint)
        if self.left < 0:
            raise UnstorableError(path, "is one value too many", _ELSEWHERE, too_much=True)
        if len(path) >= self.levels + self.inside_of:
            hint = "flatten it, or pass it as a string of JSON"
            raise UnstorableError(path, f"is nested deeper than {self.levels} levels", hint)
        self.around.add(id(value))
        if isinstance(value, Mapping):
            copy: Any = {
                self._key(key, path): self.of(part, (*path, key)) for key, part in value.items()
            }
        else:
            copy = [self.of(part, (*path, index)) for index, part in enumerate(value)]
        self.around.discard(id(value))
        return copy

    def _key(self, key: object, path: tuple[str | int, ...]) -> str:
        if isinstance(key, str):
            return self._text(str.__str__(key), (*path, key))
        message = f"has a key that is not text but {type(key).__name__}"
        raise UnstorableError(path, message, "make its keys text", typed=True)


def text_problem(text: str) -> tuple[str, str] | None:
    """Return the reason for which *text* can't be stored, and the remedy; None if it can."""
    if ("\0" in text) or (not text.isascii() and _UNSTORABLE.search(text)):
        hint = "remove or encode it, as base64 say"
        if _UNDECODED.search(text):
            # Python's form of a command line's bytes, of which the locale's encoding has none.
            hint += "; if it is of the command line, its locale is not UTF-8: set LC_ALL=C.UTF-8"
        return "holds a NUL character or half a surrogate pair", hint
    return None


def _foreign(path: tuple[str | int, ...], value: Any) -> UnstorableError:
    """Return the error for a value of another type, with one to pass in its place."""
    if isinstance(value, (SecretRef, Sealed)):
        hint = "none is stored: name it in the input of the action that needs it"
        return UnstorableError(path, "is a secret", hint)
    if isinstance(value, Awaitable):
        return UnawaitedError(path, f"is {type_name(value)}, which nobody has awaited", "await it")
    if isinstance(value, (Iterator, AsyncIterator)):
        hint = "pass a list of what it gives"
        return UnstorableError(path, f"is {type_name(value)}, which can be read once", hint)
    if isinstance(value, type):
        hint = f"pass what it makes: {value.__name__}(…)"
        return UnstorableError(path, f"is the class {value.__name__}", hint)
    known = next((hint for types, hint in _INSTEAD if isinstance(value, types)), None)
    message = f"is {type_name(value)}, which JSON has not"
    usual = "pass its .model_dump(mode='json')" if hasattr(value, "model_dump") else _USUAL
    return UnstorableError(path, message, known or usual, typed=known is not None)


def _shown(path: tuple[str | int, ...]) -> str:
    """Return a path as Python would write it: ``order.lines[2]``."""
    text = ""
    for part in path:
        if len(text) > _SHOWN:
            return f"{text[:_SHOWN]}…"
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part[:40]!r}]"
    return text[: _SHOWN + 1] or "it"


class NestingError(ValueError):
    """JSON that is nested too deep to be read."""


def read_json(text: str | bytes, *, parse_int: Callable[[str], Any] | None = None) -> Any:
    """
    Return the value of a JSON document; raise `ValueError` for any other text.

    ``NaN`` and ``Infinity``, which Python's own reader takes, are not JSON. Neither is what is
    nested deeper than Python can read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=parse_int or _integer)
    except RecursionError:
        # No caller thinks of it: a few thousand brackets would be a bug of ours.
        raise NestingError(f"it is nested deeper than {MAX_DEPTH} levels") from None


def _integer(text: str) -> int:
    # Before it is read: reading takes time with the square of the length.
    if len(text) > MOST_DIGITS:
        raise ValueError(f"it has a number of more than {MOST_DIGITS:,} digits")
    return int(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def storable(text: str, limit: int = 10_000) -> str:
    """Return *text* with unstorable characters replaced: no finishing write fails on it."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:limit]


def readable(value: Any) -> Any:
    """
    Return *value*, text or JSON of a service, without NUL and halves of characters.

    Models and servers write both now and then, and no database takes them: the answer of a call
    that is paid for, or must not be made twice, would be lost. Two halves are one character, which
    a stream has cut in two; one alone, and NUL, become U+FFFD.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return joined.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {readable(name): readable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [readable(each) for each in value]
    return value
