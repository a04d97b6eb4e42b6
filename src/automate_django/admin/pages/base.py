"""The common part of all operator pages: frame, tabs, fragments for polling, no stock editing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, ClassVar

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.views.decorators.http import require_POST, require_safe

from automate_django.admin.guard import GuardedAdmin
from automate_django.tenants import OPERATE


def _looking(model: str) -> tuple[str, ...]:
    """Return the permissions of which one opens a model's pages, as in Django's own."""
    return (f"automate_django.view_{model}", f"automate_django.change_{model}")


# What a page is called in `current`, its label, its URL's name, and permissions of which one is
# enough.
_PAGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("dashboard", "Dashboard", "automate_dashboard", (OPERATE,)),
    ("outbox", "Outbox", "automate_django_outboxitem_changelist", _looking("outboxitem")),
    ("kinds", "Kinds", "automate_kinds", (OPERATE,)),
    ("workers", "Workers", "automate_workers", (OPERATE,)),
    (
        "executions",
        "Executions",
        "automate_django_workflowexecution_changelist",
        _looking("workflowexecution"),
    ),
    ("workflows", "Workflows", "automate_workflows", _looking("workflowdocument")),
    ("plugins", "Plugins", "automate_plugins", (OPERATE,)),
    ("tokens", "API tokens", "automate_django_apitoken_changelist", _looking("apitoken")),
    ("audit", "Audit", "automate_django_auditentry_changelist", _looking("auditentry")),
)


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab: where it leads, and whether it is the page that is shown."""

    label: str
    url: str
    current: bool


def page_url(site: AdminSite, name: str, *args: object) -> str:
    """Return the URL of a page of *site* by its name; raises `NoReverseMatch`."""
    return reverse(f"admin:{name}", args=args, current_app=site.name)


def tabs(request: HttpRequest, site: AdminSite, current: str = "") -> list[Tab]:
    """Return the pages of *site* that the user may see, in order."""
    return list(_tabs(request, site, current))


def _tabs(request: HttpRequest, site: AdminSite, current: str) -> Iterator[Tab]:
    user: Any = request.user
    for name, label, url_name, permissions in _PAGES:
        if not any(map(user.has_perm, permissions)):
            continue
        try:
            url = page_url(site, url_name)
        except NoReverseMatch:
            continue  # not registered on this site
        yield Tab(label, url, name == current)


def home_url(request: HttpRequest, site: AdminSite) -> str:
    """
    Return the address of "Automation" in the breadcrumbs: the first page that the user may see.
    """
    return next((tab.url for tab in _tabs(request, site, "")), "")


FRAGMENT_HEADER = "X-Automate-Fragment"
"""Tells the polling script that an answer is a part of a page; ``stop`` ends the polling."""

View = Callable[..., HttpResponseBase]


class TabbedAdmin(GuardedAdmin):
    """Django's own list and form, with the tabs of the operator pages above them."""

    current = ""
    refuses_nul = False  # the operator pages read their addresses without it
    change_list_template: ClassVar[Any] = "admin/automate_django/change_list.html"
    change_form_template: ClassVar[Any] = "admin/automate_django/change_form.html"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show Django's own list, below the tabs."""
        return super().changelist_view(request, self._with_tabs(request, extra_context))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """Show Django's own form, below the tabs."""
        context = self._with_tabs(request, extra_context)
        return super().changeform_view(request, object_id, form_url, context)

    def _with_tabs(self, request: HttpRequest, extra: Any) -> dict[str, Any]:
        return {"tabs": tabs(request, self.admin_site, self.current), **(extra or {})}


class PageAdmin(TabbedAdmin):
    """
    The base of the admin classes of the kernel's tables.

    Rows are the kernel's to write, so nothing is added, edited or deleted here; what changes
    something calls the kernel. *current* is the tab that the pages belong to.
    """

    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: nobody adds rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody deletes rows by hand."""
        return False

    def require_view(self, request: HttpRequest) -> None:
        """Raise `PermissionDenied` unless the user may look at the pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied

    # -- answering -----------------------------------------------------------------------------

    def page(
        self,
        request: HttpRequest,
        template: str,
        title: str,
        *,
        current: str = "",
        **context: Any,
    ) -> TemplateResponse:
        """Return a page made of ``templates/admin/automate_django/TEMPLATE``."""
        request.current_app = self.admin_site.name
        shared = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "tabs": tabs(request, self.admin_site, current or self.current),
            "automate_home": home_url(request, self.admin_site),
        }
        return TemplateResponse(request, f"admin/automate_django/{template}", {**shared, **context})

    def fragment(
        self, request: HttpRequest, template: str, *, stop: bool = False, **context: Any
    ) -> TemplateResponse:
        """Return a part of a page for the polling script, which *stop* ends."""
        request.current_app = self.admin_site.name
        headers = {FRAGMENT_HEADER: "stop" if stop else "more"}
        return TemplateResponse(
            request, f"admin/automate_django/{template}", context, headers=headers
        )

    # -- addresses -----------------------------------------------------------------------------

    def url(self, name: str, *args: object) -> str:
        """Return the URL of a page of this site by its name, without ``admin:``."""
        return page_url(self.admin_site, name, *args)

    def get(self, route: str, view: View, name: str) -> URLPattern:
        """Return the address of a page that is only read. Its view checks permissions itself."""
        return self._route(route, require_safe(view), name)

    def post(self, route: str, view: View, name: str) -> URLPattern:
        """Return an address that takes POST alone, with Django's CSRF check."""
        return self._route(route, require_POST(view), name)

    def _route(self, route: str, view: View, name: str) -> URLPattern:
        wrapped = self.admin_site.admin_view(view)
        return path(route, update_wrapper(wrapped, view), name=name)

    def get_urls(self) -> list[Any]:
        """Return the pages of `pages`, before Django's own."""
        return [*self.pages(), *super().get_urls()]

    def pages(self) -> Sequence[URLPattern]:
        """Return the additional pages; made with `get` and `post`."""
        return ()


class PageSection:
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
        """Return a page; see `PageAdmin.page`."""
        return self.owner.page(request, template, title, current=self.current, **context)

    def urls(self) -> Sequence[URLPattern]:
        """Return the addresses, made with `PageAdmin.get` and `PageAdmin.post`."""
        raise NotImplementedError
