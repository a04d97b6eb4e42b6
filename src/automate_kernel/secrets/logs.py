"""Log records without secrets and without forged lines: loggers, filters, silent libraries."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from automate_kernel.base.errors import printed
from automate_kernel.secrets.masking import hide_named
from automate_kernel.secrets.redaction import Redactor, redact_text, redactors

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")

_formatter = logging.Formatter()
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Whoever names a logger, a thread or a file may have put a value into the name.
_NAMES = (
    "name", "threadName", "processName", "taskName", "pathname", "filename", "module", "funcName",
)  # fmt: skip
# What a log line may hold: enough for any honest value, and little enough to be looked through.
_DEEPEST, _MOST_VALUES = 100, 10_000
# Control characters, what some terminals and viewers take for the end of a line or an order, and
# halves of characters, which no file takes.
_OTHERS = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[\x00-\x1f{_OTHERS}]")
_CONTROL_BUT_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_OTHERS}]")


def printable(text: str) -> str:
    """Return *text* with every character escaped that a log can't have, but the ends of lines."""
    return text if text.isprintable() else _CONTROL_BUT_LINES.sub(_escaped, text)


def continued(text: str) -> str:
    """
    Return *text* with each line but the first indented: none can pass for a record.

    Other control characters are escaped.
    """
    first, *rest = printable(text).split("\n")
    return "\n".join([first, *(line if line[:1] == " " else f"  {line}" for line in rest)])


def one_json_line(text: str) -> str:
    """Return the JSON *text* on one line: what a log can't have is escaped as JSON does it."""
    return text if text.isprintable() else _CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class RedactingFilter(logging.Filter):
    """
    Takes secrets out of what is logged: message, arguments, ``extra``, traceback, names.

    Add it to *handlers* (``handler.addFilter(RedactingFilter(redactor))``): a filter on a logger
    doesn't see the records of its children. The traceback is kept as text only, because the
    exception itself, with its locals, would let the values out again. Values under a name like
    ``password`` go too, and so do credentials in URLs and headers.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactors: Callable[[], Iterable[Redactor]] = lambda: (redactor,)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place. Never drops a record, and never raises."""
        record.msg, record.args = self._text(_message(record)), ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            try:
                record.exc_text = _formatter.formatException(record.exc_info)
            except Exception:
                record.exc_text = "a traceback that can't be printed"
        record.exc_info = None
        if record.exc_text:
            record.exc_text = self._text(record.exc_text, lines=True)
        if record.stack_info:
            record.stack_info = self._text(record.stack_info, lines=True)
        for name in _NAMES:
            value = record.__dict__.get(name)
            if isinstance(value, str):
                record.__dict__[name] = self._text(value)
        for name in record.__dict__.keys() - _STANDARD:
            record.__dict__[name] = self._value(name, record.__dict__[name])
        return True

    def _text(self, text: str, *, lines: bool = False) -> str:
        """Return *text*, which may have several *lines*, as it is logged."""
        return redact_text(text, self._redactors())

    def _value(self, name: str, value: Any) -> Any:
        try:
            for redactor in self._redactors():
                value = redactor.redact_value(value, deepest=_DEEPEST, most=_MOST_VALUES)
            return hide_named({name: value})[name]
        except Exception:  # a mapping of one's own may do anything
            return f"<{type(value).__name__} that can't be printed>"


class AllRedactingFilter(RedactingFilter):
    """A `RedactingFilter` for the secrets that any redactor of this process knows."""

    def __init__(self) -> None:
        logging.Filter.__init__(self)
        self._redactors = redactors


class _KernelFilter(AllRedactingFilter):
    """The filter of the kernel's own loggers, which also lets no record look like two."""

    def _text(self, text: str, *, lines: bool = False) -> str:
        text = super()._text(text, lines=lines)
        if lines:
            return "\n".join(f"  {line}" for line in printable(text).split("\n"))
        text = text.rstrip()  # a warning ends with a line break
        return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _message(record: logging.LogRecord) -> str:
    # Without the values that stand under a secret's name in a mapping.
    if isinstance(record.args, tuple):
        record.args = tuple(hide_named(each, deepest=_DEEPEST) for each in record.args)
    else:
        record.args = hide_named(record.args, deepest=_DEEPEST)
    try:
        return record.getMessage()
    except Exception:
        # Wrong arguments. Printing them is what logging itself would do, to stderr.
        return f"{printed(record.msg)} (its arguments don't fit)"


# -- loggers ----------------------------------------------------------------------------------


_filter = _KernelFilter()


def get_logger(name: str) -> logging.Logger:
    """
    Return the logger *name*, whose records are redacted before any handler sees them.

    For the modules of the kernel and its adapters. A filter on a logger doesn't see the records of
    its children, so each module's logger has a filter.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


def get_plugin_logger(key: str) -> logging.Logger:
    """Return the logger of the plugin *key*. The children that it makes are redacted too."""
    return _with_children(get_logger(f"automate.plugins.{key}"))


def _with_children(logger: logging.Logger) -> logging.Logger:
    make: Callable[[str], logging.Logger] = logging.Logger.getChild.__get__(logger)

    def child(suffix: str) -> logging.Logger:
        made = make(suffix)
        made.addFilter(_filter)
        return _with_children(made)

    logger.getChild = child  # type: ignore[method-assign]
    return logger


def log_loop_errors(loop: AbstractEventLoop) -> None:
    """Log the errors on *loop* that nobody awaits. Otherwise asyncio prints them."""
    loop.set_exception_handler(_loop_error)


def run_logged(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* as ``asyncio.run`` does, on a loop with `log_loop_errors`."""
    from asyncio import get_running_loop, run

    async def logged() -> T:
        log_loop_errors(get_running_loop())
        return await coroutine

    return run(logged())


def _loop_error(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    about = context.get("task") or context.get("future") or context.get("handle") or loop
    error = context.get("exception")
    # The same words as asyncio's own, which people look for.
    _logger.error(
        "%s: %r", context.get("message", "error on the event loop"), about, exc_info=error
    )


_logger = get_logger(__name__)


# -- client libraries: what they log of headers and addresses is kept off in a plugin's calls ------

_silent: ContextVar[int] = ContextVar("automate_kernel_silent", default=logging.NOTSET)


class _NoWireLog(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for low records of our calls. Those of the application's own calls stay."""
        return record.levelno > _silent.get()


_FILTER = _NoWireLog()


def guard_loggers(*libraries: str) -> None:
    """Have the loggers of *libraries* that exist now keep silent within `quiet`."""
    above = tuple(f"{each}." for each in libraries)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(above) or name in libraries:
            # A filter on "botocore" itself would not see the records of its children.
            logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def quiet(level: int = logging.DEBUG) -> Iterator[None]:
    """Keep this thread's or task's records up to *level* out of the log."""
    token = _silent.set(level)
    try:
        yield
    finally:
        _silent.reset(token)
