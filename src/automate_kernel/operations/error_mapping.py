"""The mapping of a plugin's exceptions to `AutomateError` and its codes."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, did_you_mean, printed, type_name

__all__ = ["code_of_status", "is_bug", "normalize", "normalizing", "retry_after_of"]

MAX_TEXT = 500

_STATUS = {
    400: ErrorCodes.INVALID_ARGUMENT,
    401: ErrorCodes.UNAUTHENTICATED,
    403: ErrorCodes.PERMISSION_DENIED,
    404: ErrorCodes.NOT_FOUND,
    408: ErrorCodes.DEADLINE_EXCEEDED,
    409: ErrorCodes.ABORTED,
    410: ErrorCodes.NOT_FOUND,
    412: ErrorCodes.FAILED_PRECONDITION,
    422: ErrorCodes.INVALID_ARGUMENT,
    429: ErrorCodes.RESOURCE_EXHAUSTED,
    500: ErrorCodes.INTERNAL,
    501: ErrorCodes.UNIMPLEMENTED,
    504: ErrorCodes.DEADLINE_EXCEEDED,
}

_LONGEST_WAIT_SECONDS = 86_400.0
_SECONDS = re.compile(r"[0-9]{1,17}(\.[0-9]{0,17})?")

# By name: clients such as httpx and requests don't derive their errors from the built-in errors.
# Before Python 3.11 the TimeoutErrors of asyncio and futures are classes of their own.
_TIMEOUTS = {"TimeoutError", "TimeoutException", "Timeout", "APITimeoutError"}
# gaierror: the name of the host did not resolve, which passes more often than not.
_CONNECTIONS = {"ConnectionError", "ConnectError", "NetworkError", "ProtocolError", "gaierror"} | {
    "APIConnectionError"
}


@contextmanager
def normalizing(plugin: Any) -> Iterator[None]:
    """Let nothing but `AutomateError` out of the block, as *plugin* words it."""
    try:
        yield
    except Exception as error:
        hint = None
        try:
            answer = plugin.normalize_error(error)
        except Exception as failure:  # it may raise what it should have returned
            answer = failure
            if failure is not error:
                hint = f"its normalize_error() raised it, on {type(error).__name__}"
        if not isinstance(answer, Exception):
            answer, hint = error, _no_error(answer)
        normal = normalize(answer)
        if normal is not answer:
            normal.hint = normal.hint or hint
        if normal is error:
            raise
        raise normal from error


def _no_error(answer: Any) -> str:
    """Return the words for what a ``normalize_error`` has returned that is no exception."""
    if inspect.iscoroutine(answer):
        answer.close()
    given = "None" if answer is None else type_name(answer)
    return f"its normalize_error() returned {given}: let it return an AutomateError, or super()'s"


def normalize(
    error: Exception, *, what: str = "", redact: Callable[[str], str] = str
) -> AutomateError:
    """
    Return *error* itself if it is an `AutomateError`, else an `AutomateError` with the code that
    fits.

    The code comes from the type, or from the HTTP status that the error carries. *what* names the
    failed call; *redact* takes the secrets out of the text.
    """
    if isinstance(error, AutomateError):
        return error
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None)
    text = _text(error, redact)
    kind = type(error).__name__
    return AutomateError(
        _code(error, response),
        (f"{what}: " if what else "") + (f"{kind}: {text}" if text else kind),
        hint=_meant(error),
        retry_after=retry_after_of(headers) if isinstance(headers, Mapping) else None,
    )


# Python's own words for a value whose type an author took for another type.
_TAKEN_FOR = (
    (("'coroutine'",), "a value is a coroutine: write await before the call that gives it"),
    (("in 'await' expression", "can't be awaited"), "what it waits for is none: leave await out"),
    (("SecretStr",), "the text of a SecretStr is its .get_secret_value()"),
)


def _meant(error: Exception) -> str | None:
    """Return what was meant where a value has another type, or an attribute isn't there."""
    if type(error) not in (AttributeError, TypeError):
        return None
    text = printed(error)
    for words, remedy in _TAKEN_FOR:
        if any(each in text for each in words):
            return remedy
    if not isinstance(error, AttributeError) or not error.name or error.name.startswith("_"):
        return None
    names = [each for each in dir(error.obj) if not each.startswith("_")]
    return did_you_mean(error.name, names, cutoff=0.75) or None


def is_bug(error: BaseException) -> bool:
    """Return True if *error* is likely a mistake in some code, not a service that is away."""
    if not isinstance(error, Exception):
        return True
    return normalize(error).code in (ErrorCodes.INTERNAL, ErrorCodes.UNIMPLEMENTED)


def code_of_status(status: int) -> ErrorCodes:
    """Return the code for an HTTP status of 400 or more."""
    fallback = ErrorCodes.UNAVAILABLE if status >= 500 else ErrorCodes.FAILED_PRECONDITION
    return _STATUS.get(status, fallback)


def _code(error: Exception, response: Any) -> ErrorCodes:
    for holder in (response, error):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int) and 400 <= status <= 599:
            return code_of_status(status)
    names = {base.__name__ for base in type(error).__mro__}
    if names & _TIMEOUTS:
        return ErrorCodes.DEADLINE_EXCEEDED
    if names & _CONNECTIONS:
        return ErrorCodes.UNAVAILABLE
    if isinstance(error, NotImplementedError):
        return ErrorCodes.UNIMPLEMENTED
    return ErrorCodes.INTERNAL


def _text(error: Exception, redact: Callable[[str], str]) -> str:
    pydantic = sys.modules.get("pydantic")
    try:
        text = str(error)
    except Exception:
        text = ""
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        # Its own text quotes the values.
        entries = error.errors(include_input=False, include_url=False, include_context=False)
        text = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in entries)
    text = redact(text)  # before it is cut: half a secret is not recognised
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def retry_after_of(headers: Mapping[str, Any]) -> float | None:
    """
    Return the seconds to wait by the ``Retry-After`` of an answer, a day at most; None without.

    Seconds may have a fraction. A time is compared with the answer's own ``Date``: our clock and
    the service's may be minutes apart.
    """
    from email.utils import parsedate_to_datetime  # here, as it brings much along

    text = _header(headers, "Retry-After")
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_WAIT_SECONDS)
    try:
        until, now = (parsedate_to_datetime(each) for each in (text, _header(headers, "Date")))
        seconds = (until - now).total_seconds()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)


def _header(headers: Mapping[str, Any], name: str) -> str:
    return str(headers.get(name) or headers.get(name.lower()) or "").strip()
