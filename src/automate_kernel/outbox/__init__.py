"""Reliable work in the application's own database: enqueue, claim, finish, recover."""

from automate_kernel.outbox.bulk_actions import BulkAction
from automate_kernel.outbox.controls import OutboxControls, controls_of
from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt
from automate_kernel.outbox.handover import Handover
from automate_kernel.outbox.item import (
    Backoff,
    ItemStatus,
    NewItem,
    OutboxItem,
    Outcome,
    ReapResult,
)
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.queries import Due, ItemFilter, ItemPage, OutboxStats
from automate_kernel.outbox.rows_store import (
    OptimisticClaimOutboxStore,
    RowsOutboxStore,
    SkipLockedClaimOutboxStore,
)
from automate_kernel.outbox.statistics import MinuteTotal, percentile
from automate_kernel.outbox.store import OutboxListener, OutboxStore, OutboxTables
from automate_kernel.outbox.worker_reports import Activity, ExecutorUse, WorkerInfo

__all__ = [
    "Activity",
    "Backoff",
    "BulkAction",
    "Due",
    "ErrorGroup",
    "ExecutorUse",
    "FailedAttempt",
    "Handover",
    "ItemFilter",
    "ItemPage",
    "ItemStatus",
    "Limit",
    "MinuteTotal",
    "NewItem",
    "OptimisticClaimOutboxStore",
    "OutboxControls",
    "OutboxItem",
    "OutboxListener",
    "OutboxStats",
    "OutboxStore",
    "OutboxTables",
    "Outcome",
    "ReapResult",
    "RowsOutboxStore",
    "SkipLockedClaimOutboxStore",
    "WorkerInfo",
    "controls_of",
    "percentile",
]
