"""What holds when several workers want the same items at the same time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from automate_kernel.errors import StorageError
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, OutboxStore, Outcome
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.outbox.hooks import StoreHooks

__all__ = ["RacingContract"]

T = TypeVar("T")
WORKERS = 4
PATIENCE_SECONDS = 30.0


class _Crowd:
    """Counts what runs at once, per concurrency key, and waits until that is as much as may."""

    def __init__(self, total: int, most: int) -> None:
        self.peaks: Counter[str] = Counter()
        self._left, self._most = total, most
        self._running: Counter[str] = Counter()
        self._changed = threading.Condition()

    def begin(self, item: OutboxItem) -> None:
        """Count an item that runs."""
        key = item.concurrency_key or ""
        with self._changed:
            self._running[key] += 1
            assert self._running[key] <= self._most, f"too many at once of {key!r}"
            self.peaks[key] = max(self.peaks[key], self._running[key])
            self._changed.notify_all()
            if not key:
                self._changed.wait_for(self._may_go, PATIENCE_SECONDS)

    def _may_go(self) -> bool:
        return self.peaks[""] >= self._most or self._left < self._most

    def end(self, item: OutboxItem) -> None:
        """Count it out."""
        with self._changed:
            self._running[item.concurrency_key or ""] -= 1
            self._left -= 1
            self._changed.notify_all()


class RacingContract(StoreHooks):
    """Four threads at once."""

    def stores(self, store: OutboxStore) -> list[OutboxStore]:
        """A store for each thread: of two processes if there can be two."""
        try:
            other = self.another(store)
        except pytest.skip.Exception:
            other = store
        return [store, other] * (WORKERS // 2)

    def insist(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call as a worker does: again, if it collided with another."""
        waits = self.supports_waiting and self.supports_waiting_for_slots
        for _ in range(0 if waits else 20):
            try:
                return call(*arguments)
            except StorageError as error:
                if not error.retryable:
                    raise
        return call(*arguments)

    def race(self, store: OutboxStore, run: Callable[[OutboxStore, str], None]) -> None:
        """Run *run* in all threads at once; what one of them raises is raised here."""
        start = threading.Barrier(WORKERS)

        def work(mine: OutboxStore, worker_id: str) -> None:
            start.wait(PATIENCE_SECONDS)
            run(mine, worker_id)

        with ThreadPoolExecutor(WORKERS) as pool:
            threads = [
                pool.submit(work, mine, f"worker-{number}")
                for number, mine in enumerate(self.stores(store))
            ]
        for thread in threads:
            thread.result()

    def drain(
        self,
        store: OutboxStore,
        total: int,
        limit: int,
        begin: Callable[[OutboxItem], None],
        end: Callable[[OutboxItem], Any] = id,
    ) -> None:
        """Claim and finish with all threads until *total* items are done."""
        done: list[str] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(done) < total:
                assert time.monotonic() < deadline, f"only {len(done)} of {total} got done"
                items = self.insist(mine.claim_batch, worker_id, limit)
                for item in items:
                    begin(item)
                for item in items:
                    end(item)
                outcomes = [Outcome(item.id, token=item.lease_token) for item in items]
                assert self.insist(mine.acknowledge, worker_id, outcomes) == set()
                done.extend(item.id for item in items)

        self.race(store, run)

    def test_no_item_is_claimed_twice(self, store: OutboxStore) -> None:
        """Each item goes to one worker, and all of them are done."""
        ids = store.enqueue_many(NewItem("k") for _ in range(60))
        seen: list[str] = []
        self.drain(store, 60, 5, lambda item: seen.append(item.id))
        assert sorted(seen) == sorted(ids)
        assert len(store.find(status=ItemStatus.COMPLETED, limit=100)) == 60

    def test_order_holds_under_competition(self, store: OutboxStore) -> None:
        """Items of one key run one at a time and in order, though four workers want them."""
        self.need("ordering_keys")
        keys = [f"key-{number % 5}" for number in range(50)]
        ids = store.enqueue_many(
            NewItem("k", number, ordering_key=key) for number, key in enumerate(keys)
        )
        running: list[str] = []
        order: dict[str, list[str]] = {}

        def begin(item: OutboxItem) -> None:
            key = str(item.ordering_key)
            running.append(key)
            assert running.count(key) == 1, f"two items of {key} at once"
            order.setdefault(key, []).append(item.id)

        self.drain(store, 50, 4, begin, lambda item: running.remove(str(item.ordering_key)))
        assert order == {f"key-{number}": ids[number::5] for number in range(5)}

    def test_limit_is_reached_and_never_exceeded(self, store: OutboxStore) -> None:
        """Of a limited kind as many run at once as may, and never one more."""
        self.need("limits")
        total, most = 40, 3
        store.enqueue_many(NewItem("k") for _ in range(total))
        store.limit("k", concurrency=most)
        crowd = _Crowd(total, most)
        self.drain(store, total, 1, crowd.begin, crowd.end)
        assert crowd.peaks == {"": most}

    def test_concurrency_key_is_reached_and_never_exceeded(self, store: OutboxStore) -> None:
        """Of each concurrency key as many run at once as may, and none is left to wait."""
        self.need("concurrency_keys")
        total, most = 60, 2
        store.enqueue_many(
            NewItem(f"kind-{n % 2}", concurrency_key=f"key-{n % 3}", concurrency_limit=most)
            for n in range(total)
        )
        crowd = _Crowd(total, most)
        # Six, so that the first claim alone has two of each key, however the threads are run.
        self.drain(store, total, 6, crowd.begin, crowd.end)
        assert set(crowd.peaks) == {"key-0", "key-1", "key-2"}
        assert max(crowd.peaks.values()) == most

    def test_rate_holds_under_competition(self, store: OutboxStore, clock: FakeClock) -> None:
        """However many ask at once, no more start than the rate allows, and no fewer."""
        self.need("limits", "clock")
        store.enqueue_many(NewItem("k") for _ in range(60))
        store.limit("k", rate=7, per_seconds=10)
        for _ in range(4):
            claimed: list[str] = []

            def run(mine: OutboxStore, worker_id: str, claimed: list[str] = claimed) -> None:
                for _ in range(6):
                    claimed.extend(self.insist(self.claim_ids, mine, worker_id, 2))

            self.race(store, run)
            # Who found the limit locked by another left it to that one.
            claimed += self.claim_ids(store, limit=20)
            assert len(claimed) == len(set(claimed)) == 7
            clock.advance(10)

    def test_one_idempotency_key_gives_one_item(self, store: OutboxStore) -> None:
        """Callers who enqueue the same thing at once all get the id of the one item."""
        ids: list[tuple[int, str]] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            for number in range(10):
                item_id = mine.enqueue("k", worker_id, idempotency_key=f"key-{number}")
                ids.append((number, item_id))

        self.race(store, run)
        assert len(ids) == WORKERS * 10
        assert len(set(ids)) == 10
        assert {item.id for item in store.find()} == {item_id for _, item_id in ids}

    def test_claims_and_cancellations_agree(self, store: OutboxStore) -> None:
        """An item is either claimed or cancelled; one that is claimed is asked to stop, once."""
        ids = store.enqueue_many(NewItem("k") for _ in range(40))
        claimed: list[str] = []
        cancelled: list[int] = []

        def run(mine: OutboxStore, worker_id: str) -> None:
            if worker_id in ("worker-0", "worker-1"):
                cancelled.extend(self.insist(mine.cancel, [item_id]) for item_id in ids[::-1])
            else:
                for _ in range(15):
                    claimed.extend(self.insist(self.claim_ids, mine, worker_id, 3))

        self.race(store, run)
        found = Counter(self.statuses(store, ids))
        assert found[ItemStatus.RUNNING] == len(claimed) == len(set(claimed))
        assert found[ItemStatus.CANCELLED] == 40 - len(claimed)
        asked = sum(item.waiting_for == "cancel" for item in store.find(status="RUNNING"))
        assert sum(cancelled) == found[ItemStatus.CANCELLED] + asked
