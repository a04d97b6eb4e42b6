"""Failures: a response's status as an error of the step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from automate_http.exchange import Reply
from automate_http.guard import origin
from automate_http.waits import header_wait
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status, retry_after_of

_READ, _READ_JSON, _SHOWN = 4_096, 65_536, 200
_FORBIDDEN, _TOO_MANY, _UNAVAILABLE = 403, 429, 503
# With these a service says that it has done nothing.
_REFUSED = frozenset({408, 409, 425, _TOO_MANY})
# Where services put their words, the most telling first; "error" and "errors" hold further fields.
_WORDS = (
    "message", "error_description", "detail", "title", "error", "errors", "msg", "reason", "code"
)  # fmt: skip
# Where they name the field that is meant.
_PLACES = ("field", "pointer", "param", "loc", "property", "path")
_SHOULD_RETRY = ("x-should-retry", "stripe-should-retry")
_DEEPEST = 4


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
    wait = retry_after_of(reply.headers)
    if wait is None and reply.status in (_FORBIDDEN, _TOO_MANY):
        wait = header_wait(reply.headers)
    if reply.status == _FORBIDDEN and wait is not None:
        # GitHub's way to say that there were too many requests.
        code = ErrorCodes.RESOURCE_EXHAUSTED
    # A service that knows says so: Stripe's "false" of a key in use is no other try's success.
    told = next(
        (reply.headers.get(name, "") for name in _SHOULD_RETRY if name in reply.headers), ""
    )
    return AutomateError(
        code,
        f"{reply.method} {origin(reply.url)} answered {_phrase(reply.status)}"
        + (f": {said}" if said else ""),
        hint=hint,
        retryable={"true": True, "false": False}.get(told.lower()),
        retry_after=wait,
        details={"status": reply.status},
    )


def is_undone(error: AutomateError) -> bool:
    """
    Return True if the request that failed with *error* surely changed nothing.

    Only then may a request be sent again that isn't idempotent.
    """
    status = error.details.get("status")
    return (
        error.details.get("sent") is False
        or error.code is ErrorCodes.RESOURCE_EXHAUSTED
        or status in _REFUSED
        or (status == _UNAVAILABLE and error.retry_after is not None)
    )


def forbid_repeat(error: AutomateError, hint: str) -> None:
    """Let nobody send again what may have been carried out; *hint* says where to look."""
    if error.retryable and not is_undone(error):
        error.retryable = False
        error.hint = error.hint or hint


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _excerpt(reply: Reply, redact: Callable[[str], str]) -> str:
    kind = reply.headers.get("content-type", "").lower()
    if not kind.startswith(("text/plain", "application/json", "application/problem+json")):
        return ""  # a page for browsers says little in its first lines
    said = _words_of(reply.content) if "json" in kind else ""
    # Redacted before it is cut: half a secret is not recognised.
    text = redact(said or reply.content[:_READ].decode("utf-8", "replace"))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _words_of(content: bytes) -> str:
    """Return the words for people in a JSON answer, or nothing."""
    try:
        found = json.loads(content) if len(content) <= _READ_JSON else None
    except (ValueError, RecursionError):
        return ""
    return _words_in(found, 0)[:_READ]


def _words_in(found: Any, depth: int) -> str:
    if isinstance(found, str):
        return found
    if depth < _DEEPEST and isinstance(found, list) and found:
        return "; ".join(filter(None, (_words_in(each, depth + 1) for each in found[:3])))
    if depth < _DEEPEST and isinstance(found, Mapping):
        texts = {name: _words_in(found[name], depth + 1) for name in _WORDS if name in found}
        words = next(filter(None, texts.values()), "")
        # GitHub's message is "Validation Failed"; its errors have the fields.
        more = texts.get("errors", "")
        words += (
            f" ({more})" if more and more != words and isinstance(found["errors"], list) else ""
        )
        place = _place_in(found)
        return f"{place}: {words}" if place and words else words
    return ""


def _place_in(found: Mapping[str, Any]) -> str:
    """Return the field that an error is about, as the service names it, or nothing."""
    place = next((found[name] for name in _PLACES if found.get(name)), "")
    parts = place if isinstance(place, list) else [place]
    scalar = all(isinstance(each, (str, int)) for each in parts)
    return ".".join(map(str, parts)) if scalar else ""
