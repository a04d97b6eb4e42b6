"""
Errors as problem details, RFC 9457: ``application/problem+json``.

::

    {"type": "about:blank", "title": "Bad Request", "status": 400, "code": "INVALID_ARGUMENT",
     "detail": "The request is not valid.",
     "errors": [{"pointer": "#/lines/0/price", "detail": "A valid number is required.",
                 "code": "invalid"}]}

For all views of a project: ``REST_FRAMEWORK = {"EXCEPTION_HANDLER":
"automate_django.api.problem_exception_handler"}``. Our own base classes need no setting.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404
from rest_framework import exceptions
from rest_framework.permissions import SAFE_METHODS
from rest_framework.response import Response
from rest_framework.views import set_rollback

from automate_django import conf
from automate_django.kernel import current_kernel
from automate_django.refusals import Refusal, refusal_of
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.answers import title_of
from automate_kernel.http.api.problems import (
    CODE_OF_STATUS,
    CONTENT_TYPE,
    FAILED,
    NOT_VALID,
    ApiError,
    problem_of,
)
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)
_WHOLE = "non_field_errors"


class ParameterError(exceptions.ValidationError):
    """An error in the query, not in the body: it names a ``parameter``."""


class Problem(exceptions.APIException):
    """
    An error with a status and a *code* of its own, and headers that go with it.

    *errors* has the pointer and the detail of each wrong field of the body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self.status_code = status
        self.errors = [dict(each) for each in errors]
        self.problem_code = code
        self.headers = dict(headers or {})
        super().__init__(detail, code)


class ProblemResponse(Response):
    """A JSON response with the content type of problems; a page of the browsable API stays one."""

    @property
    def rendered_content(self) -> Any:
        """The body, rendered when its renderer is known."""
        if getattr(self, "accepted_media_type", "").partition(";")[0] == "application/json":
            self.content_type = CONTENT_TYPE
        return super().rendered_content


def problem_exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """
    Return the response for *exc*.

    An error that is not the client's (a bug, a setting, the database) goes to the log and to
    `got_request_exception`, without a word in the answer. With ``DEBUG`` an unknown exception gives
    Django's own page.
    """
    error = _known(exc) or _refused(exc, context)
    if error is None:
        if settings.DEBUG:
            return None
        _report(exc, context)
        error = Problem(500, FAILED, code="INTERNAL")
    elif error.status_code >= 500 and not isinstance(exc, (exceptions.APIException, ApiError)):
        _report(exc, context)
    set_rollback()
    return ProblemResponse(_body(error), status=error.status_code, headers=_headers(error))


def _known(exc: Exception) -> exceptions.APIException | None:
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, ApiError):
        return _of_api(exc)
    if isinstance(exc, AutomateError):
        return _of_api(problem_of(exc))
    if isinstance(exc, Http404):
        return exceptions.NotFound()
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exc, RequestDataTooBig):
        return Problem(413, "The body is too long.")
    if isinstance(exc, SuspiciousOperation):
        return Problem(400, "The request is not valid.")
    return None


_REFUSALS = {
    Refusal.DUPLICATE: (409, "ALREADY_EXISTS", "Another row has one of these values already."),
    Refusal.NEEDED: (409, "FAILED_PRECONDITION", "Other rows need this one."),
    Refusal.GONE: (409, "FAILED_PRECONDITION", "A row that this one refers to is not there."),
    Refusal.CHECK: (400, "INVALID_ARGUMENT", "The values don't fit together, or one is too large."),
    Refusal.VALUE: (400, "INVALID_ARGUMENT", "A value can't be stored or looked up."),
}


def _refused(exc: Exception, context: Mapping[str, Any]) -> Problem | None:
    """Return the client's fault in a database's error, without its names of tables and values."""
    refusal = refusal_of(exc)
    method = getattr(context.get("request"), "method", None)
    if refusal is None or (refusal is not Refusal.VALUE and method in SAFE_METHODS):
        return None  # a request that only reads has broken nothing: that is a bug
    status, code, detail = _REFUSALS[refusal]
    path = getattr(context.get("request"), "path", "?")
    logger.warning("%s %r: %s (%s)", method, path, refusal.value, type(exc).__name__)
    return Problem(status, detail, code=code)


def _of_api(error: ApiError) -> Problem:
    return Problem(
        error.status, error.detail, code=error.code, headers=error.headers, errors=error.errors
    )


def _report(exc: Exception, context: Mapping[str, Any]) -> None:
    request = context.get("request")
    path = getattr(request, "path", "?")
    if isinstance(exc, AutomateError):
        # Its text is made for logs, and holds no secret.
        logger.error("%s: %s", path, _clean(str(exc)))
        return
    logger.error("%s failed", path, exc_info=exc)
    got_request_exception.send(sender=None, request=getattr(request, "_request", request))


def _headers(error: exceptions.APIException) -> dict[str, str]:
    headers: dict[str, str] = dict(getattr(error, "headers", {}))
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    if getattr(error, "wait", None):
        headers["Retry-After"] = str(math.ceil(error.wait))  # type: ignore[attr-defined]
    return headers


def _body(error: exceptions.APIException) -> dict[str, Any]:
    status = error.status_code
    code = getattr(error, "problem_code", None) or CODE_OF_STATUS.get(status, "INTERNAL")
    types, title = conf.option("AUTOMATE_API", "PROBLEM_TYPES"), title_of(status)
    kind = f"{types}{code}" if types else "about:blank"
    body: dict[str, Any] = {"type": kind, "title": title, "status": status, "code": code}
    detail = error.detail
    if isinstance(detail, (list, dict)):
        body["detail"] = NOT_VALID
        where = "parameter" if isinstance(error, ParameterError) else "pointer"
        body["errors"] = list(_errors(detail, (), where))
    else:
        body["detail"] = _clean(str(detail))
        if errors := getattr(error, "errors", None):
            body["errors"] = [
                {"code": "invalid"} | {name: _clean(text) for name, text in each.items()}
                for each in errors
            ]
    return body


def _errors(detail: Any, path: tuple[str, ...], where: str) -> Iterator[dict[str, str]]:
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _errors(inner, path if name == _WHOLE else (*path, str(name)), where)
    elif isinstance(detail, (list, tuple)):
        # Of a list field each element may have its own errors; of any other, all are its own.
        nested = any(isinstance(inner, (Mapping, list)) for inner in detail)
        for index, inner in enumerate(detail):
            yield from _errors(inner, (*path, str(index)) if nested else path, where)
    else:
        at = ".".join(path) if where == "parameter" else "#" + "".join(map(_token, path))
        code = str(getattr(detail, "code", "invalid"))
        yield {where: _clean(at), "detail": _clean(str(detail)), "code": code}


def _token(name: str) -> str:
    """Return one step of a JSON pointer (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _clean(text: str) -> str:
    """Return *text* without the secrets that this process knows: none before its first kernel."""
    kernel = current_kernel()
    return text if kernel is None else kernel.redactor.redact(text)
