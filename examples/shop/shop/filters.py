"""A filter for the templates in the workflows: ``{{ total | money('EUR') }}``."""

from __future__ import annotations

from automate_kernel import register_filter


@register_filter("money")
def money(amount: str | float, currency: str) -> str:
    """Write an amount for people."""
    return f"{float(amount):,.2f} {currency}"
