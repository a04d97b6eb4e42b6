"""
The engine of a worker: it holds hundreds of executions, and saves their checkpoints as a group.

::

    claimed ─▶ intake ─▶ ready queue ─▶ turn ─▶ dirty list ─▶ committer ─▶ ready queue ─▶ …
                              ▲           │ calls
                              └─ outcomes ┴─▶ step threads · event loop

The intake begins what is claimed, a bounded number at once, and the fetcher claims on meanwhile.
The committer saves whatever has gathered while it saved the group before: the slower the disk, the
larger the groups. Once its checkpoint is committed an execution goes on, without a new claim.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    StorageError,
    UnknownHereError,
)
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
from automate_kernel.workflows.drive.driver import ActiveExecution, ExecutionDriver, broken
from automate_kernel.workflows.drive.flow import MOST_TEXT, Flow, needs_saving
from automate_kernel.workflows.drive.intake import Intake
from automate_kernel.workflows.drive.runner import (
    OVERRUN_SECONDS,
    Runner,
)
from automate_kernel.workflows.drive.signal_sender import SignalSender
from automate_kernel.workflows.execution import StepKey

logger: logging.Logger = get_logger(__name__)

# Executions in flight. A third of them must be free before more are claimed.
_MOST = 500
_GROUP = 200
# What is held up is tried again after so many seconds at most.
_MOST_DEFERRED = 10.0
# No more is claimed than threads are likely to begin within this time: another worker may be free,
# and who dies over one execution takes an attempt from all that it holds.
_AHEAD_SECONDS = 0.25
# An execution's own code that takes longer is reported.
_LONG_SECONDS = 1.0
# A timer that rings so much later than another is the same.
_SAME_SECONDS = 0.001
# An execution with many steps stays here for so long after the last signal that has come for it: to
# read it again for each of them would cost more the more it has. So many may stay at once.
_STAY_SECONDS = 2.0
_MOST_STAYING = 50
# After so many looks at no turn of code the watch rests until there is one.
_LOOKS_AT_NOTHING = 50
# The pause between two looks while signals come for those that stay.
_SOON_SECONDS = 0.05
# So long may it take to save one by one, at the end of a worker, that calls were made.
_SHOW_SECONDS = 2.0
_Waiting = tuple[ActiveExecution, StepCall | None, float]


class Engine(ExecutionDriver):
    """
    Drives executions under a worker, as one of its pools.

    Executions are turned one after another by one thread. Plain steps run on *setup*'s slots
    threads; ``async def`` steps on the event loop of *portal*, where they hold no thread.
    """

    def __init__(
        self, runner: Runner, portal: Portal, handlers: Sequence[Handler], setup: PoolSetup
    ) -> None:
        self._kinds = [handler.kind for handler in handlers]
        self._handlers = {handler.kind: handler for handler in handlers}
        self._portal, self._setup = portal, setup
        self._stopped = runtime.Event()
        super().__init__(
            runner,
            lease_seconds=setup.lease_seconds,
            stopping=setup.stopping,
            gives_up=self._stopped.is_set,
            briefly=True,
        )
        setup.before_release(self._show_all)
        self._held = 0
        self._lock = runtime.Lock()
        # What is saved later: its time, and a number that tells it from others of that time.
        self._later: list[tuple[float, int, ActiveExecution]] = []
        self._defers = itertools.count()
        self._steps = Threads(setup.slots, "automate-step", self._perform, self._performed)
        self._signal_sender = SignalSender()
        # For how long a call holds a thread, on average.
        self._mean_seconds = 1.0
        # True if there was no room the last time.
        self._full = False
        self._async: dict[str, bool] = {}
        # The thread that takes the turns, by its number; and since when it is in a turn of code.
        self._turner = 0
        self._computing_since: float | None = None
        # Set while there may be something for `_watch` to see.
        self._watched = runtime.Event()
        self._started = False
        self._looks = False
        # Set when there may be a signal for an execution that stays, or the time of a wait is over.
        self._told = runtime.Event()
        self._begin: dict[str, Callable[[Sequence[Task]], Iterator[None]]] = {
            EVENT: self._begin_events, SIGNAL: self._deliver, CANCEL: self._run_each,
        }  # fmt: skip
        self._intake = Intake(
            (EVENT, ADVANCE),
            stopping=setup.stopping,
            release=self._release_unbegun,
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
                self._release_unbegun(part)  # claimed a moment before that was known
                continue
            # One by one: a death then counts for one. Or while it waited here it was cancelled.
            alone = [task for task in part if task.asked or task.lost or begin_is_noted(task.item)]
            yield from self._run_each(alone)
            if events := [task for task in part if task not in alone]:
                yield from self._begin_together(events)

    def _begin_together(self, tasks: Sequence[Task]) -> Iterator[None]:
        began = runtime.monotonic()
        try:
            if self._handlers[EVENT].around is not None or ADVANCE not in self._handlers:
                raise _OneByOneError
            begun = self._runner.begin_events(
                [task.item for task in tasks], self._signal_sender.send
            )
        except Exception:
            # One of them can't be begun, and must not hold up the others.
            yield from self._run_each(tasks)
            return
        for task in tasks:
            task.started_at = began
        if not begun:
            self._note_seconds(0.0, len(tasks))
        now = runtime.monotonic()
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
        began = runtime.monotonic()
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
            pause = self._runner.defer(item, error).seconds
            return Outcome(item.id, ItemStatus.PENDING, pause, token=item.lease_token)
        return self._setup.failed(task, error)

    def _run_each(self, tasks: Sequence[Task]) -> Iterator[None]:
        for task in tasks:
            self._end([(task, self._setup.run(task))])
            yield

    def _release_unbegun(self, tasks: Sequence[Task]) -> None:
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
            passed = timedelta(seconds=runtime.monotonic() - tasks[0].claimed_at)
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
            self._end([(task, self._handed_over(task, flow))])
            return
        if isinstance(flow, Exception):
            self._end([(task, self._setup.failed(task, flow))])
            return
        task.started_at, flow.leased_at = runtime.monotonic(), task.leased_at
        active = ActiveExecution(task, flow)
        flow.signal_sender = self._signal_sender
        task.cancel, task.release = self._canceller(active), partial(self._request_release, active)
        around: list[Callable[[], AbstractContextManager[Any]]] = [
            partial(stoppable_by, self._stopping, lambda: task.asked or active.stops)
        ]
        handler = self._handlers.get(task.item.kind)
        if handler is not None and handler.around is not None:
            around.append(partial(handler.around, task.item))
        try:
            self._enter(active, *around)
        except BaseException as error:  # a plugin's SystemExit too: others begin after it
            self._active[active] = None
            self._fail(active, error)
        self._watched.set()

    def _handed_over(self, task: Task, lack: UnknownHereError) -> Result:
        try:
            return self._runner.hand_over(task.item, lack)
        except Exception as error:
            return self._setup.failed(task, error)

    def stop(self) -> None:
        """End the threads; what is still held is released by the worker."""
        self._stopped.set()
        self._told.set()
        self._watched.set()
        for active in list(self._active):
            self._abandon(active)
            self._close(active)
        self._intake.stop()
        self._ready.put(None)
        self._dirty.put(None)
        self._steps.stop()
        self._signal_sender.stop(self._setup.patience())

    def _start_threads(self) -> None:
        for name, target in (
            ("intake", self._intake.serve),
            ("committer", self._serve_commits),
            ("engine-watch", self._watch),
        ):
            self._start_thread(name, target)
        self._start_thread("engine", partial(self._serve_turns, 0))

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        runtime.Thread(target=target, name=f"automate-{name}", daemon=True).start()

    def _canceller(self, active: ActiveExecution) -> Callable[[], None]:
        def cancel() -> None:
            self._portal.call_soon(self._cancel_calls, active)
            self._ready.put((active, ()))

        return cancel

    def _request_release(self, active: ActiveExecution) -> None:
        """Begin nothing more of *active*, and put it back once its calls have ended."""
        active.flow.to_release = True
        if self._runner.store.is_cancelling(active.flow.execution.id):
            active.stops = True
            self._portal.call_soon(self._cancel_calls, active)
        self._ready.put((active, ()))

    def _abandon(self, active: ActiveExecution) -> None:
        """Let nothing more of *active* begin, and cancel what runs where that can be done."""
        super()._abandon(active)
        self._portal.call_soon(self._cancel_calls, active)

    def _cancel_calls(self, active: ActiveExecution) -> None:
        for running in list(active.calls.values()):
            running.cancel()

    def _end(self, ended: list[Ended]) -> None:
        with self._lock:
            self._held -= len(ended)
        now = runtime.monotonic()
        for task, _ in ended:
            task.ended_at = now
        self._setup.done_all(ended)

    # -- turns -------------------------------------------------------------------------------

    def _serve_turns(self, number: int) -> None:
        while self._turner == number and not self._stopped.is_set():
            try:
                entry = self._ready.get(timeout=self._until_timer() if self._held else None)
            except runtime.Empty:
                entry = None
            else:
                if entry is None:
                    return
            self._ring_timers()
            if entry is None:
                continue
            try:
                self._take(entry)
            except _ReplacedError:
                return
            except BaseException as error:  # a SystemExit too: the thread would end
                self._fail(entry[0], error)
            self._offer_room()

    def _wait_on(self, active: ActiveExecution, turn: Turn, *, told: bool) -> None:
        if self._stays(active, turn, told=told):
            left = (active.stays_until or 0.0) - runtime.monotonic()
            turn.next_retry, turn.wait = min(turn.wait or 0.0, max(0.0, left)), None
        if active.flow.waiting:
            self._start_looking()

    def _stays(self, active: ActiveExecution, turn: Turn, *, told: bool) -> bool:
        """Return True if *active*, all of which waits, is not put back: more is soon to come."""
        until, active.stays_until = active.stays_until, None
        if turn.wait is None or turn.lack is not None:
            return False
        if not (active.flow.waiting and active.flow.is_long):
            return False
        now = runtime.monotonic()
        if until is None and len(self._staying()) >= _MOST_STAYING:
            return False
        if told or until is None:
            until = now + _STAY_SECONDS
        if now >= until:
            return False
        active.stays_until = until
        return True

    def _staying(self) -> list[ActiveExecution]:
        return [active for active in list(self._active) if active.stays_until is not None]

    def _turn(
        self,
        active: ActiveExecution,
        outcomes: Sequence[CallOutcome],
        come: Mapping[StepKey, Arrived],
    ) -> Turn:
        """Take a turn; if that takes long, another thread takes the turns on meanwhile."""
        flow = active.flow
        if not flow.in_code:
            return super()._turn(active, outcomes, come)
        number, failure = self._turner, None
        # What comes for it in the meantime waits, as it does while a turn is being saved.
        active.saving = turn = Turn()
        self._note_turn(began := runtime.monotonic())
        try:
            turn = super()._turn(active, outcomes, come)
        except Exception as error:
            failure = error
        self._note_long_turn(flow, runtime.monotonic() - began)
        with self._lock:
            replaced = self._turner != number
            if not replaced:
                self._computing_since = None
        if replaced:
            self._hand_turn_over(active, turn, failure)
            raise _ReplacedError
        active.saving = None
        if failure is not None:
            raise failure
        return turn

    def _note_long_turn(self, flow: Flow, took: float) -> None:
        if took > _LONG_SECONDS:
            logger.warning(
                "workflow %r has computed for %.1f seconds between two steps; such work belongs"
                " into a step", flow.workflow.name, took,
            )  # fmt: skip

    def _hand_turn_over(
        self, active: ActiveExecution, turn: Turn, failure: Exception | None
    ) -> None:
        """Let the thread that takes the turns now go on with *turn*."""
        if failure is not None:
            self._fail(active, failure)
            return
        if self._setup.stopping():
            active.flow.pause(turn)
        active.saving = turn
        if needs_saving(turn):
            self._dirty.put(active)
        else:
            self._ready.put((active, None))

    def _failed(self, active: ActiveExecution, error: BaseException) -> Result:
        logger.error("execution %s: %s", active.flow.execution.id, error, exc_info=error)
        return self._setup.failed(active.task, error)

    # -- timers ------------------------------------------------------------------------------

    def _ring_timers(self) -> None:
        while self._later and self._later[0][0] <= runtime.monotonic():
            with self._lock:
                _, _, active = heapq.heappop(self._later)
            self._dirty.put(active)
        super()._ring_timers()

    def _ring(self, active: ActiveExecution) -> None:
        if active.flow.has_ended_waits:
            self._told.set()
        super()._ring(active)

    def _show_all(self) -> set[str]:
        """
        Save that calls were made, before another worker makes them once more.

        Returns the ids of the items of which that can't be saved.
        """
        waiting = {id(call) for _, call, _ in self._steps.withdraw(lambda entries: entries)}
        made: dict[str, list[tuple[Flow, StepCall]]] = {}
        for active in list(self._active):
            if not active.over:
                flow = active.flow
                calls = [*flow.running.copy().values(), *flow.unsaved.copy().values()]
                if calls := [call for call in calls if id(call) not in waiting]:
                    made[active.task.item.id] = [(flow, call) for call in calls]
        if not made or self._shown([one for calls in made.values() for one in calls]):
            return set()
        # An execution that somebody has locked must not keep the others.
        deadline = runtime.monotonic() + _SHOW_SECONDS
        return {
            item_id
            for item_id, calls in made.items()
            if runtime.monotonic() > deadline or not self._shown(calls)
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

    def _make(self, active: ActiveExecution, calls: Sequence[StepCall]) -> None:
        loop: list[StepCall] = []
        elsewhere = bool(self._runner.operations.executors.placements)
        for call in calls:
            asynchronous = call.spec.asynchronous if call.spec else self._is_async(call.action)
            if call.step.runs_on is not None or elsewhere:
                asynchronous = asynchronous or self._runner.place_of(call) is not None
            if asynchronous:
                self._show_later(active, call)
                loop.append(call)
            else:
                self._put_on_thread(active, call)
        if loop:
            self._note_seconds(0.0, len(loop))
            self._portal.call_soon(self._begin_async, active, loop)

    def _is_async(self, name: str) -> bool:
        known = self._async.get(name)
        if known is None:
            known = self._async[name] = self._runner.operations.is_async(name)
        return known

    def _put_on_thread(self, active: ActiveExecution, call: StepCall | None) -> None:
        """Make *call* on the next free thread; None is for its large outputs."""
        self._steps.put(((active, call, runtime.monotonic()),))

    def _performed(self, waited: _Waiting, _: None) -> None:
        self._offer_room()

    def _perform(self, waited: _Waiting) -> None:
        """Make a call on a step's thread, unless it must not begin any more."""
        active, call, _ = waited
        if call is None:
            self._move_outputs(active)
            return
        held = active.flow.to_release or not self._setup.begins(active.task)
        if self._is_over(active) or self._setup.stopping() or held:
            self._ready.put((active, [CallOutcome(call, begun=False)]))
            return
        began = runtime.monotonic()
        active.flow.started(call)
        self._show_later(active, call)
        outcome = self._outcome(active, call)
        self._note_seconds(runtime.monotonic() - began)
        self._ready.put((active, [outcome]))

    def _move(self, active: ActiveExecution) -> None:
        self._put_on_thread(active, None)

    def _outcome(self, active: ActiveExecution, call: StepCall) -> CallOutcome:
        try:
            return super()._outcome(active, call)
        except BaseException as error:  # a KeyboardInterrupt too: it is none here
            return broken(call, error)

    def _note_seconds(self, took: float, calls: int = 1) -> None:
        mean = took + (self._mean_seconds - took) * 0.95**calls
        self._mean_seconds = max(mean, 1e-6)

    def _begin_async(self, active: ActiveExecution, calls: Sequence[StepCall]) -> None:
        create_task = asyncio.get_running_loop().create_task
        for call in calls:
            # In a copy of the context: a task copies the one that it is made in.
            running = active.flow.context.copy().run(create_task, self._aperform(active, call))
            active.calls[id(call)] = running
            # Of a task that is cancelled before it begins nothing else is called.
            running.add_done_callback(partial(self._end_async, active, call))
        if active.over or active.stops:
            self._cancel_calls(active)  # who cancelled may have been here before

    async def _aperform(self, active: ActiveExecution, call: StepCall) -> CallOutcome:
        try:
            if not active.task.begun and begin_is_noted(active.task.item):
                held = await asyncio.to_thread(self._setup.begins, active.task)
                if not held:
                    return CallOutcome(call, begun=False)
            # Others of the same turn may have begun long ago, as this process knows only now.
            ran_out = active.task.ran_out(self._setup.lease_seconds)
            if ran_out and await asyncio.to_thread(self._is_over, active):
                return CallOutcome(call, begun=False)
            return await self._runner.aperform(active.flow, call)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # it would end the loop, and all that runs there
            return broken(call, error)

    def _end_async(
        self, active: ActiveExecution, call: StepCall, running: asyncio.Task[CallOutcome]
    ) -> None:
        active.calls.pop(id(call), None)
        if running.cancelled():
            error = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            # As if it had not begun: its execution is cancelled, not failed.
            outcome = CallOutcome(call, error=error, begun=not active.stops)
        else:
            outcome = running.result()
        self._ready.put((active, [outcome]))

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
                for active in self._staying():
                    self._ready.put((active, ()))
            pause = min(LOOK_SECONDS, 2 * pause)
            with self._lock:
                waiting = self._waiting()
                self._looks = bool(waiting)
            if not waiting:
                return
            try:
                come = self._look_for(waiting)
            except Exception as error:
                warn_of(logger, error, "signals can't be looked for: %s")
                continue
            if any(active.stays_until is not None for active in come):
                pause = _SOON_SECONDS

    # -- overruns ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let another thread take the turns on while a turn of code takes too long."""
        looked_at, idle = runtime.monotonic(), 0
        while not self._stopped.wait(OVERRUN_SECONDS):
            if runtime.monotonic() - looked_at >= LATE_SECONDS / 2:
                self._release_late()
                looked_at = runtime.monotonic()
            since = self._computing_since
            idle = 0 if since is not None else idle + 1
            if idle > _LOOKS_AT_NOTHING:
                idle = self._rest(idle)
            if since is None or runtime.monotonic() - since < OVERRUN_SECONDS:
                continue
            with self._lock:
                if self._computing_since == since:
                    self._replace()

    def _rest(self, idle: int) -> int:
        """Wait for a turn of code and return 0; return *idle* if none comes in a moment."""
        self._watched.clear()
        if self._computing_since is not None or self._stopped.is_set():
            return 0
        # Those may wait for a thread for too long.
        return 0 if self._watched.wait(LATE_SECONDS / 2 if self._active else None) else idle

    def _note_turn(self, began: float) -> None:
        self._computing_since = began
        if not self._watched.is_set():  # to set it takes as long as a short turn
            self._watched.set()

    def _replace(self) -> None:
        self._turner += 1
        # Before the thread begins: it may be in a turn of its own at once.
        since, self._computing_since = self._computing_since, None
        try:
            self._start_thread("engine", partial(self._serve_turns, self._turner))
        except RuntimeError as error:
            # The machine has no more threads: the one that is in the turn goes on after it.
            self._turner -= 1
            self._computing_since = since
            logger.warning("no thread takes the turns on: %s", error)

    def _release_late(self) -> None:
        """Put back executions that only wait for threads: another worker may have some free."""
        if self._setup.stopping():
            return
        late = self._steps.withdraw(_late_calls)
        if late:
            self._mean_seconds = max(1.0, float(self._setup.slots))
        for active, call, _ in late:
            if call is not None:
                active.flow.to_release = True
                self._ready.put((active, [CallOutcome(call, begun=False)]))

    # -- checkpoints -------------------------------------------------------------------------

    def _serve_commits(self) -> None:
        liveness = self._setup.liveness
        note_tries(partial(liveness.move, "committer"))
        while (active := self._dirty.get()) is not None:
            liveness.move("committer")
            group, size = [active], _size(active)
            try:
                while len(group) < _GROUP and size < MOST_TEXT:
                    more = self._dirty.get_nowait()
                    if more is None:
                        self._commit_apart(group)
                        return
                    group.append(more)
                    size += _size(more)
            except runtime.Empty:
                pass
            self._commit_apart(group)
            liveness.rest("committer")

    def _commit_apart(self, group: Sequence[ActiveExecution]) -> None:
        """Commit *group*, each of it alone that was held up: the others don't wait with it."""
        together = [active for active in group if not active.deferred]
        if together:
            self._commit(together)
        for active in group:
            if active.deferred:
                self._commit([active])

    def _refused(self, active: ActiveExecution, error: AutomateError) -> None:
        if not isinstance(error, LockedError):
            super()._refused(active, error)
            return
        # A transaction of the application's is in the way.
        active.deferred += 1
        log = logger.warning if active.deferred == 1 else logger.debug
        log(
            "execution %s is saved later: a transaction that goes on holds it up (%s)",
            active.flow.execution.id, error.message,
        )  # fmt: skip
        pause = min(_MOST_DEFERRED, 2.0**active.deferred)
        due = runtime.monotonic() + pause
        with self._lock:
            heapq.heappush(self._later, (due, next(self._defers), active))

    def _saved(self, active: ActiveExecution, turn: Turn) -> None:
        if active.task.item.attempt_count < 2:
            self._setup.progressed(active.task)
        super()._saved(active, turn)


def _size(active: ActiveExecution) -> int:
    return active.saving.size if active.saving is not None else 0


class _OneByOneError(Exception):
    """Events are to be handled one by one, as if there were no groups."""


class _ReplacedError(Exception):
    """Another thread takes the turns."""


def _late_calls(waiting: Sequence[_Waiting]) -> Sequence[_Waiting]:
    """Return the calls that have waited for long, of executions of which no call runs."""
    since = late_since()
    late: dict[ActiveExecution, list[_Waiting]] = {}
    for each in waiting:
        active, call, put_at = each
        if call is not None and put_at <= since:
            late.setdefault(active, []).append(each)
    return [
        each
        for active, its in late.items()
        if all(any(call is one for _, one, _ in its) for call in [*active.flow.running.values()])
        for each in its
    ]
