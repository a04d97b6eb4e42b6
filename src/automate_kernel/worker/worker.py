"""
A worker: it claims items, runs their handlers, and has the outcomes recorded.

::

    fetcher ──claim──▶ pools (threads, event loop) ─outcomes─▶ acknowledger ──commit──▶
       ▲ wakes on NOTIFY, free slots, due times                 commits whatever has gathered
    heartbeat: renews leases, stops what was lost
    watch: stops what was cancelled, reports
    clock: the reaper, schedules, polls; upkeep: purging, notices
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import describe_error
from automate_kernel.outbox.item import (
    ItemStatus,
    Outcome,
    OutcomeRecorded,
    Result,
    begin_is_noted,
)
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import ExecutorUse, WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Wakeup
from automate_kernel.worker.acknowledger import Acknowledger
from automate_kernel.worker.handler import (
    Handler,
    ItemRunner,
    WorkerStats,
    declare_limits,
    default_worker_id,
    stoppable_by,
)
from automate_kernel.worker.heartbeat import Heartbeat, Liveness
from automate_kernel.worker.in_flight import Ended, InFlight, Task
from automate_kernel.worker.periodic import PeriodicRunner, PeriodicTask, keep_trying
from automate_kernel.worker.pools import LoopPool, Pool, PoolSetup, ThreadPool
from automate_kernel.worker.quarantine import Quarantine
from automate_kernel.worker.reporter import ActivityLog, Reporter
from automate_kernel.worker.threads import LATE_SECONDS

__all__ = ["Claimer", "Flag", "Worker"]

logger: logging.Logger = get_logger(__name__)

_SHORTEST_POLL = 0.02
# The main thread runs the handlers of signals. A signal that another thread gets doesn't wake it,
# nor does a signal right before its wait begins. On Windows no signal ends a wait for a lock.
_LONGEST_DEAF = 0.5
_SOON = 1.0
# After so many claims in a row that found something a worker wants no notices: it looks anyway.
_BUSY_CLAIMS = 10
# After so many notices in a row of what is for others it hears none for a moment: each costs the
# server some statements, and there may be hundreds in a second.
_VAIN_WAKES, _VAIN_SECONDS = 5, 0.02
# So long, at least, a stop waits for a database that is slow to record what has ended. The grace is
# for what still runs, and may be none.
_RECORD_SECONDS = 10.0


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
        in_flight: InFlight,
        *,
        quarantine: Quarantine,
        wait: Callable[[Sequence[Task]], None],
        batch: int,
        stopping: runtime.Event,
    ) -> None:
        self._store, self._worker_id = store, worker_id
        self._pools, self._in_flight, self._quarantine = pools, in_flight, quarantine
        self._wait = wait
        self._batch, self._stopping = batch, stopping
        self._resting: set[Pool] = set()
        self._full: list[Pool] = []
        self.asked: bool = False
        """True if a pool had room the last time."""
        self.keyed: bool = False
        """True if an item with a key was claimed: when it ends, the next of its key may begin."""

    @property
    def full(self) -> bool:
        """True if a pool had no room the last time."""
        return bool(self._full)

    def relieved(self) -> bool:
        """
        Return True if a pool that had no room the last time has some now.

        Of those that have none any room that comes later is announced. That of a pool which says
        that it has room is not: so who asks has to claim.
        """
        return any(pool.free() > 0 for pool in self._full)

    def claim(self) -> int:
        """Claim once for each busy pool, or once for all; return the number of started items."""
        kinds = {pool: named for pool in self._pools if (named := pool.kinds)}
        room = {pool: min(self._batch, pool.free()) for pool in kinds}
        self._full = [pool for pool, limit in room.items() if limit < 1]
        self.asked = len(self._full) < len(room)
        # From here on something may end that lets another one of its key begin.
        self.keyed = self.keyed and len(self._in_flight) > 0
        resting = [pool for pool in kinds if room[pool] > 0 and pool in self._resting]
        total = 0
        for pool in kinds:
            if room[pool] > 0 and pool not in self._resting:
                its = {one: kinds[one] for one in (pool, *resting)}
                total += self._claim_for(its, room[pool])
                resting = []
        if resting:
            its = {one: kinds[one] for one in resting}
            total += self._claim_for(its, min(room[pool] for pool in resting))
        return total

    def _claim_for(self, kinds: Mapping[Pool, Sequence[str]], limit: int) -> int:
        """Claim *limit* for the first of these pools, and of it for the others what they have."""
        if self._stopping.is_set() or self._quarantine.alone_seconds() > 0:
            return 0
        pools = list(kinds)
        wanted = [kind for its in kinds.values() for kind in its]
        asked_at = runtime.monotonic()
        items = self._store.claim_ahead(self._worker_id, limit, kinds=wanted)
        self.keyed = self.keyed or any(item.ordering_key or item.concurrency_key for item in items)
        now = runtime.monotonic()
        surplus: list[str] = []
        started: list[tuple[Pool, list[Task]]] = []
        for pool in pools:
            its = items if len(pools) == 1 else [one for one in items if one.kind in kinds[pool]]
            # A pool that had nothing for a while may be short of room for what comes all at once.
            fitting = len(its) if pool is pools[0] else max(0, pool.free())
            surplus += [item.id for item in its[fitting:]]
            started.append((pool, [Task(item, now, asked_at) for item in its[:fitting]]))
            if its:
                self._resting.discard(pool)
            else:
                self._resting.add(pool)
        every = [task for _, tasks in started for task in tasks]
        waiting = self._quarantine.admit(every, beside=len(self._in_flight))
        self._in_flight.add(every)
        if waiting:
            self._wait(waiting)
        held_up = set(waiting)
        for pool, tasks in started:
            pool.start([one for one in tasks if one not in held_up] if held_up else tasks)
        if surplus:
            hand_back = partial(self._store.release, surplus, self._worker_id)
            keep_trying(hand_back, self._stopping, "handing back")
        return len(items) - len(surplus)


class Flag(runtime.Event):
    """
    A `threading.Event` that can be set while the same thread is in the middle of using it.

    A signal handler runs between two steps of the main thread. If that one just holds the lock of
    an ordinary event, the handler waits for it for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._set = False
        # A lock for each thread that waits, which `set` releases; so nothing here is locked.
        self._waiting: list[Any] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'set' if self._set else 'unset'}>"

    def is_set(self) -> bool:
        """Return True if the flag is set."""
        return self._set

    def set(self) -> None:
        """Set it, and wake the threads that wait for it."""
        self._set = True
        for waiting in list(self._waiting):
            with suppress(RuntimeError):  # another thread has released it
                waiting.release()

    def clear(self) -> None:
        """Take it back."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, for at most *timeout* seconds; return True if it is."""
        deadline = None if timeout is None else runtime.monotonic() + timeout
        main = runtime.current_thread() is runtime.main_thread()
        longest = _LONGEST_DEAF if main else runtime.TIMEOUT_MAX
        waiting = runtime.Lock()
        waiting.acquire()
        # Before the look at it: who sets it after that releases the lock.
        self._waiting.append(waiting)
        try:
            while not self._set:
                left = longest if deadline is None else deadline - runtime.monotonic()
                if left <= 0 or waiting.acquire(timeout=min(left, longest)):
                    return left > 0
            return True
        finally:
            self._waiting.remove(waiting)


