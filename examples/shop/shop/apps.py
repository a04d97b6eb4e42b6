"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The shop."""

    name = "shop"

    def ready(self) -> None:
        """Have the signal receivers connected, and the filters there before workflows are read."""
        from shop import filters, receivers  # noqa: F401
