"""Models of the admin: its audit trail, and uploads that await a confirmation."""

# ruff: noqa: D106, DJ001, RUF012  (a Meta speaks for itself; null means "nobody" and "no tenant")

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """
    One change in the admin, or one export.

    The names are kept as text, so that an entry outlives the user, the object and the model.
    """

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    actor_id = models.CharField(max_length=64, null=True, editable=False)
    actor = models.CharField(max_length=150, blank=True, editable=False)
    tenant_id = models.CharField(max_length=200, null=True, editable=False)
    action = models.CharField(max_length=32, editable=False)
    model = models.CharField(max_length=200, editable=False)
    object_id = models.CharField(max_length=255, null=True, editable=False)
    object_repr = models.CharField(max_length=200, blank=True, editable=False)
    changes = models.JSONField(default=dict, editable=False)
    details = models.JSONField(default=dict, editable=False)

    class Meta:
        db_table = "automate_audit"
        verbose_name_plural = "audit"
        indexes = [
            models.Index(fields=["created_at"], name="automate_audit_recent"),
            models.Index(fields=["tenant_id", "created_at"], name="automate_audit_tenant"),
            models.Index(fields=["model", "object_id"], name="automate_audit_object"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.model} {self.object_id or ''}".rstrip()


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
