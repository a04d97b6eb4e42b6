"""What a worker claims, and which of its pools gets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

from automate_kernel.outbox.acknowledging import Held
from automate_kernel.outbox.chores import keep_trying
from automate_kernel.outbox.item import OutboxItem
from automate_kernel.outbox.pools import InlinePool, Pool, Task
from automate_kernel.outbox.store import OutboxStore

__all__ = ["Claimer"]


class Claimer:
    """
    Claims for *pools* what they have room for, at most *batch* at once, until *stopping* is set.

    A pool that had nothing the last time is looked at in the claim of one that had something: so
    an idle one costs a busy one no statement, and what is new there waits for one batch at most.
    """

    def __init__(
        self,
        store: OutboxStore,
        worker_id: str,
        pools: Sequence[Pool],
        held: Held,
        *,
        batch: int,
        stopping: threading.Event,
    ) -> None:
        self._store, self._worker_id, self._pools, self._held = store, worker_id, pools, held
        self._batch, self._stopping = batch, stopping
        self._resting: set[Pool] = set()
        self.full: bool = False
        """Whether a pool had no room the last time."""
        self.keyed: bool = False
        """Whether an item with a key was claimed, after whose end another one may begin."""

    def room(self) -> bool:
        """Whether any pool has room."""
        return any(pool.free() > 0 for pool in self._pools)

    def claim(self) -> int:
        """Claim once for each busy pool, or once for all; returns how many items were started."""
        room = {pool: min(self._batch, pool.free()) for pool in self._pools}
        self.full = any(limit < 1 for limit in room.values())
        # Whether something may end, from here on, that lets another one of its key begin.
        self.keyed = self.keyed and len(self._held) > 0
        resting = [pool for pool in self._pools if room[pool] > 0 and pool in self._resting]
        total = 0
        for pool in self._pools:
            if room[pool] > 0 and pool not in self._resting:
                total += self._claim_for([pool, *resting], room[pool])
                resting = []
        if resting:
            total += self._claim_for(resting, min(room[pool] for pool in resting))
        return total

    def _claim_for(self, pools: Sequence[Pool], limit: int) -> int:
        """Claim *limit* for the first of *pools*, and of it for the others what they have."""
        if self._stopping.is_set():
            return 0
        kinds = [kind for pool in pools for kind in pool.kinds]
        items = self._store.claim_batch(self._worker_id, limit, kinds=kinds)
        self.keyed = self.keyed or any(item.ordering_key or item.concurrency_key for item in items)
        now = time.monotonic()
        surplus: list[str] = []
        started: list[tuple[Pool, list[Task]]] = []
        for pool in pools:
            its = items if len(pools) == 1 else [one for one in items if one.kind in pool.kinds]
            # Who had nothing for a while may be short of room for what has come all at once.
            fitting = len(its) if pool is pools[0] else max(0, pool.free())
            surplus += [item.id for item in its[fitting:]]
            started.append((pool, [Task(item, now) for item in its[:fitting]]))
            self._note(pool, its)
        for _, tasks in started:
            self._held.add(tasks)
        # Last those that may run theirs on this very thread.
        for pool, tasks in sorted(started, key=_runs_here):
            pool.start(tasks)
        if surplus:
            hand_back = partial(self._store.release, surplus, self._worker_id)
            keep_trying(hand_back, self._stopping, "handing back")
        return len(items) - len(surplus)

    def _note(self, pool: Pool, items: Sequence[OutboxItem]) -> None:
        if items:
            self._resting.discard(pool)
        else:
            self._resting.add(pool)


def _runs_here(started: tuple[Pool, list[Task]]) -> bool:
    return isinstance(started[0], InlinePool)
