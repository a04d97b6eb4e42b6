"""
A backend for Django's Tasks that keeps them in the outbox.

::

    TASKS = {"default": {"BACKEND": "automate_django.tasks.OutboxBackend"}}

Django 6.0 brings Tasks along. Below, the package ``django-tasks`` does, with the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_django.tasks.retries import retry
from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_django.tasks.backend import OutboxBackend
    from automate_django.tasks.results import TaskCancelledError, TaskLostError

__all__ = ["OutboxBackend", "TaskCancelledError", "TaskLostError", "retry"]


if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    # Not before it is asked for: others (Celery, say) import every app's ``tasks``, and below
    # Django 6.0 the package that the backend needs may not be there.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"backend": ("OutboxBackend",), "results": ("TaskCancelledError", "TaskLostError")},
    )
