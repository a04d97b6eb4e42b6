"""
Webhooks for a project, with or without Django REST framework.

::

    path("api/automate/", include("automate_django.webhooks"))

takes ``POST api/automate/webhooks/<connector>/<trigger>``. Who sends it proves itself by the
connector's signature, so the view asks for no login and no CSRF token.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from automate_django.kernel import get_kernel
from automate_kernel.webhooks import WebhookHeaders
from automate_kernel.webhooks.answers import HttpAnswer, answer_webhook

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
            body = request.body  # the bytes as they came: that is what was signed
        except RequestDataTooBig:
            return HttpAnswer(413, {"error": "the body is too long"})
        except UnreadablePostError:
            return HttpAnswer(400, {"error": "the request was cut off"})
        return answer_webhook(
            get_kernel().receive_webhook,
            connector,
            trigger,
            WebhookHeaders(request.headers.items()),
            body,
            tenant_id=self.get_tenant_id(request, connector, trigger),
        )


def _response(answer: HttpAnswer) -> JsonResponse:
    response = JsonResponse(answer.body, status=answer.status, headers=answer.headers)
    response["Cache-Control"] = "no-store"
    return response


urlpatterns = [
    path("webhooks/<str:connector>/<str:trigger>", WebhookView.as_view(), name="webhook"),
]
