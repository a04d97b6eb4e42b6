"""
Webhooks for a project, with or without Django REST framework.

::

    path("api/automate/", include("automate_django.webhooks"))

takes ``POST api/automate/webhooks/<connector>/<trigger>``. The connector's signature proves the
sender, so the view requires no login and no CSRF token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from django.urls import NoReverseMatch, URLResolver, get_resolver, path, reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_kernel.http.answers import HttpAnswer, HttpError, answer_webhook
from automate_kernel.triggers.webhooks import WebhookHeaders

__all__ = ["WebhookView", "urlpatterns"]

_DIGITS = re.compile("[0-9]{1,18}")
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


# In a transaction of its own, not in the request's: what fails is rolled back, and answered.
@method_decorator([csrf_exempt, non_atomic], name="dispatch")
class WebhookView(View):
    """Accepts webhooks as events; a subclass says with *get_tenant_id* whose they are."""

    http_method_names = ["post"]  # noqa: RUF012  (as Django has it)

    def get_tenant_id(self, request: HttpRequest, connector: str, trigger: str) -> str | None:
        """Return the tenant that the event of this webhook belongs to."""
        return None

    def post(self, request: HttpRequest, connector: str, trigger: str, **kwargs: Any) -> Any:
        """Answer 202; 200 for a repetition; 401 for a request that proves nothing."""
        try:
            body = _body(request)
        except HttpError as error:
            return _response(error.answer)
        answer = answer_webhook(
            get_kernel().receive_webhook,
            connector,
            trigger,
            WebhookHeaders(request.headers.items()),
            body,
            tenant_id=self.get_tenant_id(request, connector, trigger),
        )
        return _response(answer)

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Answer 405 with a JSON body."""
        return _response(HttpError(405, "use POST", {"Allow": "POST"}).answer)


def _body(request: HttpRequest) -> bytes:
    """Return the bytes as they were sent, since those were signed; raises `HttpError`."""
    length = request.META.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in request.META
    if _ENCODED_SLASH.search(_raw_path(request)):
        # A proxy that lets some paths through, and others not, must see the same path as we do.
        raise HttpError(404, "there is nothing here")
    if length and chunked:
        # The server in front may have gone by the other header.
        raise HttpError(400, "Content-Length with Transfer-Encoding")
    if length and not _DIGITS.fullmatch(length):
        # Python refuses to read a number of thousands of digits, and Django would not expect it.
        number = length.isascii() and length.isdigit()
        raise _too_long() if number else HttpError(400, "Content-Length is no number")
    try:
        if chunked and isinstance(request, WSGIRequest):
            return _chunks(request)
        return request.body
    except RequestDataTooBig:
        raise _too_long() from None
    except (UnreadablePostError, OSError):
        raise HttpError(400, "the request was cut off") from None


def _chunks(request: WSGIRequest) -> bytes:
    # Django reads as much as Content-Length says, and so nothing of a body that comes in chunks.
    # A server that marks its end can be read to the end; with others the end is unknown.
    if not request.environ.get("wsgi.input_terminated"):
        raise HttpError(411, "send a Content-Length")
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    read = request.environ["wsgi.input"].read
    body: bytes = read() if limit is None else read(limit + 1)
    if limit is not None and len(body) > limit:
        raise _too_long()
    return body


def _too_long() -> HttpError:
    return HttpError(413, "the body is too long")


def _raw_path(request: HttpRequest) -> str:
    """Return the path as it was sent, if the server passes it on; else nothing."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        return (scope.get("raw_path") or b"").decode("latin-1")
    target = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
    return str(target).partition("?")[0]


def _response(answer: HttpAnswer) -> JsonResponse:
    response = JsonResponse(answer.body, status=answer.status, headers=answer.headers)
    response["Cache-Control"] = "no-store"
    return response


def webhook_place(connector: str, trigger: str) -> str | None:
    """Return the path at which the project takes webhooks of a trigger; None if it doesn't."""
    for name in _views(get_resolver()):
        with suppress(NoReverseMatch):  # its address has other parts too
            return str(reverse(name, args=[connector, trigger]))
    return None


def _views(resolver: URLResolver, spaces: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield what `reverse` takes of each view of webhooks, whatever includes it."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(
                pattern, (*spaces, pattern.namespace) if pattern.namespace else spaces
            )
        elif issubclass(getattr(pattern.callback, "view_class", object), WebhookView):
            yield ":".join((*spaces, pattern.name)) if pattern.name else pattern.callback


urlpatterns = [
    path("webhooks/<str:connector>/<str:trigger>", WebhookView.as_view(), name="webhook")
]
