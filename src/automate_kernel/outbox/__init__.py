"""Reliable work in the host's own database: enqueue, claim, finish, recover."""

from .chores import Chore
from .handlers import Handler, Snooze
from .item import ItemStatus, NewItem, OutboxItem
from .reaper import OutboxReaper
from .retry import Backoff
from .rows_store import (
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from .store import OutboxStats, OutboxStore, Outcome, ReapResult
from .worker import Worker, WorkerStats

__all__ = [
    "Backoff",
    "Chore",
    "Handler",
    "ItemStatus",
    "NewItem",
    "OptimisticClaimOutboxStore",
    "OutboxItem",
    "OutboxReaper",
    "OutboxStats",
    "OutboxStore",
    "Outcome",
    "ReapResult",
    "RowsOutboxStore",
    "SkipLockedClaimOutboxStore",
    "Snooze",
    "Worker",
    "WorkerStats",
]
