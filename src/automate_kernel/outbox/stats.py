"""What a worker has done."""

from __future__ import annotations

from dataclasses import dataclass

from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.store import Outcome

__all__ = ["WorkerStats"]


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done since it started."""

    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    cancelled: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add an outcome that was recorded."""
        if outcome.status is ItemStatus.COMPLETED:
            self.completed += 1
        elif outcome.status is ItemStatus.FAILED:
            self.failed += 1
        elif outcome.status is ItemStatus.RETRY:
            self.retried += 1
        elif outcome.status is ItemStatus.CANCELLED:
            self.cancelled += 1

    @property
    def total(self) -> int:
        """All outcomes."""
        return self.completed + self.retried + self.failed + self.lost + self.cancelled
