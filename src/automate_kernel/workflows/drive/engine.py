"""
The engine of a worker: it holds hundreds of executions, and saves their checkpoints as a group.

::

    claimed ─▶ intake ─▶ ready queue ─▶ turn ─▶ dirty list ─▶ committer ─▶ ready queue ─▶ …
                              ▲           │ calls
                              └─ outcomes ┴─▶ in place (quick) · step threads · event loop

The intake begins what is claimed, a bounded number at once, and the fetcher claims on meanwhile. A
turn takes the outcomes of calls in, and gives what is to be saved and called next. The committer
saves whatever has gathered while it saved the group before: the slower the disk, the larger the
groups. An execution that is alone is saved where its turn is taken. Once its checkpoint is
committed an execution goes on, without a new claim.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue

from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    LeaseLostError,
    StorageError,
    UnknownHereError,
)
from automate_kernel.operations.context import handled_item
from automate_kernel.operations.portal import Portal
from automate_kernel.outbox.item import (
    ItemStatus,
    OutboxItem,
    Outcome,
    OutcomeRecorded,
    Result,
    begin_is_noted,
)
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.shortage import warn_of
from automate_kernel.worker.handler import Handler, stoppable_by
from automate_kernel.worker.in_flight import Ended, Task
from automate_kernel.worker.periodic import note_tries
from automate_kernel.worker.pools import PoolSetup
from automate_kernel.worker.threads import LATE_SECONDS, Threads, late_since
from automate_kernel.workflows.decide.children import CANCEL
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.waiting import LOOK_SECONDS
from automate_kernel.workflows.decide.waits import ADVANCE, EVENT, SIGNAL, Arrived
from automate_kernel.workflows.drive.announcer import Announcer
from automate_kernel.workflows.drive.flow import MOST_TEXT, Flow, first_outcomes, needs_saving
from automate_kernel.workflows.drive.intake import Intake
from automate_kernel.workflows.drive.runner import (
    OVERRUN_SECONDS,
    SEEN_SECONDS,
    Runner,
)
from automate_kernel.workflows.execution import StepKey

logger: logging.Logger = get_logger(__name__)

# Executions in flight. A third of them must be free before more are claimed.
_MOST = 500
_GROUP = 200
# What is held up is tried again after so many seconds at most.
_MOST_HELD_BACK = 10.0
# No more is claimed than threads are likely to begin within this time: another worker may be free,
# and who dies over one execution takes an attempt from all that it holds.
_AHEAD_SECONDS = 0.25
# A call that takes less is made where the turn is taken: handing it to a thread costs as much.
_QUICK_SECONDS = 0.0001
# An execution's own code that takes longer is reported.
_LONG_SECONDS = 1.0
# A timer that rings so much later than another is the same.
_SAME_SECONDS = 0.001
# An execution with many steps stays here for so long after the last signal that has come for it: to
# read it again for each of them would cost more the more it has. So many may stay at once.
_STAY_SECONDS = 2.0
_MOST_STAYING = 50
# After so many looks at no call in place the watch rests until there is one.
_LOOKS_AT_NOTHING = 50
# The pause between two looks while signals come for those that stay.
_SOON_SECONDS = 0.05
# So long may it take to save one by one, at the end of a worker, that calls were made.
_SHOW_SECONDS = 2.0


class Driven:
    """An execution in the engine: its task, its flow, and what waits for its next turn."""

    __slots__ = (
        "arrived", "calls", "come", "due", "flow", "given_up", "held_back", "result", "saving",
        "stays_until", "stops", "task", "woken",
    )  # fmt: skip

    def __init__(self, task: Task, flow: Flow) -> None:
        self.task: Task = task
        self.flow: Flow = flow
        self.arrived: list[CallOutcome] = []
        self.come: dict[StepKey, Arrived] = {}
        """The signals that have come for what it waits for."""
        self.saving: Turn | None = None
        """The turn that is being saved."""
        self.held_back: int = 0
        """The number of times that what it saves was held up since it was saved last."""
        self.given_up: bool = False
        """True once nothing more of it is to begin: it is another worker's, or was ended."""
        self.stops: bool = False
        """True once its calls are to stop, since it is cancelled and cleans up then."""
        self.result: Result = None
        self.due: float | None = None
        """The time of its timer, if it has one."""
        self.stays_until: float | None = None
        """The time until which it stays although all of it waits; None while it need not."""
        self.woken: bool = False
        """True if it was to have a turn while it was being saved."""
        self.calls: dict[int, asyncio.Task[CallOutcome]] = {}
        """Its calls on the event loop, by their identities."""

    @property
    def over(self) -> bool:
        """True if it only waits for the calls in flight."""
        return self.given_up or self.task.lost or self.task.asked


_Entry = tuple[Driven, Sequence[CallOutcome] | None]
_Waiting = tuple[Driven, StepCall | None, float]


