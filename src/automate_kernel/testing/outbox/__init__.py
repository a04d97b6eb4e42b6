"""The test of an `OutboxStore`: subclass `OutboxStoreContract` in your own tests."""

from .contract import OutboxStoreContract

__all__ = ["OutboxStoreContract"]
