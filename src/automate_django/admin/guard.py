"""
A guard of every page of an admin class, against values that a database refuses.

Django looks up what stands in an address (``?name=…``, ``/change/``) without asking whether the
database can; PostgreSQL can't with NUL, SQLite can't with a very large number. And between a form's
check of what is unique and the saving somebody else may save.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Any

from django.contrib import admin
from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from automate_django.refusals import Refusal, has_nul, refusal_of

_TEXTS = {
    Refusal.DUPLICATE: gettext_lazy("Another row has a value that must be unique."),
    Refusal.NEEDED: gettext_lazy("Other rows need this one."),
    Refusal.GONE: gettext_lazy("A row that this one refers to is not there any more."),
    Refusal.CHECK: gettext_lazy("The values don't fit together."),
}
_READS = ("GET", "HEAD", "OPTIONS")


class GuardedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    Answers 400 to what can't be looked up, and 409 to what another row stands against.

    What our own pages share stands here as well: their addresses, and their frame.
    """

    refuses_nul = True
    """True if an address with NUL in it is answered with 400 on every database alike."""

    @property
    def urls(self) -> list[Any]:
        """All pages, also those that a project adds, each guarded."""
        return [self._guarded(each) for each in self.get_urls()]

    def _guarded(self, pattern: Any) -> Any:
        if not isinstance(pattern, URLPattern):
            return pattern  # pages of a host's that it includes from elsewhere
        view = self._guarded_view(pattern.callback)
        return URLPattern(pattern.pattern, view, pattern.default_args, pattern.name)

    def _guarded_view(self, view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if self.refuses_nul:
                _refuse_nul(request)
            try:
                return view(request, *args, **kwargs)
            except Exception as error:
                refusal = refusal_of(error)
                if refusal is Refusal.VALUE:
                    raise BadRequest(refusal.value) from None
                if refusal is None or request.method in _READS:
                    raise  # who only reads has broken nothing: that is a bug
                return self._conflict(request, refusal)

        return guarded

    def _conflict(self, request: HttpRequest, refusal: Refusal) -> TemplateResponse:
        page = self.own_page(request, "bases/conflict.html", _("Not saved"), reason=_TEXTS[refusal])
        page.status_code = 409
        return page

    def own_page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """Return a page made of ``templates/admin/automate_django/TEMPLATE``."""
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "title": title, "opts": self.opts}
        template = f"admin/automate_django/{template}"
        return TemplateResponse(request, template, {**shared, **context})

    def own_path(self, route: str, view: Callable[..., Any], name: str) -> URLPattern:
        """Return the address of a page below this class's own, for who may enter the site."""
        return path(route, update_wrapper(self.admin_site.admin_view(view), view), name=name)

    def own_url(self, name: str, *args: object) -> str:
        """Return the URL of a page of this site by its name, without ``admin:``."""
        return reverse(f"admin:{name}", args=args, current_app=self.admin_site.name)

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search as Django does; also for an autocomplete, whose page belongs to the site."""
        if has_nul([search_term]):
            raise BadRequest(Refusal.VALUE.value)
        return super().get_search_results(request, queryset, search_term)


def _refuse_nul(request: HttpRequest) -> None:
    query = [text for name, texts in request.GET.lists() for text in (name, *texts)]
    if has_nul([request.path, *query]):
        raise BadRequest(Refusal.VALUE.value)
