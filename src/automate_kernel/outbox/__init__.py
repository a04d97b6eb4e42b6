"""Reliable work in the host's own database: enqueue, claim, finish, recover."""

from automate_kernel.outbox.chores import Chore
from automate_kernel.outbox.handlers import Handler, Snooze
from automate_kernel.outbox.item import ItemStatus, NewItem, OutboxItem
from automate_kernel.outbox.reaper import OutboxReaper
from automate_kernel.outbox.retry import Backoff
from automate_kernel.outbox.rows_store import (
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.outbox.store import OutboxStats, OutboxStore, Outcome, ReapResult
from automate_kernel.outbox.worker import Worker, WorkerStats

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
