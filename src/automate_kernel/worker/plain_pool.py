"""
The pool of plain ``def`` handlers: on threads, or in place where they prove quick.

::

    claimed ──▶ threads ──────────────▶ results
       │            ▲ what overran, and the rest of its kind
       └─▶ in place ┴─ batches ───────▶ results, in lists

Each kind begins on the threads, where its calls are measured. Handing a call to a thread costs more
than a quick handler, so a quick kind runs in place: in batches, one call after another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from automate_kernel.outbox.item import Result
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.handler import Handler, stoppable_by
from automate_kernel.worker.in_flight import Ended, Task
from automate_kernel.worker.pools import PoolSetup
from automate_kernel.worker.threads import Threads, late_since

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")

# No more is claimed ahead than the slots are likely to start within this time, so that a long
# item never sits on a lease here while another worker is free.
_AHEAD_SECONDS = 0.25
_AHEAD_MOST = 200
# A kind whose calls take less runs in place, until they take twice as long.
_QUICK_SECONDS = 0.0001
# What can be done in place in less time than it takes to wake the thread for it.
_AT_ONCE_SECONDS = 0.0003
# A call in place that takes longer keeps its thread, and another one takes the rest over. Results
# are handed on in lists, but none later than this.
_OVERRUN_SECONDS = 0.02
_LOOK_SECONDS = 0.01
_LOOKS_AT_NOTHING = 100
_UNKNOWN_SECONDS = 1.0
# A kind shows in so many calls on the threads that it is quick; in more, each time it was not.
_TRIAL_CALLS = 5
_TRIAL_GROWTH = 4
_TRIAL_MOST = 1000
# The first claim after a kind has moved in place is as small as what it was tried with; each of the
# next is twice as large. So what is claimed ahead of one kind never holds up for long another that
# has just proved quick too, and no more is at stake than the calls so far speak for.
_FIRST_CLAIM = 2 * _TRIAL_CALLS


class Pace:
    """The measured duration of one kind's calls, and whether they may run in place."""

    def __init__(self) -> None:
        self.mean_seconds: float = _UNKNOWN_SECONDS
        self.quick: bool = False
        self._trial = self._left = _TRIAL_CALLS

    def note_on_thread(self, took: float) -> bool:
        """Note a call on a thread; return True if the kind is quick from now on."""
        self._note(took, 1)
        self._left = self._trial if took > _OVERRUN_SECONDS else self._left - 1
        if self.quick or self._left > 0 or self.mean_seconds >= _QUICK_SECONDS:
            return False
        self.quick = True
        return True

    def note_in_place(self, took: float, calls: int) -> bool:
        """Note *calls* that took *took* each; return True if the kind is quick no longer."""
        self._note(took, calls)
        return self.mean_seconds > 2 * _QUICK_SECONDS and self.slow_down()

    def slow_down(self) -> bool:
        """Take the kind for slow until a longer trial; return True if it was quick."""
        was_quick, self.quick = self.quick, False
        if was_quick:
            self.mean_seconds = _UNKNOWN_SECONDS
            self._trial = self._left = min(self._trial * _TRIAL_GROWTH, _TRIAL_MOST)
        return was_quick

    def _note(self, took: float, calls: int) -> None:
        # Down fast and up slowly: what others did meanwhile makes a quick call look slow.
        mean = self.mean_seconds
        if mean >= _UNKNOWN_SECONDS:
            self.mean_seconds = took
        else:
            self.mean_seconds += (took - mean) * (0.5 if took < mean else min(0.5, 0.02 * calls))


