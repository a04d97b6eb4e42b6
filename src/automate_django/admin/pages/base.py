"""The common part of all operator pages: frame, tabs, fragments for polling, no stock editing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern
from django.views.decorators.http import require_POST, require_safe

from automate_django import conf
from automate_django.admin.guard import GuardedAdmin
from automate_django.admin.pages.access import reach_of
from automate_django.operations import CALL
from automate_django.tenants import OPERATE

# What a page is called in `current` and its label; and the model whose list it is, and whose
# permissions it takes. Pages without a model are for operators.
_PAGES: tuple[tuple[str, str, str], ...] = (
    ("dashboard", "Dashboard", ""),
    ("outbox", "Outbox", "outboxitem"),
    ("kinds", "Kinds", ""),
    ("workers", "Workers", ""),
    ("executions", "Executions", "workflowexecution"),
    ("approvals", "Approvals", "workflowwait"),
    ("workflows", "Workflows", "workflowdocument"),
    ("operations", "Operations", ""),
    ("plugins", "Plugins", ""),
    ("tokens", "API tokens", "apitoken"),
    ("audit", "Audit", "auditentry"),
)
_PERMISSIONS = {"operations": CALL}
FRAGMENT_HEADER = "X-Automate-Fragment"
"""Tells the polling script that an answer is a part of a page; ``stop`` ends the polling."""
View = Callable[..., HttpResponseBase]


class Link(NamedTuple):
    """A tab, or another link: where it leads, and whether it is the page that is shown."""

    label: str
    url: str = ""
    current: bool = False


class TabbedAdmin(GuardedAdmin):
    """Django's own list and form, with the tabs of the operator pages above them."""

    current = ""
    refuses_nul = False  # the operator pages read their addresses without it
    change_list_template: ClassVar[Any] = "admin/automate_django/change_list.html"
    change_form_template: ClassVar[Any] = "admin/automate_django/change_form.html"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show Django's own list, below the tabs."""
        context = {"tabs": self.tabs(request, self.current), **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(self, request: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Show Django's own form, below the tabs."""
        context = {"tabs": self.tabs(request, self.current), **context}
        return super().render_change_form(request, context, *args, **kwargs)

    def tabs(self, request: HttpRequest, current: str) -> list[Link]:
        """Return the pages of this site that the user may see, in order."""
        user: Any = request.user
        found = []
        for name, label, model in _PAGES:
            looking = [f"automate_django.{may}_{model}" for may in ("view", "change")]
            if not model:
                looking = [_PERMISSIONS.get(name, OPERATE)]
            if not any(map(user.has_perm, looking)):
                continue
            if name == "operations" and not conf.option("AUTOMATE_OPERATIONS", "PAGES"):
                continue  # none are offered
            page = f"automate_django_{model}_changelist" if model else f"automate_{name}"
            try:
                found.append(Link(label, self.url(page), name == current))
            except NoReverseMatch:
                continue  # not registered on this site
        return found

    url = GuardedAdmin.own_url


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
        self,
        request: HttpRequest,
        template: str,
        title: str,
        *,
        current: str = "",
        **context: Any,
    ) -> TemplateResponse:
        """Return a page below the tabs; *current* is the one that it belongs to."""
        tabs = self.tabs(request, current or self.current)
        # "Automation" in the breadcrumbs leads to the first page that the user may see.
        home = tabs[0].url if tabs else ""
        return self.own_page(request, template, title, tabs=tabs, automate_home=home, **context)

    def fragment(
        self, request: HttpRequest, template: str, *, stop: bool = False, **context: Any
    ) -> TemplateResponse:
        """Return a part of a page for the polling script, which *stop* ends."""
        request.current_app = self.admin_site.name
        template = f"admin/automate_django/{template}"
        headers = {FRAGMENT_HEADER: "stop" if stop else "more"}
        return TemplateResponse(request, template, context, headers=headers)

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


class PageSection:
    """
    Pages that belong to no table: they live below the addresses of *owner*, an admin class.

    *current* is the tab that they belong to.
    """

    current = ""

    def __init__(self, owner: PageAdmin) -> None:
        self.owner = owner
        self.url = owner.url
        self.page = partial(owner.page, current=self.current)

    def urls(self) -> Sequence[URLPattern]:
        """Return the addresses, made with `PageAdmin.get` and `PageAdmin.post`."""
        raise NotImplementedError
