"""An execution while a worker has it: its state in memory, between two checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any

from blinker import NamedSignal

from automate_kernel import signals
from automate_kernel.base import runtime
from automate_kernel.base.errors import PayloadError, UnknownHereError
from automate_kernel.outbox.item import OutboxItem, bounded_seconds, new_id
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.codec import with_sorted_keys
from automate_kernel.workflows.decide.activation import Activation, Turns
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.children import FindChild, unread_output
from automate_kernel.workflows.decide.program import WorkflowProgram
from automate_kernel.workflows.decide.replay import CodeProgram
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn, release_run
from automate_kernel.workflows.decide.waiting import LOOK_SECONDS
from automate_kernel.workflows.decide.waits import RESUMED, Arrived, OpenWait
from automate_kernel.workflows.definition.blocks import block_of, inside, list_of, plain_id
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.drive.signal_sender import ExecutionCopies, SignalSender
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.store.large_outputs import LargeOutputs
from automate_kernel.workflows.store.stored import Loaded

logger: logging.Logger = get_logger(__name__)

_ABOUT_SECONDS = 0.02
# Of a block that goes on, and of a loop that may pause.
_BEGUN = (StepStatus.RUNNING, StepStatus.WAITING)
# Of a step that has not ended.
_GOES_ON = {status for status in StepStatus if not status.finished}
_MANY_RUNS = 200
_NOTHING: Mapping[StepKey, Arrived] = {}


class Flow:
    """
    One execution, driven under the claim of *item*.

    It is turned by one thread at a time: `next_turn` takes outcomes in and gives what is to be
    saved and called. A turn that `needs_saving` is saved, by `save_of`, before its calls are made.
    One that is *alone* fails where another worker might go on with what it has recorded.
    """

    def __init__(
        self,
        item: OutboxItem,
        loaded: Loaded,
        program: WorkflowProgram,
        outputs: LargeOutputs | None = None,
        find_child: FindChild | None = None,
        alone: bool = False,
    ) -> None:
        self.item: OutboxItem = item
        self.execution: Execution = loaded.execution
        self.workflow: Workflow = program.workflow
        self._recovery, self._sorts_keys = program.recovery, loaded.sorts_keys
        self._reads, self._awaiting = program.reads, program.awaiting
        self._outputs, self._large = outputs or LargeOutputs(), 0
        self.running: dict[StepKey, StepCall] = {}
        """The calls in flight."""
        self.unsaved: dict[StepKey, StepCall] = {}  # ended or given up, which is not saved yet
        self.context: Context = copy_context()
        """The context variables of its steps: what hooks around it have set."""
        self._around = ExitStack()
        # The last time of the database that is known, and when it was learnt.
        self._known_at, self._learnt = loaded.now, runtime.monotonic()
        self._begun: dict[StepKey, tuple[str, float]] = {}
        self._begun_before: set[StepKey] = set()
        self._stored = loaded.execution.status is not ExecutionStatus.PENDING
        self.fresh: bool = loaded.new or not self._stored
        """True until something of it is saved, since it began or was resumed."""
        self.leased_at: float = self._learnt
        """The time of its claim, or of the last checkpoint that renewed the lease."""
        self._advanced, self._since = False, self._learnt  # a step has ended under this claim
        left = _left(self.workflow.timeout, item, loaded)
        self._ends_at: float | None = None if left is None else self._learnt + left
        self.waiting: dict[StepKey, OpenWait] = dict(loaded.open)
        """The waits that go on, without those for a time."""
        self.left_waits: list[OpenWait] = []  # ended without what was waited for
        self._inbox: dict[StepKey, Arrived] = {}
        self._take_in(loaded.arrived)
        self.made: dict[StepKey, tuple[str, float]] = {}
        """The actions of calls that have ended, and how long they took, until they are counted."""
        self.reasons: dict[StepKey, str] = _reasons(loaded)
        """The reasons of the waits that go on, also of those for a time."""
        self.in_code: bool = isinstance(program, CodeProgram)
        """True if its turns run a function of the application's."""
        self._crashes = max(0, item.attempt_count - 1)
        # What was called and is not now, by a worker that died, say: until it is put down, or
        # begins. Its row may say RUNNING.
        self._idle = {run.key: run for run in loaded.execution.steps if self._seems_called(run)}
        self._flow = self._driven(program, loaded, left, find_child, alone=alone)
        self.to_release: bool = False
        """True once it is to be put back, and taken up anew: an operator has steered it."""
        self.signal_sender: SignalSender | None = None
        """The sender of its signals; without it they are sent where they arise."""
        self._snapshots: ExecutionCopies | None = None
        self.begins: bool = True
        """True until the first turn is taken."""
        self.handing_over: bool = False
        """True once nothing more of it begins here: what runs ends and is saved."""
        self.lack: UnknownHereError | None = None
        """The reason why another worker has to go on with it."""

    def _driven(
        self,
        program: WorkflowProgram,
        loaded: Loaded,
        left: float | None,
        find_child: FindChild | None,
        *,
        alone: bool,
    ) -> Turns:
        activation = Activation(
            execution=loaded.execution, waits=loaded.waits, left=left, crashes=self._crashes,
            arrived=self._inbox, now=loaded.now, find_child=find_child,
            most_output=self._outputs.most, sorts_keys=loaded.sorts_keys, alone=alone,
        )  # fmt: skip
        if isinstance(program, CodeProgram):
            return program.replay(activation)
        return advance(program, activation)

    def enter(self, around: AbstractContextManager[Any]) -> None:
        """Enter *around* for all that is done for this execution, until `close`."""
        self.context.run(self._around.enter_context, around)

    def close(self) -> None:
        """Leave what was entered."""
        large, self._large = self._large, 0
        self._outputs.hold(-large)
        with suppress(ValueError):  # another thread takes a turn: the last one, and ends it then
            self._flow.close()
        self.context.run(self._around.close)

    # -- large outputs -----------------------------------------------------------------------

    @property
    def unread(self) -> list[StepRun]:
        """The runs whose outputs templates read, and that are still in the output store."""
        found = [
            run for run in self.execution.steps
            if run.output_ref is not None and run.output is None and run.step_id in self._reads
        ]  # fmt: skip
        if not found:
            return found
        ended = {run.key for run in self.execution.steps if run.status.finished}
        return [run for run in found if not self._is_past(run, ended)]

    def _is_past(self, run: StepRun, ended: AbstractSet[StepKey]) -> bool:
        """Return True if *run* is of an element or round whose own output counts by now."""
        around = list_of(run.step_id)
        if around and block_of(around)[1] >= 0 and block_of(around) in ended:
            return True
        step = self.workflow.find_step(run.step_id)
        following = {(run.step_id, -1), (run.step_id, run.position + 1)}
        return step is not None and step.loops and run.position >= 0 and bool(following & ended)

    @property
    def unread_ends(self) -> list[tuple[StepKey, Event]]:
        """The ends of sub-workflows that have come, and whose outputs are to be copied."""
        return self.ends_to_read(self._inbox)

    def ends_to_read(self, come: Mapping[StepKey, Arrived]) -> list[tuple[StepKey, Event]]:
        """Return the ends of sub-workflows in *come* whose outputs are in the output store."""
        return [
            (key, event)
            for key, one in come.items()
            if (wait := self.waiting.get(key)) is not None and wait.about in ("workflow", "task")
            for event in one.events
            if unread_output(event) is not None
        ]

    def has_taken(self, run: StepRun) -> bool:
        """Return True if *run* is of a step that waits for an event: its output says which."""
        # Read with the execution, whether a template needs it or not: no other step may take it.
        return plain_id(run.step_id) in self._awaiting

    def reads(self, key: StepKey) -> bool:
        """Return True if some template may read the output of this step."""
        return key[0] in self._reads

    def keeps(self, call: StepCall) -> bool:
        """Return True if some template may read the output of *call*."""
        return call.step.id in self._reads

    def as_read(self, output: Any) -> Any:
        """Return an *output* from the output store as one from the database would be."""
        return with_sorted_keys(output) if self._sorts_keys else output

    def hold(self, size: int) -> None:
        """Count a large output of *size* bytes, which is kept in memory until `close`."""
        self._large += size
        self._outputs.hold(size)

    # -- signals -----------------------------------------------------------------------------

    def send(
        self, signal: NamedSignal, sender: Any, run: StepRun | None = None, **arguments: Any
    ) -> None:
        """Send a signal of this execution, or of its step *run*."""
        if not signal.receivers or not signals.is_heard(signal, sender):
            return
        send: Callable[..., Any] = signals.emit
        execution = self.execution
        if self.signal_sender is not None:
            send = self.signal_sender.send
            if self._snapshots is None:
                self._snapshots = ExecutionCopies(execution)
            execution = self._snapshots.take(run)
            run = run and self._snapshots.step(run.key)
        about = arguments if run is None else {"step": run, **arguments}
        send(signal, sender, execution=execution, **about)

    # -- turns -------------------------------------------------------------------------------

    def next_turn(
        self, outcomes: Sequence[CallOutcome] = (), arrived: Mapping[StepKey, Arrived] = _NOTHING
    ) -> Turn:
        """Take *outcomes* in, and what has *arrived*, and return what follows from them."""
        if arrived:
            self._take_in(arrived)
        now = runtime.monotonic()
        for outcome in outcomes:
            self._end_call(outcome, now)
        elapsed, self._since = now - self._since, now
        if self.begins:
            self.begins = False
            turn = next(self._flow)
        else:
            turn = self._flow.send(([one for one in outcomes if one.begun], elapsed))
        for outcome in outcomes:
            if outcome.labels and (changed := self.changed_labels(outcome)):
                self.execution.set_labels(changed)
                # Those of a transactional call too: what was saved beside it knew nothing of it.
                turn.labels |= changed
        if turn.waits or turn.answered:
            self._note_waits(turn, now)
        if self.handing_over:
            # What it would end with follows from a state that was not saved as it is here.
            turn = turn.unended()
            self.pause(turn)
        if self._idle:
            self._release_runs(turn)
        return turn

    def _seems_called(self, run: StepRun) -> bool:
        """Return True if *run* is RUNNING: of a block or a loop that says that it has begun."""
        if run.status is not StepStatus.RUNNING:
            return False
        if self.in_code:
            return True
        step = self.workflow.find_step(run.step_id)
        around = step is None or step.is_block or (step.loops and run.position < 0)
        return not around

    def _release_runs(self, turn: Turn) -> None:
        """Let all be PENDING that was called, and that neither *turn* nor anybody calls now."""
        if not self._idle or turn.end is not None:
            return
        called = {call.run.key for call in turn.calls}
        for key in [key for key in self._idle if key not in called]:
            run = self._idle.pop(key)
            if run.status in (StepStatus.RUNNING, StepStatus.PENDING):
                release_run(run, turn, self._crashes, max(0, self.item.attempt_count - 1))

    def unmade(self) -> list[StepRun]:
        """Return what is left of an execution that is put back as it was read: it is PENDING."""
        turn = Turn(wait=0.0)
        self._release_runs(turn)
        return turn.idle

    def _end_call(self, outcome: CallOutcome, now: float) -> None:
        key = outcome.call.run.key
        if self.running.pop(key, None) is not None and key in self._begun:
            if outcome.begun and outcome.wait is None:
                self.made[key] = outcome.call.action, now - self._begun[key][1]
            if outcome.begun or outcome.error is not None:
                self.unsaved[key] = outcome.call
        if outcome.held:
            self.hold(outcome.held)
        if not outcome.begun:
            _release_call(outcome.call)
            self._idle[key] = outcome.call.run

    def _take_in(self, arrived: Mapping[StepKey, Arrived]) -> None:
        for key, one in arrived.items():
            wait = self.waiting.get(key)
            # What was looked for in the meantime may be the end of an attempt before.
            if wait is not None and wait is one.wait:
                # Of what is seen by the turn that follows, the database is not asked again.
                wait.seen |= one.ids
                self._inbox[key] = one

    def changed_labels(self, outcome: CallOutcome) -> dict[str, str]:
        """Return the labels that a call has changed; none, with a warning, if one is too many."""
        try:
            return self.execution.changed_labels(outcome.labels)
        except PayloadError as error:
            logger.warning("execution %s: %s", self.execution.id, error)
            return {}

    def _note_waits(self, turn: Turn, now: float) -> None:
        ended = [self.waiting.pop(key, None) for key in turn.answered]
        if any(one is not None and one.about == "task" for one in ended):
            done = {run.key for run in turn.saves if run.status is StepStatus.COMPLETED}
            pairs = zip(turn.answered, ended, strict=True)
            self.left_waits += [one for key, one in pairs if one is not None and key not in done]
        if any(one is not None and one.about == "approval" for one in ended):
            completed = {run.key for run in turn.saves if run.status is StepStatus.COMPLETED}
            turn.undecided = not completed.issuperset(turn.answered)
        for wait in turn.waits:
            run = wait.run
            self._begun[run.key] = new_id(), now
            self.reasons[run.key] = wait.about
            run.started_at = run.started_at or self._moment(now)
            if wait.key is not None:
                self.waiting[run.key] = OpenWait(wait.key, wait.about, wait.details, saved=False)

    def begin(self, call: StepCall) -> None:
        """Note that *call* is made now."""
        run, now = call.run, runtime.monotonic()
        if run.started_at is not None:
            self._begun_before.add(run.key)
        self.running[run.key] = call
        self._idle.pop(run.key, None)
        self._begun[run.key] = new_id(), now
        run.attempted_at, run.worker_id = self._moment(now), self.item.lease_owner
        run.started_at = run.started_at or run.attempted_at

    def may_repeat(self, call: StepCall) -> bool:
        """Return True if *call* may have been made before, whatever the number of its attempt."""
        # An attempt that a worker gave back is not counted, and a step that is resumed is counted
        # anew: neither knows how far the call had come.
        return call.run.key in self._begun_before or RESUMED in self.item.headers

    def started(self, call: StepCall) -> None:
        """Note that *call*, which had to wait for a thread, is made only now."""
        known = self._begun.get(call.run.key)
        if known is not None:
            self._begun[call.run.key] = known[0], runtime.monotonic()
            call.run.attempted_at = self._moment(runtime.monotonic())

    def pause(self, turn: Turn) -> None:
        """Take the calls out of *turn*; with none in flight, the execution waits for a worker."""
        for call in turn.calls:
            _release_call(call)
        if turn.calls and not turn.progresses:
            # What was lost before them is told once they begin.
            taken = {call.run.key for call in turn.calls}
            turn.failures = [
                one for one in turn.failures if (one.step_id, one.position) not in taken
            ]  # fmt: skip
        paused = bool(turn.calls)
        turn.calls = []
        if (paused or not turn.last) and not self.running:
            turn.wait = 0.0
        if turn.wait is not None and turn.end is None:
            turn.lack = self.lack
            self._release_runs(turn)

    def hand_over(self, lack: UnknownHereError, turn: Turn) -> None:
        """Let another worker go on, once what is in flight has ended: this one lacks something."""
        self.handing_over, self.lack = True, lack
        self.pause(turn)

    def paused(self, turn: Turn) -> Turn:
        """Return what is left of a *turn* that has been saved, if it is to be released since."""
        left = Turn(calls=turn.calls, next_retry=turn.next_retry)
        self.pause(left)
        return left

    def timeout_of(self, call: StepCall) -> float | None:
        """Return the step's timeout, or the rest of the workflow's if that is less."""
        timeout = call.step.timeout
        if self._ends_at is None:
            return timeout
        left = self.time_left(call)
        if left is None:  # it cleans up
            return timeout
        return left if timeout is None else min(timeout, left)

    def time_left(self, call: StepCall) -> float | None:
        """Return the rest of the workflow's timeout, or None if that does not bound *call*."""
        if self._ends_at is None or call.recovers or plain_id(call.step.id) in self._recovery:
            return None
        return max(0.001, self._ends_at - runtime.monotonic())

    @property
    def generation(self) -> str:
        """A text that changes each time that the execution is resumed, after it had ended."""
        return str(self.item.headers.get(RESUMED, ""))

    @property
    def is_long(self) -> bool:
        """True if it costs much to read it again: it has many runs."""
        return len(self.execution.steps) >= _MANY_RUNS

    @property
    def has_ended_waits(self) -> bool:
        """True if the time of a wait has just come: the database is to tell whether it is over."""
        now = self._moment(runtime.monotonic())
        just = now - timedelta(seconds=LOOK_SECONDS)
        ends = (wait.expires_at for wait in list(self.waiting.values()))
        return any(end is not None and just < end <= now for end in ends)

    @property
    def is_late(self) -> bool:
        """True if the workflow's timeout is over, or about to be."""
        return self._ends_at is not None and runtime.monotonic() >= self._ends_at - _ABOUT_SECONDS

    def _moment(self, now: float) -> datetime:
        """Return about the time of the database, without asking it."""
        return self._known_at + timedelta(seconds=now - self._learnt)

    # -- checkpoints -------------------------------------------------------------------------

    def save_of(self, turn: Turn) -> Save:
        """Return what is to be saved of *turn*."""
        now = runtime.monotonic()
        for run in turn.saves:
            if run.started_at is None and run.status in _BEGUN and run.key not in self._begun:
                self._note_around(run, turn, now)
        # Who goes on learns from their rows that they were made, however short that was.
        left = [run for run in turn.idle if run.key in self.unsaved]
        begun = {
            run.key: (known[0], now - known[1])
            for run in (*turn.saves, *left)
            if (known := self._begun.get(run.key)) is not None
        }
        deferred = list(self.waiting.values()) if turn.wait is not None else []
        advanced = self._advanced or _has_ended(turn)
        return Save(self.item, self.execution, turn, begun, self._stored, deferred, advanced)

    def _note_around(self, run: StepRun, turn: Turn, now: float) -> None:
        """Note when a block or a loop has begun: with the first of what is inside it."""
        its = {run.step_id}
        known = (
            self._begun[one.key][1]
            for one in turn.saves
            if one.key in self._begun and (one.step_id in its or inside(one.step_id, its))
        )
        begun = min(known, default=now)
        self._begun[run.key] = new_id(), begun
        run.started_at = self._moment(begun)

    def saved(self, turn: Turn, at: datetime) -> bool:
        """Note that *turn* was saved *at* that time; return True if it is the first to be."""
        first, self.fresh, self._stored = self.fresh, False, True
        self._advanced = self._advanced or _has_ended(turn)
        self._known_at, self._learnt = at, runtime.monotonic()
        for key in [*turn.past, *[run.key for run in (*turn.saves, *turn.idle)]]:
            self.unsaved.pop(key, None)
        for run in turn.saves:
            if run.status.finished:
                # When it began was a guess.
                run.completed_at = max(at, run.started_at or at)
                self._begun.pop(run.key, None)
        for wait in turn.waits:
            if (one := self.waiting.get(wait.run.key)) is not None:
                one.saved = True
                if wait.seconds is not None:
                    one.expires_at = at + timedelta(seconds=bounded_seconds(wait.seconds))
        self.execution.updated_at = at
        if turn.end is not None or self.execution.status is not ExecutionStatus.CANCELLING:
            self.execution.status = turn.end or ExecutionStatus.RUNNING
        if turn.end is not None:
            self.execution.completed_at, self.execution.output = at, turn.output
            self.execution.output_ref = turn.output_ref
            if turn.successor is not None:
                self.execution.successor_id = turn.successor.id
        return first


