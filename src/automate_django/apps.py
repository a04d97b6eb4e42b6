"""The Django app: add ``"automate_django"`` to ``INSTALLED_APPS`` and run ``migrate``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed

__all__ = ["AutomateConfig"]


class AutomateConfig(AppConfig):
    """automate-kernel in this project."""

    name = "automate_django"
    verbose_name = "Automation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Pass the kernel's signals on to Django's, and have the settings checked."""
        from automate_django import checks  # noqa: F401  (registers them)
        from automate_django.api import checks as api_checks  # noqa: F401
        from automate_django.kernel import forget_kernel
        from automate_django.signals import connect_forwarders

        connect_forwarders()
        setting_changed.connect(forget_kernel, dispatch_uid="automate_django.kernel")
