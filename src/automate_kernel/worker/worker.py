"""
A worker process: claims items, runs their handlers, records what became of them.

::

    fetcher ──claim──▶ pools (threads, event loop, inline) ──outcomes──▶ acknowledger ──commit──▶
       ▲ wakes on NOTIFY, free slots, due times                 commits whatever has gathered
    heartbeat: renews leases, cancels what was lost        chores: the reaper, schedules, purging
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import ItemStatus, OutboxItem, Result
from automate_kernel.outbox.store import OutboxStore, Outcome
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Wakeup
from automate_kernel.worker.acknowledger import Acknowledger, Ended, Held, WorkerStats
from automate_kernel.worker.cancellation import cancellations
from automate_kernel.worker.handler import (
    Handler,
    aexecute,
    declare_limits,
    drained_by,
    execute,
    failed,
)
from automate_kernel.worker.heartbeat import Heartbeat
from automate_kernel.worker.liveness import Vitals
from automate_kernel.worker.periodic import Chore, Chores, keep_trying
from automate_kernel.worker.pools import InlinePool, Pool, Task, pools_for
from automate_kernel.worker.process import Flag
from automate_kernel.worker.reporter import Reporter
from automate_kernel.worker.statistics import ActivityLog

__all__ = [
    "Claimer",
    "Worker",
    "WorkerStats",
    "default_worker_id",
]


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


logger: logging.Logger = get_logger(__name__)

_SHORTEST_POLL = 0.02
_SOON = 1.0
# Results of inline handlers are handed on in lists, but none later than this.
_INLINE_SECONDS = 0.02


def default_worker_id() -> str:
    """A name that tells host and process, and that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"[:200]


def describe_error(error: BaseException) -> str:
    """An error's type and text."""
    return f"{type(error).__name__}: {error}"


