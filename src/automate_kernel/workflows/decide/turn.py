"""A turn of an execution: what is saved of it, and the calls that are made then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from automate_kernel.base.errors import AutomateError, PayloadError, UnknownHereError
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.outbox.item import EXPIRED, bounded_seconds
from automate_kernel.secrets.tracebacks import MAX_GROUP, group_of
from automate_kernel.storage.codec import NULL, JsonText, with_sorted_keys
from automate_kernel.storage.values import storable
from automate_kernel.workflows.decide.agenda import Waits
from automate_kernel.workflows.decide.children import Child
from automate_kernel.workflows.decide.continuations import Successor
from automate_kernel.workflows.decide.waits import Wait
from automate_kernel.workflows.definition.blocks import plain_id, round_of
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

_NO_PROGRESS = {StepStatus.RUNNING}
NOT_HERE: JsonText = NULL
"""The JSON in the row of an output that is in the output store."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """
    A call to make: the step, its run, and its input, in which secrets are handles.

    *spec* is that of a function which is no action. One that *recovers* may take longer than the
    workflow. *written* is the input with its templates.
    """

    step: Step
    run: StepRun
    input: Any
    spec: OperationSpec | None = None
    recovers: bool = False
    written: Any = None
    action: str = field(init=False)
    """The name of the action."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "action", self.step.action or "")

    @property
    def operation(self) -> str | OperationSpec:
        """The operation that is called: an action's name, or a spec."""
        return self.spec or self.action


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """
    The outcome of a call: an output and its JSON, or an error whose text is redacted.

    With *begun* False the call was not made; with an error beside that it was, and has given up
    since its worker stops, or its execution is cancelled: it is no attempt.
    """

    call: StepCall
    output: Any = None
    error: AutomateError | None = None
    encoded: JsonText | None = None
    begun: bool = True
    ref: str | None = None
    """The key of the output in the output store, if it is there; *output* may be None then."""
    held: int = 0
    """The size of a large output that is kept in memory."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels that the call has given its execution."""
    wait: Wait | None = None
    """The wait that begins, if the call goes on elsewhere and its outcome is delivered."""


@dataclass(slots=True)
class Turn:
    """
    Runs to save (and the execution, if *end* or *failed* is set), then calls to make.

    With *wait* or *end* it is the last turn: nothing is in flight. *outputs* are those of runs in
    *saves* that are encoded already. *delays* are the seconds until runs in *saves* are retried.
    While calls are in flight, the next turn is due after *next_retry* seconds even if none of them
    has ended. *failures* are attempts that have failed since the last turn, also of runs that have
    begun another one by now.

    *waits* are those that begin, beside the runs in *saves* that are WAITING; *answered* are the
    runs that wait no longer. *children* are sub-workflows to start, *abandoned* the ids of those
    to cancel.
    """

    saves: list[StepRun] = field(default_factory=list)
    calls: list[StepCall] = field(default_factory=list)
    outputs: dict[StepKey, JsonText] = field(default_factory=dict)
    delays: dict[StepKey, float] = field(default_factory=dict)
    next_retry: float | None = None
    wait: float | None = None
    end: ExecutionStatus | None = None
    output: Any = None
    encoded: JsonText | None = None
    """The JSON of *output*."""
    output_ref: str | None = None
    """The key of *output* in the output store, if it is there."""
    failed: AutomateError | None = None
    failures: list[FailedAttempt] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    answered: list[StepKey] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    successor: Successor | None = None
    """The execution that follows one which ends, continued as new."""
    past: list[StepKey] = field(default_factory=list)
    """Runs of a loop's rounds that are not kept any longer."""
    size: int = 0
    """The number of characters of all outputs in it, about."""
    labels: dict[str, str] = field(default_factory=dict)
    """The labels of the execution that have been set or changed."""
    lack: UnknownHereError | None = None
    """The reason why another worker has to go on, if the execution waits for one."""
    idle: list[StepRun] = field(default_factory=list)
    """Runs that nobody makes for now: those whose rows say RUNNING are PENDING."""
    counted: bool = False
    """True if the crashes of workers so far are counted by runs in *idle*."""
    undecided: bool = False
    """True if an approval among those in *answered* has ended without a decision."""

    @property
    def last(self) -> bool:
        """Return True if nothing follows in this wake-up."""
        return self.end is not None or self.wait is not None

    @property
    def progresses(self) -> bool:
        """True if it forgets the crashes of workers so far: some step has come on."""
        return self.counted or bool({run.status for run in self.saves} - _NO_PROGRESS)

    @property
    def started(self) -> list[Workflow]:
        """The workflows of the executions that begin with it."""
        found = [child.workflow for child in self.children]
        return found if self.successor is None else [*found, self.successor.workflow]

    def unended(self) -> Turn:
        """Return what is left of it if the execution can't end yet: it is taken up anew."""
        # All but the end: a wait that is over, say, goes with the step that has waited.
        return replace(
            self, wait=self.wait if self.end is None else 0.0,
            end=None, output=None, encoded=None, output_ref=None, successor=None,
        )  # fmt: skip


