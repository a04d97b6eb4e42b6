"""What became of items: as a worker tells it, and as a reaping found it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from automate_kernel.outbox.item import ItemStatus, OutboxItem

__all__ = ["Outcome", "ReapResult"]


# Not frozen: one is made for every item, and freezing triples what that costs.
@dataclass(slots=True)
class Outcome:
    """
    What became of a claimed item.

    *status* is COMPLETED, FAILED, CANCELLED, RETRY (FAILED if its attempts are spent) or PENDING
    (back to waiting, and the attempt counts as not begun). One that was asked to stop is CANCELLED
    where it would wait again. *next_attempt* is a delay in seconds, an instant, or None for one
    that has not begun: it keeps its place in the line. *token* is the claim's; left out, the store
    uses the one that it remembers. *group* is what the error has in common with others, and *trace*
    where it was raised; see `automate_kernel.tracebacks`.
    """

    item_id: str
    status: ItemStatus = ItemStatus.COMPLETED
    next_attempt: float | datetime | None = 0.0
    error_code: str | None = None
    error: str | None = None
    token: str | None = None
    group: str | None = None
    trace: str | None = None


@dataclass(slots=True)
class ReapResult:
    """Which items a reaping put back to wait, gave up, or cancelled as they were asked to stop."""

    retried: list[OutboxItem] = field(default_factory=list)
    failed: list[OutboxItem] = field(default_factory=list)
    cancelled: list[OutboxItem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.retried) + len(self.failed) + len(self.cancelled)

    def add(self, item: OutboxItem) -> None:
        """Put a recovered item on the list of its status."""
        lists = {ItemStatus.FAILED: self.failed, ItemStatus.CANCELLED: self.cancelled}
        lists.get(item.status, self.retried).append(item)
