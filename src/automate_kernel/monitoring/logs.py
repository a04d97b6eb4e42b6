"""
Structured logs: a JSON document a line, with the ids of its item and execution.

::

    configure_logging(kernel)                  # everything, as JSON, to standard error

or, in a logging configuration of your own::

    handler.addFilter(ContextFilter())
    handler.addFilter(RedactingFilter(kernel.redactor))
    handler.setFormatter(JsonFormatter())
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from textwrap import dedent
from typing import TYPE_CHECKING, Any, TextIO

from automate_kernel.base.documents import shown_document
from automate_kernel.base.errors import ConfigError, printed
from automate_kernel.operations.context import current_call, current_item
from automate_kernel.secrets import RedactingFilter
from automate_kernel.secrets.logs import continued, one_json_line

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = [
    "FIELDS",
    "ContextFilter",
    "JsonFormatter",
    "TextFormatter",
    "configure_logging",
    "context_fields",
]

FIELDS = (
    "item_id", "kind", "attempt", "worker_id", "tenant_id", "execution_id", "operation", "step_id",
    "step_attempt", "trace_id", "span_id",
)  # fmt: skip
"""The fields that a record may have about its item, execution and trace."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_TEXT = "%(asctime)s %(levelname)-7s %(message)s"
_WAKE_UP = "automate.advance"


def context_fields() -> dict[str, Any]:
    """Return the fields about the work at hand: some of `FIELDS`, and none outside of any work."""
    fields: dict[str, Any] = {}
    item, call = current_item(), current_call()
    if item is not None:
        fields |= {"item_id": item.id, "kind": item.kind, "attempt": item.attempt_count}
        fields |= {"worker_id": item.lease_owner, "tenant_id": item.tenant_id}
        if item.kind == _WAKE_UP:
            fields["execution_id"] = item.payload["execution_id"]
    if call is not None:
        fields["operation"] = call.operation
        if call.tenant_id is not None:
            fields["tenant_id"] = call.tenant_id
        if call.execution_id is not None:
            fields["execution_id"] = call.execution_id
            fields |= {"step_id": call.step_id, "step_attempt": call.attempt}
    fields |= _trace_fields()
    return {name: value for name, value in fields.items() if value is not None}


def _trace_fields() -> dict[str, str]:
    # Only where somebody traces: it is not imported for that.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


class ContextFilter(logging.Filter):
    """
    Adds `context_fields` to each record, as if the caller had passed them as ``extra``.

    Add it to a handler, before the filter that redacts. With *complete* every record has all
    `FIELDS`: a formatter of your own can use ``%(item_id)s`` and so on.
    """

    def __init__(self, *, complete: bool = False) -> None:
        super().__init__()
        self._complete = complete

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields to *record*. Never drops a record, and never raises."""
        try:
            fields = context_fields()
        except Exception:  # a custom store's items may be anything
            fields = {}
        if self._complete:
            fields = {**dict.fromkeys(FIELDS, ""), **fields}
        for name, value in fields.items():
            record.__dict__.setdefault(name, value)  # what the caller says itself wins
        return True


class TextFormatter(logging.Formatter):
    """
    Formats a record as text that can't be taken for several records.

    A line break in it, as in a traceback, is followed by spaces. Other control characters are
    escaped.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text."""
        return continued(super().format(record))


class JsonFormatter(logging.Formatter):
    """
    Formats a record as one line of JSON: time, level, logger, message, then `FIELDS` and ``extra``.

    Values that JSON doesn't have are written as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        data: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and k not in data}
        data |= {name: extra.pop(name) for name in FIELDS if name in extra}
        data |= extra
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            # The kernel's records have theirs indented, for formats in lines.
            data["exception"] = dedent(record.exc_text)
        if record.stack_info:
            data["stack"] = dedent(record.stack_info)
        # Lines are what log collectors split at, so there must be none inside.
        try:
            return one_json_line(shown_document(data))
        except (TypeError, ValueError, RecursionError):
            # Keys that JSON doesn't have, or something that holds itself.
            return json.dumps({name: printed(value) for name, value in data.items()})


def configure_logging(
    *kernels: Kernel,
    level: str | int = "info",
    format: str = "json",
    stream: TextIO | None = None,
) -> logging.Handler:
    """
    Log everything of *level* and above to *stream*, standard error by default, and nowhere else.

    *format* is ``json`` or ``text``. The secrets of *kernels* are taken out.
    Returns the new handler of the root logger.
    """
    if format not in ("json", "text"):
        raise ConfigError(f"there is no log format {format!r}", hint="json or text")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(_TEXT))
    redacting = [RedactingFilter(kernel.redactor) for kernel in kernels]
    for each in (ContextFilter(), *redacting):
        handler.addFilter(each)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper() if isinstance(level, str) else level)
    return handler