@dataclass
class Worker:
    """
    Runs `handlers` on items from *store* until it is stopped.

    *slots* handlers run at once on threads and *async_slots* on the event loop; *batch* bounds one
    claim. Without NOTIFY it looks for work at least every *poll_seconds*. Leases are renewed every
    *heartbeat_seconds*, a quarter of the lease by default. *periodic_tasks* run beside the work.

    After `stop` it finishes the running items, for at most *grace_seconds*, then hands them back. A
    database that is slow to record what has ended has ten seconds at least.

    *describe* turns an error into the text that is stored and logged. *redact* takes secrets out
    of its traceback. Every *report_seconds* the worker writes its state and its `activity` to the
    store, and calls *also_report* with its id. Once it is on the list of workers it takes over what
    others can't go on with: *take_over* gets its id, makes some of that due, and returns how much.
    An error of *preflight* ends `run` before anything begins. *version* and what *workflows* and
    *executors* give are part of its report.
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
    periodic_tasks: Sequence[PeriodicTask] = ()
    describe: Callable[[BaseException], str] = describe_error
    report_seconds: float = 5.0
    activity: ActivityLog = field(default_factory=ActivityLog)
    redact: Callable[[str], str] = str
    preflight: Callable[[], object] | None = None
    also_report: Callable[[str], object] | None = None
    take_over: Callable[[str], int] | None = None
    version: str | None = None
    workflows: Callable[[], Sequence[str]] = tuple
    executors: Callable[[], Sequence[ExecutorUse]] = tuple

    def __post_init__(self) -> None:
        self.liveness: Liveness = Liveness()
        self._runner = ItemRunner(self.store, self.worker_id, self.describe, self.redact)
        self._by_kind = {handler.kind: handler for handler in self.handlers}
        self._in_flight = InFlight()
        self._stopping, self._abandoning, self._finished = Flag(), Flag(), Flag()
        self._freed = Flag()
        self._kept_back = False
        self._woken = False
        self._wakeup: Wakeup | None = None
        self._pools: list[Pool] = []
        self._before_release: list[Callable[[], Collection[str]]] = []
        self._quarantine = Quarantine()
        self._patience = self.grace_seconds
        self._failure: BaseException | None = None
        self._acknowledger = Acknowledger(
            self.store,
            self.worker_id,
            self._in_flight,
            self.activity,
            quarantine=self._quarantine,
            liveness=self.liveness,
            abandoning=self._abandoning,
            freed=self._on_freed,
        )
        self._heartbeat = Heartbeat(
            self.store, self.worker_id, self._in_flight, self.liveness, self._finished
        )
        self._reporter = Reporter(
            self.store, self._info, self.activity, self.liveness, self.also_report
        )
        # Others may not have seen it on the list while they handed something on.
        self._looks_left = 2 if self.take_over is not None else 0

    @property
    def stats(self) -> WorkerStats:
        """The outcomes that were recorded so far."""
        return self._acknowledger.stats

    @property
    def in_flight(self) -> int:
        """The number of items that this worker holds."""
        return len(self._in_flight)

    def _info(self) -> WorkerInfo:
        handlers = self._by_kind.values()
        plain = any(not one.asynchronous for one in handlers)
        asynchronous = any(one.asynchronous for one in handlers)
        return WorkerInfo(
            self.worker_id,
            socket.gethostname(),
            os.getpid(),
            None,
            None,
            kinds=tuple(sorted(self._by_kind)),
            slots=self.slots * plain + self.async_slots * asynchronous,
            in_flight=self.in_flight,
            stopping=self.liveness.stopping,
            version=self.version,
            workflows=tuple(self.workflows()),
            executors=tuple(self.executors()),
        )

    # -- life ----------------------------------------------------------------------------------

    def run(self) -> WorkerStats:
        """Work until `stop`, and return the outcomes. Blocks the calling thread."""
        if self.preflight is not None:
            self.preflight()
        self._open()
        threads = self._threads()
        declared = partial(declare_limits, self.store, self._by_kind.values())
        keep_trying(declared, self._stopping, "declaring limits")
        logger.info("worker %s started: %s", self.worker_id, ", ".join(self._by_kind))
        for thread in threads:
            thread.start()
        fetcher = runtime.Thread(target=self._fetch_or_fail, name="automate-fetcher", daemon=True)
        fetcher.start()
        try:
            self._stopping.wait()
        except BaseException:
            self._abandoning.set()  # after a KeyboardInterrupt too nothing may be left leased
            raise
        finally:
            self.stop()
            try:
                fetcher.join()
                self._drain()
            finally:
                self._close(threads)
        if self._failure is not None:
            raise self._failure
        logger.info("worker %s stopped: %s", self.worker_id, self.stats)
        return self.stats

    def _take_over(self) -> None:
        if self.take_over is None or not self._looks_left or not self._reporter.listed:
            return
        if self.take_over(self.worker_id):
            self._wake()
        else:
            self._looks_left -= 1

    def _open(self) -> None:
        self._pools = self._make_pools()
        self._claimer = Claimer(
            self.store,
            self.worker_id,
            self._pools,
            self._in_flight,
            quarantine=self._quarantine,
            wait=self._let_wait,
            batch=self.batch,
            stopping=self._stopping,
        )
        self._wakeup = self.store.wakeup()

    def _make_pools(self) -> list[Pool]:
        setup = self._setup()
        factories: dict[Any, list[Handler]] = {}
        plain: list[str] = []
        loop: list[str] = []
        for one in self._by_kind.values():
            if one.pool is not None:
                factories.setdefault(one.pool, []).append(one)
            elif one.asynchronous:
                loop.append(one.kind)
            else:
                plain.append(one.kind)
        own: list[Pool] = [factory(its, setup) for factory, its in factories.items()]
        if loop:
            own.append(LoopPool(loop, self.async_slots, self._aexecute, self._done))
        self._plain = ThreadPool(plain, self.batch, setup)
        return [*own, self._plain]

    def _setup(self) -> PoolSetup:
        return PoolSetup(
            self.worker_id,
            self.slots,
            self.store.lease_seconds,
            run=self._execute,
            hold=self._in_flight.add,
            done_all=self._done_all,
            hand_back=self._hand_back,
            failed=self._failed,
            stopping=self._stopping.is_set,
            room=self._on_freed,
            begins=self._note_begin,
            progressed=self._progressed,
            patience=lambda: self._patience,
            before_release=self._before_release.append,
            liveness=self.liveness,
        )

    def _threads(self) -> list[runtime.Thread]:
        """Return the threads beside the fetcher's, the acknowledger's first."""
        every = self.heartbeat_seconds or self.store.lease_seconds / 4
        report = PeriodicTask("report", self.report_seconds, self._reporter.report, at_once=True)
        stop = PeriodicTask("stop", 1.0, self._reporter.report_stop)
        late = PeriodicTask("late", LATE_SECONDS, self._plain.hand_back_late)
        begin = PeriodicTask("take over", 1.0, self._take_over)
        # A purge that takes long must keep no schedule, and no item of a dead worker, waiting.
        clock = [task for task in self.periodic_tasks if task.clock]
        upkeep = [task for task in self.periodic_tasks if not task.clock]
        watched = [self._heartbeat.cancellations(), late, report, stop, begin]
        beat = self._heartbeat.renewal(every)
        return [
            runtime.Thread(target=target, name=f"automate-{name}", daemon=True)
            for name, target in (
                ("acknowledger", self._acknowledger.run),
                ("heartbeat", PeriodicRunner([beat], self._finished).run),
                ("watch", PeriodicRunner(watched, self._finished).run),
                ("clock", PeriodicRunner(clock, self._stopping).run),
                ("upkeep", PeriodicRunner(upkeep, self._stopping).run),
            )
        ]

    def stop(self, *, abandon: bool = False) -> None:
        """
        Claim nothing more, and let `run` return once the running items are finished.

        With *abandon*, hand back the leases of what runs and return at once. Safe to call from a
        signal handler or any thread, any number of times.
        """
        self.liveness.stopping = True
        self._stopping.set()
        if abandon:
            self._abandoning.set()
        self._wake()

    def _wake(self) -> None:
        self._freed.set()
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()

    def _close(self, threads: list[runtime.Thread]) -> None:
        if self._abandoning.is_set():
            self._patience = 0.0
        # What could not be recorded by now is tried once more, and then left to the reaper.
        self._abandoning.set()
        for pool in self._pools:
            pool.stop()
        self._acknowledger.stop()
        threads[0].join(max(self.grace_seconds, _RECORD_SECONDS))
        self._finished.set()
        for thread in threads[1:]:
            thread.join(5)
        self._reporter.end()
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            wakeup.close()

    # -- claiming ------------------------------------------------------------------------------

    def _fetch_or_fail(self) -> None:
        try:
            self._fetch()
        except BaseException as error:  # `run` raises it
            self._failure = error
            self.stop(abandon=True)

    def _fetch(self) -> None:
        idle, busy, vain = _SHORTEST_POLL, 0, 0
        while not self._stopping.is_set():
            self._freed.clear()
            if (seconds := self._quarantine.alone_seconds()) > 0:
                self._freed.wait(seconds)
                continue
            self._kept_back = self._claimer.keyed
            claimed = keep_trying(self._claim, self._stopping, "claiming") or 0
            busy = busy + 1 if claimed else 0
            vain = 0 if claimed else vain + self._woken
            woken, self._woken = self._woken, False
            if self._wakeup is not None and (busy > _BUSY_CLAIMS or not self._claimer.asked):
                self._wakeup.ignore()
            if claimed:
                idle = _SHORTEST_POLL
            elif self._claimer.relieved():
                continue
            elif self._claimer.asked:
                if self._wakeup is not None:
                    if woken and vain > _VAIN_WAKES:
                        self._wakeup.ignore()
                        self._freed.wait(_VAIN_SECONDS)
                    if not self._wakeup.expect():
                        continue
                idle = self._wait_for_work(idle)
            else:
                self._freed.wait(self.poll_seconds)

    def _claim(self) -> int:
        self.liveness.claiming()
        claimed = self._claimer.claim()
        self.liveness.claimed()
        return claimed

    def _wait_for_work(self, idle: float) -> float:
        """
        Wait until there may be something to claim; return the next pause where nobody wakes it.

        After a pause in which nothing came it looks again whether something is due: that costs less
        than a claim that finds nothing.
        """
        looked = False
        while True:
            due = keep_trying(self._look_ahead, self._stopping, "looking ahead")
            if looked and due is not None and due <= 0:
                return idle
            # A due item that was not claimed is another worker's, or of a kind that runs elsewhere.
            # With notices there is no hurry to poll; a due time is still kept.
            pause = idle if self._wakeup is None else self.poll_seconds
            idle = min(self.poll_seconds, idle * 2)
            timeout = pause if due is None or due <= 0 else min(pause, due)
            # Ready and not claimed, it may be that a limit keeps it back until something ends.
            self._kept_back = self._claimer.keyed or (due is not None and due < _SOON)
            if self._stopping.is_set() or (self._looks_when_freed and self._freed.is_set()):
                return idle
            self._woken = self._waited(timeout)
            if self._woken or due == timeout or (due is not None and due <= 0):
                return idle
            looked = True

    def _look_ahead(self) -> float | None:
        self.liveness.claiming()
        due = self.store.next_due_seconds()
        self.liveness.claimed()
        return due

    def _waited(self, timeout: float) -> bool:
        """Wait for at most *timeout* seconds; return True if something ended the wait."""
        if self._wakeup is not None:
            return self._wakeup.wait(timeout)
        flag = self._freed if self._looks_when_freed else self._stopping
        return flag.wait(timeout)

    @property
    def _looks_when_freed(self) -> bool:
        # While one of several pools is full, there may be work for it as soon as it has room.
        return self._claimer.full or self._kept_back

    def _on_freed(self) -> None:
        # First: the fetcher may be about to look for this, and then to wait for a wake-up.
        self._freed.set()
        wakeup = self._wakeup
        if wakeup is not None and self._looks_when_freed:
            wakeup.wake()

    # -- running -------------------------------------------------------------------------------

    def _note_begin(self, task: Task) -> bool:
        """Write down that *task* begins, if its item needs that; False if its lease is lost."""
        item = task.item
        # Asked of every item, and nearly all have their first attempt of several.
        if task.begun or (item.attempt_count < 2 <= item.max_attempts) or not begin_is_noted(item):
            return True
        begin = partial(self.store.begin, [task.item.id], self.worker_id)
        lost = keep_trying(begin, self._stopping, "beginning")
        if lost:
            task.lost = True
        task.begun = lost is not None and not lost
        return task.begun

    def _begin(self, task: Task) -> Handler | None:
        held = self._stopping.is_set() or task.asked or task.ran_out(self.store.lease_seconds)
        if held or not self._note_begin(task):
            return None
        task.started_at = runtime.monotonic()
        return self._by_kind[task.item.kind]

    def _unbegun(self, task: Task) -> Outcome | None:
        """Return the outcome that gives an item back: another worker can have it at once."""
        if task.lost:
            return None
        return Outcome(task.item.id, ItemStatus.PENDING, None, token=task.item.lease_token)

    def _execute(self, task: Task) -> Result:
        handler = self._begin(task)
        if handler is None:
            return self._unbegun(task)
        with stoppable_by(self._stopping.is_set, lambda: task.asked):
            return self._runner.run(handler, task.item)

    async def _aexecute(self, task: Task) -> Result:
        if begin_is_noted(task.item):
            await asyncio.to_thread(self._note_begin, task)
        handler = None if task.lost else self._begin(task)
        if handler is None:
            return self._unbegun(task)
        try:
            with stoppable_by(self._stopping.is_set, lambda: task.asked):
                return await self._runner.arun(handler, task.item)
        except asyncio.CancelledError as error:
            if task.lost or task.asked:
                raise
            # Not by us, but by something that the handler awaited.
            return self._runner.failed(handler, task.item, error)

    def _done(self, task: Task, result: Result) -> None:
        task.ended_at = runtime.monotonic()
        self._acknowledger.put([(task, result)])

    def _done_all(self, ended: list[Ended]) -> None:
        recorded = [task.item for task, result in ended if isinstance(result, OutcomeRecorded)]
        for item in recorded:
            self.store.forget_claims([item.id], token=item.lease_token)
        self._acknowledger.put(ended)

    def _hand_back(self, tasks: Sequence[Task]) -> None:
        self._acknowledger.put([(one, None if one.lost else self._unbegun(one)) for one in tasks])

    def _let_wait(self, tasks: Sequence[Task]) -> None:
        self._acknowledger.put(self._quarantine.wait(tasks))

    def _progressed(self, task: Task) -> None:
        if self._quarantine.cleared(task):
            self._on_freed()

    def _failed(self, task: Task, error: BaseException) -> Result:
        return self._runner.failed(self._by_kind[task.item.kind], task.item, error)

    def _drain(self) -> None:
        """Wait until nothing is held, or time is up, or `stop(abandon=True)`; then hand back."""
        deadline = runtime.monotonic() + self.grace_seconds
        while self._in_flight and not self._abandoning.is_set() and runtime.monotonic() < deadline:
            self._freed.wait(0.1)
            self._freed.clear()
        self._plain.give_results()  # or what has run would be handed back, and run again
        left = self._in_flight.unfinished()
        if left:
            logger.warning("handing back %d items that are not finished", len(left))
            kept = {item_id for work in self._before_release for item_id in work()}
            # The leases of those run out, which counts an attempt.
            ids = [item_id for item_id in left if item_id not in kept]
            if ids:
                keep_trying(lambda: self.store.release(ids, self.worker_id), None, "handing back")
        for task in left.values():
            task.lost = True
