"""The doors from the admin's index to the operators' pages: a class for each table that has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.urls import path, reverse
from django.views.static import serve

import automate_pages
from automate_django.admin.pages.access import reach_of
from automate_django.admin.pages.rights import user_of
from automate_django.admin.pages.shell import pages_view

_HOME = "admin:automate_django_pages_changelist"
_STATIC = Path(automate_pages.__file__).parent / "static"


class PagesDoor(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    A table that is a door to the pages: rows are looked at there, and nothing is edited here.

    *screen* is the path of the pages that the list of the table leads to.
    """

    screen = ""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: nobody adds rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody deletes rows by hand."""
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows that the user may see, for what else of the admin asks."""
        return reach_of(request).rows(self.model)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Lead to the screen, with what the address asks for."""
        return self._to(request, self.screen)

    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Lead to the page of a row."""
        if object_id is None:
            raise PermissionDenied
        return self._to(request, *self.place_of(request, object_id))

    def history_view(self, request: HttpRequest, object_id: Any, extra_context: Any = None) -> Any:
        """Lead to the page of a row, which says who has steered it."""
        return self._to(request, *self.place_of(request, object_id))

    def place_of(self, request: HttpRequest, object_id: str) -> list[str]:
        """Return the parts of the path of a row's page."""
        return [self.screen, unquote(object_id)]

    def _to(self, request: HttpRequest, *place: str) -> HttpResponseRedirect:
        base = reverse(_HOME, current_app=self.admin_site.name)
        # A part is one part, whatever a key in an address holds.
        parts = "/".join(quote(part, safe="") for part in place)
        query = f"?{request.GET.urlencode()}" if request.GET and len(place) == 1 else ""
        return HttpResponseRedirect(f"{base}{parts}{query}")


class OutboxItemDoor(PagesDoor):
    """Leads to the outbox, and to its items."""

    screen = "outbox"


class WorkflowExecutionDoor(PagesDoor):
    """Leads to the executions."""

    screen = "executions"


class AuditEntryDoor(PagesDoor):
    """Leads to the audit trail."""

    screen = "audit"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody writes here, superusers included."""
        return False

    def place_of(self, request: HttpRequest, object_id: str) -> list[str]:
        """Return the list: an entry has no page of its own."""
        return [self.screen]


class WorkflowWaitDoor(PagesDoor):
    """Leads to the approvals."""

    screen = "approvals"

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the approvals that the user may see."""
        return super().get_queryset(request).filter(about="approval")

    def place_of(self, request: HttpRequest, object_id: str) -> list[str]:
        """Return the step that waits for the decision."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404("There is no such approval, or it is not yours.")
        return [self.screen, str(row.execution_id), row.step_id, str(row.position)]


class WorkflowDocumentDoor(PagesDoor):
    """Leads to the workflows, and to the editor of those in the database."""

    screen = "workflows"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may make a workflow: for the own tenant, or for all."""
        user = user_of(request)
        return user is not None and user.may("edit", "documents")

    def changeform_view(self, request: Any, object_id: Any = None, *_: Any, **__: Any) -> Any:
        """Lead to the versions of a workflow, or to the editor for a new one."""
        return self._to(request, *self.place_of(request, object_id or "new"))

    def place_of(self, request: HttpRequest, object_id: str) -> list[str]:
        """Return the place of the workflow's versions."""
        return ["documents", unquote(object_id)]


class PagesAdmin(PagesDoor):
    """The pages themselves, at an address of the admin's own, and the door to the first of them."""

    def get_urls(self) -> list[Any]:
        """Return the address of the first page, which has the name of a list, and of all others."""
        view = pages_view(self.admin_site)
        return [
            path("", view, name="automate_django_pages_changelist"),
            path("static/<path:path>", serve, {"document_root": _STATIC}),
            path("<path:path>", view, name="automate_page"),
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may see any of the pages."""
        user = user_of(request)
        return user is not None and user.may("view", "home")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the index says "view"."""
        return False
