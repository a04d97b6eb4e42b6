"""The reaper: it recovers items whose worker died."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from automate_kernel.outbox.item import ReapResult
from automate_kernel.outbox.store import OutboxStore


class OutboxReaper:
    """
    Puts items whose lease ended back to wait, or fails them if their attempts are spent.

    *stale_threshold_seconds* counts from the last renewal of the lease. It can be longer than a
    lease, but an item whose lease still runs is never rescued. *on_reaped* is called with each
    batch that was recovered.
    """

    def __init__(
        self,
        store: OutboxStore,
        *,
        stale_threshold_seconds: float = 600,
        on_reaped: Callable[[ReapResult], Any] | None = None,
    ) -> None:
        self.store = store
        self.stale_threshold_seconds = stale_threshold_seconds
        self.on_reaped = on_reaped

    def reap_stale_items(self, batch: int = 500) -> int:
        """Recover all stale items, *batch* in a transaction, and return their number."""
        grace = max(0.0, self.stale_threshold_seconds - self.store.lease_seconds)
        total = 0
        while reaped := len(result := self.store.reap(batch, grace_seconds=grace)):
            total += reaped
            if self.on_reaped is not None:
                self.on_reaped(result)
            if reaped < batch:
                break
        return total
