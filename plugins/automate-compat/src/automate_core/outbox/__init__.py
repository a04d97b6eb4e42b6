"""The outbox, under the specification's module paths."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_django.models import OutboxItem as OutboxItem


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        # At first use: a model can't be imported before Django's apps are loaded.
        if name != "OutboxItem":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from automate_django.models import OutboxItem

        return OutboxItem
