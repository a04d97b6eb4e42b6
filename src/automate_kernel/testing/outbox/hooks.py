"""The hooks of the contract: a subclass supplies or overrides them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from automate_kernel.outbox import ItemStatus, OutboxItem, OutboxStore
from automate_kernel.testing.clock import FakeClock

# Longer than any backoff that a store may give to an item whose worker died.
LONG_SECONDS = 86_400.0


class StoreHooks:
    """The hooks of the contract, and what its groups share."""

    supports_clock = True
    """True if the store reads the fixture `clock`, so that leases can end without waiting."""
    supports_transactions = True
    """True if items can be enqueued and finished in the application's transaction."""
    supports_waiting = True
    """True if competing calls wait for each other; else one may fail and be retryable."""
    supports_ordering_keys = True
    supports_reports = True
    """True if the store keeps the reports of workers."""
    supports_concurrency_keys = True
    supports_waiting_for_slots = True
    """True if calls that compete for a concurrency key wait, as with `supports_waiting`."""
    supports_control = True
    """True if items can be changed by filter, rescheduled, discarded and asked to stop."""
    supports_limits = True
    supports_retention = True
    """True if it deletes finished items by itself after their time."""
    supports_failures = True
    """True if it keeps the error of every attempt, and groups errors."""
    supports_labels = True
    """True if items are found by labels."""
    supports_sharing = True
    """True if a claim is shared among kinds and tenants."""
    supports_ageing = True
    """True if an old item goes before a new one of higher priority in the end."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Make the clock of the store."""
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> OutboxStore:
        """Make an empty store."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'store'")

    def kept(
        self, store: OutboxStore, seconds: float | None, failed_seconds: float | None = None
    ) -> OutboxStore:
        """Return a store on the same data that keeps finished items for *seconds*."""
        store.retention_seconds = seconds
        store.failed_retention_seconds = failed_seconds
        return store

    def another(self, store: OutboxStore) -> OutboxStore:
        """Return a second store on the same data, as another process would have it."""
        pytest.skip(f"{type(self).__name__} has no second store")

    def transaction(self, store: OutboxStore) -> AbstractContextManager[Any]:
        """Begin an application's transaction, which rolls back if the block raises."""
        return store.transaction()

    # -- shared by the groups ----------------------------------------------------------------

    def need(self, *features: str) -> None:
        """Skip the test unless all *features* are supported."""
        for feature in features:
            if not getattr(self, f"supports_{feature}"):
                pytest.skip(f"{type(self).__name__} doesn't support {feature}")

    def claim_one(self, store: OutboxStore, worker_id: str = "worker") -> OutboxItem:
        """Claim the one item that is due."""
        (item,) = store.claim_batch(worker_id)
        return item

    def claim_ids(
        self, store: OutboxStore, worker_id: str = "worker", limit: int = 10
    ) -> list[str]:
        """Claim items and return their ids, in order."""
        return [item.id for item in store.claim_batch(worker_id, limit)]

    def expire(self, store: OutboxStore, clock: FakeClock) -> None:
        """End all leases, recover their items and let them become due."""
        clock.advance(store.lease_seconds + 1)
        store.reap()
        clock.advance(LONG_SECONDS)

    def see(self, store: OutboxStore, item_id: str) -> OutboxItem:
        """Return the item with this id, which must exist."""
        item = store.get(item_id)
        assert item is not None
        return item

    def statuses(self, store: OutboxStore, item_ids: Sequence[str]) -> list[ItemStatus]:
        """Return the states of these items."""
        return [self.see(store, item_id).status for item_id in item_ids]
