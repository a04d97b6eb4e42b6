"""Problem details (RFC 9457): an error as its client may see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes, is_setup_fault
from automate_kernel.http.answers import title_of
from automate_kernel.outbox.item import bounded_seconds

CONTENT_TYPE = "application/problem+json"

STATUS_OF_CODE: Mapping[ErrorCodes, int] = {
    ErrorCodes.INVALID_ARGUMENT: 400,
    ErrorCodes.UNAUTHENTICATED: 401,
    ErrorCodes.PERMISSION_DENIED: 403,
    ErrorCodes.NOT_FOUND: 404,
    ErrorCodes.ALREADY_EXISTS: 409,
    ErrorCodes.FAILED_PRECONDITION: 409,
    ErrorCodes.ABORTED: 409,
    ErrorCodes.CANCELLED: 409,
    ErrorCodes.RESOURCE_EXHAUSTED: 429,
    ErrorCodes.INTERNAL: 500,
    ErrorCodes.DATA_LOSS: 500,
    ErrorCodes.UNIMPLEMENTED: 501,
    ErrorCodes.UNAVAILABLE: 503,
    ErrorCodes.DEADLINE_EXCEEDED: 504,
}
CODE_OF_STATUS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "UNPROCESSABLE",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
FAILED = "It failed. The log of the service says why."
NOT_VALID = "The request is not valid."
_MOST_ERRORS = 100
_LONGEST_NAME = 40


class ApiError(Exception):
    """
    An error that its client sees: an HTTP status, a code, and what is wrong.

    *errors* has an entry for each wrong field: a JSON pointer, or a parameter's name.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODE_OF_STATUS.get(status, "INTERNAL")
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the problem as JSON."""
        body: dict[str, Any] = {
            "type": "about:blank", "title": title_of(self.status), "status": self.status,
            "code": self.code, "detail": self.detail,
        }  # fmt: skip
        return {**body, "errors": list(self.errors)} if self.errors else body


class NotThereError(ApiError):
    """There is no such thing, or it is another tenant's: nobody learns which."""

    def __init__(self) -> None:
        super().__init__(404, "Not found.")


def problem_of(error: AutomateError) -> ApiError:
    """Return the problem of an error of the kernel; what is the service's own fault is hidden."""
    status, detail, code = STATUS_OF_CODE[error.code], error.message, error.code.value
    if is_setup_fault(error):  # whatever its code is called
        status = 503 if error.retryable else 500
    if status == 503:
        detail, code = "Try again later.", "UNAVAILABLE"
    elif status >= 500:
        detail = FAILED
        code = code if status in (501, 504) else "INTERNAL"
    after = {"Retry-After": str(math.ceil(bounded_seconds(error.retry_after or 5)))}
    return ApiError(status, detail, code=code, headers=after if status in (429, 503) else {})


def invalid(error: ValidationError, where: str) -> ApiError:
    """
    Return the 400 of a query or a body; *where* is ``parameter`` or ``pointer``.

    No text shows a value that was sent.
    """
    errors = [
        {where: _place(each["loc"], where), "detail": _said(each), "code": _code(each["type"])}
        for each in error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
    ]
    return ApiError(400, NOT_VALID, errors=errors)


def _place(place: Sequence[str | int], where: str) -> str:
    names = [str(each)[:_LONGEST_NAME] for each in place]
    if where == "parameter":
        return ".".join(names[:1])
    return pointer_to(*names)


def pointer_to(*names: str) -> str:
    """Return the JSON pointer (RFC 6901) to a field of the body."""
    return "#" + "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)


def _said(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "There is no such field."
    if error["type"] == "value_error":  # one of our own checks
        return str(error["ctx"]["error"])
    return str(error["msg"])


def _code(kind: str) -> str:
    return {"missing": "required", "extra_forbidden": "unknown", "value_error": "invalid"}.get(
        kind, kind
    )
