"""What a store remembers of its claims, and the fence that every finishing write must pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.labels import HEADER
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["FREE", "Lease", "Leases", "by_token", "fence", "free_abandoned"]

FREE: Mapping[str, Any] = {"lease_owner": None, "lease_token": None, "lease_expires_at": None}
"""The changes that give a lease back."""
_MENDED = 1000


@dataclass(slots=True)
class Lease:
    """What the store remembers of a claim: the fence, and what finishing the item needs."""

    worker_id: str
    token: str
    ordering_key: str | None
    priority: int
    attempt_count: int
    max_attempts: int
    concurrency_key: str | None = None
    # Whether there are rows beside the item's own, which go with it.
    followed: bool = False

    @property
    def keyed(self) -> bool:
        """Whether the item has a key, which others may wait for."""
        return self.ordering_key is not None or self.concurrency_key is not None

    @classmethod
    def of(cls, row: Row, worker_id: str, token: str) -> Lease:
        """The lease of a claimed row."""
        return cls(
            worker_id,
            token,
            row["ordering_key"],
            row["priority"],
            row["attempt_count"],
            row["max_attempts"],
            row["concurrency_key"],
            row["last_error_code"] is not None or HEADER in row["headers"],
        )


class Leases:
    """The part of `RowsOutboxStore` that remembers leases and renews them."""

    storage: Storage
    lease_seconds: float
    _leases: dict[str, Lease]

    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Renew leases; see `OutboxStore.extend`."""
        held = {i: lease.token for i in item_ids if (lease := self._lease(i, worker_id))}
        lost = set(item_ids) - set(held)
        with self.storage.begin(atomic=False) as rows:
            for token, ids in by_token(held.items()):
                where = fence(ids, token)
                if rows.update(OUTBOX, where, {"lease_expires_at": Now(self.lease_seconds)}) < len(
                    ids
                ):
                    still = rows.select(OUTBOX, where, columns=("id",))
                    lost |= set(ids) - {row["id"] for row in still}
        return lost

    def renew(
        self, item_id: str, worker_id: str, *, token: str | None = None, transaction: Any = None
    ) -> None:
        """Renew one lease inside a transaction; see `OutboxStore.renew`."""
        lease = self._lease(item_id, worker_id)
        token = token or (lease.token if lease else None)
        with self.storage.begin(transaction) as rows:
            changes = {"lease_expires_at": Now(self.lease_seconds)}
            if token is None or not rows.update(OUTBOX, fence([item_id], token), changes):
                raise LeaseLostError(f"the lease of item {item_id} is lost")

    def forget(self, item_ids: Iterable[str], *, token: str | None = None) -> None:
        """Drop what is remembered of claims that are over."""
        for item_id in item_ids:
            lease = self._leases.get(item_id)
            if lease is not None and token in (None, lease.token):
                self._leases.pop(item_id, None)

    def _lease(self, item_id: str, worker_id: str) -> Lease | None:
        lease = self._leases.get(item_id)
        return lease if lease is not None and lease.worker_id == worker_id else None


def fence(ids: Sequence[str], token: str) -> list[Where]:
    """What holds for these items only while the claim with *token* does."""
    return [
        Where("id", "in", list(ids)),
        Where("lease_token", "eq", token),
        Where("status", "eq", ItemStatus.RUNNING.value),
    ]


def by_token(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Item ids by the token of their claim, from (id, token) pairs."""
    groups: dict[str, list[str]] = {}
    for item_id, token in pairs:
        groups.setdefault(token, []).append(item_id)
    # Sorted, so that two transactions lock their rows in the same order.
    return [(token, sorted(ids)) for token, ids in groups.items()]


def free_abandoned(rows: Rows, table: str, key: str) -> None:
    """
    Delete rows of *table* (lanes, slots), whose primary key is *key*, if their claim is over.

    Every way out of a claim deletes them itself; what somebody did to the tables by hand doesn't.
    """
    held = rows.select(table, [], order_by=(key,), limit=_MENDED)
    found = rows.select(
        OUTBOX, [Where("id", "in", [row["item_id"] for row in held])],
        columns=("id", "lease_token", "lease_expires_at"),
    )  # fmt: skip
    holders = {row["id"]: row["lease_token"] for row in found if row["lease_expires_at"]}
    for row in held:
        if holders.get(row["item_id"]) != row["lease_token"]:
            its = [Where(key, "eq", row[key]), Where("lease_token", "eq", row["lease_token"])]
            rows.delete(table, its)
