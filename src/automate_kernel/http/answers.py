"""Answers to HTTP requests, whichever server takes them."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import Any

from automate_kernel.base.documents import shown_document
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    StorageError,
    WebhookRejectedError,
    did_you_mean,
    is_setup_fault,
)
from automate_kernel.secrets.logs import get_logger
from automate_kernel.triggers.webhooks.ledger import WebhookReceipt
from automate_kernel.triggers.webhooks.request import (
    BodyError,
    HeadersLike,
    WebhookHeaders,
    parse_json,
)

logger: logging.Logger = get_logger(__name__)

# The same bytes for every reason, so that nobody learns which connectors and secrets there are.
REFUSED = {"error": "the request was refused"}
# Other than Python had them before 3.13.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, a body and headers. An object or a list is sent as JSON, a text as it stands."""

    status: int
    body: Mapping[str, Any] | Sequence[Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[dict[str, str], bytes]:
        """Return all headers and the bytes of the body."""
        is_text = isinstance(self.body, str)
        text = str(self.body) if is_text else shown_document(self.body, ascii_only=True)
        content = text.encode()
        if self.status in (204, 304):  # which have no body, and no length of one
            return {"Cache-Control": "no-store", **self.headers}, b""
        fixed = {"Content-Length": str(len(content)), "Cache-Control": "no-store"}
        return {"Content-Type": "application/json", **fixed, **self.headers}, content


class HttpError(Exception):
    """An answer that ends the handling of a request."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.answer: HttpAnswer = HttpAnswer(status, {"error": text}, headers or {})


def bears(headers: WebhookHeaders, token: bytes) -> bool:
    """Return True if a request has *token* as its bearer token."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token)
    return right and scheme.lower() == "bearer"


def idempotency_key(headers: WebhookHeaders) -> str | None:
    """Return the ``Idempotency-Key`` of a request; raises `HttpError` for several."""
    keys = headers.get_all("idempotency-key")
    # A server in front may have joined two by a comma.
    if len(keys) > 1 or any("," in key for key in keys):
        raise HttpError(400, "give one Idempotency-Key, without a comma")
    return keys[0] if keys else None


def title_of(status: int) -> str:
    """Return the title of a problem with an HTTP *status*, the same on every Python."""
    return _TITLES.get(status) or responses.get(status, "Error")


def health_answer(word: str, problems: Sequence[str]) -> HttpAnswer:
    """Return 200 with *word*, or 503 with the problems if there are any."""
    if not problems:
        return HttpAnswer(200, {"status": word})
    return HttpAnswer(503, {"status": f"not {word}", "problems": [*problems]})


def answer_webhook(
    receive: Callable[..., WebhookReceipt],
    connector: str,
    trigger: str,
    headers: HeadersLike,
    body: bytes,
    **options: Any,
) -> HttpAnswer:
    """
    Have a webhook received (by `Kernel.receive_webhook`), and return the answer for its sender.

    202 if it was accepted. 200 if it came before, starts nothing, or its trigger has an answer of
    its own. The same 401 for every proof that fails.
    """
    try:
        receipt = receive(connector, trigger, headers, body, **options)
    except WebhookRejectedError:
        return HttpAnswer(401, REFUSED)
    except Exception as error:
        return failure_answer(error, f"webhook {connector}/{trigger}")
    if receipt.ignored is not None:
        answer = receipt.ignored.answer
        reason = {"ignored": receipt.ignored.reason}
        return HttpAnswer(200, reason if answer is None else dict(answer))
    if receipt.answer is not None:
        return HttpAnswer(200, dict(receipt.answer))
    accepted = {"id": receipt.item_id, "duplicate": receipt.duplicate}
    return HttpAnswer(200 if receipt.duplicate else 202, accepted)


def failure_answer(error: Exception, what: str) -> HttpAnswer:
    """Return the answer for *error*: whose fault it is, and when to try again. Log the rest."""
    if isinstance(error, HttpError):
        return error.answer
    code = error.code if isinstance(error, AutomateError) else None
    if isinstance(error, StorageError) and code is ErrorCodes.INVALID_ARGUMENT:
        # The same content will be refused again; how our tables are made is nobody's business.
        logger.error("%s: %s", what, error)
        return HttpAnswer(400, {"error": "it can't be stored; the log says why"})
    # How we are set up is nobody's business either, whatever such an error's code is.
    theirs = isinstance(error, PayloadError) or code is ErrorCodes.INVALID_ARGUMENT
    if theirs and not is_setup_fault(error):
        logger.info("%s: %s", what, error)
        return HttpAnswer(400, {"error": str(error)})
    if isinstance(error, AutomateError) and error.retryable:
        logger.error("%s: %s", what, error)
        # The sender keeps it and sends it again.
        return HttpAnswer(503, {"error": "try again later"}, {"Retry-After": "5"})
    logger.error("%s failed", what, exc_info=error)
    return HttpAnswer(500, {"error": "it failed; the log says why"})


_WORDS = {dict: "an object", str: "text", int: "a whole number", float: "a number"}


def read_fields(body: bytes, fields: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """
    Return the object in a *body*; an empty body is an empty object.

    Raises `HttpError` for other *fields* than these, and for values of other types.
    """
    try:
        given = parse_json(body) if body.strip() else {}
    except BodyError as error:
        raise HttpError(400, f"the body is refused: {error}") from None
    if not isinstance(given, dict):
        raise HttpError(400, f"the body must be an object with {', '.join(fields)}")
    for name, value in given.items():
        types = fields.get(name)
        if types is None:
            meant = did_you_mean(name, fields, also=f"there are {', '.join(fields)}")
            raise HttpError(400, f"unknown field {name[:40]!r}; {meant}")
        if not isinstance(value, types) or (isinstance(value, bool) and object not in types):
            raise HttpError(400, f"{name} must be {_WORDS[types[-1]]}")
    return given
