"""
Take secrets out of text.

References are stored and values never, so a value can only turn up where a service echoes it: in
a response, an error, a log line. What the resolver hands out is therefore remembered here, and
taken out of every text on its way out.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from automate_kernel.secrets.encodings import encoded_forms
from automate_kernel.secrets.handles import Sealed, SecretRef

__all__ = ["Redactor"]

_PART = 12
_PROBE = 6
# A part of 12 holds 7 probes, so looking at every 7th place of a text misses no part.
_STRIDE = _PART - _PROBE + 1
_SHORTEST_ANYWHERE = 4
_MARKS = ("[secret]", "[redacted]", "[hidden]", "***", "___", "")


class Redactor:
    """
    Knows the values of secrets, and takes them out of text and JSON.

    What goes, leaving ``[secret]``:

    * a value, in plain or encoded form (see `encoded_forms`), and any part of one of these that
      has 12 characters or more: truncated and wrapped text doesn't save a value. So a secret that
      begins like other text (``postgresql://``) takes that beginning out of other text too;
    * of a value under four characters, only where it stands alone, with no letter or digit
      beside it: else the secret ``7`` would take out the digit everywhere. Such a value is
      too short to be hidden well, and too short to be a secret.

    Values are kept in memory, and only there, for as long as the redactor lives. All methods may
    be called from several threads.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._parts: set[str] = set()
        self._probes: set[str] = set()
        # These are replaced and never changed, so that a reader needs no lock.
        self._short: tuple[str, ...] = ()
        self._tokens: tuple[str, ...] = ()
        self._pattern = re.compile("(?!)")
        self._mark = _MARKS[0]
        for value in values:
            self.add(value)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._values)} values>"

    def add(self, value: str) -> None:
        """Take *value* out of every text from now on. Blank text is no secret, and is ignored."""
        if value in self._values or not value.strip():
            return
        short = len(value) < _SHORTEST_ANYWHERE
        forms = {value.strip()} if short else encoded_forms(value)
        with self._lock:
            for form in forms:
                self._add_form(form, token=form == value.strip())
            self._values.add(value)
            # A mark that holds a secret would give it away, and be redacted without end.
            self._mark = next(mark for mark in _MARKS if not self._found(mark))

    def _add_form(self, form: str, *, token: bool) -> None:
        if len(form) >= _PART:
            self._parts.update(form[i : i + _PART] for i in range(len(form) - _PART + 1))
            self._probes.update(form[i : i + _PROBE] for i in range(len(form) - _PROBE + 1))
        elif len(form) >= _SHORTEST_ANYWHERE:
            # Longest first, since an alternation takes the first that fits.
            self._short = tuple(sorted({*self._short, form}, key=len, reverse=True))
            self._pattern = _pattern(self._short, self._tokens)
        elif token:
            self._tokens = tuple({*self._tokens, form})
            self._pattern = _pattern(self._short, self._tokens)

    def redact(self, text: str) -> str:
        """*text* without the secrets."""
        spans = self._found(text)
        if not spans:
            return text
        for _ in range(3):
            text = _replaced(text, spans, self._mark)
            # What stood around a secret can, with the mark, form another one.
            spans = self._found(text)
            if not spans:
                return text
        return self._mark

    def redact_value(self, value: Any) -> Any:
        """A copy of the JSON *value* without the secrets, in keys too and at any depth."""
        if not isinstance(value, (Mapping, list, tuple)):
            return self._scalar(value)
        root: list[Any] = [None]
        # A stack of our own, so that no depth is too deep: (where to put it, under what, what).
        pending: list[tuple[Any, Any, Any]] = [(root, 0, value)]
        while pending:
            target, place, item = pending.pop()
            if isinstance(item, Mapping):
                copy: Any = {}
                for key, inner in item.items():
                    name = self._free_key(copy, key)
                    copy[name] = None  # keeps the order
                    pending.append((copy, name, inner))
            elif isinstance(item, (list, tuple)):
                copy = [None] * len(item)
                pending.extend((copy, index, inner) for index, inner in enumerate(item))
            else:
                copy = self._scalar(item)
            target[place] = copy
        return root[0]

    def _free_key(self, taken: Mapping[str, Any], key: Any) -> Any:
        if not isinstance(key, str):
            return self._scalar(key)
        name = plain = self.redact(key)
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}#{number}"
        return name

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.redact(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, bytes):
            return self.redact(value.decode("utf-8", "backslashreplace"))
        if isinstance(value, (SecretRef, Sealed)):
            return self.redact(str(value))
        text = _safe_str(value)
        redacted = self.redact(text)
        return value if redacted == text and isinstance(value, (int, float)) else redacted

    def redact_exception(self, error: BaseException) -> str:
        """The error's class and message for people, without the secrets."""
        message = _safe_str(error)
        return self.redact(
            f"{type(error).__name__}: {message}" if message else type(error).__name__
        )

    def _found(self, text: str) -> list[tuple[int, int]]:
        spans = self._parts_found(text) if self._parts else []
        # `in` is many times quicker than the pattern, and mostly False.
        if any(form in text for form in (*self._short, *self._tokens)):
            spans.extend(match.span(1) for match in self._pattern.finditer(text))
            spans.sort()
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


def _pattern(short: Iterable[str], tokens: Iterable[str]) -> re.Pattern[str]:
    choices = [re.escape(form) for form in short]
    choices += [rf"(?<!\w){re.escape(token)}(?!\w)" for token in tokens]
    # A look-ahead consumes nothing, so that overlapping occurrences are all found.
    return re.compile(f"(?=({'|'.join(choices)}))")


def _replaced(text: str, spans: list[tuple[int, int]], mark: str) -> str:
    pieces: list[str] = []
    position = 0
    start, end = spans[0]
    for next_start, next_end in [*spans[1:], (len(text) + 1, 0)]:
        if next_start <= end:  # touching ones are one: the count of marks would tell the length
            end = max(end, next_end)
            continue
        pieces += text[position:start], mark
        position, start, end = end, next_start, next_end
    pieces.append(text[position:])
    return "".join(pieces)


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that can't be printed>"