class ThreadPool:
    """Runs handlers on threads, with a short queue in front. *note* is called after each run."""

    def __init__(self, slots: int, setup: PoolSetup, note: Callable[[str, float], None]) -> None:
        self.kinds: Sequence[str] = ()
        self._slots, self._setup, self._note = slots, setup, note
        self._threads = Threads(slots, "automate-slot", self._run, self._done)
        self._lock = threading.Lock()
        self._mean_seconds = _UNKNOWN_SECONDS

    def free(self) -> int:
        """Return the free slots, with the items that they will take in the next moment."""
        ahead = min(_AHEAD_MOST, int(self._slots * _AHEAD_SECONDS / self._mean_seconds))
        return max(0, self._slots + ahead - self._threads.busy)

    def start(self, tasks: Sequence[Task]) -> None:
        """Queue them for the next free threads."""
        self._threads.put(tasks)

    def take_slot(self) -> None:
        """Count a slow call that has begun elsewhere, and expect no quick ones for now."""
        self._threads.count(1)
        with self._lock:
            self._mean_seconds = _UNKNOWN_SECONDS

    def give_slot(self) -> None:
        """Count that call no longer."""
        self._threads.count(-1)

    def hand_back_late(self) -> None:
        """Hand back what has waited for a slot for long: another worker may have a free one."""
        if self._setup.stopping():
            return
        since = late_since()
        late = self._threads.take_back(
            lambda tasks: [task for task in tasks if task.claimed_at <= since]
        )
        if late:
            with self._lock:
                # So that nothing is claimed ahead again until some calls have shown their pace.
                self._mean_seconds = max(_UNKNOWN_SECONDS, float(self._slots))
            self._setup.hand_back(late)

    def _run(self, task: Task) -> tuple[Result, float]:
        """Return the outcome of *task*, and how long it took."""
        started_at = time.monotonic()
        outcome = None if task.lost else self._setup.run(task)
        took = max(time.monotonic() - started_at, 1e-6)
        with self._lock:
            self._mean_seconds += (took - self._mean_seconds) * 0.05
        return outcome, took

    def _done(self, task: Task, ended: tuple[Result, float]) -> None:
        outcome, took = ended
        if task.started_at is not None:
            self._note(task.item.kind, took)
        self._setup.done(task, outcome)

    def stop(self) -> None:
        """End the threads once they are through with what they run."""
        self._threads.stop()


class Batch:
    """Tasks that one thread runs one after another, until another takes the rest over."""

    __slots__ = ("call", "ended", "here", "over", "taken", "tasks", "waiting")

    def __init__(self, tasks: Sequence[Task], *, here: bool) -> None:
        self.tasks: Sequence[Task] = tasks
        self.here: bool = here
        """True if the thread is the one that has claimed them."""
        # Deques, since two threads take from them.
        self.waiting: deque[Task] = deque(tasks)
        self.ended: deque[Ended] = deque()
        self.call: tuple[Task, float] | None = None
        """The task that runs, and since when."""
        self.over: bool = False
        self.taken: bool = False
        """True once another thread has taken over what was waiting."""

    def asked(self) -> bool:
        """Return True if the task that runs is asked to stop."""
        return self.call is not None and self.call[0].asked


