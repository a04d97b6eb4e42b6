"""The operators' pages as a model, so that an admin site has an address for them, and a door."""

from __future__ import annotations

from automate_django.models.tables import OutboxItem


class Pages(OutboxItem):
    """No rows of its own: Django's admin knows what it lists by models alone."""

    class Meta:  # noqa: D106
        proxy = True
        default_permissions = ()
        verbose_name = "operators' page"
        verbose_name_plural = "operators' pages"
