"""Workflows of the database as the kernel asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import Error
from django.db.models import F

from automate_django.storage import is_open, translated
from automate_kernel.workflows.catalogue import SuppliedWorkflow

if TYPE_CHECKING:
    from automate_django.storage import DjangoStorage

__all__ = ["DatabaseWorkflows"]


class DatabaseWorkflows:
    """
    The kernel's `WorkflowSource` on the tables of the admin's workflows.

    They are in the database that holds the outbox, so that an edit and what follows from it are
    seen in one order.
    """

    def __init__(self, storage: DjangoStorage) -> None:
        self._storage = storage

    def __repr__(self) -> str:
        return f"DatabaseWorkflows({self._storage!r})"

    def stamp(self) -> str | None:
        """The token of the last change."""
        from automate_django.models import WorkflowStamp

        with self._asking() as alias:
            stamps = WorkflowStamp.objects.using(alias).filter(pk=1)
            found: str | None = stamps.values_list("token", flat=True).first()
            return found

    def load(self) -> list[SuppliedWorkflow]:
        """The current versions of those that are switched on, by name."""
        from automate_django.models import WorkflowVersion

        with self._asking() as alias:
            current = WorkflowVersion.objects.using(alias).filter(
                document__enabled=True, number=F("document__version")
            )
            found = current.order_by("document__name", "document_id").values_list(
                "document__name", "document__tenant_id", "definition"
            )
            return [
                SuppliedWorkflow(name=name, tenant_id=tenant_id, definition=definition)
                for name, tenant_id, definition in found
            ]

    @contextmanager
    def _asking(self) -> Iterator[str]:
        connection = self._storage.connection
        if connection.errors_occurred and not is_open(connection):
            # A worker's thread outlives a restart of the server: nobody else looks after it.
            connection.close_if_unusable_or_obsolete()
        try:
            yield connection.alias
        except Error as error:
            raise translated(error, connection.alias) from error
