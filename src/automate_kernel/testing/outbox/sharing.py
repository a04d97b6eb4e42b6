"""Promise 9: no kind and no tenant waits for another's backlog."""

from __future__ import annotations

from collections import Counter
from typing import Any

from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["SharingContract"]


class SharingContract(StoreHooks):
    """Shares of kinds and tenants in what is claimed."""

    def flood(self, store: OutboxStore, count: int, **options: Any) -> None:
        """A backlog, there before everything else."""
        self.need("sharing")
        store.enqueue_many(NewItem("flood", n, **options) for n in range(count))

    def kinds(self, items: list[OutboxItem]) -> Counter[str]:
        """How many there are of each kind."""
        return Counter(item.kind for item in items)

    def test_a_kind_does_not_wait_for_another(self, store: OutboxStore) -> None:
        """The first claim after it came has an item of a kind, however many wait before it."""
        self.flood(store, 60)
        for _ in range(2):
            assert len(store.claim_batch("worker", 10)) == 10
        store.enqueue("late")
        assert self.kinds(store.claim_batch("worker", 10)) == {"flood": 9, "late": 1}
        store.enqueue("named")
        claimed = store.claim_batch("worker", 10, kinds=["named", "flood", "none"])
        assert self.kinds(claimed) == {"flood": 9, "named": 1}

    def test_a_tenant_does_not_wait_for_another(self, store: OutboxStore) -> None:
        """Within a kind each tenant has its share, and so have the items of none."""
        self.flood(store, 60, tenant_id="big")
        for _ in range(2):
            assert len(store.claim_batch("worker", 10)) == 10
        store.enqueue("flood", tenant_id="small")
        store.enqueue("flood")
        claimed = store.claim_batch("worker", 10)
        assert Counter(item.tenant_id for item in claimed) == {"big": 8, "small": 1, None: 1}

    def test_backlogs_share_equally(self, store: OutboxStore) -> None:
        """Over a few claims kinds with a backlog get the same."""
        self.flood(store, 100)
        for kind in ("b", "c"):
            store.enqueue_many(NewItem(kind) for _ in range(100))
        claimed = [item for _ in range(9) for item in store.claim_batch("worker", 10)]
        assert len(claimed) == 90
        assert all(24 <= count <= 36 for count in self.kinds(claimed).values())

    def test_single_claims_take_turns(self, store: OutboxStore) -> None:
        """Where one slot is free at a time, no kind is left out."""
        self.flood(store, 30)
        store.enqueue_many(NewItem(kind) for kind in "abc")
        claimed = [item for _ in range(12) for item in store.claim_batch("worker", 1)]
        assert len(claimed) == 12
        assert self.kinds(claimed) == {"flood": 9, "a": 1, "b": 1, "c": 1}

    def test_priority_counts_within_a_share(self, store: OutboxStore) -> None:
        """An urgent item goes before the others of its kind and tenant."""
        self.flood(store, 20)
        urgent = store.enqueue("flood", priority=1)
        assert self.claim_ids(store, limit=3)[0] == urgent

    def test_more_groups_than_one_statement_takes(self, store: OutboxStore) -> None:
        """With hundreds of tenants each gets its turn, and nothing is claimed twice."""
        self.flood(store, 150, tenant_id="t000")
        store.enqueue_many(NewItem("flood", tenant_id=f"t{number:03}") for number in range(1, 150))
        claimed: list[OutboxItem] = []
        while batch := store.claim_batch("worker", 25):
            claimed += batch
        assert len({item.id for item in claimed}) == len(claimed) == 299
        # Each of the others was among the first six or seven claims, and not behind the flood.
        assert len({item.tenant_id for item in claimed[:225]}) == 150
