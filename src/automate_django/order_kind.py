"""The kind of the outbox items that are orders for very many others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["ORDER_KIND", "add_orders"]

ORDER_KIND = "automate.order"


def add_orders(kernel: Kernel) -> None:
    """Let workers of *kernel* carry out what operators order in the admin, if there is one."""
    if apps.is_installed("django.contrib.admin"):
        kernel.handler(ORDER_KIND)(_handle)


def _handle(item: Any) -> Any:
    # The pages are imported by who needs them: they belong to the admin.
    from automate_django.admin.pages.standing import carry_out

    return carry_out(item)
