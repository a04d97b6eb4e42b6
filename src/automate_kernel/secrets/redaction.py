"""
The redactor: it takes the values of secrets out of text and JSON.

References are stored and values never, so a value can only turn up where a service echoes it: in
a response, an error, a log line. The redactor remembers every value that the resolver hands out,
and takes it out of every text that leaves.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from automate_kernel.base.errors import PayloadError, describe_error, printed
from automate_kernel.base.forks import new_lock
from automate_kernel.secrets.encodings import readings
from automate_kernel.secrets.masking import SHORTEST_ANYWHERE, hide_named, hide_shapes, strength_of

_LONG = 4096
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")


def _encoded_forms(value: str) -> set[str]:
    """
    Return *value* and its forms in URLs, JSON, HTML, Python reprs, base64, base32 and hex.

    The base64 form is the part that stays the same wherever the value stands in the text, as
    in the ``user:password`` of basic authentication; likewise that in base32. Values over 4096
    characters get no URL and hex forms, which are as rare as they would be large.
    """
    raw = value.encode("utf-8", "surrogatepass")
    # The bytes as characters are what `readings` makes of them.
    forms = {value, value.strip(), raw.decode("latin-1"), *_escaped(value)}
    forms.update((*_base64(raw), *_base32(raw)))
    if len(value) <= _LONG:
        forms.update(_quoted(raw))
        forms.update((raw.hex(), raw.hex().upper()))
    return forms


def _escaped(value: str) -> Iterator[str]:
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield value.replace("'", "''")  # SQL, YAML
    bodies = [
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        ascii(value)[1:-1],
        repr(value.encode("utf-8", "surrogatepass"))[2:-1],
        value.replace("\\", "\\\\").replace("'", "\\'"),
    ]
    for body in bodies:
        yield body
        yield body.replace("/", "\\/")  # PHP and others escape the slash in JSON
        yield json.dumps(body)[1:-1]  # JSON inside a JSON string
        yield _swap_case(_ESCAPE, body)


def _quoted(raw: bytes) -> Iterator[str]:
    for safe in ("", "/", "~", "!*'()", "/:?#[]@!$&'()*+,;="):
        text = quote(raw, safe=safe)
        for form in (text, text.replace("%20", "+")):
            yield form
            yield _swap_case(_PERCENT, form)
            yield form.replace("%", "%25")  # quoted twice


def _swap_case(pattern: re.Pattern[str], text: str) -> str:
    def swapped(match: re.Match[str]) -> str:
        escape = match.group()
        lead = 1 if escape[0] == "%" else 2
        digits = escape[lead:]
        return escape[:lead] + (digits.lower() if digits != digits.lower() else digits.upper())

    return pattern.sub(swapped, text)


_ENCODERS: tuple[Callable[[bytes], bytes], ...] = (base64.b64encode, base64.urlsafe_b64encode)


def _base64(raw: bytes) -> Iterator[str]:
    for encode in _ENCODERS:
        yield encode(raw).decode("ascii")
        # Three bytes make four characters; the characters that share bits with a neighbour go.
        for offset, start in ((0, 0), (1, 2), (2, 3)):
            end = (offset + len(raw)) * 8 // 6
            yield encode(bytes(offset) + raw).decode("ascii")[start:end]


def _base32(raw: bytes) -> Iterator[str]:
    # Five bytes make eight characters.
    for offset in range(5):
        start, end = -(-offset * 8 // 5), (offset + len(raw)) * 8 // 5
        form = base64.b32encode(bytes(offset) + raw).decode("ascii")[start:end]
        yield form
        yield form.lower()  # as names in DNS and Kubernetes are written


_PART = 12
_PROBE = 6
# A part of 12 holds 7 probes, so looking at every 7th place of a text misses no part.
_STRIDE = _PART - _PROBE + 1
_MARKS = ("[secret]", "[redacted]", "[hidden]", "***", "___", "")

_DEEPEST = 1000
"""The levels of a value that are looked at: Python's own JSON can't write more."""
_MOST_VALUES = 10_000_000
_CIRCULAR, _TOO_DEEP, _TOO_LARGE = "[circular]", "[nested too deep]", "[too large]"


_alive: weakref.WeakValueDictionary[int, Redactor] = weakref.WeakValueDictionary()


def redactors() -> list[Redactor]:
    """Return every redactor of this process: no log may show a secret that one of them knows."""
    # From a copy of the references: it is made in one step for other threads.
    return [found for each in _alive.valuerefs() if (found := each()) is not None]


class Redactor:
    """
    Knows the values of secrets, and takes them out of text and JSON.

    It replaces these by ``[secret]``:

    * a value in plain text, in URLs, JSON, HTML, Python reprs, base64, base32 and hex; also in what
      a text says once such escapes are decoded, up to three times (see `readings`);
    * any part of one of these with 12 characters or more, so that truncated and wrapped text shows
      nothing. A secret that begins like other text (``postgresql://``) takes that beginning out of
      other text too;
    * a value that is short or common (``2024``, ``admin``; see `strength_of`), only where it
      stands alone in text, with no letter or digit beside it: else it would ruin honest data.

    A value that stands in nearly every text (``true``) stays. Values are kept in memory, and only
    there, while the redactor lives. All methods may be called from several threads.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = new_lock()
        self._values: set[str] = set()
        self._strong: frozenset[str] = frozenset()
        self._parts: set[str] = set()
        self._probes: set[str] = set()
        # These are replaced and never changed, so that a reader needs no lock.
        self._short: tuple[str, ...] = ()
        self._tokens: tuple[str, ...] = ()
        self._pattern = self._alone = re.compile("(?!)")
        self._mark = _MARKS[0]
        for value in values:
            self.add(value)
        _alive[id(self)] = self

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._values)} values>"

    def add(self, value: str) -> None:
        """
        Take *value* out of every text from now on.

        Blank text, and text that stands nearly everywhere, is ignored.
        """
        if value in self._values or not value.strip():
            return
        strength = strength_of(value)
        if strength == "none":
            return
        with self._lock:
            if strength == "weak":
                self._tokens = tuple({*self._tokens, value.strip()})
                self._alone = _pattern(rf"(?<!\w){re.escape(each)}(?!\w)" for each in self._tokens)
            else:
                for form in _encoded_forms(value):
                    self._add_form(form)
                self._strong |= {value.strip()}
            self._values.add(value)
            # A mark that holds a secret would give it away, and be redacted without end.
            self._mark = next(
                mark
                for mark in _MARKS
                if not self._found(mark) and not any(token in mark for token in self._tokens)
            )

    def _add_form(self, form: str) -> None:
        if len(form) >= _PART:
            self._parts.update(form[i : i + _PART] for i in range(len(form) - _PART + 1))
            self._probes.update(form[i : i + _PROBE] for i in range(len(form) - _PROBE + 1))
        elif len(form) >= SHORTEST_ANYWHERE:
            # Longest first, since an alternation takes the first that fits.
            self._short = tuple(sorted({*self._short, form}, key=len, reverse=True))
            self._pattern = _pattern(map(re.escape, self._short))

    def redact(self, text: str, *, weak: bool = True) -> str:
        """Return *text* without the secrets. Unless *weak*, short and common secrets stay."""
        spans = self._found(text, weak)
        if not spans:
            return text
        for _ in range(3):
            text = _replaced(text, spans, self._mark)
            # The text around a secret can, with the mark, form another secret.
            spans = self._found(text, weak)
            if not spans:
                return text
        return self._mark

    def redact_value(
        self,
        value: Any,
        *,
        weak: bool = True,
        deepest: int = _DEEPEST,
        most: int = _MOST_VALUES,
        cut: bool = True,
    ) -> Any:
        """
        Return a copy of the JSON *value* without the secrets, in keys too.

        Numbers, booleans and None stay, unless a number is a secret as a whole. A text replaces
        all that is below *deepest* levels, beyond *most* values or inside itself. Unless *cut*,
        such a value raises `PayloadError`. Unless *weak*, short and common secrets stay.
        """
        if not isinstance(value, (Mapping, list, tuple)):
            return self._scalar(value, weak)
        root: list[Any] = [None]
        # A stack of our own, for any depth: (where to put it, under what, what, how deep).
        pending: list[tuple[Any, Any, Any, int]] = [(root, 0, value, 1)]
        above: set[int] = set()  # the containers around the current container
        while pending:
            target, place, item, depth = pending.pop()
            if target is None:  # all that was in it is done
                above.discard(item)
                continue
            if not isinstance(item, (Mapping, list, tuple)):
                target[place] = self._scalar(item, weak)
                continue
            most -= len(item) + 1
            reason = _limit(depth > deepest, most < 0, id(item) in above)
            if reason:
                if not cut:
                    raise PayloadError(f"a value can't be redacted: {reason.strip('[]')}")
                target[place] = reason
                continue
            above.add(id(item))
            pending.append((None, None, id(item), depth))
            target[place] = self._opened(item, depth + 1, pending)
        return root[0]

    def _opened(self, item: Any, depth: int, pending: list[tuple[Any, Any, Any, int]]) -> Any:
        """Return an empty copy of *item*, whose values are added to *pending*."""
        if not isinstance(item, Mapping):
            elements: list[Any] = [None] * len(item)
            pending.extend((elements, index, inner, depth) for index, inner in enumerate(item))
            return elements
        copy: dict[Any, Any] = {}
        for key, inner in item.items():
            name = self._free_key(copy, key)
            copy[name] = None  # keeps the order
            pending.append((copy, name, inner, depth))
        return copy

    def _free_key(self, taken: Mapping[str, Any], key: Any) -> Any:
        if not isinstance(key, str):
            key = self._scalar(key, weak=False)
            if not isinstance(key, str):
                return key
        # A name that is also a weak secret stays: whoever reads the data asks for it.
        name = plain = self.redact(key, weak=False)
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}#{number}"
        return name

    def _scalar(self, value: Any, weak: bool) -> Any:
        if isinstance(value, str):
            return self.redact(value, weak=weak)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return self._mark if self._is_secret_number(value) else value
        raw = isinstance(value, bytes)
        text = value.decode("utf-8", "backslashreplace") if raw else printed(value)
        return self.redact(text, weak=weak)

    def _is_secret_number(self, value: float) -> bool:
        if not self._strong:
            return False
        with contextlib.suppress(ValueError, OverflowError):  # of a number beyond all bounds
            return str(abs(int(value) if value == int(value) else value)) in self._strong
        return False

    def finds(self, text: str, *, weak: bool = True) -> bool:
        """Return True if `redact` would change *text*."""
        return bool(self._values) and bool(self._found(text, weak))

    def redact_exception(self, error: BaseException) -> str:
        """Return the error's class and message for people, without the secrets."""
        return self.redact(describe_error(error))

    def _found(self, text: str, weak: bool = True) -> list[tuple[int, int]]:
        spans = self._found_in(text, weak)
        if self._strong and len(text) >= SHORTEST_ANYWHERE:
            for reading in readings(text):
                found = self._found_in(reading.text, weak=False)
                spans += [reading.place(*span) for span in found]
        spans.sort()
        return spans

    def _found_in(self, text: str, weak: bool) -> list[tuple[int, int]]:
        spans = self._parts_found(text) if self._parts else []
        # `in` is many times quicker than the pattern, and mostly False.
        if any(form in text for form in self._short):
            spans.extend(match.span(1) for match in self._pattern.finditer(text))
        if weak and any(token in text for token in self._tokens):
            spans.extend(match.span(1) for match in self._alone.finditer(text))
        return spans

    def _parts_found(self, text: str) -> list[tuple[int, int]]:
        parts, probes = self._parts, self._probes
        spans: list[tuple[int, int]] = []
        done = 0
        for probe in range(0, len(text) - _PROBE + 1, _STRIDE):
            if text[probe : probe + _PROBE] not in probes:
                continue
            starts = range(max(done, probe - _STRIDE + 1), probe + 1)
            spans += [(i, i + _PART) for i in starts if text[i : i + _PART] in parts]
            done = probe + 1
        return spans


