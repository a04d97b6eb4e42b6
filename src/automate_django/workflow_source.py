"""Workflows of the database as the kernel asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error
from django.db.models import F

from automate_django.storage import DjangoStorage, is_open, mend, translated
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow


class DatabaseWorkflows:
    """
    The kernel's `WorkflowSource` on the tables of the admin's workflows.

    The tables are in the database that holds the outbox, so that an edit and its consequences are
    seen in one order.
    """

    def __init__(self, storage: DjangoStorage) -> None:
        self._storage = storage

    def __repr__(self) -> str:
        return f"DatabaseWorkflows({self._storage!r})"

    def stamp(self) -> str | None:
        """Return the token of the last change."""
        from automate_django.models import WorkflowStamp

        with self._database() as alias:
            stamps = WorkflowStamp.objects.using(alias).filter(pk=1)
            found: str | None = stamps.values_list("token", flat=True).first()
            return found

    def load(self) -> list[SuppliedWorkflow]:
        """Return the current versions of the enabled workflows, by name."""
        from automate_django.models import WorkflowVersion

        with self._database() as alias:
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
    def _database(self) -> Iterator[str]:
        connection = self._storage.connection
        if connection.errors_occurred and not is_open(connection):
            mend(connection)
        try:
            yield connection.alias
        except Error as error:
            raise translated(error, connection.alias) from error
