"""The operators' pages as a model, so that an admin site has an address for them, and a door."""

from __future__ import annotations

from django.db import models


class Pages(models.Model):
    """No table: Django's admin knows what it lists by models alone."""

    class Meta:  # noqa: D106
        managed = False
        default_permissions = ()
        verbose_name = "operators' page"
        verbose_name_plural = "operators' pages"

    def __str__(self) -> str:
        return "operators' pages"
