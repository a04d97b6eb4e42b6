"""The headers that a request may have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import current_call

# The methods of requests that change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE = re.compile(r"[\t -~]{0,16384}")

# The client alone sets these: they decide on the message's way and its end.
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ``INVALID_ARGUMENT`` for a header that can't be sent. Its value is not shown."""
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise _wrong("a header's name has characters that names can't have")
        lower = name.lower()
        if lower in _OURS:
            raise _wrong(f"the header {name!r} is set by the client itself", "leave it out")
        if lower in seen:
            raise _wrong(f"the header {name!r} is there twice")
        seen.add(lower)
        if not is_header_text(value):
            raise _wrong(
                f"the value of the header {name!r} has characters that headers can't have",
                "use visible ASCII characters and blanks, without line breaks",
            )


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return *headers* with names in lower case. See `check_headers`."""
    check_headers(headers or {})
    return {name.lower(): value for name, value in (headers or {}).items()}


def is_header_text(value: str) -> bool:
    """Return True if *value* can stand in a header as it is."""
    # A line break would begin another header.
    return _VALUE.fullmatch(value) is not None


def call_key(method: str) -> str | None:
    """Return the idempotency key of the current call; None for a request that changes nothing."""
    call = current_call()
    return None if call is None or method in SAFE_METHODS else call.idempotency_key


def key_as_header(key: str) -> str:
    """Return *key* as a header's value: itself, or its hash where it can't stand there."""
    if key and len(key) <= 255 and is_header_text(key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _wrong(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)