class TurnDraft:
    """
    The turn that is being put together: what has become of an execution's runs since the last one.

    A step may have thousands of elements: nothing here searches all of them.
    """

    def __init__(self, execution: Execution, waits: Waits, *, sorts_keys: bool = False) -> None:
        self.turn: Turn = Turn()
        """The turn so far."""
        self.runs: dict[StepKey, StepRun] = {run.key: run for run in execution.steps}
        """All runs of the execution."""
        self._execution, self._waits, self._sorts_keys = execution, waits, sorts_keys
        self._saved: set[StepKey] = set()

    def take(self) -> Turn:
        """Return the turn, and begin the next one."""
        turn, self.turn = self.turn, Turn()
        self._saved.clear()
        if turn.labels:
            self._execution.set_labels(turn.labels)
        if turn.waits:
            _drop_ended_waits(turn)
        return turn

    def settled(self) -> Turn:
        """Return a copy of the turn so far, which has the outcomes of calls alone."""
        turn = self.turn
        return Turn(
            saves=[*turn.saves], outputs={**turn.outputs}, delays={**turn.delays},
            failures=[*turn.failures], size=turn.size,
        )  # fmt: skip

    def back_to(self, settled: Turn) -> Turn:
        """Return *settled* in place of the turn, with the calls of that, which nobody makes."""
        settled.calls, self.turn = self.turn.calls, Turn()
        self._saved.clear()
        return settled

    def label(self, labels: Mapping[str, str]) -> None:
        """Have *labels* saved with the turn; raises `PayloadError` if they are too many."""
        # A replay sets one after the other to what it was once: only the last counts.
        self.turn.labels = self._execution.changed_labels({**self.turn.labels, **labels})

    def add(self, run: StepRun) -> None:
        """Let *run* be one of the execution's."""
        if run.key not in self.runs:
            self.runs[run.key] = run
            self._execution.steps.append(run)

    def save(self, run: StepRun) -> None:
        """Have *run* saved with the turn."""
        self.add(run)
        if run.key not in self._saved:
            self._saved.add(run.key)
            self.turn.saves.append(run)

    def forget(self, loop_id: str, before: int, kept: Collection[str]) -> None:
        """
        Forget the rounds of a loop that come *before* that number, with all inside them.

        Runs of the steps *kept* stay.
        """
        past = {
            key
            for key in self.runs
            if -1 < round_of(key, loop_id) < before and plain_id(key[0]) not in kept
        }
        for key in past:
            del self.runs[key]
        # Another list: who goes by the places of runs begins anew.
        self._execution.steps = [run for run in self._execution.steps if run.key not in past]
        self.turn.saves = [run for run in self.turn.saves if run.key not in past]
        self.turn.past += sorted(past)

    def drop(self, run: StepRun) -> None:
        """Let *run* be none of the execution's any more."""
        del self.runs[run.key]
        self._execution.steps = [each for each in self._execution.steps if each is not run]
        self._waits.drop(run.key)
        self.turn.past.append(run.key)

    def take_labels(self, labels: Mapping[str, str]) -> None:
        """Have the *labels* of a call saved that was made elsewhere; too many are left out."""
        if labels:
            with suppress(PayloadError):
                self.label(labels)

    def wait(self, wait: Wait) -> None:
        """Let the run of *wait* be WAITING."""
        run = wait.run
        run.status = StepStatus.WAITING
        if wait.seconds is not None:
            self._waits.add(run.key, wait.seconds)
            self.turn.delays[run.key] = wait.seconds
        self.turn.waits.append(wait)
        self.save(run)

    def keep_output(self, key: StepKey, encoded: JsonText) -> None:
        """Note the JSON of an output that is saved with the turn."""
        self.turn.outputs[key] = encoded
        self.turn.size += len(encoded)

    def retry(self, step: Step, run: StepRun, error: AutomateError) -> None:
        """Let *run* wait for its next attempt."""
        delay = step.retry.delay_for(run.attempts)
        if error.retry_after is not None:
            delay = max(delay, bounded_seconds(error.retry_after))
        run.status, run.output = StepStatus.RETRY, None
        self._note_error(run, error)
        self._waits.add(run.key, delay)
        self.turn.delays[run.key] = delay
        self.save(run)

    def begin(self, run: StepRun, crashes: int, *, first: bool) -> None:
        """
        Count the attempt of *run* that begins now.

        It is not saved: an attempt that kills its worker is counted by the claims of the item. The
        one before is noted here, if it has done that.
        """
        before = _attempts_of(run, crashes, first=first)
        if before > run.attempts - (run.status is StepStatus.RUNNING):
            self.turn.failures.append(_lost_attempt(run, before))
        run.attempts, run.status = before + 1, StepStatus.RUNNING

    def end(
        self, run: StepRun, status: StepStatus, output: Any, error: AutomateError | None
    ) -> None:
        """End *run*."""
        # As the next worker will read it.
        run.output = with_sorted_keys(output) if self._sorts_keys else output
        run.status, run.output_ref = status, None
        run.error_code = run.error = run.trace = run.error_group = None
        if error is not None:
            self._note_error(run, error)
        if self._waits.due:
            self._waits.drop(run.key)
        self.save(run)

    def _note_error(self, run: StepRun, error: AutomateError) -> None:
        # As the next worker will read it.
        run.error_code, run.error, run.trace = str(error.code), storable(str(error)), error.trace
        run.error_group = storable(group_of(error), MAX_GROUP)
        run.failures += 1
        self.turn.failures.append(run.failed_attempt())


