"""Inline runs: due items run without a worker, in the calling thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from automate_kernel.base import runtime
from automate_kernel.base.errors import describe_error
from automate_kernel.outbox.item import OutboxItem, Outcome, OutcomeRecorded, Result, begin_is_noted
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger, run_logged
from automate_kernel.worker.handler import (
    Describe,
    Handler,
    ItemRunner,
    Redact,
    WorkerStats,
    declare_limits,
    default_worker_id,
    stoppable_by,
)

logger: logging.Logger = get_logger(__name__)

# Few: what waits here is no other worker's meanwhile.
_BATCH = 20


def run_inline(
    store: OutboxStore,
    handlers: Iterable[Handler],
    *,
    patience: float = 0.0,
    describe: Describe = describe_error,
    redact: Redact = str,
) -> WorkerStats:
    """
    Run due items, and what follows from them, in the calling thread; for tests and scripts.

    Returns when nothing is due within *patience* seconds.
    """
    by_kind = {handler.kind: handler for handler in handlers}
    runner = ItemRunner(store, default_worker_id(), describe, redact)
    stats = WorkerStats()
    declare_limits(store, by_kind.values())
    due = store.look()
    if due.recoverable:
        store.reap()  # what a process that died before this one held
        due = store.look()
    overdue = False
    while due.seconds is not None and due.seconds <= patience:
        if due.seconds > 0:
            runtime.sleep(due.seconds)
            patience -= due.seconds
            overdue = False
        if _run_due(runner, by_kind, stats):
            overdue = False
        elif overdue:
            return stats  # what is due is for somebody else
        else:
            # What became due since the claim is for the next claim.
            overdue = True
        due = store.look()
    return stats


def _run_due(runner: ItemRunner, by_kind: dict[str, Handler], stats: WorkerStats) -> bool:
    """Run due items until a claim comes back short; return False if there was nothing."""
    kinds, found = list(by_kind), False
    while True:
        claimed_at = runtime.monotonic()
        claimed = runner.store.claim_ahead(runner.worker_id, _BATCH, kinds=kinds)
        if claimed:
            found = True
            _run_all(runner, by_kind, claimed, stats, claimed_at)
        if len(claimed) < _BATCH:
            return found


def run_claimed(
    store: OutboxStore,
    handler: Handler,
    item: OutboxItem,
    *,
    describe: Describe = describe_error,
    redact: Redact = str,
) -> WorkerStats:
    """Run one item, which is claimed already, in the calling thread."""
    runner, stats = ItemRunner(store, item.lease_owner or "", describe, redact), WorkerStats()
    with _renewing(runner, [item]):
        _record(runner, _run(runner, handler, item), stats)
    return stats


@contextmanager
def _renewing(runner: ItemRunner, held: list[OutboxItem]) -> Iterator[None]:
    """Renew the leases of what is *held* meanwhile: a call may take longer than the lease."""
    ended, store = runtime.Event(), runner.store
    if not store.renews_beside:
        yield  # its database is in memory: nobody else is there who could take over
        return

    def beat() -> None:
        while not ended.wait(store.lease_seconds / 4):
            try:
                store.extend([item.id for item in list(held)], runner.worker_id)
            except Exception as error:
                # What writes to a file of SQLite holds it up, and keeps everybody from taking over.
                logger.debug("the leases of what runs here could not be renewed: %s", error)

    thread = runtime.Thread(target=beat, name="automate-heartbeat", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the machine has no more: what ends within its lease is safe
        logger.warning("the leases of what runs here are not renewed meanwhile: %s", error)
        yield
        return
    try:
        yield
    finally:
        ended.set()
        # For a moment: it may wait for what the caller has, SQLite's lock or a pool's connection.
        # If it comes late, it finds the claim over.
        thread.join(0.1)


def _run_all(
    runner: ItemRunner,
    by_kind: dict[str, Handler],
    waiting: list[OutboxItem],
    stats: WorkerStats,
    claimed_at: float,
) -> None:
    soon = runner.store.lease_seconds / 4
    try:
        with _renewing(runner, held := list(waiting)):
            for handler in by_kind.values():
                _run_together(runner, handler, waiting, stats)
            while waiting:
                item = waiting.pop(0)
                noted = begin_is_noted(item)
                renew = runner.store.begin if noted else runner.store.extend
                # It is another's if this process stood still while those before it ran.
                late = runtime.monotonic() - claimed_at > soon
                if (noted or late) and renew([item.id], runner.worker_id):
                    stats.lost += 1
                else:
                    _record(runner, _run(runner, by_kind[item.kind], item), stats)
                held.remove(item)
    finally:
        if waiting:
            runner.store.release([item.id for item in waiting], runner.worker_id)


def _run_together(
    runner: ItemRunner, handler: Handler, waiting: list[OutboxItem], stats: WorkerStats
) -> None:
    """Handle those of *waiting* together that can be, and take them out."""
    items = [one for one in waiting if one.kind == handler.kind and not begin_is_noted(one)]
    if handler.together is None or handler.around is not None or len(items) < 2:
        return
    try:
        with stoppable_by(bool):
            results = handler.together(items)
    except Exception as error:
        # One of them can't be handled, or is another's.
        logger.debug("items of the kind %r are handled one by one: %s", handler.kind, error)
        return
    for item in items:
        if item.id in results:
            waiting.remove(item)
            _record(runner, runner.result(handler, item, results[item.id]), stats)


def _run(runner: ItemRunner, handler: Handler, item: OutboxItem) -> Result:
    try:
        # Nobody stops this, even if a worker that is being stopped runs the code around it.
        with stoppable_by(bool):
            if not handler.asynchronous:
                return runner.run(handler, item)
            return run_logged(runner.arun(handler, item))
    except asyncio.CancelledError as error:
        return runner.failed(handler, item, error)


def _record(runner: ItemRunner, result: Result, stats: WorkerStats) -> None:
    if isinstance(result, OutcomeRecorded):
        stats.count(result.outcome or Outcome(""))
    elif result is None or runner.store.acknowledge(runner.worker_id, [result]):
        stats.lost += 1
    else:
        stats.count(result)
