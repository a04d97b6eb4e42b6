"""The tests of an `OutboxStore`, and of its operators' part: subclass them in your own tests."""

from automate_testing.contracts.outbox.contract import OutboxControlsContract, OutboxStoreContract

__all__ = ["OutboxControlsContract", "OutboxStoreContract"]