@dataclass
class Worker:
    """
    Runs `handlers` on items from *store* until it is told to stop.

    *slots* handlers run at once on threads and *async_slots* on the event loop; *batch* bounds one
    claim. Without NOTIFY it looks for work at least every *poll_seconds*. *heartbeat_seconds*
    (a third of the lease by default) is how often leases are renewed. *chores* run beside the
    work. After `stop` it finishes what runs, for at most *grace_seconds*, then hands it back.
    *describe* turns an error into the text that is stored and logged, and *redact* takes secrets
    out of where it was raised. Every *report_seconds* it tells the store of itself, and what
    `activity` has gathered; *also_report* is then called with its id. What *preflight* raises,
    before anything begins, ends `run`.
    """

    store: OutboxStore
    handlers: Iterable[Handler]
    worker_id: str = field(default_factory=default_worker_id)
    slots: int = 10
    async_slots: int = 1000
    batch: int = 200
    poll_seconds: float = 1.0
    heartbeat_seconds: float | None = None
    grace_seconds: float = 30.0
    chores: Sequence[Chore] = ()
    describe: Callable[[BaseException], str] = describe_error
    report_seconds: float = 5.0
    activity: ActivityLog = field(default_factory=ActivityLog)
    redact: Callable[[str], str] = str
    preflight: Callable[[], object] | None = None
    also_report: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        self.vitals: Vitals = Vitals()
        self._reporter = Reporter(self)
        self._by_kind = {handler.kind: handler for handler in self.handlers}
        self._held = Held()
        self._stopping = Flag()
        self._abandoning = Flag()
        self._finished = Flag()
        self._freed = Flag()
        self._kept_back = False
        self._wakeup: Wakeup | None = None
        self._pools: list[Pool] = []
        self._acknowledger = Acknowledger(
            self.store,
            self.worker_id,
            self._held,
            self.activity,
            vitals=self.vitals,
            abandoning=self._abandoning,
            freed=self._on_freed,
        )

    @property
    def stats(self) -> WorkerStats:
        """What was done so far."""
        return self._acknowledger.stats

    # -- life ----------------------------------------------------------------------------------

    def run(self) -> WorkerStats:
        """Work until `stop`; returns what was done. Blocks the calling thread."""
        if self.preflight is not None:
            self.preflight()
        self._pools = pools_for(
            list(self._by_kind.values()),
            slots=self.slots,
            async_slots=self.async_slots,
            batch=self.batch,
            run=self._execute,
            arun=self._aexecute,
            run_all=self._execute_all,
            done=self._done,
            room=self._on_freed,
        )
        self._claimer = Claimer(
            self.store,
            self.worker_id,
            self._pools,
            self._held,
            batch=self.batch,
            stopping=self._stopping,
        )
        self._wakeup = self.store.wakeup()
        asked = partial(self.store.stop_requests, self.worker_id)
        stops = cancellations(self._held.tasks, asked)
        beat = Heartbeat(self.store, self.worker_id, self._held, self.vitals, self._finished).beat
        every = self.heartbeat_seconds or self.store.lease_seconds / 3
        regular = [Chore("heartbeat", every, beat), self._reporter.chore, stops]
        threads = [
            threading.Thread(target=target, name=f"automate-{name}", daemon=True)
            for name, target in (
                ("acknowledger", self._acknowledger.run),
                ("heartbeat", Chores(regular, self._finished).run),
                ("chores", Chores(self.chores, self._stopping).run),
            )
        ]
        declared = partial(declare_limits, self.store, self._by_kind.values())
        keep_trying(declared, self._stopping, "declaring limits")
        logger.info("worker %s started: %s", self.worker_id, ", ".join(self._by_kind))
        for thread in threads:
            thread.start()
        try:
            self._fetch()
        except BaseException:
            self._abandoning.set()  # after a KeyboardInterrupt too nothing may be left leased
            raise
        finally:
            self.vitals.stopping = True
            self._stopping.set()
            try:
                self._drain()
            finally:
                self._close(threads)
        logger.info("worker %s stopped: %s", self.worker_id, self.stats)
        return self.stats

    def stop(self, *, abandon: bool = False) -> None:
        """
        Claim nothing more, and let `run` return when what runs is finished.

        With *abandon*, hand back the leases of what runs and return at once. Safe to call from a
        signal handler or any thread, any number of times.
        """
        self.vitals.stopping = True
        self._stopping.set()
        if abandon:
            self._abandoning.set()
        self._wake()

    def _wake(self) -> None:
        self._freed.set()
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()

    def _close(self, threads: list[threading.Thread]) -> None:
        # What could not be recorded by now is tried once more, and then left to the reaper.
        self._abandoning.set()
        for pool in self._pools:
            pool.stop()
        self._acknowledger.stop()
        threads[0].join(self.grace_seconds)
        self._finished.set()
        for thread in threads[1:]:
            thread.join(5)
        self._reporter.end()
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            wakeup.close()

    @property
    def in_flight(self) -> int:
        """How many items this worker holds."""
        return len(self._held)

    # -- claiming ------------------------------------------------------------------------------

    def _fetch(self) -> None:
        idle = _SHORTEST_POLL
        while not self._stopping.is_set():
            self._freed.clear()
            self._kept_back = self._claimer.keyed
            claimed = keep_trying(self._claim, self._stopping, "claiming") or 0
            if claimed:
                idle = _SHORTEST_POLL
            elif self._claimer.room():
                self._wait_for_work(idle)
                idle = min(self.poll_seconds, idle * 2)
            else:
                self._freed.wait(self.poll_seconds)

    def _claim(self) -> int:
        self.vitals.claiming()
        claimed = self._claimer.claim()
        self.vitals.claimed()
        return claimed

    def _wait_for_work(self, idle: float) -> None:
        due = keep_trying(self.store.next_due_seconds, self._stopping, "looking ahead")
        # A due item that was not claimed is another worker's, or of a kind that runs elsewhere.
        # With notices there is no hurry to poll; a due time is still kept.
        timeout = idle if self._wakeup is None else self.poll_seconds
        if due is not None and due > 0:
            timeout = min(timeout, due)
        # Ready and not claimed, it may be that a limit keeps it back until something ends.
        self._kept_back = self._claimer.keyed or (due is not None and due < _SOON)
        if self._stopping.is_set() or (self._looks_when_freed and self._freed.is_set()):
            return
        if self._wakeup is not None:
            self._wakeup.wait(timeout)
        else:
            (self._freed if self._looks_when_freed else self._stopping).wait(timeout)

    @property
    def _looks_when_freed(self) -> bool:
        # While one of several pools is full, there may be work for it as soon as it has room.
        return self._claimer.full or self._kept_back

    # -- running -------------------------------------------------------------------------------

    def _begin(self, task: Task) -> Handler | None:
        if self._stopping.is_set() or task.asked:
            return None
        task.started_at = time.monotonic()
        return self._by_kind[task.item.kind]

    def _unbegun(self, task: Task) -> Outcome:
        """What gives an item back that was claimed ahead: another worker can have it at once."""
        return Outcome(task.item.id, ItemStatus.PENDING, None, token=task.item.lease_token)

    def _execute(self, task: Task) -> Result:
        handler = self._begin(task)
        if handler is None:
            return self._unbegun(task)
        with drained_by(self._stopping.is_set, lambda: task.asked):
            return execute(
                self.store, self.worker_id, handler, task.item, self.describe, self.redact
            )

    async def _aexecute(self, task: Task) -> Result:
        handler = self._begin(task)
        if handler is None:
            return self._unbegun(task)
        try:
            with drained_by(self._stopping.is_set, lambda: task.asked):
                return await aexecute(self.store, handler, task.item, self.describe, self.redact)
        except asyncio.CancelledError as error:
            if task.lost or task.asked:
                raise
            # Not by us, but by something that the handler awaited.
            return failed(handler, task.item, error, self.describe, self.redact)

    def _execute_all(self, tasks: Sequence[Task]) -> None:
        """Run inline handlers one after another."""
        ended: list[Ended] = []
        current: Task | None = None
        handed_on = now = time.monotonic()
        with drained_by(self._stopping.is_set, lambda: current is not None and current.asked):
            for task in tasks:
                current, task.started_at = task, now
                result: Result = None
                if not task.lost:
                    if self._stopping.is_set() or task.asked:
                        task.started_at, result = None, self._unbegun(task)
                    else:
                        handler = self._by_kind[task.item.kind]
                        result = execute(
                            self.store, self.worker_id, handler, task.item, self.describe,
                            self.redact,
                        )  # fmt: skip
                now = task.ended_at = time.monotonic()
                ended.append((task, result))
                if now - handed_on > _INLINE_SECONDS:
                    self._acknowledger.put(ended)
                    ended, handed_on = [], now
        if ended:
            self._acknowledger.put(ended)

    def _done(self, task: Task, result: Result) -> None:
        task.ended_at = time.monotonic()
        self._acknowledger.put([(task, result)])

    def _on_freed(self) -> None:
        if self._looks_when_freed:
            self._wake()
        else:
            self._freed.set()

    def _drain(self) -> None:
        """Wait until nothing is held, or time is up, or `stop(abandon=True)`; then hand back."""
        deadline = time.monotonic() + self.grace_seconds
        while self._held and not self._abandoning.is_set() and time.monotonic() < deadline:
            self._freed.wait(0.1)
            self._freed.clear()
        left = self._held.unfinished()
        if left:
            logger.warning("handing back %d items that are not finished", len(left))
            keep_trying(
                lambda: self.store.release(list(left), self.worker_id), None, "handing back"
            )
        for task in left.values():
            task.lost = True
