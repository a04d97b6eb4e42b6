"""An outbox store that has the abstract methods of its base, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from automate_kernel import OutboxItem, OutboxStore
from automate_kernel.outbox import NewItem, RowsOutboxStore


class FrozenStore(OutboxStore):
    """Passes everything on to a store of the kernel's own."""

    def __init__(self, storage: Any, *, lease_seconds: float = 300.0) -> None:
        self.storage = storage
        self.lease_seconds = lease_seconds
        self._inner = RowsOutboxStore(storage, lease_seconds=lease_seconds)

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        return self._inner.enqueue_many(self.entering(items), transaction=transaction)

    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        return self._inner.claim_batch(worker_id, limit, kinds=kinds)

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Any], *, transaction: Any = None
    ) -> set[str]:
        return self._inner.acknowledge(worker_id, outcomes, transaction=transaction)

    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        return self._inner.extend(item_ids, worker_id)

    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> Any:
        return self._inner.reap(limit, grace_seconds=grace_seconds)

    def find(
        self, *, limit: int = 50, before_id: str | None = None, **matching: Any
    ) -> list[OutboxItem]:
        return self._inner.find(limit=limit, before_id=before_id, **matching)

    def stats(self) -> Any:
        return self._inner.stats()

    def cancel(self, item_ids: Sequence[str]) -> int:
        return self._inner.cancel(item_ids)

    def requeue(self, item_ids: Sequence[str]) -> int:
        return self._inner.requeue(item_ids)

    def pause(self, kind: str, reason: str = "") -> None:
        self._inner.pause(kind, reason)

    def resume(self, kind: str) -> None:
        self._inner.resume(kind)

    def purge(self, *, older_than_seconds: float, limit: int = 1000, **which: Any) -> int:
        return self._inner.purge(older_than_seconds=older_than_seconds, limit=limit, **which)
