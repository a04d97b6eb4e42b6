"""A logging filter that takes secrets out of log records."""

from __future__ import annotations

import logging

from automate_kernel.secrets.redaction import Redactor

__all__ = ["RedactingFilter"]

_formatter = logging.Formatter()
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class RedactingFilter(logging.Filter):
    """
    Takes secrets out of what is logged: message, arguments, ``extra``, traceback.

    Add it to *handlers* (``handler.addFilter(RedactingFilter(redactor))``): a filter on a logger
    doesn't see what its children log. The traceback is kept as text only, because the exception
    itself, with its locals, would let the values out again.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place. Never drops one, and never raises."""
        redact = self._redactor.redact
        try:
            message = record.getMessage()
        except Exception:
            # Wrong arguments. Printing them is what logging itself would do, to stderr.
            message = f"{record.msg!s} (its arguments don't fit)"
        record.msg, record.args = redact(message), ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _formatter.formatException(record.exc_info)
        record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name in record.__dict__.keys() - _STANDARD:
            record.__dict__[name] = self._redactor.redact_value(record.__dict__[name])
        return True
