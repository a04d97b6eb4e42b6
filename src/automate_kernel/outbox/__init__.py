"""Reliable work in the host's own database: enqueue, claim, finish, recover."""

from .item import ItemStatus, NewItem, OutboxItem
from .reaper import OutboxReaper
from .retry import Backoff
from .rows_store import (
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from .store import OutboxStats, OutboxStore, Outcome, ReapResult

__all__ = [
    "Backoff",
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
]
