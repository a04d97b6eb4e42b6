"""Recovering items whose worker died."""

from __future__ import annotations

from automate_kernel.outbox.store import OutboxStore

__all__ = ["OutboxReaper"]


class OutboxReaper:
    """
    Puts items whose lease ended back to wait, or fails them if their attempts are spent.

    *stale_threshold_seconds* counts from the last renewal of the lease. It can wait longer than
    the lease but never rescues an item whose lease still runs.
    """

    def __init__(self, store: OutboxStore, *, stale_threshold_seconds: float = 600) -> None:
        self.store = store
        self.stale_threshold_seconds = stale_threshold_seconds

    def reap_stale_items(self, batch: int = 500) -> int:
        """Recover all stale items, *batch* in a transaction; returns how many there were."""
        grace = max(0.0, self.stale_threshold_seconds - self.store.lease_seconds)
        total = 0
        while reaped := len(self.store.reap(batch, grace_seconds=grace)):
            total += reaped
            if reaped < batch:
                break
        return total