def _pattern(choices: Iterable[str]) -> re.Pattern[str]:
    # A look-ahead consumes nothing, so that overlapping occurrences are all found.
    return re.compile(f"(?=({'|'.join(choices)}))")


def _replaced(text: str, spans: list[tuple[int, int]], mark: str) -> str:
    pieces: list[str] = []
    position = 0
    start, end = spans[0]
    for next_start, next_end in [*spans[1:], (len(text) + 1, 0)]:
        if next_start <= end:  # touching spans are joined: the count of marks would show the length
            end = max(end, next_end)
            continue
        pieces += text[position:start], mark
        position, start, end = end, next_start, next_end
    pieces.append(text[position:])
    return "".join(pieces)


def _limit(deep: bool, large: bool, circular: bool) -> str:
    return _CIRCULAR if circular else _TOO_DEEP if deep else _TOO_LARGE if large else ""


def redact_text(text: str, known: Iterable[Redactor] | None = None) -> str:
    """
    Return *text* without the shapes of credentials, and without the secrets that *known* know.

    By default these are all redactors of the process.
    """
    text = hide_shapes(text)
    for redactor in redactors() if known is None else known:
        text = redactor.redact(text)
    return text


def redact_shown(value: Any) -> Any:
    """
    Return a copy of stored JSON as people may see it.

    It lacks the secrets that any redactor of this process knows. A process knows only the secrets
    that it has used itself, so values under a name like ``password`` are hidden too.
    """
    for redactor in redactors():
        value = redactor.redact_value(value)
    return hide_named(value)


class EnteringRedaction:
    """
    Takes the secrets that *redactor* knows out of JSON on its way into the database.

    Incoming data is rarely an echo, so short and common values in it are honest and stay.
    *others* is the redaction of another kernel on the same store, which is applied first.
    """

    def __init__(self, redactor: Redactor, others: Any = None) -> None:
        self._redactor, self._others = redactor, others

    def __call__(self, value: Any) -> Any:
        """Return a copy of *value* without the secrets; `PayloadError` if that takes too much."""
        if self._others is not None:
            value = self._others(value)
        return self._redactor.redact_value(value, weak=False, cut=False)

    def finds(self, text: str) -> bool:
        """Return True if there may be a secret in *text*, a document of JSON."""
        if self._others is not None and self._others.finds(text):
            return True
        return self._redactor.finds(text, weak=False)
