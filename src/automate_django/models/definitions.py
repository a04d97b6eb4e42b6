"""Workflows that are edited in the admin, with every version that they have had."""

# ruff: noqa: D106, DJ001, RUF012  (a Meta speaks for itself; a tenant of null is "everybody")

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import models


def document_key(name: str, tenant_id: str | None) -> str:
    """Return the unique key of a document. NULLs differ in SQL, so two columns would not do."""
    return hashlib.sha256(json.dumps([tenant_id, name]).encode()).hexdigest()


class WorkflowDocument(models.Model):
    """
    A workflow that is edited in the admin. Its text is in its versions.

    `automate_django.definitions` writes it, so that workers learn of the change.
    """

    key = models.CharField(max_length=64, unique=True, editable=False)
    name = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200, null=True, blank=True)
    """Its owner; None for a workflow of all tenants."""
    enabled = models.BooleanField(default=True)
    version = models.IntegerField(default=1)
    """The number of the version that counts."""
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "automate_workflow_document"
        verbose_name = "workflow"
        indexes = [models.Index(fields=["name"], name="automate_document_name")]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(models.Model):
    """One version of a workflow: its text, author and time. It never changes."""

    document = models.ForeignKey(
        WorkflowDocument, models.CASCADE, related_name="versions", db_constraint=False
    )
    number = models.IntegerField()
    format = models.CharField(max_length=8)
    source = models.TextField()
    definition = models.JSONField()
    """The definition in the source, in the form of `Workflow.to_dict`."""
    digest = models.CharField(max_length=64)
    """The definition's hash, which is the id that executions are pinned to."""
    restored_from = models.IntegerField(null=True)
    comment = models.CharField(max_length=500, blank=True)
    author = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "automate_workflow_version"
        verbose_name = "version of a workflow"
        verbose_name_plural = "versions of workflows"
        constraints = [
            models.UniqueConstraint(fields=["document", "number"], name="automate_version_number")
        ]

    def __str__(self) -> str:
        return f"version {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write a new version; raises TypeError for a version that is written already."""
        if not self._state.adding:
            raise TypeError("a version never changes: save a new version")
        super().save(*args, **kwargs)


class WorkflowStamp(models.Model):
    """One row, whose token changes with every change of a document. Workers look at it."""

    id = models.IntegerField(primary_key=True)
    token = models.CharField(max_length=32)

    class Meta:
        db_table = "automate_workflow_stamp"
        default_permissions = ()

    def __str__(self) -> str:
        return self.token
