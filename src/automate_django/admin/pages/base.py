"""The common part of the pages that edit workflows: frame and addresses, no stock editing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.views.decorators.http import require_POST, require_safe

from automate_django.admin.guard import GuardedAdmin
from automate_django.admin.pages.access import reach_of

View = Callable[..., HttpResponseBase]


class Link(NamedTuple):
    """A link: its label, and where it leads."""

    label: str
    url: str = ""


class PageAdmin(GuardedAdmin):
    """The base of the admin class of workflows: what changes something calls the kernel."""

    actions = None
    refuses_nul = False  # the pages read their addresses without it

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: nobody adds rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody deletes rows by hand."""
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that the user may see; Django's own history page asks for them here."""
        return reach_of(request).rows(self.model)

    def find(self, request: HttpRequest, pk: Any) -> Any:
        """Return the row *pk*; raises ``Http404`` if there is none, or it is another's."""
        self.require_view(request)
        try:
            found = self.get_queryset(request).filter(pk=pk).first()
        except (TypeError, ValueError, ValidationError):
            found = None
        if found is None:
            raise Http404(f"There is no such {self.opts.verbose_name}, or it is not yours.")
        return found

    def require_view(self, request: HttpRequest) -> None:
        """Raise `PermissionDenied` unless the user may look at the pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied

    def require_change(self, request: HttpRequest, obj: Any = None) -> None:
        """Raise `PermissionDenied` unless the user may change *obj*, or anything."""
        if not self.has_change_permission(request, obj):
            raise PermissionDenied

    def page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """Return a page in the admin's frame."""
        home = self.url("automate_django_pages_changelist")
        return self.own_page(request, template, title, automate_home=home, **context)

    url = GuardedAdmin.own_url

    def get(self, route: str, view: View, name: str) -> URLPattern:
        """Return the address of a page that is only read. Its view checks permissions itself."""
        return self.own_path(route, require_safe(view), name)

    def post(self, route: str, view: View, name: str) -> URLPattern:
        """Return an address that takes POST alone, with Django's CSRF check."""
        return self.own_path(route, require_POST(view), name)

    def get_urls(self) -> list[Any]:
        """Return the pages of `pages`, before Django's own."""
        return [*self.pages(), *super().get_urls()]

    def pages(self) -> Sequence[URLPattern]:
        """Return the additional pages; made with `get` and `post`."""
        return ()
