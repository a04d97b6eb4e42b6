"""What all operator pages share: the frame, the tabs, fragments for polling, no stock editing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST, require_safe

from automate_django.admin.guarding import Guarded
from automate_django.admin.pages.navigation import home_url, page_url, tabs

__all__ = ["FRAGMENT_HEADER", "PageAdmin", "Section", "Tabbed"]

FRAGMENT_HEADER = "X-Automate-Fragment"
"""Tells the polling script that an answer is a part of a page; ``stop`` ends the polling."""

View = Callable[..., HttpResponseBase]


class Tabbed(Guarded):
    """Django's own list and form, with the tabs of the operator pages above them."""

    current = ""
    refuses_nul = False  # the operator pages read their addresses without it
    change_list_template: ClassVar[Any] = "admin/automate_django/change_list.html"
    change_form_template: ClassVar[Any] = "admin/automate_django/change_form.html"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Django's own list, below the tabs."""
        return super().changelist_view(request, self._with_tabs(request, extra_context))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """Django's own form, below the tabs."""
        context = self._with_tabs(request, extra_context)
        return super().changeform_view(request, object_id, form_url, context)

    def _with_tabs(self, request: HttpRequest, extra: Any) -> dict[str, Any]:
        return {"tabs": tabs(request, self.admin_site, self.current), **(extra or {})}


class PageAdmin(Tabbed):
    """
    The base of the admin classes of the kernel's tables.

    Rows are the kernel's to write, so nothing is added, edited or deleted here; what changes
    something calls the kernel. *current* is the tab that the pages belong to.
    """

    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes rows by hand."""
        return False

    # -- answering -----------------------------------------------------------------------------

    def frame(
        self, request: HttpRequest, title: str, *, current: str = "", **context: Any
    ) -> dict[str, Any]:
        """The context that ``admin/automate_django/base.html`` wants, and *context*."""
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "tabs": tabs(request, self.admin_site, current or self.current),
            "automate_home": home_url(request, self.admin_site),
            **context,
        }

    def page(
        self, request: HttpRequest, template: str, title: str, *, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """A page made of ``templates/admin/automate_django/TEMPLATE``."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/automate_django/{template}",
            self.frame(request, title, **context),
            status=status,
        )

    def fragment(
        self, request: HttpRequest, template: str, *, stop: bool = False, **context: Any
    ) -> TemplateResponse:
        """A part of a page, for the polling script; with *stop* it asks no more."""
        request.current_app = self.admin_site.name
        headers = {FRAGMENT_HEADER: "stop" if stop else "more"}
        return TemplateResponse(
            request, f"admin/automate_django/{template}", context, headers=headers
        )

    # -- addresses -----------------------------------------------------------------------------

    def url(self, name: str, *args: object) -> str:
        """The URL of a page of this site by its name, without ``admin:``."""
        return page_url(self.admin_site, name, *args)

    def get(self, route: str, view: View, name: str) -> URLPattern:
        """A page of this admin that is only read; its view asks for permissions itself."""
        return self._route(route, require_safe(view), name)

    def post(self, route: str, view: View, name: str) -> URLPattern:
        """What changes something: refused unless it is posted, with Django's CSRF check."""
        return self._route(route, require_POST(view), name)

    def _route(self, route: str, view: View, name: str) -> URLPattern:
        wrapped = self.admin_site.admin_view(view)
        return path(route, update_wrapper(wrapped, view), name=name)

    def get_urls(self) -> list[Any]:
        """The pages of `pages`, before Django's own."""
        return [*self.pages(), *super().get_urls()]

    def pages(self) -> Sequence[URLPattern]:
        """The additional pages; made with `get` and `post`."""
        return ()


class Section:
    """
    Pages that belong to no table: they live below the addresses of *owner*, an admin class.

    *current* is the tab that they belong to.
    """

    current = ""

    def __init__(self, owner: PageAdmin) -> None:
        self.owner = owner
        self.url = owner.url

    def page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """See `PageAdmin.page`."""
        return self.owner.page(request, template, title, current=self.current, **context)

    def urls(self) -> Sequence[URLPattern]:
        """The addresses; made with `PageAdmin.get` and `PageAdmin.post`."""
        raise NotImplementedError
