"""The reaper: it recovers items whose worker died."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from automate_kernel.outbox.item import ReapResult
from automate_kernel.outbox.store import OutboxStore


class OutboxReaper:
    """
    Puts items whose lease ended back to wait, or fails them if their attempts are spent.

    *stale_threshold_seconds* counts from the last renewal of the lease. It can be longer than a
    lease, but an item whose lease still runs is never rescued. *on_reaped* is called with each
    batch that was recovered.

    `reap_stale_items` recovers at once, as an operator asks for it. A worker calls `look` every so
    often.
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
        self._looked_at: datetime | None = None

    def look(self) -> int:
        """
        Recover the items that were stale at the look before, and still are.

        A database that was away kept all workers from renewing, and a machine that slept all of its
        own. So what has ended in between has until the next look.
        """
        now, before = self.store.now(), self._looked_at
        self._looked_at = now
        return 0 if before is None else self._reap(500, (now - before).total_seconds())

    def reap_stale_items(self, batch: int = 500) -> int:
        """Recover all stale items, *batch* in a transaction, and return their number."""
        return self._reap(batch, 0.0)

    def _reap(self, batch: int, least_grace: float) -> int:
        grace = max(least_grace, self.stale_threshold_seconds - self.store.lease_seconds)
        total = 0
        while reaped := len(result := self.store.reap(batch, grace_seconds=grace)):
            total += reaped
            if self.on_reaped is not None:
                self.on_reaped(result)
            if reaped < batch:
                break
        return total
