"""The Django app: add ``"automate_django"`` to ``INSTALLED_APPS`` and run ``migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel


class AutomateConfig(AppConfig):
    """automate-kernel in this project."""

    name = "automate_django"
    verbose_name = "Automation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Pass the kernel's signals on to Django's, add our handlers, and register the checks."""
        from automate_django import checks  # noqa: F401  (registers them)
        from automate_django.bulk_actions import add_bulk_actions
        from automate_django.kernel import extend_kernel, forget_kernel
        from automate_django.signals import connect_forwarders

        connect_forwarders()
        extend_kernel(_add_tasks)
        extend_kernel(add_bulk_actions)
        setting_changed.connect(forget_kernel, dispatch_uid="automate_django.kernel")
        post_migrate.connect(_look_again, sender=self, dispatch_uid="automate_django.workflows")


def _look_again(**_: Any) -> None:
    """Forget the workflows of tables that were emptied: by ``flush``, as after a test."""
    from automate_django.kernel import current_kernel

    kernel = current_kernel()
    if kernel is not None:
        kernel.workflows.look_again()


def _add_tasks(kernel: Kernel) -> None:
    """Let workers of *kernel* run the project's tasks, if it has any."""
    if not getattr(settings, "TASKS", None):
        return
    try:
        from automate_django.tasks.runner import add_tasks
    except ImproperlyConfigured:
        return  # below Django 6.0 without django-tasks: TASKS is somebody else's setting
    add_tasks(kernel)
