"""Which items a store's claims reach, when nobody told it of them."""

from __future__ import annotations


import pytest
from machines import give
from automate_kernel.outbox import NewItem, SkipLockedClaimOutboxStore, rows_store
from automate_kernel.storage import MemoryStorage


def test_an_item_with_a_key_is_reached_beside_a_backlog_and_an_idle_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often another pool of the worker claims, and finds nothing."""
    now = [1000.0]
    give(monkeypatch, rows_store, monotonic=lambda: now[0])
    storage = MemoryStorage()
    worker, host = SkipLockedClaimOutboxStore(storage), SkipLockedClaimOutboxStore(storage)
    host.enqueue_many(NewItem("flood") for _ in range(300))
    assert worker.claim_batch("w", 1, kinds=["flood", "late"])  # the first one looks at all
    host.enqueue_many([NewItem("late", ordering_key="one")])

    reached = []
    for _ in range(20):
        now[0] += 0.01
        assert not worker.claim_batch("w", 1, kinds=["idle"])
        reached += worker.claim_batch("w", 2, kinds=["flood", "late"])
    assert "late" in {item.kind for item in reached}
