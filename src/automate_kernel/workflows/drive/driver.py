"""
The driver: it takes the turns of executions, saves them, makes their calls, and goes on.

::

    begun ─▶ ready queue ─▶ turn ─▶ dirty list ─▶ saved ─▶ ready queue ─▶ …
                  ▲           │ calls
                  └─ outcomes ┘

A turn takes the outcomes of calls in, and gives what is to be saved and called next. What it gives
is saved before its calls are made. An execution that is alone is saved where its turn is taken.
There are two drivers: a worker's has threads for all of this (`engine.py`), and an inline run does
it in the thread that asks for it (`inline.py`).
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError, StorageError
from automate_kernel.operations.context import handled_item
from automate_kernel.outbox.item import Outcome, OutcomeRecorded, Result
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import warn_of
from automate_kernel.worker.in_flight import Ended, Task
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.waits import Arrived
from automate_kernel.workflows.drive.flow import Flow, first_outcomes, needs_saving
from automate_kernel.workflows.drive.runner import SEEN_SECONDS, Runner
from automate_kernel.workflows.execution import StepKey

logger = get_logger(__name__)

# A timer that rings so much later than another is the same.
_SAME_SECONDS = 0.001


class ActiveExecution:
    """An execution in a driver: its task, its flow, and what waits for its next turn."""

    __slots__ = (
        "abandoned",
        "arrived",
        "calls",
        "come",
        "deferred",
        "due",
        "flow",
        "result",
        "saving",
        "stays_until",
        "stops",
        "task",
        "woken",
    )  # fmt: skip

    def __init__(self, task: Task, flow: Flow) -> None:
        self.task: Task = task
        self.flow: Flow = flow
        self.arrived: list[CallOutcome] = []
        self.come: dict[StepKey, Arrived] = {}
        """The signals that have come for what it waits for."""
        self.saving: Turn | None = None
        """The turn that is being saved."""
        self.deferred: int = 0
        """The number of times that what it saves was held up since it was saved last."""
        self.abandoned: bool = False
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
        self.calls: dict[int, Any] = {}
        """Its calls on the event loop, by their identities."""

    @property
    def over(self) -> bool:
        """True if it only waits for the calls in flight."""
        return self.abandoned or self.task.lost or self.task.asked


Entry = tuple[ActiveExecution, Sequence[CallOutcome] | None]
"""An execution that is to have a turn: with outcomes, or with None once its turn is saved."""


class ExecutionDriver(ABC):
    """
    Drives executions, one turn after another.

    *stopping* returns True once nothing new may begin. A turn is saved again for a while if its
    database fails, until *gives_up* returns True. With *briefly* it does not wait for an
    application's transaction: see `_refused`.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        lease_seconds: float,
        stopping: Callable[[], bool],
        gives_up: Callable[[], bool],
        briefly: bool,
    ) -> None:
        self._runner = runner
        self._lease_seconds, self._stopping = lease_seconds, stopping
        self._gives_up, self._briefly = gives_up, briefly
        # In the order of their arrival, so that one history can be run again.
        self._active: dict[ActiveExecution, None] = {}
        self._ready: runtime.SimpleQueue[Entry | None] = runtime.SimpleQueue()
        self._dirty: runtime.SimpleQueue[ActiveExecution | None] = runtime.SimpleQueue()
        self._timers: list[tuple[float, int, ActiveExecution]] = []
        self._timer_count = 0
        # Calls in the order in which they began, until they are old enough to be seen.
        self._young: deque[tuple[float, ActiveExecution, StepCall]] = deque()

    # -- what the two do in their own way ----------------------------------------------------

    @abstractmethod
    def _make(self, active: ActiveExecution, calls: Sequence[StepCall]) -> None:
        """Make *calls*, which have begun; outcomes that are there at once go to `arrived`."""

    @abstractmethod
    def _move(self, active: ActiveExecution) -> None:
        """Have `_move_outputs` called: soon, or at once."""

    @abstractmethod
    def _wait_on(self, active: ActiveExecution, turn: Turn, *, told: bool) -> None:
        """Look for signals, as *turn* leaves an execution that waits for some, or has done so."""

    @abstractmethod
    def _end(self, ended: list[Ended]) -> None:
        """Take the results of executions that are no longer driven."""

    @abstractmethod
    def _failed(self, active: ActiveExecution, error: BaseException) -> Result:
        """Return the result of an execution that can't be driven: a defect, say."""

    def _abandon(self, active: ActiveExecution) -> None:
        """Let nothing more of *active* begin."""
        active.abandoned = True

    def _refused(self, active: ActiveExecution, error: AutomateError) -> None:
        """Go on with an execution that could not be saved, for *error*."""
        self._fail(active, error)

    # -- turns -------------------------------------------------------------------------------

    def _enter(
        self, active: ActiveExecution, *around: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Enter what is to be *around* an execution, and let it have its first turn."""
        flow = active.flow
        flow.context.run(handled_item.set, active.task.item)
        for each in around:
            flow.enter(each())
        flow.enter(self._runner.around(flow.execution))
        self._active[active] = None
        if flow.unread or flow.unread_ends:
            self._move(active)
        else:
            self._ready.put((active, ()))

    def _take(self, entry: Entry) -> None:
        """Let an execution of the ready queue have its turn."""
        active, outcomes = entry
        if active not in self._active:
            return  # it has ended since
        if outcomes is None:
            self._go_on_saved(active)
            return
        active.arrived += outcomes
        if active.saving is None:
            self._go_on(active)
        else:
            active.woken = True

    def _go_on_saved(self, active: ActiveExecution) -> None:
        turn, active.saving = active.saving, None
        if turn is None or self._is_over(active):
            self._go_on(active)
            return
        if active.flow.to_release:
            turn = active.flow.paused(turn)
            if turn.last:
                self._save(active, turn)
                return
        self._call(active, turn)
        if active.arrived or active.woken:
            self._go_on(active)

    def _go_on(self, active: ActiveExecution) -> None:
        """Take turns until something is to be saved or waited for."""
        flow = active.flow
        while True:
            arrived, active.woken = active.arrived, False
            outcomes = first_outcomes(arrived) if len(arrived) > 1 else arrived
            active.arrived = arrived[len(outcomes) :]
            come, active.come = active.come, {}
            if self._is_over(active):
                for outcome in outcomes:
                    flow.running.pop(outcome.call.run.key, None)
                if not flow.running:
                    self._release(active, None if active.task.asked else active.result)
                return
            turn = self._turn(active, outcomes, come)
            if self._stopping() or flow.to_release:
                flow.pause(turn)
            elif flow.waiting or active.stays_until is not None:
                self._wait_on(active, turn, told=bool(come))
            if needs_saving(turn):
                self._save(active, turn)
                return
            self._call(active, turn)
            if not active.arrived:
                return

    def _turn(
        self,
        active: ActiveExecution,
        outcomes: Sequence[CallOutcome],
        come: Mapping[StepKey, Arrived],
    ) -> Turn:
        return active.flow.context.copy().run(self._runner.turn, active.flow, outcomes, come)

    def _call(self, active: ActiveExecution, turn: Turn) -> None:
        """Make the calls of a turn; outcomes that are there at once have arrived after it."""
        if turn.next_retry is not None:
            self._set_timer(active, turn.next_retry)
        if turn.calls:
            for call in turn.calls:
                self._runner.begin(active.flow, call)
            self._make(active, turn.calls)

    def _outcome(self, active: ActiveExecution, call: StepCall) -> CallOutcome:
        try:
            return active.flow.context.copy().run(self._runner.perform, active.flow, call)
        except LeaseLostError:
            self._abandon_unsaved(active)
            return CallOutcome(call, begun=False)
        except StorageError as error:
            # Nothing of a transactional step was written: another attempt is no failure of its own.
            self._fail(active, error)
            return CallOutcome(call, begun=False)

    def _is_over(self, active: ActiveExecution) -> bool:
        """Return True if nothing more of *active* may begin; renew a lease that ran out."""
        task, now = active.task, runtime.monotonic()
        if active.abandoned or task.lost or task.asked:
            return True
        if now - task.leased_at < self._lease_seconds:
            return False
        if self._holds(active):
            task.leased_at = now
        else:
            task.stop()
        return active.over

    def _holds(self, active: ActiveExecution) -> bool:
        """Renew the lease of *active*; without the certainty that it is ours, it is lost."""
        try:
            if self._runner.store.checkpoints.holds(active.task.item):
                return True
        except Exception as error:
            warn_of(logger, error, "execution %s: %s", active.flow.execution.id)
        active.task.lost = True
        return False

    def _release(self, active: ActiveExecution, result: Result) -> None:
        if self._close(active):
            self._end([(active.task, result)])

    def _close(self, active: ActiveExecution) -> bool:
        """Leave what was entered around *active*; return False if another thread was first."""
        try:
            del self._active[active]
        except KeyError:
            return False
        active.flow.close()
        return True

    def _fail(self, active: ActiveExecution, error: BaseException) -> None:
        """Give an execution up whose turn raised: a defect, not a step's failure."""
        self._abandon(active)
        self._release(active, self._failed(active, error))

    # -- timers ------------------------------------------------------------------------------

    def _until_timer(self) -> float:
        # What has begun on other threads is looked at in time.
        left = self._timers[0][0] - runtime.monotonic() if self._timers else SEEN_SECONDS
        return max(0.0, min(left, SEEN_SECONDS))

    def _ring_timers(self) -> None:
        while self._young and self._young[0][0] <= runtime.monotonic():
            _, active, call = self._young.popleft()
            if active.flow.running.get(call.run.key) is call and not active.task.ended:
                self._show(active, call)
        while self._timers and self._timers[0][0] <= runtime.monotonic():
            due, _, active = heapq.heappop(self._timers)
            if active.due == due and not active.task.ended:
                active.due = None
                self._ring(active)

    def _ring(self, active: ActiveExecution) -> None:
        self._ready.put((active, ()))

    def _set_timer(self, active: ActiveExecution, seconds: float) -> None:
        """Let *active* have a turn after so many *seconds*, unless one is due before."""
        due = runtime.monotonic() + seconds
        if active.due is not None and active.due < due + _SAME_SECONDS:
            return
        active.due = due
        self._timer_count += 1
        heapq.heappush(self._timers, (due, self._timer_count, active))

    def _show_later(self, active: ActiveExecution, call: StepCall) -> None:
        """Save that a call runs, if it still does after a moment."""
        self._young.append((runtime.monotonic() + SEEN_SECONDS, active, call))

    def _show(self, active: ActiveExecution, call: StepCall) -> None:
        """Save that a call runs; later, if its execution is being saved."""
        if active.saving is None:
            active.saving = Turn(saves=[call.run])
            self._dirty.put(active)
        else:
            self._show_later(active, call)

    # -- signals -----------------------------------------------------------------------------

    def _waiting(self) -> dict[str, ActiveExecution]:
        """Return the executions that wait for signals beside their calls, by their ids."""
        return {
            active.flow.execution.id: active
            for active in list(self._active)
            if active.flow.waiting and not active.over
        }

    def _look_for(self, waiting: Mapping[str, ActiveExecution]) -> Collection[ActiveExecution]:
        """Let those of *waiting* have a turn for which signals have come, and return them."""
        come = self._runner.arrived([active.flow for active in waiting.values()])
        for execution_id, its in come.items():
            active = waiting[execution_id]
            active.come = {**active.come, **its}
            self._ready.put((active, ()))
        return [waiting[execution_id] for execution_id in come]

    # -- checkpoints -------------------------------------------------------------------------

    def _save(self, active: ActiveExecution, turn: Turn) -> None:
        """Have *turn* saved: with others, or here if no other execution is held up by it."""
        active.saving = turn
        if self._runner.has_large_output(turn):
            self._move(active)
        elif len(self._active) == 1:
            self._commit([active])
        else:
            self._dirty.put(active)

    def _move_outputs(self, active: ActiveExecution) -> None:
        """Read the large outputs that templates need, or put away that of the whole execution."""
        turn = active.saving
        try:
            if turn is None:
                self._runner.read_outputs(active.flow)
                self._ready.put((active, ()))
            else:
                self._runner.put_output(active.flow, turn)
                self._dirty.put(active)
        except Exception as error:
            self._fail(active, error)

    def _commit(self, group: Sequence[ActiveExecution]) -> None:
        by_item = {active.task.item.id: active for active in group}
        if len(by_item) < len(group):
            # An item may be here twice: it was taken from this worker, and claimed again. What is
            # saved is told by the items, so that the claim that was lost must not stand beside it.
            self._commit([each for each in group if by_item[each.task.item.id] is not each])
            group = list(by_item.values())
        pairs = [(active.flow, active.saving) for active in group if active.saving is not None]
        try:
            saved = self._runner.save(pairs, until=self._gives_up, briefly=self._briefly)
        except Exception as error:
            for active in group:
                self._fail(active, error)
            return
        ended: list[Ended] = []
        for active in group:
            turn = saved.get(active.task.item.id)
            if turn is None:
                self._abandon_unsaved(active)
                self._ready.put((active, None))
            elif isinstance(turn, AutomateError):
                self._refused(active, turn)
            elif turn.last:
                self._close(active)
                ended.append((active.task, OutcomeRecorded()))
            else:
                self._saved(active, turn)
        if ended:
            self._end(ended)

    def _saved(self, active: ActiveExecution, turn: Turn) -> None:
        """Let *active* go on after *turn*."""
        task, leased_at = active.task, active.flow.leased_at
        active.saving, active.deferred = turn, 0
        task.leased_at = max(task.leased_at, leased_at)
        self._ready.put((active, None))

    def _abandon_unsaved(self, active: ActiveExecution) -> None:
        """Begin nothing more of an execution that could not be saved."""
        item = active.task.item
        if self._holds(active):
            # The execution was ended from outside, and the item has nothing to drive.
            active.result = Outcome(item.id, token=item.lease_token)
        self._abandon(active)


def broken(call: StepCall, error: BaseException) -> CallOutcome:
    """Return the outcome of a call that raised what no call may raise."""
    text = f"step {call.step.id!r} raised {type(error).__name__}"
    logger.error("%s", text, exc_info=error)
    return CallOutcome(call, error=AutomateError(ErrorCodes.INTERNAL, text))
