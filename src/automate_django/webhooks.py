"""
Webhooks for a project, with or without Django REST framework.

::

    path("api/automate/", include("automate_django.webhooks"))

takes ``POST api/automate/webhooks/<connector>/<trigger>``. Who sends it proves itself by the
connector's signature, so the view asks for no login and no CSRF token.
"""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from automate_django.kernel import get_kernel
from automate_kernel.http.answers import HttpAnswer, answer_webhook
from automate_kernel.webhooks import WebhookHeaders

__all__ = ["WebhookView", "urlpatterns"]


# In a transaction of its own, not in the request's: what fails is rolled back, and answered.
@method_decorator([csrf_exempt, transaction.non_atomic_requests], name="dispatch")
class WebhookView(View):
    """
    Accepts webhooks as events.

    A subclass's *get_tenant_id* says whose they are; by default nobody's in particular.
    """

    http_method_names = ["post"]  # noqa: RUF012  (as Django has it)

    def get_tenant_id(self, request: HttpRequest, connector: str, trigger: str) -> str | None:
        """The tenant that the event of this webhook belongs to."""
        return None

    def post(self, request: HttpRequest, connector: str, trigger: str, **kwargs: Any) -> Any:
        """Answer 202, or 200 if it came before, or 401 if it proves nothing."""
        return _response(self._answer(request, connector, trigger))

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Answer as the other errors are answered."""
        return _response(HttpAnswer(405, {"error": "use POST"}, {"Allow": "POST"}))

    def _answer(self, request: HttpRequest, connector: str, trigger: str) -> HttpAnswer:
        try:
            body = _body(request)
        except RequestDataTooBig:
            return HttpAnswer(413, {"error": "the body is too long"})
        except UnreadablePostError:
            return HttpAnswer(400, {"error": "the request was cut off"})
        except _RefusedError as refused:
            return refused.answer
        return answer_webhook(
            get_kernel().receive_webhook,
            connector,
            trigger,
            WebhookHeaders(request.headers.items()),
            body,
            tenant_id=self.get_tenant_id(request, connector, trigger),
        )


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.answer = HttpAnswer(status, {"error": text})


def _body(request: HttpRequest) -> bytes:
    """The bytes as they came: that is what was signed."""
    length = request.META.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in request.META
    if _ENCODED_SLASH.search(_raw_path(request)):
        # A proxy that lets some paths through, and others not, must see the same path as we do.
        raise _RefusedError(404, "there is nothing here")
    if length and chunked:
        # Whoever is in front may have gone by the other one.
        raise _RefusedError(400, "Content-Length with Transfer-Encoding")
    if length and not _DIGITS.fullmatch(length):
        raise _RefusedError(400, "Content-Length is no number")
    if len(length) > _MOST_DIGITS:
        raise RequestDataTooBig
    if not chunked or not isinstance(request, WSGIRequest):
        return request.body
    # Django reads as much as Content-Length says, and so nothing of a body that comes in chunks.
    # A server that marks where it ends can be read to the end; of others nobody knows it.
    if not request.environ.get("wsgi.input_terminated"):
        raise _RefusedError(411, "send a Content-Length")
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    try:
        read = request.environ["wsgi.input"].read
        body: bytes = read() if limit is None else read(limit + 1)
    except OSError as error:
        raise UnreadablePostError(*error.args) from error
    if limit is not None and len(body) > limit:
        raise RequestDataTooBig
    return body


def _raw_path(request: HttpRequest) -> str:
    """The path as it was sent, if the server tells; else nothing."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        return (scope.get("raw_path") or b"").decode("latin-1")
    target = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
    return str(target).partition("?")[0]


_DIGITS = re.compile("[0-9]+")
_MOST_DIGITS = 18
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


def _response(answer: HttpAnswer) -> JsonResponse:
    response = JsonResponse(answer.body, status=answer.status, headers=answer.headers)
    response["Cache-Control"] = "no-store"
    return response


urlpatterns = [
    path("webhooks/<str:connector>/<str:trigger>", WebhookView.as_view(), name="webhook"),
]
