"""Logging filters that take secrets out of log records, and what could forge a line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from automate_kernel.secrets.masking import hide_named, hide_shapes
from automate_kernel.secrets.redaction import Redactor, redactors

__all__ = [
    "AllRedactingFilter",
    "KernelFilter",
    "RedactingFilter",
    "continued",
    "one_line",
    "printable",
    "redact_shown",
    "redact_text",
]

_formatter = logging.Formatter()
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Whoever names a logger, a thread or a file may have put a value into the name.
_NAMES = (
    "name", "threadName", "processName", "taskName", "pathname", "filename", "module", "funcName",
)  # fmt: skip
# What a log line may hold: enough for any honest value, and little enough to be looked through.
_DEEPEST, _MOST_VALUES = 100, 10_000
# Control characters, and what some terminals and viewers take for the end of a line or an order.
_OTHERS = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[\x00-\x1f{_OTHERS}]")
_CONTROL_BUT_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_OTHERS}]")


def one_line(text: str) -> str:
    r"""*text* with control characters escaped (``\n``), so that it can't look like two lines."""
    if text.isprintable():
        return text
    return _CONTROL.sub(_escaped, text)


def redact_text(text: str) -> str:
    """*text* without what any redactor of this process knows, and without credentials' shapes."""
    text = hide_shapes(text)
    for redactor in redactors():
        text = redactor.redact(text)
    return text


def printable(text: str) -> str:
    """*text* of one or more lines, whose other control characters are escaped."""
    return text if text.isprintable() else _CONTROL_BUT_LINES.sub(_escaped, text)


def redact_shown(value: Any) -> Any:
    """
    A copy of stored JSON as people may see it.

    Without what any redactor of this process knows, and without what stands under a name like
    ``password``: this process knows only the secrets that it has used itself.
    """
    for redactor in redactors():
        value = redactor.redact_value(value)
    return hide_named(value)


def continued(text: str) -> str:
    """
    *text*, all of whose lines but the first begin with a space: none can pass for a record.

    Other control characters are escaped.
    """
    first, *rest = _CONTROL_BUT_LINES.sub(_escaped, text).split("\n")
    return "\n".join([first, *(line if line[:1] == " " else f"  {line}" for line in rest)])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in _CONTROL_BUT_LINES.sub(_escaped, text).split("\n"))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class RedactingFilter(logging.Filter):
    """
    Takes secrets out of what is logged: message, arguments, ``extra``, traceback, names.

    Add it to *handlers* (``handler.addFilter(RedactingFilter(redactor))``): a filter on a logger
    doesn't see what its children log. The traceback is kept as text only, because the exception
    itself, with its locals, would let the values out again. What stands in a mapping under a name
    like ``password`` goes too, and so do credentials in URLs and headers, whoever knows them.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactors: Callable[[], Iterable[Redactor]] = lambda: (redactor,)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place. Never drops one, and never raises."""
        record.msg, record.args = self._text(_message(record)), ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _traceback(record)
        record.exc_info = None
        if record.exc_text:
            record.exc_text = self._text(record.exc_text)
        if record.stack_info:
            record.stack_info = self._text(record.stack_info)
        for name in _NAMES:
            value = record.__dict__.get(name)
            if isinstance(value, str):
                record.__dict__[name] = self._text(value)
        for name in record.__dict__.keys() - _STANDARD:
            record.__dict__[name] = self._value(name, record.__dict__[name])
        return True

    def _text(self, text: str) -> str:
        text = hide_shapes(text)
        for redactor in self._redactors():
            text = redactor.redact(text)
        return text

    def _value(self, name: str, value: Any) -> Any:
        try:
            for redactor in self._redactors():
                value = redactor.redact_value(value, deepest=_DEEPEST, most=_MOST_VALUES)
            return hide_named({name: value})[name]
        except Exception:  # a mapping of one's own may do anything
            return f"<{type(value).__name__} that can't be printed>"


class AllRedactingFilter(RedactingFilter):
    """A `RedactingFilter` for what any redactor of this process knows."""

    def __init__(self) -> None:
        logging.Filter.__init__(self)
        self._redactors = redactors


class KernelFilter(AllRedactingFilter):
    """
    What the kernel's own loggers have, whatever the host does with its handlers.

    It also lets no record look like two.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place, and escape control characters."""
        super().filter(record)
        record.msg = one_line(record.msg.rstrip())  # a warning ends with a line break
        for name in _NAMES:
            value = record.__dict__.get(name)
            if isinstance(value, str):
                record.__dict__[name] = one_line(value)
        if record.exc_text:
            record.exc_text = _indented(record.exc_text)
        if record.stack_info:
            record.stack_info = _indented(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    record.args = _safe_arguments(record.args)
    try:
        return record.getMessage()
    except Exception:
        # Wrong arguments. Printing them is what logging itself would do, to stderr.
        try:
            return f"{record.msg!s} (its arguments don't fit)"
        except Exception:
            return f"<{type(record.msg).__name__} that can't be printed>"


def _safe_arguments(arguments: Any) -> Any:
    """The arguments, with what stands under a telling name hidden in mappings."""
    if isinstance(arguments, Mapping):
        return hide_named(arguments, deepest=_DEEPEST)
    if isinstance(arguments, tuple):
        return tuple(
            hide_named(each, deepest=_DEEPEST) if isinstance(each, (Mapping, list, tuple)) else each
            for each in arguments
        )
    return arguments


def _traceback(record: logging.LogRecord) -> str:
    try:
        return _formatter.formatException(record.exc_info)  # type: ignore[arg-type]
    except Exception:
        return "a traceback that can't be printed"
