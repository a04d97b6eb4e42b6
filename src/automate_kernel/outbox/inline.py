"""Running what is due without a worker, in the calling thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from automate_kernel.outbox.handlers import (
    Acknowledged,
    Describe,
    Handler,
    Result,
    aexecute,
    drained_by,
    execute,
    failed,
)
from automate_kernel.outbox.item import OutboxItem
from automate_kernel.outbox.stats import WorkerStats
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker import default_worker_id, describe_error

__all__ = ["run_inline"]

# Few, because their leases are not renewed while the ones before them run.
_BATCH = 20


def run_inline(
    store: OutboxStore,
    handlers: Iterable[Handler],
    *,
    worker_id: str | None = None,
    patience: float = 0.0,
    describe: Describe = describe_error,
    sleep: Callable[[float], None] = time.sleep,
) -> WorkerStats:
    """
    Run what is due, and what follows from it, in the calling thread; for tests and scripts.

    Returns when nothing is due within *patience* seconds. A lease is renewed before its item runs,
    and not while it does.
    """
    by_kind = {handler.kind: handler for handler in handlers}
    worker_id, stats = worker_id or default_worker_id(), WorkerStats()
    store.reap()  # what a process that died before this one held
    while True:
        waiting = store.claim_batch(worker_id, _BATCH, kinds=list(by_kind))
        if waiting:
            try:
                while waiting:
                    item = waiting.pop(0)
                    # The ones before it may have taken longer than its lease.
                    if store.extend([item.id], worker_id):
                        stats.lost += 1
                        continue
                    result = _run(store, worker_id, by_kind[item.kind], item, describe)
                    _record(store, worker_id, result, stats)
            finally:
                if waiting:
                    store.release([item.id for item in waiting], worker_id)
            continue
        due = store.next_due_seconds()
        if due is None or due <= 0 or due > patience:
            return stats
        sleep(due)
        patience -= due


def _run(
    store: OutboxStore, worker_id: str, handler: Handler, item: OutboxItem, describe: Describe
) -> Result:
    try:
        # Nobody stops this, even if a worker that is being stopped runs the code around it.
        with drained_by(lambda: False):
            if not handler.asynchronous:
                return execute(store, worker_id, handler, item, describe)
            return asyncio.run(aexecute(store, handler, item, describe))
    except asyncio.CancelledError as error:
        return failed(handler, item, error, describe)


def _record(store: OutboxStore, worker_id: str, result: Result, stats: WorkerStats) -> None:
    if isinstance(result, Acknowledged):
        stats.completed += 1
    elif result is None or store.acknowledge(worker_id, [result]):
        stats.lost += 1
    else:
        stats.count(result)
