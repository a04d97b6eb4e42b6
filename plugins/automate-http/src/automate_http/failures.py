"""Failures: a response's status as an error of the step."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from automate_http.exchange import Reply
from automate_http.guard import origin
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status

_MAX_WAIT_SECONDS = 86_400.0
_READ, _SHOWN = 4_096, 200


def failure_of(reply: Reply, redact: Callable[[str], str] = str) -> AutomateError:
    """
    Return the error for a failed reply: its code, the time of the next try, the server's words.

    The server's words pass through *redact*: some repeat the credentials that they got.
    """
    if reply.status < 400:
        code = ErrorCodes.FAILED_PRECONDITION
        hint = "raise follow_redirects or max_redirects, or use 0 to get the redirect itself"
    else:
        code, hint = code_of_status(reply.status), None
    said = _excerpt(reply, redact)
    return AutomateError(
        code,
        f"{reply.method} {origin(reply.url)} answered {_phrase(reply.status)}"
        + (f": {said}" if said else ""),
        hint=hint,
        retry_after=retry_after(reply),
        details={"status": reply.status},
    )


def retry_after(reply: Reply) -> float | None:
    """Return the seconds of ``Retry-After``, a day at most."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _MAX_WAIT_SECONDS)
    try:
        # Against the server's own clock: ours may be minutes off.
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(reply.headers.get("date", ""))
        seconds = (until - now).total_seconds()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), _MAX_WAIT_SECONDS)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _excerpt(reply: Reply, redact: Callable[[str], str]) -> str:
    kind = reply.headers.get("content-type", "").lower()
    if not kind.startswith(("text/plain", "application/json", "application/problem+json")):
        return ""  # a page for browsers says little in its first lines
    text = redact(reply.content[:_READ].decode("utf-8", "replace"))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
