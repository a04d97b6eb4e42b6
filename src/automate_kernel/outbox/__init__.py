"""Reliable work in the host's own database: enqueue, claim, finish, recover."""

from automate_kernel.outbox.chores import Chore
from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt
from automate_kernel.outbox.handlers import Handler, Snooze, cancelling, draining
from automate_kernel.outbox.histogram import percentile
from automate_kernel.outbox.item import ItemStatus, NewItem, OutboxItem
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.reaper import OutboxReaper
from automate_kernel.outbox.reports import Activity, WorkerInfo
from automate_kernel.outbox.retry import Backoff
from automate_kernel.outbox.rows_store import (
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.outbox.running import run_until_stopped
from automate_kernel.outbox.store import OutboxStats, OutboxStore, Outcome, ReapResult
from automate_kernel.outbox.worker import Worker, WorkerStats

__all__ = [
    "Activity",
    "Backoff",
    "Chore",
    "ErrorGroup",
    "FailedAttempt",
    "Handler",
    "ItemStatus",
    "Limit",
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
    "WorkerInfo",
    "WorkerStats",
    "cancelling",
    "draining",
    "percentile",
    "run_until_stopped",
]
