"""
The page behind the link of an approval, with or without Django REST framework.

::

    path("api/automate/", include("automate_django.approvals"))

takes ``api/automate/approvals/<token>``; ``AUTOMATE_APPROVALS["PUBLIC_URL"]`` says how people reach
``api/automate``. The link proves who decides, so the view requires no login and no CSRF token. A
project gives the page its own look with a template ``automate_django/approval.html``, which gets
the `LinkPage` as ``page``.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_kernel.http.approvals import STYLE, LinkPage, decide, page_headers, page_html, show


# In a transaction of its own: what fails is rolled back, and answered.
@method_decorator([csrf_exempt, non_atomic], name="dispatch")
class ApprovalView(View):
    """Shows what is asked, and takes the answer. Looking decides nothing."""

    http_method_names = ["get", "head", "post"]  # noqa: RUF012  (as Django has it)
    template_name = "automate_django/approval.html"

    def get(self, request: HttpRequest, token: str, **kwargs: Any) -> HttpResponse:
        """Answer 200 with the form; 410 for a link that is no good, whatever the reason."""
        return self.answer(request, show(get_kernel().approvals, token))

    def post(self, request: HttpRequest, token: str, **kwargs: Any) -> HttpResponse:
        """Answer 200 for a decision, 422 with what is wrong, 410 for a link that is no good."""
        return self.answer(request, decide(get_kernel().approvals, token, request.POST.items()))

    def answer(self, request: HttpRequest, page: LinkPage) -> HttpResponse:
        """Return *page* as HTML that nobody keeps, frames or passes on."""
        try:
            own = get_template(self.template_name)
        except TemplateDoesNotExist:
            if self.template_name != ApprovalView.template_name:
                raise  # it is misspelt
            html, style = page_html(page), STYLE
        else:
            html, style = own.render({"page": page}, request), ""
        response = HttpResponse(html, status=page.status)
        for name, value in page_headers(style).items():
            response.headers.setdefault(name, value)
        return response


urlpatterns = [path("approvals/<str:token>", ApprovalView.as_view(), name="approval")]
