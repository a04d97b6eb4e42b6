"""
The claim stores and the reaper under the names that the specification gives them.

::

    store = SkipLockedClaimOutboxStore(lease_seconds=300)
    for item in store.claim_batch("worker-1", limit=10):
        process(item)
        store.mark_success(item.id, "worker-1")
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connections
from django.db import transaction as django_transaction

from automate_django.storage import DjangoStorage, is_open
from automate_kernel import outbox, worker
from automate_kernel.outbox import NewItem, OutboxStore, Outcome
from automate_kernel.outbox.item import LEASE_SECONDS
from automate_kernel.secrets.logs import get_logger
from automate_kernel.workflows.steer.listener import ExecutionListener

__all__ = ["OptimisticClaimOutboxStore", "OutboxReaper", "SkipLockedClaimOutboxStore"]


logger: logging.Logger = get_logger(__name__)


class _DjangoOutboxStore(outbox.RowsOutboxStore):
    """A store in which the open ``atomic()`` block is the application's transaction."""

    storage: DjangoStorage

    def __init__(
        self,
        storage: DjangoStorage | None = None,
        *,
        using: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        **options: Any,
    ) -> None:
        storage = storage or DjangoStorage(using)
        super().__init__(storage, lease_seconds=lease_seconds, **options)
        self.listen(ExecutionListener())
        self._warned = False

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        """Accept items in the open ``atomic()`` block; see `OutboxStore.enqueue_many`."""
        if transaction is None and not self._warned and not is_open(self.storage.connection):
            self._warn_of_another_block()
        return super().enqueue_many(items, transaction=transaction)

    def _warn_of_another_block(self) -> None:
        ours = self.storage.alias
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block and connection.alias != ours:
                self._warned = True
                logger.warning(
                    "an event is sent beside an open transaction of the database %r, and stays if"
                    " that is rolled back: the outbox is in the database %r (put it into the same"
                    " one, or open transaction.atomic(using=%r) within the other block)",
                    connection.alias, ours, ours,
                )  # fmt: skip

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        """Record outcomes, in the ``atomic()`` block if it is open."""
        connection = self.storage.connection
        if transaction is None and is_open(connection):
            # Its leases are forgotten with the commit: after a rollback they are still held.
            lost = super().acknowledge(worker_id, outcomes, transaction=connection)
            if connection.in_atomic_block:
                django_transaction.on_commit(
                    lambda: self.forget_claims([outcome.item_id for outcome in outcomes]),
                    using=connection.alias,
                )
            return lost
        return super().acknowledge(worker_id, outcomes, transaction=transaction)


class SkipLockedClaimOutboxStore(_DjangoOutboxStore, outbox.SkipLockedClaimOutboxStore):
    """
    An outbox that claims with ``FOR UPDATE SKIP LOCKED``.

    *using* is the database's alias; the other options are those of its base class. What is done
    inside an ``atomic()`` block belongs to that block.
    """


class OptimisticClaimOutboxStore(_DjangoOutboxStore, outbox.OptimisticClaimOutboxStore):
    """An outbox that claims without row locks, for any database; options as its sibling's."""


class OutboxReaper(worker.OutboxReaper):
    """
    Recovers items whose worker died.

    Without *store* it works for the project's own outbox, and an execution whose item is given up
    fails with it. A worker reaps by itself; this is for a project that runs its own loop.
    """

    def __init__(
        self, store: OutboxStore | None = None, *, stale_threshold_seconds: float = 600
    ) -> None:
        if store is None:
            from automate_django.kernel import get_kernel

            store = get_kernel().outbox
        super().__init__(store, stale_threshold_seconds=stale_threshold_seconds)
