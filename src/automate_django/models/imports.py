"""The admin's uploads that await a confirmation."""

# ruff: noqa: D106, RUF012  (a Meta speaks for itself)

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.utils import timezone


class StagedImport(models.Model):
    """
    A file that was uploaded for import and is not imported yet.

    It waits here between the preview and the confirmation, so that the import is the one that was
    shown. *owner* is a digest of the user, the admin class and the tenant.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    owner = models.CharField(max_length=64, editable=False)
    filename = models.CharField(max_length=200, editable=False)
    format = models.CharField(max_length=16, editable=False)
    content = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        db_table = "automate_import"
        default_permissions = ()
        indexes = [models.Index(fields=["created_at"], name="automate_import_recent")]

    def __str__(self) -> str:
        return str(self.id)
