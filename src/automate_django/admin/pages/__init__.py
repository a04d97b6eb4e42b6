"""
The operator's pages in the admin: outbox, executions, workflows, tokens and audit trail.

The project's admin site has them without being asked (see ``AUTOMATE_ADMIN``). `register` puts
them on another one, where that is made::

    from automate_django.admin.pages import register

    register(my_site)

A class that is registered there already stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

__all__ = ["register"]


def register(site: AdminSite) -> None:
    """Put the operator pages on *site*; a model that is registered there already stays as it is."""
    from automate_django import models
    from automate_django.admin.pages import doors
    from automate_django.admin.pages.tokens import ApiTokenAdmin

    for model, page in (
        (models.Pages, doors.PagesAdmin),
        (models.OutboxItem, doors.OutboxItemDoor),
        (models.WorkflowExecution, doors.WorkflowExecutionDoor),
        (models.WorkflowWait, doors.WorkflowWaitDoor),
        (models.WorkflowDocument, doors.WorkflowDocumentDoor),
        (models.ApiToken, ApiTokenAdmin),
        (models.AuditEntry, doors.AuditEntryDoor),
    ):
        if not site.is_registered(model):
            site.register(model, page)
