"""The test of an `OutboxStore`: subclass `OutboxStoreContract` in your own tests."""

from automate_testing.contracts.outbox.contract import OutboxStoreContract

__all__ = ["OutboxStoreContract"]
