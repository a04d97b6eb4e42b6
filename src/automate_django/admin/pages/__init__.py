"""
The admin's own pages: what an operator needs at three in the morning.

The project's admin site has them without being asked (see ``AUTOMATE_ADMIN``). `register` puts
them on another one, where that is made::

    from automate_django.admin.pages import register

    register(my_site)

Each module here has a ``register(site)`` of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite

__all__ = ["register"]


def register(site: AdminSite) -> None:
    """Put the operator pages on *site*; a model that is registered there already stays as it is."""
    from automate_django.admin.pages import audit, executions, outbox, tokens, workflows

    for module in (outbox, executions, workflows, tokens, audit):
        module.register(site)