def _reasons(loaded: Loaded) -> dict[StepKey, str]:
    return {
        run.key: loaded.open[run.key].about if run.key in loaded.open else "time"
        for run in loaded.execution.steps if run.status is StepStatus.WAITING
    }  # fmt: skip


def _left(timeout: float | None, item: OutboxItem, loaded: Loaded) -> float | None:
    """Return the seconds that are left of the workflow's *timeout*, if it has one."""
    if timeout is None:
        return None
    return timeout - (loaded.now - _began_at(item, loaded)).total_seconds()


def _began_at(item: OutboxItem, loaded: Loaded) -> datetime:
    """Return the time from which the workflow's own timeout counts."""
    begun = [run.started_at for run in loaded.execution.steps if run.started_at is not None]
    if begun:
        # Since its wake-up was enqueued: an execution that is resumed has all its time again.
        return max(item.created_at, min(begun))
    # The time that it had to wait for its beginning is not its own.
    return loaded.now if item.concurrency_key else max(item.created_at, item.next_attempt_at)


def _has_ended(turn: Turn) -> bool:
    return bool({run.status for run in turn.saves} - _GOES_ON)


def _release_call(call: StepCall) -> None:
    """Let *call* be one that nobody has made."""
    call.run.attempts -= 1
    call.run.status = StepStatus.PENDING


MOST_TEXT = 8_000_000
"""So many characters of outputs are saved at once, about."""


def first_outcomes(outcomes: Sequence[CallOutcome]) -> Sequence[CallOutcome]:
    """Return the first of *outcomes*, as many as can be saved at once; at least one."""
    size = 0
    for number, outcome in enumerate(outcomes):
        size += len(outcome.encoded or "")
        if size > MOST_TEXT and number:
            return outcomes[:number]
    return outcomes


def needs_saving(turn: Turn) -> bool:
    """Return True if *turn* has anything for the database."""
    said = turn.saves or turn.failures or turn.labels or turn.idle
    return bool(said or turn.failed is not None or turn.last)
