"""
A backend for Django's Tasks that keeps them in the outbox.

::

    TASKS = {"default": {"BACKEND": "automate_django.tasks.OutboxBackend"}}

Django 6.0 brings Tasks along. Below, the package ``django-tasks`` does, with the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_django.tasks.retries import retry

if TYPE_CHECKING:
    from automate_django.tasks.backend import OutboxBackend
    from automate_django.tasks.results import TaskCancelledError, TaskLostError

__all__ = ["OutboxBackend", "TaskCancelledError", "TaskLostError", "retry"]

_HOMES = {
    "OutboxBackend": "automate_django.tasks.backend",
    "TaskCancelledError": "automate_django.tasks.results",
    "TaskLostError": "automate_django.tasks.results",
}


if not TYPE_CHECKING:  # it would give every name, misspelt ones too

    def __getattr__(name: str) -> Any:
        # Not before it is asked for: others (Celery, say) import every app's ``tasks``, and below
        # Django 6.0 the package that the backend needs may not be there.
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