def _drop_ended_waits(turn: Turn) -> None:
    """Take out the waits that have begun in *turn* and ended in it: another step failed, say."""
    ended = [wait for wait in turn.waits if wait.run.status is not StepStatus.WAITING]
    if not ended:
        return
    turn.waits = [wait for wait in turn.waits if wait.run.status is StepStatus.WAITING]
    # What they would have started begins not at all, rather than to be cancelled.
    unborn = {wait.details.get("execution_id") for wait in ended if wait.about == "workflow"}
    turn.children = [child for child in turn.children if child.id not in unborn]
    turn.abandoned = [each for each in turn.abandoned if each not in unborn]


def release_run(run: StepRun, turn: Turn, crashes: int, kept: int) -> None:
    """
    Let *run* be PENDING, which was called and is not any more: its worker died, or gave it back.

    *crashes* workers had died over it when its execution was claimed. The claims count *kept* of
    them still, unless *turn* is about to forget them: those count once it begins again.
    """
    before = run.attempts
    # Of one that goes on with other calls nothing else may count them for it.
    turn.counted |= bool(turn.calls)
    if run.status is StepStatus.RUNNING:
        before = _attempts_of(run, crashes, first=True)
        if turn.progresses and before >= run.attempts:
            turn.failures.append(_lost_attempt(run, before))
    run.attempts = before if turn.progresses else max(0, before - kept)
    run.status = StepStatus.PENDING
    turn.idle.append(run)


def _attempts_of(run: StepRun, crashes: int, *, first: bool) -> int:
    """
    Return the attempts that a run has had, with those that killed a worker.

    *crashes* workers have died since the last checkpoint; what begins in the *first* turn was
    running then.
    """
    if run.status is StepStatus.RUNNING:
        # Written while it ran. Without a crash the worker gave it back, and that is free.
        return max(run.attempts - 1 + min(1, crashes), crashes)
    return run.attempts + crashes * first


def _lost_attempt(run: StepRun, attempt: int) -> FailedAttempt:
    """Return the *attempt* of a run that has killed its worker, or outlived its lease."""
    return FailedAttempt(
        attempt=attempt, error_code=EXPIRED, error_group=EXPIRED,
        error="its worker did not finish in time, or died", step_id=run.step_id,
        position=run.position, started_at=run.attempted_at, worker_id=run.worker_id,
    )  # fmt: skip
