"""What a subclass of the contract may supply or override."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from automate_kernel.outbox import ItemStatus, OutboxItem, OutboxStore
from automate_kernel.testing.clock import FakeClock

__all__ = ["StoreHooks"]

# Longer than any backoff that a store may give to an item whose worker died.
LONG_SECONDS = 86_400.0


class StoreHooks:
    """The hooks of the contract, and what its groups share."""

    supports_clock = True
    """Whether the store reads the fixture `clock`, so that leases can end without waiting."""
    supports_transactions = True
    """Whether items can be enqueued and finished in the host's transaction."""
    supports_waiting = True
    """Whether competing calls wait for each other; if not, one may fail and be retryable."""
    supports_ordering_keys = True
    supports_reports = True
    """Whether the store keeps what workers tell of themselves."""
    supports_concurrency_keys = True
    supports_waiting_for_slots = True
    """Whether calls that compete for a concurrency key wait, as `supports_waiting` says of all."""
    supports_control = True
    """Whether items can be changed by filter, rescheduled and discarded, and told to stop."""
    supports_limits = True
    supports_retention = True
    """Whether it deletes by itself what has been kept for its time."""
    supports_failures = True
    """Whether it keeps the error of every attempt, and tells errors in groups."""
    supports_labels = True
    """Whether items are found by labels."""
    supports_sharing = True
    """Whether kinds and tenants share what is claimed."""
    supports_ageing = True
    """Whether an old item goes before a new one of higher priority in the end."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock to build the store with."""
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> OutboxStore:
        """An empty store."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'store'")

    def kept(
        self, store: OutboxStore, seconds: float | None, failed_seconds: float | None = None
    ) -> OutboxStore:
        """*store*, or another on the same data, that keeps finished items for so long."""
        store.retention_seconds = seconds
        store.failed_retention_seconds = failed_seconds
        return store

    def another(self, store: OutboxStore) -> OutboxStore:
        """A second store on the same data, as another process would have it."""
        pytest.skip(f"{type(self).__name__} has no second store")

    def transaction(self, store: OutboxStore) -> AbstractContextManager[Any]:
        """A host transaction that commits, or rolls back if the block raises."""
        return store.transaction()

    # -- shared by the groups ----------------------------------------------------------------

    def need(self, *features: str) -> None:
        """Skip the test unless all *features* are supported."""
        for feature in features:
            if not getattr(self, f"supports_{feature}"):
                pytest.skip(f"{type(self).__name__} doesn't support {feature}")

    def claim_one(self, store: OutboxStore, worker_id: str = "worker") -> OutboxItem:
        """The one item that can be claimed."""
        (item,) = store.claim_batch(worker_id)
        return item

    def claim_ids(
        self, store: OutboxStore, worker_id: str = "worker", limit: int = 10
    ) -> list[str]:
        """The ids of what is claimed, in order."""
        return [item.id for item in store.claim_batch(worker_id, limit)]

    def expire(self, store: OutboxStore, clock: FakeClock) -> None:
        """End all leases, and recover and let become due what had one."""
        clock.advance(store.lease_seconds + 1)
        store.reap()
        clock.advance(LONG_SECONDS)

    def see(self, store: OutboxStore, item_id: str) -> OutboxItem:
        """The item with this id, which must exist."""
        item = store.get(item_id)
        assert item is not None
        return item

    def statuses(self, store: OutboxStore, item_ids: Sequence[str]) -> list[ItemStatus]:
        """Where these items stand."""
        return [self.see(store, item_id).status for item_id in item_ids]
