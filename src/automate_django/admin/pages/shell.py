"""The operators' pages inside the admin's frame: Django's request in, the site's answer out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    QueryDict,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from automate_django.admin.bases.export import parts_async
from automate_django.admin.pages.rights import user_of
from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_django.operations import exposed_operations
from automate_django.webhooks import webhook_place
from automate_kernel.base.forks import new_lock
from automate_pages.exchange import HEADERS, FileAnswer, PageAnswer, PageRequest, SentFields
from automate_pages.live import LivePart, LiveParts
from automate_pages.operation_desk import OperationDesk
from automate_pages.site import Site
from automate_pages.users import User

_PART, _KEPT = "X-Automate-Part", "automate_kept"
_LEVELS = {"ok": messages.SUCCESS, "warn": messages.WARNING, "bad": messages.ERROR}
# The content's policy is the project's own: its admin may have scripts of elsewhere.
_HEADERS = {name: text for name, text in HEADERS.items() if not name.startswith("Content-Sec")}
_NOBODY = User("", (), "nobody's")
_NO_TENANT = "You belong to no tenant, so there is nothing to see. Ask who runs this project."


@dataclass(frozen=True, slots=True)
class _Served:
    """The pages of this process's kernel."""

    site: Site
    live: LiveParts


_lock = new_lock()
_served: _Served | None = None


def served() -> _Served:
    """Return the pages of this process's kernel; other settings make another."""
    global _served  # noqa: PLW0603  (one for the process, as its kernel)
    kernel = get_kernel()
    with _lock:
        if _served is None or _served.site.kernel is not kernel:
            desk = OperationDesk(exposed_operations("PAGES"))
            # Not the time zone of one request: all who look share what is rendered.
            local = partial(timezone.localtime, timezone=timezone.get_default_timezone())
            site = Site(kernel, operations=desk, local=local, webhooks=webhook_place)
            _served = _Served(site, LiveParts(site))
        return _served


def pages_view(admin_site: Any) -> Any:
    """
    Return the view of all pages, for the staff of *admin_site*.

    An order is no part of a transaction of the request: its entry in the audit trail has to stay
    even if this process dies of it.
    """

    @csrf_protect
    def checked(request: HttpRequest, path: str) -> HttpResponseBase:
        return _answer(request, path, admin_site)

    @csrf_exempt
    @non_atomic
    @require_http_methods(["GET", "HEAD", "POST"])
    def view(request: HttpRequest, path: str = "") -> HttpResponseBase:
        # The forms are those of every host. Django finds their token where a script would put it.
        if "csrf" in request.POST:
            request.META[settings.CSRF_HEADER_NAME] = request.POST["csrf"]
        return checked(request, path)

    return admin_site.admin_view(view)


def _answer(request: HttpRequest, path: str, admin_site: Any) -> HttpResponseBase:
    known, user = served(), user_of(request)
    home = reverse("admin:automate_django_pages_changelist", current_app=admin_site.name)
    asked = PageRequest(
        known.site.kernel,
        user or _NOBODY,
        path,
        base=home.removesuffix("/"),
        method="POST" if request.method == "POST" else "GET",
        query=_fields(request.GET),
        form=_fields(request.POST),
        part=request.headers.get(_PART) == "1",
        origin=request.build_absolute_uri("/").removesuffix("/"),
        kept=request.session.get(_KEPT, ""),
    )
    if user is None:
        refused = PageAnswer("problem.html", "Not allowed", {"lines": [_NO_TENANT]}, status=403)
        return _framed(request, asked, refused, admin_site)
    if asked.method == "GET" and "text/event-stream" in request.headers.get("accept", ""):
        return _stream(known.live, request, asked)
    if asked.method == "GET" and asked.part:
        part = known.live.part(asked, get_token(request))
        state = {_PART: "live" if part.live else "ended"}
        return HttpResponse(part.html, status=part.status, headers={**_HEADERS, **state})
    found = known.site.answer(asked)
    if asked.method == "POST":
        known.live.forget()
    if isinstance(found, PageAnswer):
        if found.kept:
            request.session[_KEPT] = found.kept
        return _framed(request, asked, found, admin_site)
    if isinstance(found, FileAnswer):
        is_asgi = isinstance(request, ASGIRequest)
        parts: Any = parts_async(found.parts) if is_asgi else found.parts
        headers = {**_HEADERS, **found.headers}
        return StreamingHttpResponse(parts, content_type=found.media_type, headers=headers)
    if found.notice:
        messages.add_message(request, _LEVELS[found.tone], found.notice)
    moved = HttpResponseRedirect(found.url, headers=_HEADERS)
    moved.status_code = 303
    return moved


def _framed(
    request: HttpRequest, asked: PageRequest, page: PageAnswer, admin_site: Any
) -> HttpResponse:
    html = served().site.render(asked, page, csrf=get_token(request), notice=None, framed=True)
    request.current_app = admin_site.name
    context = {
        **admin_site.each_context(request),
        "title": page.title,
        "base": asked.base,
        "page": mark_safe(html),  # noqa: S308  (its templates escape)
    }
    template = "admin/automate_django/pages.html"
    return TemplateResponse(request, template, context, status=page.status, headers=_HEADERS)


def _fields(sent: QueryDict) -> SentFields:
    return SentFields((name, text) for name, texts in sent.lists() for text in texts)


def _stream(live: LiveParts, request: HttpRequest, asked: PageRequest) -> HttpResponseBase:
    """Return a stream that tells of changes; under WSGI, where it would hold a thread, none."""
    if not isinstance(request, ASGIRequest) or live.full:
        return HttpResponse(status=204, headers=_HEADERS)  # the page polls, then

    def look() -> LivePart:
        try:
            return live.part(asked, "")
        finally:
            connections.close_all()  # this thread has nothing else to ask for 5 minutes

    headers = {**_HEADERS, "X-Accel-Buffering": "no"}
    stream = live.stream(asked, sync_to_async(look))
    return StreamingHttpResponse(stream, content_type="text/event-stream", headers=headers)