class InPlacePool:
    """
    Runs quick handlers one after another, a batch at a time on one thread.

    While a batch runs, the next is claimed, so that neither waits for the other. A few items that
    are done before the thread would be awake are left to the claiming thread, in `run_here`.
    *note* is called with a kind, its mean and the calls of a batch; *overran* with the task of a
    call that takes too long, and *resumed* once that has ended. *elsewhere* takes the tasks whose
    kinds are quick no longer.
    """

    def __init__(
        self,
        batch: int,
        setup: PoolSetup,
        *,
        note: Callable[[str, float, int], None],
        overran: Callable[[Task], None],
        resumed: Callable[[], None],
        elsewhere: Callable[[Sequence[Task]], None],
    ) -> None:
        self.kinds: Sequence[str] = ()
        self._most, self._setup, self._note = batch, setup, note
        self._overran, self._resumed, self._elsewhere = overran, resumed, elsewhere
        self._queue: SimpleQueue[Sequence[Task] | None] = SimpleQueue()
        self._here: Sequence[Task] | None = None
        self._batches = 0
        self._serving = False
        self._running: Batch | None = None
        self._watcher: threading.Thread | None = None
        self._busy, self._stopped = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._mean_seconds = _QUICK_SECONDS
        self._trusted = _FIRST_CLAIM

    # -- as a pool ---------------------------------------------------------------------------

    def free(self) -> int:
        """Return a batch while at most one is at hand; fewer if handlers are slow."""
        soon = int(_AHEAD_SECONDS / self._mean_seconds)
        if self._batches >= (2 if soon >= self._most else 1):
            return 0
        return min(self._most, self._trusted, max(1, soon))

    def begin_small(self) -> None:
        """Claim little at first, because of a kind that is new here."""
        self._trusted = _FIRST_CLAIM

    def start(self, tasks: Sequence[Task]) -> None:
        """Queue them as one batch, or leave them to `run_here` if that takes less."""
        if not tasks:
            return
        with self._lock:
            self._batches += 1
            alone = self._batches == 1
        few = alone and len(tasks) * self._mean_seconds < _AT_ONCE_SECONDS
        if self._here is None and (few or not self._is_served()):
            self._here = tasks
        else:
            self._queue.put(tasks)

    def run_here(self) -> bool:
        """Run what `start` left; return False if another thread has to claim from now on."""
        tasks, self._here = self._here, None
        return tasks is None or self._serve(tasks, here=True)

    def stop(self) -> None:
        """End the threads once they are through with what they run."""
        self._stopped.set()
        self._busy.set()
        self._queue.put(None)

    # -- running -----------------------------------------------------------------------------

    def _is_served(self) -> bool:
        """Return True if a thread serves the queue, and start one first if none does."""
        with self._lock:
            if not self._serving:
                # Where the machine has no more threads, the one that claims has to do.
                with suppress(RuntimeError):
                    self._start_serving()
            return self._serving

    def _start_serving(self) -> None:
        threading.Thread(target=self._serve_all, name="automate-quick", daemon=True).start()
        self._serving = True

    def _serve_all(self) -> None:
        with self._lock:
            pass  # whoever takes a batch over starts this first, and then sees to the rest
        while (tasks := self._queue.get()) is not None:
            if not self._serve(tasks, here=False):
                return

    def _serve(self, tasks: Sequence[Task], *, here: bool) -> bool:
        """Run a batch; return False if another thread has taken this one's work over."""
        quick = self.kinds
        if slow := [task for task in tasks if task.item.kind not in quick]:
            self._elsewhere(slow)
            tasks = [task for task in tasks if task.item.kind in quick]
        batch = Batch(tasks, here=here)
        self._running = batch
        self._keep_watch()
        self._run(batch)
        with self._lock:
            batch.over = True
            if not batch.taken:
                self._batches -= 1
                if self._running is batch:
                    self._running = None
        self._hand_on(batch)
        if batch.taken:
            self._resumed()
        elif tasks:
            self._trusted = min(self._most, max(self._trusted, 2 * len(tasks)))
            self._measure(tasks)
        self._setup.room()
        return not batch.taken

    def _run(self, batch: Batch) -> None:
        call, waiting, ended = self._setup.call, batch.waiting, batch.ended
        handed_on = now = time.monotonic()
        with stoppable_by(self._setup.stopping, batch.asked):
            while waiting:
                try:
                    task = waiting.popleft()
                except IndexError:
                    return  # taken at this very moment
                batch.call = task, now
                result = None if task.lost else call(task)
                now = task.ended_at = time.monotonic()
                ended.append((task, result))
                if now - handed_on > _OVERRUN_SECONDS:
                    self._hand_on(batch)
                    handed_on = now

    def _hand_on(self, batch: Batch) -> None:
        if ended := _emptied(batch.ended):
            self._setup.done_all(ended)

    def _measure(self, tasks: Sequence[Task]) -> None:
        took: dict[str, list[float]] = {}
        for task in tasks:
            if task.started_at is not None and task.ended_at is not None:
                took.setdefault(task.item.kind, []).append(task.ended_at - task.started_at)
        for kind, each in took.items():
            mean = max(sum(each) / len(each), 1e-6)
            self._mean_seconds += (mean - self._mean_seconds) * 0.5
            self._note(kind, mean, len(each))

    # -- overruns ----------------------------------------------------------------------------

    def _keep_watch(self) -> None:
        if self._watcher is None:
            watcher = threading.Thread(target=self._watch, name="automate-watch", daemon=True)
            # Where the machine has no more threads, nothing could take over either.
            with suppress(RuntimeError):
                watcher.start()
                self._watcher = watcher
        if not self._busy.is_set():
            self._busy.set()

    def _watch(self) -> None:
        """Look whether a call in place takes too long, as long as there are any."""
        seen: tuple[Task, float] | None = None
        refused: tuple[Task, float] | None = None
        idle = 0
        while not self._stopped.wait(_LOOK_SECONDS):
            batch = self._running
            call = None if batch is None else batch.call
            idle = idle + 1 if batch is None else 0
            # Seen twice, so that a pause of the whole process is not taken for a slow call.
            if batch and call and call is seen and time.monotonic() - call[1] > _OVERRUN_SECONDS:
                try:
                    self._take_over(batch, call[0])
                except RuntimeError as error:
                    # The machine has no more threads: the one that is in the call goes on after it.
                    if call is not refused:
                        logger.warning("no thread takes over from a slow call: %s", error)
                    refused = call
            seen = call
            if idle > _LOOKS_AT_NOTHING:
                idle = 0
                self._busy.clear()
                if self._running is None and not self._stopped.is_set():
                    self._busy.wait()

    def _take_over(self, batch: Batch, slow: Task) -> None:
        """Let other threads do what *slow* holds up; raises `RuntimeError` if there are none."""
        with self._lock:
            if batch.over:
                return
            # First those that take over: without them all stays as it is.
            if not batch.here or (batch.waiting and not self._serving):
                self._start_serving()
            if batch.here:
                self._setup.relieve()
            batch.taken = True
            self._running = None
            rest = _emptied(batch.waiting)
            if not rest:
                self._batches -= 1
            self._overran(slow)
        self._hand_on(batch)
        if rest:
            self._queue.put(rest)