class Engine:
    """
    Drives executions under a worker, as one of its pools.

    Executions are turned one after another by one thread. Plain steps run on *setup*'s slots
    threads, or where they are if they prove quick; ``async def`` steps on the event loop of
    *portal*, where they hold no thread.
    """

    def __init__(
        self, runner: Runner, portal: Portal, handlers: Sequence[Handler], setup: PoolSetup
    ) -> None:
        self._kinds = [handler.kind for handler in handlers]
        self._handlers = {handler.kind: handler for handler in handlers}
        self._runner, self._portal, self._setup = runner, portal, setup
        setup.before_release(self._show_all)
        self._held = 0
        self._driven: set[Driven] = set()
        self._lock = threading.Lock()
        self._ready: SimpleQueue[_Entry | None] = SimpleQueue()
        self._dirty: SimpleQueue[Driven | None] = SimpleQueue()
        # What is saved later: its time, and a number that tells it from others of that time.
        self._later: list[tuple[float, int, Driven]] = []
        self._steps = Threads(setup.slots, "automate-step", self._perform, self._performed)
        self._announcer = Announcer()
        self._timers: list[tuple[float, int, Driven]] = []
        self._timer_count = 0
        # Calls in the order in which they began, until they are old enough to be seen.
        self._young: deque[tuple[float, Driven, StepCall]] = deque()
        # For how long a call holds a thread, on average.
        self._mean_seconds = 1.0
        # True if there was no room the last time.
        self._full = False
        self._async: dict[str, bool] = {}
        # The thread that takes the turns, by its number; and since when it has been in a call.
        self._turner = 0
        self._calling_since: float | None = None
        # Set while there may be something for `_watch` to see.
        self._watched = threading.Event()
        self._started = False
        self._stopped = threading.Event()
        self._looks = False
        # Set when there may be a signal for an execution that stays, or the time of a wait is over.
        self._told = threading.Event()
        self._begin: dict[str, Callable[[Sequence[Task]], Iterator[None]]] = {
            EVENT: self._begin_events, SIGNAL: self._deliver, CANCEL: self._run_each,
        }  # fmt: skip
        self._intake = Intake(
            (EVENT, ADVANCE),
            stopping=setup.stopping,
            give_back=self._give_back,
            failed=self._fail_begin,
            went_on=self._offer_room,
            liveness=setup.liveness,
        )

    # -- as a pool ---------------------------------------------------------------------------

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds that it takes now: no events while those are left to other workers."""
        if not self._runner.leaves_events():
            return self._kinds
        return [kind for kind in self._kinds if kind != EVENT]

    def free(self) -> int:
        """Return the room: what threads will soon begin, and none while a third is not free."""
        # Before it is counted: what makes room meanwhile has to be offered.
        self._full = True
        room = self._room()
        if room > 0:
            self._full = False
        return room

    def _room(self) -> int:
        if self._runner.store.outputs.full:
            return 0
        free, slots = _MOST - self._held, self._setup.slots
        soon = slots + int(min(_MOST, slots * _AHEAD_SECONDS / self._mean_seconds))
        # What has not had its turn may need a thread too.
        soon -= self._steps.busy + self._ready.qsize()
        soon = min(soon - self._intake.waiting, self._intake.room(_AHEAD_SECONDS))
        return max(0, min(free, soon)) if free * 3 >= _MOST else 0

    def _offer_room(self) -> None:
        """Have more claimed, if there was no room and is some now."""
        if self._full and self._room() > 0:
            self._full = False
            self._setup.room()

    def start(self, tasks: Sequence[Task]) -> None:
        """
        Let what events ask for begin, and executions be loaded and have their first turn.

        It only queues them: who claims for other kinds too waits for none of it.
        """
        if not tasks:
            return
        with self._lock:
            self._held += len(tasks)
        if not self._started:
            self._started = True
            self._start_threads()
        by_kind: dict[str, list[Task]] = {}
        for task in tasks:
            by_kind.setdefault(task.item.kind, []).append(task)
        # What is brought here counts for the executions that are looked at with it.
        for kind, its in sorted(by_kind.items(), key=lambda each: each[0] != SIGNAL):
            self._intake.put(kind, its, self._begin.get(kind, self._open)(its))

    def _begin_events(self, tasks: Sequence[Task]) -> Iterator[None]:
        for part in self._intake.parts(EVENT, tasks):
            if self._runner.leaves_events():
                self._give_back(part)  # claimed a moment before that was known
                continue
            # One by one: a death then counts for one. Or while it waited here it was cancelled.
            alone = [task for task in part if task.asked or task.lost or begin_is_noted(task.item)]
            yield from self._run_each(alone)
            if events := [task for task in part if task not in alone]:
                yield from self._begin_together(events)

    def _begin_together(self, tasks: Sequence[Task]) -> Iterator[None]:
        began = time.monotonic()
        try:
            if self._handlers[EVENT].around is not None or ADVANCE not in self._handlers:
                raise _OneByOneError
            begun = self._runner.begin_events([task.item for task in tasks], self._announcer.send)
        except Exception:
            # One of them can't be begun, and must not hold up the others.
            yield from self._run_each(tasks)
            return
        for task in tasks:
            task.started_at = began
        if not begun:
            self._note_seconds(0.0, len(tasks))
        now = time.monotonic()
        opened = [(Task(item, now, began), flow) for item, flow in begun]
        with self._lock:
            self._held += len(opened)
        self._setup.hold([task for task, _ in opened])
        self._end([(task, OutcomeRecorded()) for task in tasks])
        for task, flow in opened:
            self._admit(task, flow)
        yield

    def _deliver(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Keep signals, and wake those that wait for them: some in each round."""
        began = time.monotonic()
        if self._handlers[SIGNAL].around is not None:
            yield from self._run_each(tasks)
            return
        try:
            yield from self._runner.deliver([task.item for task in tasks])
        except Exception as error:
            if len(tasks) == 1:
                self._end([(tasks[0], self._undelivered(tasks[0], error))])
                return
            for task in tasks:
                yield from self._deliver([task])
            return
        for task in tasks:
            task.started_at = began
        if self._staying():
            self._told.set()
        self._end([(task, OutcomeRecorded()) for task in tasks])

    def _undelivered(self, task: Task, error: Exception) -> Result:
        item = task.item
        if isinstance(error, LockedError):
            pause = self._runner.put_off(item, error).seconds
            return Outcome(item.id, ItemStatus.PENDING, pause, token=item.lease_token)
        return self._setup.failed(task, error)

    def _run_each(self, tasks: Sequence[Task]) -> Iterator[None]:
        for task in tasks:
            self._end([(task, self._setup.run(task))])
            yield

    def _give_back(self, tasks: Sequence[Task]) -> None:
        """Let another worker have what has not begun here."""
        back = ItemStatus.PENDING
        self._end([(t, Outcome(t.item.id, back, None, token=t.item.lease_token)) for t in tasks])

    def _fail_begin(self, tasks: Sequence[Task], error: BaseException) -> None:
        logger.error("%d items can't be begun: %s", len(tasks), error, exc_info=error)
        self._end([(task, self._setup.failed(task, error)) for task in tasks])

    def _open(self, tasks: Sequence[Task]) -> Iterator[None]:
        for part in self._intake.parts(ADVANCE, tasks):
            self._open_together(part)
            yield

    def _open_together(self, tasks: Sequence[Task]) -> None:
        first = tasks[0].item
        now = None
        if first.lease_expires_at is not None:
            # The database's time at the claim, without asking for it.
            lease = timedelta(seconds=self._setup.lease_seconds)
            passed = timedelta(seconds=time.monotonic() - tasks[0].claimed_at)
            now = first.lease_expires_at - lease + passed
        opened = self._opened([task.item for task in tasks], now)
        for task in tasks:
            flow = opened.get(task.item.id)
            if isinstance(flow, OutcomeRecorded):
                self._end([(task, flow)])
            elif flow is None:
                self._end([(task, Outcome(task.item.id, token=task.item.lease_token))])
            else:
                self._admit(task, flow)

    def _opened(
        self, items: Sequence[OutboxItem], now: datetime | None
    ) -> dict[str, Flow | Exception | OutcomeRecorded]:
        try:
            return dict(self._runner.open(items, now))
        except Exception as error:
            refused = getattr(error, "code", None) is ErrorCodes.INVALID_ARGUMENT
            if len(items) == 1 or (isinstance(error, StorageError) and not refused):
                return {item.id: error for item in items}
        # One of them can't be read, and must not hold up the others.
        return {key: flow for item in items for key, flow in self._opened([item], now).items()}

    def _admit(self, task: Task, flow: Flow | Exception) -> None:
        if isinstance(flow, UnknownHereError):
            self._end([(task, self._handed_on(task, flow))])
            return
        if isinstance(flow, Exception):
            self._end([(task, self._setup.failed(task, flow))])
            return
        task.started_at, flow.leased_at = time.monotonic(), task.leased_at
        driven = Driven(task, flow)
        try:
            self._enter(driven)
        except BaseException as error:  # a plugin's SystemExit too: others begin after it
            self._driven.add(driven)
            self._fail(driven, error)

    def _enter(self, driven: Driven) -> None:
        """Enter what is to be around *driven*, and let it have its first turn."""
        task, flow = driven.task, driven.flow
        flow.context.run(handled_item.set, task.item)
        flow.enter(stoppable_by(self._setup.stopping, lambda: task.asked or driven.stops))
        handler = self._handlers.get(task.item.kind)
        if handler is not None and handler.around is not None:
            flow.enter(handler.around(task.item))
        flow.enter(self._runner.around(flow.execution))
        flow.announcer = self._announcer
        task.cancel, task.recall = self._canceller(driven), partial(self._recall, driven)
        self._driven.add(driven)
        self._watched.set()
        if flow.unread or flow.unread_ends:
            self._put_on_thread(driven, None)
        else:
            self._ready.put((driven, ()))

    def _handed_on(self, task: Task, lack: UnknownHereError) -> Result:
        try:
            return self._runner.hand_on(task.item, lack)
        except Exception as error:
            return self._setup.failed(task, error)

    def stop(self) -> None:
        """End the threads; what is still held is released by the worker."""
        self._stopped.set()
        self._told.set()
        self._watched.set()
        for driven in list(self._driven):
            self._give_up(driven)
            self._forget(driven)
        self._intake.stop()
        self._ready.put(None)
        self._dirty.put(None)
        self._steps.stop()
        self._announcer.stop(self._setup.patience())

    def _start_threads(self) -> None:
        for name, target in (
            ("intake", self._intake.serve),
            ("committer", self._serve_commits),
            ("engine-watch", self._watch),
        ):
            self._start_thread(name, target)
        self._start_thread("engine", partial(self._serve_turns, 0))

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=f"automate-{name}", daemon=True).start()

    def _canceller(self, driven: Driven) -> Callable[[], None]:
        def cancel() -> None:
            self._portal.call_soon(self._cancel_calls, driven)
            self._ready.put((driven, ()))

        return cancel

    def _recall(self, driven: Driven) -> None:
        """Begin nothing more of *driven*, and put it back once its calls have ended."""
        driven.flow.recalled = True
        if self._runner.store.is_cancelling(driven.flow.execution.id):
            driven.stops = True
            self._portal.call_soon(self._cancel_calls, driven)
        self._ready.put((driven, ()))

    def _give_up(self, driven: Driven) -> None:
        """Let nothing more of *driven* begin, and cancel what runs where that can be done."""
        driven.given_up = True
        self._portal.call_soon(self._cancel_calls, driven)

    def _cancel_calls(self, driven: Driven) -> None:
        for running in list(driven.calls.values()):
            running.cancel()

    def _forget(self, driven: Driven) -> bool:
        """Leave what was entered around *driven*; return False if another thread was first."""
        try:
            self._driven.remove(driven)
        except KeyError:
            return False
        driven.flow.leave()
        return True

    def _end(self, ended: list[Ended]) -> None:
        with self._lock:
            self._held -= len(ended)
        now = time.monotonic()
        for task, _ in ended:
            task.ended_at = now
        self._setup.done_all(ended)

    # -- turns -------------------------------------------------------------------------------

    def _serve_turns(self, number: int) -> None:
        while self._turner == number and not self._stopped.is_set():
            try:
                entry = self._ready.get(timeout=self._until_timer())
            except Empty:
                entry = None
            else:
                if entry is None:
                    return
            self._ring_timers()
            if entry is None:
                continue
            driven, outcomes = entry
            try:
                if outcomes is None:
                    self._go_on_saved(driven)
                else:
                    driven.arrived += outcomes
                    if driven.saving is None:
                        self._go_on(driven)
                    else:
                        driven.woken = True
            except _ReplacedError:
                return
            except BaseException as error:  # a SystemExit too: the thread would end
                self._fail(driven, error)
            self._offer_room()

    def _go_on_saved(self, driven: Driven) -> None:
        turn, driven.saving = driven.saving, None
        if turn is None or self._is_over(driven):
            self._go_on(driven)
            return
        if driven.flow.recalled:
            turn = driven.flow.paused(turn)
            if turn.last:
                driven.saving = turn
                self._dirty.put(driven)
                return
        self._call(driven, turn)
        if driven.arrived or driven.woken:
            self._go_on(driven)

    def _go_on(self, driven: Driven) -> None:
        """Take turns until something is to be saved or waited for."""
        flow = driven.flow
        while True:
            outcomes = first_outcomes(driven.arrived)
            driven.arrived, driven.woken = driven.arrived[len(outcomes) :], False
            come, driven.come = driven.come, {}
            if self._is_over(driven):
                for outcome in outcomes:
                    flow.running.pop(outcome.call.run.key, None)
                if not flow.running:
                    self._leave(driven, None if driven.task.asked else driven.result)
                return
            turn = self._turn(driven, outcomes, come)
            if self._setup.stopping() or flow.recalled:
                flow.pause(turn)
            elif self._stays(driven, turn, told=bool(come)):
                left = (driven.stays_until or 0.0) - time.monotonic()
                turn.next_retry, turn.wait = min(turn.wait or 0.0, max(0.0, left)), None
            if flow.waiting:
                self._start_looking()
            if needs_saving(turn):
                self._save(driven, turn)
                return
            self._call(driven, turn)
            if not driven.arrived:
                return

    def _stays(self, driven: Driven, turn: Turn, *, told: bool) -> bool:
        """Return True if *driven*, all of which waits, is not put back: more is soon to come."""
        until, driven.stays_until = driven.stays_until, None
        if turn.wait is None or turn.lack is not None:
            return False
        if not (driven.flow.waiting and driven.flow.is_long):
            return False
        now = time.monotonic()
        if until is None and len(self._staying()) >= _MOST_STAYING:
            return False
        if told or until is None:
            until = now + _STAY_SECONDS
        if now >= until:
            return False
        driven.stays_until = until
        return True

    def _staying(self) -> list[Driven]:
        return [driven for driven in list(self._driven) if driven.stays_until is not None]

    def _save(self, driven: Driven, turn: Turn) -> None:
        """Have *turn* saved: by the committer, or here if no other execution is held up by it."""
        driven.saving = turn
        if self._runner.has_large_output(turn):
            self._put_on_thread(driven, None)
        elif len(self._driven) == 1:
            # Waking the committer, and being woken by it, would take as long as the statement.
            self._commit([driven])
        else:
            self._dirty.put(driven)

    def _turn(
        self, driven: Driven, outcomes: Sequence[CallOutcome], come: Mapping[StepKey, Arrived]
    ) -> Turn:
        """Take a turn; if that takes long, another thread takes the turns on meanwhile."""
        flow, run = driven.flow, driven.flow.context.copy().run
        if not flow.in_code:
            return run(self._runner.turn, flow, outcomes, come)
        number, failure = self._turner, None
        # What comes for it in the meantime waits, as it does while a turn is being saved.
        driven.saving = turn = Turn()
        self._note_call(began := time.monotonic())
        try:
            turn = run(self._runner.turn, flow, outcomes, come)
        except Exception as error:
            failure = error
        self._note_long_turn(flow, time.monotonic() - began)
        with self._lock:
            replaced = self._turner != number
            if not replaced:
                self._calling_since = None
        if replaced:
            self._hand_turn_over(driven, turn, failure)
            raise _ReplacedError
        driven.saving = None
        if failure is not None:
            raise failure
        return turn

    def _note_long_turn(self, flow: Flow, took: float) -> None:
        if took > _LONG_SECONDS:
            logger.warning(
                "workflow %r has computed for %.1f seconds between two steps; such work belongs"
                " into a step", flow.workflow.name, took,
            )  # fmt: skip

    def _hand_turn_over(self, driven: Driven, turn: Turn, failure: Exception | None) -> None:
        """Let the thread that takes the turns now go on with *turn*."""
        if failure is not None:
            self._fail(driven, failure)
            return
        if self._setup.stopping():
            driven.flow.pause(turn)
        driven.saving = turn
        if needs_saving(turn):
            self._dirty.put(driven)
        else:
            self._ready.put((driven, None))

    def _is_over(self, driven: Driven) -> bool:
        """Return True if nothing more of *driven* may begin; renew a lease that ran out."""
        task, now = driven.task, time.monotonic()
        if driven.over or not task.ran_out(self._setup.lease_seconds):
            return driven.over
        if self._holds(driven):
            task.leased_at = now
        else:
            task.stop()
        return driven.over

    def _holds(self, driven: Driven) -> bool:
        """Renew the lease of *driven*; without the certainty that it is ours, it is lost."""
        try:
            if self._runner.store.checkpoints.holds(driven.task.item):
                return True
        except Exception as error:
            warn_of(logger, error, "execution %s: %s", driven.flow.execution.id)
        driven.task.lost = True
        return False

    def _leave(self, driven: Driven, result: Result) -> None:
        if self._forget(driven):
            self._end([(driven.task, result)])

    def _fail(self, driven: Driven, error: BaseException) -> None:
        """Give an execution up whose turn raised: a defect, not a step's failure."""
        logger.error("execution %s: %s", driven.flow.execution.id, error, exc_info=error)
        self._give_up(driven)
        self._leave(driven, self._setup.failed(driven.task, error))

    # -- timers ------------------------------------------------------------------------------

    def _until_timer(self) -> float | None:
        if not self._held:
            return None
        # While anything is held, what has begun on other threads is looked at in time.
        left = self._timers[0][0] - time.monotonic() if self._timers else SEEN_SECONDS
        return max(0.0, min(left, SEEN_SECONDS))

    def _ring_timers(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            with self._lock:
                _, _, driven = heapq.heappop(self._later)
            self._dirty.put(driven)
        while self._young and self._young[0][0] <= time.monotonic():
            _, driven, call = self._young.popleft()
            if driven.flow.running.get(call.run.key) is call and not driven.task.ended:
                self._show(driven, call)
        while self._timers and self._timers[0][0] <= time.monotonic():
            due, _, driven = heapq.heappop(self._timers)
            if driven.due == due and not driven.task.ended:
                driven.due = None
                if driven.flow.has_ended_waits:
                    self._told.set()
                self._ready.put((driven, ()))

    def _set_timer(self, driven: Driven, seconds: float) -> None:
        """Let *driven* have a turn after so many *seconds*, unless one is due before."""
        due = time.monotonic() + seconds
        if driven.due is not None and driven.due < due + _SAME_SECONDS:
            return
        driven.due = due
        self._timer_count += 1
        heapq.heappush(self._timers, (due, self._timer_count, driven))

    def _show(self, driven: Driven, call: StepCall) -> None:
        """Save that a call runs; later, if its execution is being saved."""
        if driven.saving is None:
            driven.saving = Turn(saves=[call.run])
            self._dirty.put(driven)
        else:
            self._young.append((time.monotonic() + SEEN_SECONDS, driven, call))

    def _show_all(self) -> set[str]:
        """
        Save that calls were made, before another worker makes them once more.

        Returns the ids of the items of which that can't be saved.
        """
        waiting = {id(call) for _, call, _ in self._steps.take_back(lambda entries: entries)}
        made: dict[str, list[tuple[Flow, StepCall]]] = {}
        for driven in list(self._driven):
            if not driven.over:
                flow = driven.flow
                calls = [*flow.running.copy().values(), *flow.unsaved.copy().values()]
                if calls := [call for call in calls if id(call) not in waiting]:
                    made[driven.task.item.id] = [(flow, call) for call in calls]
        if not made or self._shown([one for calls in made.values() for one in calls]):
            return set()
        # An execution that somebody has locked must not keep the others.
        deadline = time.monotonic() + _SHOW_SECONDS
        return {
            item_id
            for item_id, calls in made.items()
            if time.monotonic() > deadline or not self._shown(calls)
        }

    def _shown(self, calls: Sequence[tuple[Flow, StepCall]]) -> bool:
        try:
            self._runner.show(calls)
        except Exception as error:
            # Whatever it is, others are handed back.
            warn_of(logger, error, "that %d calls were made can't be saved: %s", len(calls))
            return False
        return True

    # -- calls -------------------------------------------------------------------------------

    def _call(self, driven: Driven, turn: Turn) -> None:
        """Make the calls of a turn; outcomes of those in place have arrived after it."""
        flow = driven.flow
        if turn.next_retry is not None:
            self._set_timer(driven, turn.next_retry)
        if not turn.calls:
            return
        quick: list[StepCall] = []
        loop: list[StepCall] = []
        for call in turn.calls:
            self._runner.begin(flow, call)
            name = call.action
            # Another thread writes down that a suspect begins.
            known = driven.task.begun or not begin_is_noted(driven.task.item)
            asynchronous = call.spec.asynchronous if call.spec else self._is_async(name)
            in_place = known and self._is_quick(name) and not asynchronous
            if in_place and call.step.heartbeat is None and flow.timeout_of(call) is None:
                quick.append(call)
                continue
            if asynchronous:
                self._young.append((time.monotonic() + SEEN_SECONDS, driven, call))
                loop.append(call)
            else:
                self._put_on_thread(driven, call)
        if loop:
            self._note_seconds(0.0, len(loop))
            self._portal.call_soon(self._begin_async, driven, loop)
        for number, call in enumerate(quick):
            if not self._call_in_place(driven, call):
                for left in quick[number + 1 :]:
                    self._put_on_thread(driven, left)
                raise _ReplacedError

    def _is_async(self, name: str) -> bool:
        known = self._async.get(name)
        if known is None:
            known = self._async[name] = self._runner.operations.is_async(name)
        return known

    def _is_quick(self, name: str) -> bool:
        return self._runner.mean_seconds(name) < _QUICK_SECONDS

    def _call_in_place(self, driven: Driven, call: StepCall) -> bool:
        """Make a quick call; return False if another thread has taken the turns on meanwhile."""
        number = self._turner
        self._note_call(began := time.monotonic())
        over = driven.task.ran_out(self._setup.lease_seconds) and self._is_over(driven)
        outcome = CallOutcome(call, begun=False) if over else self._outcome(driven, call)
        took = time.monotonic() - began
        with self._lock:
            replaced = self._turner != number
            if not replaced:
                self._calling_since = None
        self._note_seconds(took)
        if replaced:
            self._ready.put((driven, [outcome]))
            return False
        driven.arrived.append(outcome)
        return True

    def _put_on_thread(self, driven: Driven, call: StepCall | None) -> None:
        """Make *call* on the next free thread; None is for its large outputs."""
        self._steps.put(((driven, call, time.monotonic()),))

    def _performed(self, waited: _Waiting, _: None) -> None:
        self._offer_room()

    def _perform(self, waited: _Waiting) -> None:
        """Make a call on a step's thread, unless it must not begin any more."""
        driven, call, _ = waited
        if call is None:
            self._move_outputs(driven)
            return
        held = driven.flow.recalled or not self._setup.begins(driven.task)
        if self._is_over(driven) or self._setup.stopping() or held:
            self._ready.put((driven, [CallOutcome(call, begun=False)]))
            return
        began = time.monotonic()
        driven.flow.started(call)
        self._young.append((began + SEEN_SECONDS, driven, call))
        outcome = self._outcome(driven, call)
        self._note_seconds(time.monotonic() - began)
        self._ready.put((driven, [outcome]))

    def _move_outputs(self, driven: Driven) -> None:
        """Read the large outputs that templates need, or put away that of the whole execution."""
        turn = driven.saving
        try:
            if turn is None:
                self._runner.read_outputs(driven.flow)
                self._ready.put((driven, ()))
            else:
                self._runner.put_output(driven.flow, turn)
                self._dirty.put(driven)
        except Exception as error:
            self._fail(driven, error)

    def _outcome(self, driven: Driven, call: StepCall) -> CallOutcome:
        try:
            return driven.flow.context.copy().run(self._runner.perform, driven.flow, call)
        except LeaseLostError:
            self._drop(driven)
            return CallOutcome(call, begun=False)
        except StorageError as error:
            # Nothing of a transactional step was written: another attempt is no failure of its own.
            self._fail(driven, error)
            return CallOutcome(call, begun=False)
        except BaseException as error:  # a KeyboardInterrupt too: it is none here
            return _broken(call, error)

    def _note_seconds(self, took: float, calls: int = 1) -> None:
        mean = took + (self._mean_seconds - took) * 0.95**calls
        self._mean_seconds = max(mean, 1e-6)

    def _begin_async(self, driven: Driven, calls: Sequence[StepCall]) -> None:
        create_task = asyncio.get_running_loop().create_task
        for call in calls:
            # In a copy of the context: a task copies the one that it is made in.
            running = driven.flow.context.copy().run(create_task, self._aperform(driven, call))
            driven.calls[id(call)] = running
            # Of a task that is cancelled before it begins nothing else is called.
            running.add_done_callback(partial(self._end_async, driven, call))
        if driven.over or driven.stops:
            self._cancel_calls(driven)  # who cancelled may have been here before

    async def _aperform(self, driven: Driven, call: StepCall) -> CallOutcome:
        try:
            if not driven.task.begun and begin_is_noted(driven.task.item):
                held = await asyncio.to_thread(self._setup.begins, driven.task)
                if not held:
                    return CallOutcome(call, begun=False)
            # Others of the same turn may have begun long ago, as this process knows only now.
            ran_out = driven.task.ran_out(self._setup.lease_seconds)
            if ran_out and await asyncio.to_thread(self._is_over, driven):
                return CallOutcome(call, begun=False)
            return await self._runner.aperform(driven.flow, call)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # it would end the loop, and all that runs there
            return _broken(call, error)

    def _end_async(
        self, driven: Driven, call: StepCall, running: asyncio.Task[CallOutcome]
    ) -> None:
        driven.calls.pop(id(call), None)
        if running.cancelled():
            error = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            # As if it had not begun: its execution is cancelled, not failed.
            outcome = CallOutcome(call, error=error, begun=not driven.stops)
        else:
            outcome = running.result()
        self._ready.put((driven, [outcome]))

    # -- signals -----------------------------------------------------------------------------

    def _start_looking(self) -> None:
        with self._lock:
            looks, self._looks = self._looks, True
        if not looks:
            self._start_thread("signals", self._look)

    def _look(self) -> None:
        """Look for signals while executions wait for them beside their calls."""
        pause = LOOK_SECONDS
        while not self._stopped.is_set():
            if self._told.wait(pause) and not self._staying():
                # It is about times that are over: many that end at once are one look.
                self._stopped.wait(_SOON_SECONDS)
            self._told.clear()
            if self._setup.stopping():
                for driven in self._staying():
                    self._ready.put((driven, ()))
            pause = min(LOOK_SECONDS, 2 * pause)
            with self._lock:
                waiting = {
                    driven.flow.execution.id: driven
                    for driven in list(self._driven)
                    if driven.flow.waiting and not driven.over
                }
                self._looks = bool(waiting)
            if not waiting:
                return
            try:
                come = self._runner.arrived([driven.flow for driven in waiting.values()])
            except Exception as error:
                warn_of(logger, error, "signals can't be looked for: %s")
                continue
            for execution_id, its in come.items():
                driven = waiting[execution_id]
                driven.come = {**driven.come, **its}
                if driven.stays_until is not None:
                    pause = _SOON_SECONDS
                self._ready.put((driven, ()))

    # -- overruns ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let another thread take the turns on while a call in place takes too long."""
        looked_at, idle = time.monotonic(), 0
        while not self._stopped.wait(OVERRUN_SECONDS):
            if time.monotonic() - looked_at >= LATE_SECONDS / 2:
                self._put_back_late()
                looked_at = time.monotonic()
            since = self._calling_since
            idle = 0 if since is not None else idle + 1
            if idle > _LOOKS_AT_NOTHING:
                idle = self._rest(idle)
            if since is None or time.monotonic() - since < OVERRUN_SECONDS:
                continue
            with self._lock:
                if self._calling_since == since:
                    self._replace()

    def _rest(self, idle: int) -> int:
        """Wait for a call in place and return 0; return *idle* if none comes in a moment."""
        self._watched.clear()
        if self._calling_since is not None or self._stopped.is_set():
            return 0
        # Those may wait for a thread for too long.
        return 0 if self._watched.wait(LATE_SECONDS / 2 if self._driven else None) else idle

    def _note_call(self, began: float) -> None:
        self._calling_since = began
        if not self._watched.is_set():  # to set it takes as long as a quick call
            self._watched.set()

    def _replace(self) -> None:
        self._turner += 1
        # Before the thread begins: it may be in a call of its own at once.
        since, self._calling_since = self._calling_since, None
        try:
            self._start_thread("engine", partial(self._serve_turns, self._turner))
        except RuntimeError as error:
            # The machine has no more threads: the one that is in the call goes on after it.
            self._turner -= 1
            self._calling_since = since
            logger.warning("no thread takes the turns on: %s", error)

    def _put_back_late(self) -> None:
        """Put back executions that only wait for threads: another worker may have some free."""
        if self._setup.stopping():
            return
        late = self._steps.take_back(_late_calls)
        if late:
            self._mean_seconds = max(1.0, float(self._setup.slots))
        for driven, call, _ in late:
            if call is not None:
                driven.flow.recalled = True
                self._ready.put((driven, [CallOutcome(call, begun=False)]))

    # -- checkpoints -------------------------------------------------------------------------

    def _serve_commits(self) -> None:
        liveness = self._setup.liveness
        note_tries(partial(liveness.move, "committer"))
        while (driven := self._dirty.get()) is not None:
            liveness.move("committer")
            group, size = [driven], _size(driven)
            try:
                while len(group) < _GROUP and size < MOST_TEXT:
                    more = self._dirty.get_nowait()
                    if more is None:
                        self._commit_apart(group)
                        return
                    group.append(more)
                    size += _size(more)
            except Empty:
                pass
            self._commit_apart(group)
            liveness.rest("committer")

    def _commit_apart(self, group: Sequence[Driven]) -> None:
        """Commit *group*, each of it alone that was held up: the others don't wait with it."""
        together = [driven for driven in group if not driven.held_back]
        if together:
            self._commit(together)
        for driven in group:
            if driven.held_back:
                self._commit([driven])

    def _commit(self, group: Sequence[Driven]) -> None:
        by_item = {driven.task.item.id: driven for driven in group}
        if len(by_item) < len(group):
            # An item may be here twice: it was taken from this worker, and claimed again. What is
            # saved is told by the items, so that the claim that was lost must not stand beside it.
            self._commit([each for each in group if by_item[each.task.item.id] is not each])
            group = list(by_item.values())
        pairs = [(driven.flow, driven.saving) for driven in group if driven.saving is not None]
        try:
            saved = self._runner.save(pairs, until=self._stopped.is_set, briefly=True)
        except Exception as error:
            for driven in group:
                self._fail(driven, error)
            return
        ended: list[Ended] = []
        for driven in group:
            turn = saved.get(driven.task.item.id)
            if turn is None:
                self._let_go(driven)
            elif isinstance(turn, LockedError):
                self._hold_back(driven, turn)
            elif isinstance(turn, AutomateError):
                self._fail(driven, turn)
            elif turn.last:
                self._forget(driven)
                ended.append((driven.task, OutcomeRecorded()))
            else:
                self._saved(driven, turn)
        if ended:
            self._end(ended)

    def _saved(self, driven: Driven, turn: Turn) -> None:
        """Let *driven* go on after *turn*."""
        task = driven.task
        driven.saving, driven.held_back = turn, 0
        task.leased_at = max(task.leased_at, driven.flow.leased_at)
        if task.item.attempt_count < 2:
            self._setup.progressed(task)
        self._ready.put((driven, None))

    def _hold_back(self, driven: Driven, error: LockedError) -> None:
        """Save *driven* later: a transaction of the application's is in the way."""
        driven.held_back += 1
        log = logger.warning if driven.held_back == 1 else logger.debug
        log(
            "execution %s is saved later: a transaction that goes on holds it up (%s)",
            driven.flow.execution.id, error.message,
        )  # fmt: skip
        pause = min(_MOST_HELD_BACK, 2.0**driven.held_back)
        with self._lock:
            heapq.heappush(self._later, (time.monotonic() + pause, id(driven), driven))

    def _let_go(self, driven: Driven) -> None:
        """Begin nothing more of an execution that could not be saved."""
        self._drop(driven)
        self._ready.put((driven, None))

    def _drop(self, driven: Driven) -> None:
        item = driven.task.item
        if self._holds(driven):
            # The execution was ended from outside, and the item has nothing to drive.
            driven.result = Outcome(item.id, token=item.lease_token)
        self._give_up(driven)


def _size(driven: Driven) -> int:
    return driven.saving.size if driven.saving is not None else 0


def _broken(call: StepCall, error: BaseException) -> CallOutcome:
    """Return the outcome of a call that raised what no call may raise."""
    text = f"step {call.step.id!r} raised {type(error).__name__}"
    logger.error("%s", text, exc_info=error)
    return CallOutcome(call, error=AutomateError(ErrorCodes.INTERNAL, text))


class _OneByOneError(Exception):
    """Events are to be handled one by one, as if there were no groups."""


class _ReplacedError(Exception):
    """Another thread takes the turns."""


def _late_calls(waiting: Sequence[_Waiting]) -> Sequence[_Waiting]:
    """Return the calls that have waited for long, of executions of which no call runs."""
    since = late_since()
    late: dict[Driven, list[_Waiting]] = {}
    for each in waiting:
        driven, call, put_at = each
        if call is not None and put_at <= since:
            late.setdefault(driven, []).append(each)
    return [
        each
        for driven, its in late.items()
        if all(any(call is one for _, one, _ in its) for call in [*driven.flow.running.values()])
        for each in its
    ]