class PlainPool:
    """
    Runs plain handlers: each kind on `threads`, or in `in_place` once it has proved quick.

    A call in place that takes too long makes its kind slow. *slots* calls run at once on threads.
    """

    def __init__(self, handlers: Sequence[Handler], batch: int, setup: PoolSetup) -> None:
        self._setup = setup
        self._paces = {one.kind: Pace() for one in handlers if not one.transactional}
        self._kinds = [one.kind for one in handlers]
        self._lock = threading.Lock()
        self.threads: ThreadPool = ThreadPool(setup.slots, setup, self._note_on_thread)
        self.in_place: InPlacePool = InPlacePool(
            batch,
            setup,
            note=self._note_in_place,
            overran=self._overran,
            resumed=self.threads.give_slot,
            elsewhere=self._run_on_threads,
        )
        self._sort()

    def _sort(self) -> None:
        """Let each kind be claimed for where it runs now."""
        with self._lock:
            quick = [kind for kind, pace in self._paces.items() if pace.quick]
            if set(quick).difference(self.in_place.kinds):
                self.in_place.begin_small()
            self.in_place.kinds = quick
            self.threads.kinds = [kind for kind in self._kinds if kind not in quick]

    def _note_on_thread(self, kind: str, took: float) -> None:
        pace = self._paces.get(kind)
        if pace is not None and pace.note_on_thread(took):
            self._move()

    def _note_in_place(self, kind: str, took: float, calls: int) -> None:
        if self._paces[kind].note_in_place(took, calls):
            self._move()

    def _overran(self, task: Task) -> None:
        self.threads.take_slot()
        if self._paces[task.item.kind].slow_down():
            self._move()

    def _move(self) -> None:
        self._sort()
        # A claim that is going on has asked for the kinds as they were.
        self._setup.look_again()

    def _run_on_threads(self, tasks: Sequence[Task]) -> None:
        """Queue as many as the slots are likely to start soon, and hand the others back."""
        room = self.threads.free()
        self.threads.start(tasks[:room])
        if len(tasks) > room:
            self._setup.hand_back(tasks[room:])


def _emptied(entries: deque[T]) -> list[T]:
    """Return the entries that were there, and leave none. Other threads may take some too."""
    taken: list[T] = []
    try:
        while True:
            taken.append(entries.popleft())
    except IndexError:
        return taken
