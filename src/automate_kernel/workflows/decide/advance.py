"""
The next moves of an execution, decided without making any of them.

`advance` is a generator. It yields a `Turn` (runs to save, then calls to make), and is sent the
outcomes of calls as they come in. It ends with the last turn. It reads no clock and touches no
database, so the same decisions drive the threads of a worker, an event loop and a test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, UnknownHereError
from automate_kernel.operations.outputs import stored_output
from automate_kernel.outbox.item import MAX_DELAY_SECONDS
from automate_kernel.secrets.tracebacks import group_of
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import storable
from automate_kernel.workflows.decide.activation import Activation, Turns, turns_of
from automate_kernel.workflows.decide.agenda import NO_AGENDA, Agenda, BlockScope, Elements, Waits
from automate_kernel.workflows.decide.continuations import Successor
from automate_kernel.workflows.decide.executor_tasks import WaitEnd
from automate_kernel.workflows.decide.phases import (
    CANCEL,
    NOTHING,
    SUCCESS,
    compensations,
    ending_of,
    not_undone,
    note_not_undone,
    phase_names,
)
from automate_kernel.workflows.decide.program import (
    TemplateView,
    WorkflowProgram,
    element_names,
    round_names,
)
from automate_kernel.workflows.decide.turn import NOT_HERE, CallOutcome, StepCall, Turn, TurnDraft
from automate_kernel.workflows.decide.waiting import WaitingSteps
from automate_kernel.workflows.decide.waits import Wait
from automate_kernel.workflows.definition.blocks import (
    block_of,
    elements_begun,
    inside,
    list_of,
    list_path,
    plain_id,
    top_id,
)
from automate_kernel.workflows.definition.model import Step
from automate_kernel.workflows.execution import Event, StepKey, StepRun, StepStatus

KEPT_ROUNDS = 10
"""Of a loop the rows of so many rounds are kept, and at times of twice as many."""

# A loop without calls leaves the worker to others after so many rounds.
_MOST_SPINS = 100


def advance(program: WorkflowProgram, activation: Activation) -> Turns:
    """Bring an execution as far as it goes now. Send outcomes, and the seconds since the last."""
    return turns_of(lambda: _Flow(program, activation))


class _Flow:
    """The state of one `advance`: the turn being put together, and the calls in flight."""

    def __init__(self, program: WorkflowProgram, activation: Activation) -> None:
        self.first = True
        execution, waits = activation.execution, activation.waits
        self._most_output = activation.most_output
        self._inbox, self._now = activation.arrived, activation.now
        self._crashes = activation.crashes
        self._program = program
        self._workflow = program.workflow
        self._execution = execution
        # The runs that wait for a time, an event or another workflow, in the order they began in.
        self._open = {run.key: run for run in execution.steps if run.status is StepStatus.WAITING}
        retrying = (run.key for run in execution.steps if run.status is StepStatus.RETRY)
        timed = (key for key in self._open if key in waits)
        self._waits = Waits({key: waits.get(key, 0.0) for key in (*retrying, *timed)})
        self._draft = TurnDraft(execution, self._waits, sorts_keys=activation.sorts_keys)
        self._runs = self._draft.runs
        self._left = activation.left
        self._in_flight: set[StepKey] = set()
        # Steps whose condition has held, of which the database knows nothing yet.
        self._decided: dict[StepKey, StepRun] = {}
        self._entered: list[StepRun] = []  # blocks, likewise
        self._view = program.view(execution, self._runs)
        self._waiting = WaitingSteps(program, activation)
        self._elements: dict[str, Elements] = {}
        # The insides of blocks that run, by their paths.
        self._scopes: dict[str, BlockScope] = {}
        # The elements of blocks in which something has happened, by the blocks' ids.
        self._stirred: dict[str, dict[int, None]] = {}
        self._begun = elements_begun(step_id for step_id, _ in self._runs)
        # The rounds or elements that have completed; and rounds that have begun in this turn.
        self._completed = elements_completed(execution.steps)
        self._spins: Counter[str] = Counter()
        self._ending = SUCCESS
        self._straying = False
        self._phases: list[str] = []
        self._enter_ending()
        self._output: Any = None
        self._encoded: JsonText | None = None
        self._successor: Successor | None = None
        # What a worker that goes on from here has to know. Nothing more begins then.
        self._lack: UnknownHereError | None = None

    def pass_time(self, elapsed: float) -> None:
        """Bring the retries nearer, and the end of the workflow's time."""
        if self._waits.due:
            self._waits.pass_time(elapsed)
        self._now += timedelta(seconds=elapsed)
        if self._left is not None:
            self._left -= elapsed

    # -- outcomes ----------------------------------------------------------------------------

    def settle(self, outcome: CallOutcome) -> None:
        """Take in the outcome of a call."""
        step, run = outcome.call.step, outcome.call.run
        self._in_flight.discard(run.key)
        if self._scopes:
            self._count_call(step.id, -1)
        if outcome.wait is not None:
            self._suspend(step, run, outcome.wait)
            return
        self._take_in(step, run, outcome)

    def _suspend(self, step: Step, run: StepRun, wait: Wait) -> None:
        """Let a run wait for the outcome of its call, which goes on elsewhere."""
        if run.position >= 0:
            self._elements[step.id].waiting += 1
        self._open[run.key] = run
        self._draft.wait(wait)

    def _take_in(self, step: Step, run: StepRun, outcome: CallOutcome | WaitEnd) -> None:
        """End the attempt of a run that was called, or has waited."""
        elements = self._elements[step.id] if run.position >= 0 else None
        if elements is not None:
            elements.running -= 1
        error = outcome.error
        if error is None:
            self._end_run(run, StepStatus.COMPLETED, output=outcome.output)
            run.output_ref = outcome.ref
            if outcome.encoded is not None:
                self._draft.keep_output(run.key, outcome.encoded)
            if elements is not None:
                elements.unfinished -= 1
            return
        if has_attempts(step, run, error):
            over = self._why_over(step)
            if over is None:
                self._retry(step, run, error)
                return
            error = not_retried(error, over)
        self._end_run(run, StepStatus.FAILED, error=error)
        if elements is not None:
            elements.note_failed(run)
        else:
            self._step_failed(step, error)

    def _why_over(self, step: Step) -> str | None:
        """Return the reason why *step*, which has failed, is not tried again; None if it is."""
        if self._ending is not SUCCESS and plain_id(step.id) not in self._program.recovery:
            return WAS_CANCELLED if self._ending is CANCEL else HAD_FAILED
        # Another element has failed the step meanwhile, or a step beside it the block around.
        if self._ended(step.id) or self._stopped(self._scope_of(step.id)):
            return "another one beside it had failed"
        return None

    def _retry(self, step: Step, run: StepRun, error: AutomateError) -> None:
        self._close(run, abandon=False)
        self._draft.retry(step, run, error)

    def _end_run(
        self,
        run: StepRun,
        status: StepStatus,
        *,
        output: Any = None,
        error: AutomateError | None = None,
    ) -> None:
        if self._open:
            self._close(run, abandon=status is StepStatus.CANCELLED)
        self._draft.end(run, status, output, error)
        scope = self._scope_of(run.step_id) if self._scopes else None
        if run.position < 0 and status.finished:
            (self._agenda if scope is None else scope.agenda).end(run.step_id)
        if scope is not None:
            self._stir(run.step_id)

    def _close(self, run: StepRun, *, abandon: bool) -> None:
        """End the wait of *run*, if it waits; *abandon* cancels the sub-workflow that it has."""
        if self._open.pop(run.key, None) is None:
            return
        self._draft.turn.answered.append(run.key)
        step = self._workflow.step(run.step_id)
        if run.position >= 0 and run.step_id in self._elements:
            self._elements[run.step_id].waiting -= 1
        if abandon:
            self._abandon(step, run)

    def _abandon(self, step: Step, run: StepRun) -> None:
        """Have the sub-workflow cancelled that *run* has waited for, if it has one."""
        if step.workflow is not None and "execution_id" in (run.output or ()):
            self._draft.turn.abandoned.append(run.output["execution_id"])

    def _step_failed(self, step: Step, error: AutomateError) -> None:
        # One that cleans up changes nothing: the workflow has failed or is cancelled anyway.
        if step.on_failure != "fail":
            return
        error = within(error, f"step {step.id!r} failed: {error}")
        scope = self._scope_of(step.id)
        if scope is not None:
            scope.failed = scope.failed or error
        elif self._ending is SUCCESS:
            self.fail(error)

    def fail(self, error: AutomateError) -> None:
        """Let the workflow fail: nothing new begins but what cleans up."""
        if ending_of(self._execution) is SUCCESS:
            self._execution.error_code = str(error.code)
            self._execution.error = storable(str(error))
            self._execution.error_group = group_of(error)
            self._draft.turn.failed = error

    # -- the next turn -----------------------------------------------------------------------

    def next_turn(self) -> Turn:
        """Start the steps that can start, and return the turn that has come together."""
        if self._left is not None and self._left <= 0:
            self._check_time()
        self._spins.clear()
        due = self._waits.take_due() if self._waits.due else []
        if due:
            self._put_back(due)
        if self._open:
            self._answer_waits(due)
            self._put_back(self._waits.take_due())  # retried at once
        if self._decided and self._draft.turn.saves:
            self._save_decided()
        self._go_on()
        if self._entered and self._draft.turn.saves:
            self._save_entered()
        turn = self._draft.take()
        turn.lack = self._lack
        wait = self._waits.until_next() if self._waits.due else None
        if turn.calls or self._in_flight:
            turn.next_retry = self._bounded(wait)
        elif self._lack is not None:
            turn.wait = 0.0
        elif self._waits.due or self._open:
            # Nothing but a signal wakes what waits without a limit.
            turn.wait = self._bounded((wait or 0.0) if self._waits.due else MAX_DELAY_SECONDS)
        else:
            self._end(turn)
        return turn

    def _go_on(self) -> None:
        """Begin what can begin, in this phase and in those that follow at once."""
        while self._lack is None:
            ending = ending_of(self._execution)
            if ending is not self._ending:
                self._ending, self._straying = ending, True
                self._leave_rest()
                self._enter_ending()
            # What is in flight of the phase before ends first.
            if self._straying and self._in_flight:
                return
            if self._straying:
                self._straying = False
                self._leave_lists()
            self._start_ready()
            if ending_of(self._execution) is not self._ending:
                continue
            if self._draft.turn.calls or self._in_flight or self._phase_waits():
                return
            if self._lack is not None or not self._next_phase():
                return

    def _phase_waits(self) -> bool:
        waiting, needs = (*self._waits.due, *self._open), self._phase.needs
        return any(step_id in needs or top_id(step_id) in needs for step_id, _ in waiting)

    def _enter_ending(self) -> None:
        """Begin with the first phase that leads to this end."""
        self._phases = phase_names(self._ending, self._workflow, self._runs)
        self._phase, self._agenda = NOTHING, NO_AGENDA
        if self._ending is SUCCESS:
            self._enter(self._phases.pop(0))

    def _enter(self, name: str) -> None:
        if name == "compensations":
            self._phase = compensations(self._workflow, self._runs)
        else:
            self._phase = self._program.phases[name]
        self._agenda = Agenda(self._phase.steps, self._phase.needs, self._ended)

    @property
    def _runs_own_steps(self) -> bool:
        return self._phase is self._program.phases["steps"]

    def _next_phase(self) -> bool:
        """Enter the next phase; return False if there is none."""
        if self._runs_own_steps:
            self._give_output()
            if self._execution.error_code is not None:
                return True
        if not self._phases:
            return False
        self._enter(self._phases.pop(0))
        return True

    def _leave_rest(self) -> None:
        """End the runs that will not go on, after a crash of a worker too."""
        for steps in self._left_groups():
            self._cancel_rest(steps)

    def _leave_lists(self) -> None:
        """End the steps whose elements will not go on: what cleans up sees how they ended."""
        for steps in self._left_groups():
            for step in steps:
                if step.for_each is None or self._begins(step) or self._ended(step.id):
                    continue
                elements = self._elements.get(step.id)
                done = elements is not None and not elements.unfinished and not elements.failed
                status = StepStatus.COMPLETED if done else StepStatus.CANCELLED
                self._end_run(self._run(step, -1), status)

    def _left_groups(self) -> list[Sequence[Step]]:
        """Return the steps of the phases that do not lead to this end."""
        left = set(phase_names(self._ending, self._workflow, self._runs))
        return [steps for name, steps in self._workflow.groups().items() if name not in left]

    def _end(self, turn: Turn) -> None:
        if self._ending is SUCCESS:
            turn.output, turn.encoded = self._output, self._encoded
            turn.successor = self._successor
        turn.end = self._ending.value
        if self._ending is not SUCCESS:
            note_not_undone(self._execution, not_undone(self._workflow, self._runs))

    def _save_decided(self) -> None:
        """Save the conditional steps that run: what is saved beside them may change their ifs."""
        decided, self._decided = self._decided, {}
        for key, run in decided.items():
            if key in self._in_flight:
                self._draft.save(run)

    def _bounded(self, wait: float | None) -> float | None:
        """Return *wait*, cut where the workflow's time ends."""
        if wait is None or self._left is None or not self._runs_own_steps:
            return wait
        return min(wait, max(0.0, self._left))

    def _put_back(self, due: Sequence[StepKey]) -> None:
        for step_id, position in due:
            run = self._runs[step_id, position]
            self._stir(step_id)
            if position >= 0 and step_id in self._elements and run.status is StepStatus.RETRY:
                self._elements[step_id].put_back(position)

    # -- waits -------------------------------------------------------------------------------

    def _answer_waits(self, due: Sequence[StepKey]) -> None:
        """End the waits for which something has come, and those whose time is over, in order."""
        keys: dict[StepKey, None] = {}
        if self._inbox:
            keys = dict.fromkeys(key for key in self._open if key in self._inbox)
        # Whatever comes in the same moment as the end of the time counts.
        keys |= dict.fromkeys(key for key in due if key in self._open)
        for key in keys:
            run = self._open[key]
            try:
                step = self._step(key[0])
            except AutomateError as error:
                self._step_lost(key[0], error)
                continue
            if self._leaves(step):
                continue  # it is cancelled with the others
            if step.loops and key[1] < 0:
                self._end_pause(step, run)
                continue
            come = self._inbox.pop(key, None)
            answer = self._answer_of(step, run, come.events if come is not None else ())
            if answer is None and self._waiting.is_over(step, key, come, self._waits):
                answer = self._waiting.timed_out(step)
                self._abandon(step, run)
            if answer is not None:
                self._draft.take_labels(answer.labels)
                self._take_in(step, run, answer)

    def _leaves(self, step: Step) -> bool:
        """Return True if *step* is in no phase that leads to the end of the execution by now."""
        names = phase_names(ending_of(self._execution), self._workflow, self._runs)
        if step.id in self._program.undoes:
            return "compensations" not in names
        groups, own = self._workflow.groups(), top_id(step.id)
        return not any(each.id == own for name in names for each in groups.get(name, ()))

    def _answer_of(self, step: Step, run: StepRun, events: Sequence[Event]) -> WaitEnd | None:
        try:
            extra = self._extra(step, run.position)
            view = self._view_of(step)
            found = (self._waiting.answer(step, view, extra, event) for event in events)
            return next((answer for answer in found if answer is not None), None)
        except AutomateError as error:
            return WaitEnd(error=error)

    def _extra(self, step: Step, position: int) -> dict[str, Any]:
        """Return the names that only the templates of one element see."""
        if position < 0:
            return {}
        elements, view = self._elements_of(step), self._view_of(step)
        if step.loops:
            return round_names(view, step, position)
        return element_names(view, elements.values[position], position)

    def _begin_wait(self, step: Step, run: StepRun, extra: dict[str, Any]) -> bool:
        """Begin a step that waits; return True if it does."""
        if run.key in self._open or self._waits.holds(run.key):
            return False
        begun = self._waiting.begin(step, run, self._view_of(step), extra, self._now)
        if begun.child is not None:
            self._draft.turn.children.append(begun.child)
        self._waits.drop(run.key)
        wait = begun.wait
        if wait is None:
            self._end_run(run, StepStatus.COMPLETED, output=begun.answer.output)
            return False
        self._open[run.key] = run
        self._draft.wait(wait)
        return True

    def _check_time(self) -> None:
        """Let the workflow fail, whose time is over."""
        # An execution whose steps have all ended does not fail for having been slow.
        if ending_of(self._execution) is SUCCESS and not all(
            self._ended(step.id) for step in self._workflow.steps
        ):
            self.fail(AutomateError(ErrorCodes.DEADLINE_EXCEEDED, "the workflow took too long"))

    def _give_output(self) -> None:
        try:
            output = self._program.output(self._view)
            encoded = stored_output(output, "output of the workflow", self._most_output)
            continued = self._waiting.continued_by(self._view)
            if continued is not None:
                payload = continued.output["payload"]
                self._successor = self._waiting.successor(payload, self._now)
        except AutomateError as error:
            if not self._leaves_to_others(error):
                self.fail(error)
        else:
            self._draft.turn.size += len(encoded)
            self._output, self._encoded = output, encoded

    def _cancel_rest(self, steps: Sequence[Step]) -> None:
        """End runs of *steps* that have begun and will not go on, after a crash of a worker too."""
        ids, undoes = {step.id for step in steps}, self._program.undoes
        for run in self._execution.steps:
            if run.status.finished or run.key in self._in_flight:
                continue
            its = run.step_id
            if its in ids or (its not in undoes and inside(its, ids)):
                self._end_run(run, StepStatus.CANCELLED)

    # -- starting ----------------------------------------------------------------------------

    def _start_ready(self) -> None:
        started = True
        while started:
            # Ending a step without a call (skipped, nothing to go over) may make others ready.
            started = False
            for step in self._agenda.ready():
                if self._ended(step.id) or not self._start(step):
                    continue
                started = True
                if ending_of(self._execution) is not self._ending:
                    return  # the workflow failed just now

    def _ended(self, step_id: str) -> bool:
        run = self._runs.get((step_id, -1))
        return run is not None and run.status.finished

    def _start(self, step: Step) -> bool:
        """Begin as much of *step* as can begin; return True if it ended at once."""
        try:
            if self._begins(step) and self._skips(step):
                self._end_run(self._run(step, -1), StepStatus.SKIPPED)
                return True
            if step.loops:
                return self._start_loop(step)
            if step.is_block:
                return self._start_block(step)
            if step.for_each is not None:
                return self._start_elements(step)
            run = self._run(step, -1)
            if step.action is None:
                self._begin_wait(step, run, {})
                return run.status.finished
            self._call(step, run, self._undone(step, -1))
        except AutomateError as error:
            if self._leaves_to_others(error):
                return False
            self._end_run(self._run(step, -1), StepStatus.FAILED, error=error)
            self._elements.pop(step.id, None)
            self._step_failed(step, error)
            return True
        return False

    def _leaves_to_others(self, error: AutomateError) -> bool:
        """Return True if *error* is no failure: another worker knows what this one doesn't."""
        if not isinstance(error, UnknownHereError) or not self._waiting.is_left(error):
            return False
        self._lack = error
        return True

    def _begins(self, step: Step) -> bool:
        return (step.id, -1) not in self._runs and (step.id, 0) not in self._runs

    def _skips(self, step: Step) -> bool:
        scope = self._scope_of(step.id) if self._scopes else None
        its = self._program.needs if scope is None else scope.inside.needs
        if step.skipped_with_needs:
            needs = [self._runs.get((need, -1)) for need in its[step.id]]
            if StepStatus.SKIPPED in [run.status for run in needs if run is not None]:
                return True
        view = self._view if scope is None else scope.inside.view
        return not self._program.condition(step, view)

    def _elements_of(self, step: Step) -> Elements:
        elements = self._elements.get(step.id)
        if elements is None and step.loops:
            number, begun = self._completed.get(step.id, 0), self._begun.get(step.id, ())
            elements = Elements.of_loop(step.id, number, self._runs, self._waits, begun)
            self._elements[step.id] = elements
        if elements is None:
            values = self._program.elements(step, self._view_of(step))
            chosen = self._phase.elements.get(step.id)
            self._check_length(step, len(values), chosen)
            begun = self._begun.get(step.id, ())
            elements = Elements.of(step.id, values, self._runs, self._waits, chosen, begun)
            if chosen is not None:
                elements.turn_round()
            self._elements[step.id] = elements
        return elements

    def _check_length(self, step: Step, length: int, chosen: Sequence[int] | None) -> None:
        """Raise ``FAILED_PRECONDITION`` if the list lacks an element that has completed before."""
        # Its output would be one too many, and nobody could undo it.
        before = self._completed.get(step.id, 0) if chosen is None else max(chosen, default=-1) + 1
        if before > length:
            hint = "give each element that has completed, or resume from this step: all run again"
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"its for_each gave {length} elements, and more before",
                hint=hint if chosen is None else None,
            )

    def _start_elements(self, step: Step) -> bool:
        elements = self._elements_of(step)
        while (position := elements.take(step.concurrency)) is not None:
            run = self._run(step, position)
            given = self._extra(step, position) | self._undone(step, position)
            try:
                if step.action is not None:
                    elements.running += self._call(step, run, given)
                elif self._begin_wait(step, run, given):
                    elements.running += 1
                    elements.waiting += 1
                elif run.status.finished:
                    elements.unfinished -= 1
            except AutomateError as error:
                if self._leaves_to_others(error):
                    return False
                self._end_run(run, StepStatus.FAILED, error=error)
                elements.note_failed(run)
        # Those that wait are not waited for once one has failed.
        if elements.running > (elements.waiting if elements.failed is not None else 0):
            return False
        if elements.failed is not None and (elements.stops or not self._open_elements(step)):
            self._element_failed(step, elements.failed)
            return True
        return not elements.unfinished and self._elements_over(step, elements)

    def _elements_over(self, step: Step, elements: Elements) -> bool:
        """End a step whose elements have ended, or go on to the next round; return True."""
        if step.loops:
            self._round_over(step, elements)
        else:
            self._end_run(self._run(step, -1), StepStatus.COMPLETED)
        return True

    def _undone(self, step: Step, position: int) -> dict[str, Any]:
        """Return what a compensation sees of the call that it undoes."""
        undone = self._program.undoes.get(step.id)
        return {} if undone is None else {"output": self._runs[undone, position].output}

    def _open_elements(self, step: Step) -> bool:
        """Return True if an element of a compensation has still to be tried, or again."""
        chosen = self._phase.elements.get(step.id, ())
        runs = (self._runs.get((step.id, position)) for position in chosen)
        return any(run is None or not run.status.finished for run in runs)

    def _element_failed(self, step: Step, failed: StepRun) -> None:
        error = AutomateError(
            ErrorCodes.of(failed.error_code),
            f"{'round' if step.loops else 'element'} {failed.position}: {failed.error}",
        )
        error.group = failed.error_group
        # Those that wait for their retry will not have it.
        self._cancel_rest([step])
        self._end_run(self._run(step, -1), StepStatus.FAILED, error=error)
        if step.is_block or step.loops:
            self._drop_block(step)
        self._step_failed(step, error)

    def _run(self, step: Step, position: int) -> StepRun:
        found = self._runs.get((step.id, position))
        if found is not None:
            return found
        return StepRun(execution_id=self._execution.id, step_id=step.id, position=position)

    def _call(self, step: Step, run: StepRun, extra: dict[str, Any]) -> bool:
        if run.key in self._in_flight or (self._waits.due and self._waits.holds(run.key)):
            return False
        if run.key in self._open:
            return False  # it goes on elsewhere
        view = self._view_of(step) if self._scopes else self._view
        given = self._program.input(step, view, extra)
        self._draft.begin(run, self._crashes, first=self.first)
        self._in_flight.add(run.key)
        if self._scopes:
            self._count_call(step.id, 1)
        if self._waits.due:
            self._waits.drop(run.key)
        self._draft.add(run)
        if step.if_ is not None and not step.repeats:
            self._decided[run.key] = run
        self._draft.turn.calls.append(StepCall(step, run, given, written=step.input))
        return True

    # -- loops -------------------------------------------------------------------------------

    def _start_loop(self, step: Step) -> bool:
        """Begin a loop, or go on with its round; return True if it has come on without a call."""
        own = self._run(step, -1)
        if own.key in self._open:
            return False  # it pauses
        entered, begun = step.id not in self._elements, own.key in self._runs
        elements = self._elements_of(step)
        if not begun:
            # It says that the loop has begun, and its conditions have held.
            self._note_running(own)
        number = elements.round
        if entered and elements.ready and (step.id, number) not in self._runs:
            if number and not step.is_block:
                # Its row may have been saved without the decision: by a step's own transaction, or
                # when something else had failed.
                elements.round = number - 1
                self._round_over(step, elements)
            elif not begun:
                self._next_round(step, elements, number)
            if own.status is not StepStatus.RUNNING:
                return True
        return self._start_insides(step) if step.is_block else self._start_elements(step)

    def _round_over(self, step: Step, elements: Elements) -> None:
        """Decide after a round if the loop ends, or what comes next."""
        number = elements.round
        run = self._runs[step.id, number]
        if step.until is not None and not step.is_block:
            names = {**self._extra(step, number), "output": run.output}
            try:
                elements.over = self._program.is_over(step, self._view_of(step), names)
            except AutomateError as error:
                # A resume repeats the round, and so decides again.
                self._draft.turn.outputs.pop(run.key, None)
                self._end_run(run, StepStatus.FAILED, error=error)
                self._element_failed(step, run)
                return
        if elements.over:
            self._end_loop(step, number + 1)
        else:
            self._next_round(step, elements, number + 1)

    def _decide_round(self, scope: BlockScope, output: Any) -> None:
        """Decide if a loop ends with the round whose steps have ended; only they can be seen."""
        block = scope.block
        if block.until is not None:
            over = self._program.is_over(block, scope.inside.view, {"output": output})
            self._elements[block.id].over = over

    def _next_round(self, step: Step, elements: Elements, number: int) -> None:
        """Let round *number* of a loop begin, now or after a pause, or let the loop end."""
        view = self._view_of(step)
        names = round_names(view, step, number)
        if not self._program.goes_on(step, view, names):
            self._end_loop(step, number)
            return
        if number >= step.max_rounds:
            if step.on_max_rounds == "continue":
                self._end_loop(step, number)
                return
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"the loop has not ended after {step.max_rounds} rounds",
                hint="raise max_rounds, or write on_max_rounds: continue",
            )
        elements.next_round(number)
        self._spins[step.id] += 1
        if number and number % KEPT_ROUNDS == 0:
            self._draft.forget(step.id, number - KEPT_ROUNDS, self._program.awaiting)
        seconds = self._program.pause(step, view, names) if number else 0.0
        if seconds or self._spins[step.id] > _MOST_SPINS:
            self._pause(step, seconds)

    def _pause(self, step: Step, seconds: float) -> None:
        """Let a loop wait before its next round."""
        own = self._run(step, -1)
        own.status, self._open[own.key] = StepStatus.WAITING, own
        own.output = {"round": self._elements[step.id].round}
        self._waits.add(own.key, seconds)
        self._draft.turn.delays[own.key] = seconds
        self._draft.save(own)

    def _end_pause(self, step: Step, own: StepRun) -> None:
        if own.output != {"round": self._elements_of(step).round}:
            # The round after the pause has ended, and was saved alone: what follows is undecided.
            del self._elements[step.id]
        del self._open[own.key]
        self._waits.drop(own.key)
        self._note_running(own)
        self._stir(step.id)

    def _end_loop(self, step: Step, rounds: int) -> None:
        """Let a loop complete with the output of its last round."""
        own, last = self._run(step, -1), self._runs.get((step.id, rounds - 1))
        self._end_run(own, StepStatus.COMPLETED, output=None if last is None else last.output)
        if last is not None:
            own.output_ref = last.output_ref
            encoded = self._draft.turn.outputs.get(last.key)
            if encoded is not None:
                self._draft.keep_output(own.key, encoded)
        self._drop_block(step)

    # -- blocks ------------------------------------------------------------------------------

    def _scope_of(self, path: str) -> BlockScope | None:
        """Return the inside of a block that the step at *path* is in; None for one in no block."""
        return self._scopes.get(list_of(path))

    def _view_of(self, step: Step) -> TemplateView:
        # Most workflows have no blocks, and this is asked all the time.
        scope = self._scope_of(step.id) if self._scopes else None
        return self._view if scope is None else scope.inside.view

    def _step(self, path: str) -> Step:
        """Return the step at a path of this execution; the blocks around it go on."""
        its_list = list_of(path)
        if not its_list or path in self._program.undoes:
            return self._workflow.step(path)
        block_id, position = block_of(its_list)
        scope = self._enter_block(self._step(block_id), position)
        found = (step for step in scope.inside.steps if step.id == path)
        step = next(found, None)
        if step is None:
            text = f"there is no step {path!r} now, and it has begun"
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, text)
        return step

    def _step_lost(self, path: str, error: AutomateError) -> None:
        """Fail the outermost block of a step that waits and can't be found any more."""
        block = self._workflow.step(top_id(path))
        if not self._ended(block.id):
            self._cancel_rest([block])
            self._end_run(self._run(block, -1), StepStatus.FAILED, error=error)
            self._step_failed(block, error)

    def _count_call(self, step_id: str, number: int) -> None:
        scope = self._scope_of(step_id)
        while scope is not None:
            scope.calls += number
            if scope.position >= 0:
                self._elements[scope.block.id].calls += number
            scope = scope.around

    def _stir(self, step_id: str) -> None:
        """Have the blocks around a step looked at in this turn: it has come on."""
        scope = self._scope_of(step_id)
        while scope is not None:
            if scope.position >= 0:
                self._stirred.setdefault(scope.block.id, {})[scope.position] = None
            scope = scope.around

    def _stopped(self, scope: BlockScope | None) -> bool:
        """Return True if nothing more begins inside *scope*: something around has failed."""
        while scope is not None:
            elements = self._elements.get(scope.block.id)
            if scope.failed or (elements is not None and elements.failed is not None):
                return True
            scope = scope.around
        return False

    def _start_block(self, step: Step) -> bool:
        """Begin as much of a block as can begin; return True if it ended."""
        own = self._run(step, -1)
        if own.key not in self._runs:
            # It says that the block has begun, and its condition has held.
            self._note_running(own)
        if step.for_each is not None:
            return self._start_insides(step)
        self._go_through(self._enter_block(step, -1))
        return own.status.finished

    def _note_running(self, run: StepRun) -> None:
        run.status = StepStatus.RUNNING
        self._draft.add(run)
        self._entered.append(run)

    def _save_entered(self) -> None:
        """Save the blocks that have begun: what is saved with them began inside or beside them."""
        for run in self._entered:
            if run.status is StepStatus.RUNNING:
                self._draft.save(run)
        self._entered.clear()

    def _enter_block(self, block: Step, position: int) -> BlockScope:
        """Return the inside of a block that runs."""
        path = list_path(block.id, position)
        found = self._scopes.get(path)
        if found is not None:
            return found
        run, view = self._run(block, position), self._view_of(block)
        extra = self._extra(block, position)
        steps = self._steps_inside(block, run, view, extra)
        its = self._program.inside(block, position, steps or (), view, extra)
        agenda = Agenda(its.steps, its.needs, self._ended)
        around = self._scope_of(block.id)
        scope = BlockScope(block, position, its, agenda, around, skipped=steps is None)
        for step in its.steps:
            ended = self._runs.get((step.id, -1))
            if ended is not None and ended.status is StepStatus.FAILED:
                self._note_failed(scope, step, ended)
        self._scopes[path] = scope
        if position >= 0:
            self._stirred.setdefault(block.id, {})[position] = None
        return scope

    def _note_failed(self, scope: BlockScope, step: Step, run: StepRun) -> None:
        """Let the inside of a block have failed, as it had before a crash."""
        if step.on_failure == "fail" and scope.failed is None:
            code = ErrorCodes.of(run.error_code)
            scope.failed = AutomateError(code, f"step {step.id!r} failed: {run.error}")
            scope.failed.group = run.error_group

    def _steps_inside(
        self, block: Step, run: StepRun, view: TemplateView, extra: dict[str, Any]
    ) -> Sequence[Step] | None:
        """Return the steps that run in a block; None for a switch without a case for its value."""
        if block.steps is not None:
            return block.steps
        if not isinstance(run.output, dict):
            # Kept, since what ends meanwhile may change the value.
            run.output = {"case": self._program.case(block, view, extra)}
            self._note_running(run)
        return block.chosen(run.output["case"])

    def _start_insides(self, step: Step) -> bool:
        """Begin and go on with the elements of a block; return True if it ended."""
        elements = self._elements_of(step)
        begun, elements.begun = elements.begun, []
        for each in begun:
            self._begin_element(step, elements, each)
        for each in self._stirred.pop(step.id, ()):
            if elements.failed is None:
                self._go_on_inside(step, each)
        while (position := elements.take(step.concurrency)) is not None:
            elements.running += 1
            self._begin_element(step, elements, position)
            self._go_on_inside(step, position)
        if elements.failed is not None:
            if elements.calls:
                return False
            self._element_failed(step, elements.failed)
            return True
        return not elements.unfinished and self._elements_over(step, elements)

    def _begin_element(self, step: Step, elements: Elements, position: int) -> None:
        try:
            self._enter_block(step, position)
        except AutomateError as error:
            run = self._run(step, position)
            self._end_run(run, StepStatus.FAILED, error=error)
            elements.running -= 1
            elements.note_failed(run)

    def _go_on_inside(self, step: Step, position: int) -> None:
        scope = self._scopes.get(list_path(step.id, position))
        if scope is not None:
            self._go_through(scope)

    def _go_through(self, scope: BlockScope) -> None:
        """Begin what can begin inside a block, and end it if nothing is left."""
        started = True
        while started and scope.failed is None:
            started = False
            for step in scope.agenda.ready():
                if not self._ended(step.id) and scope.failed is None:
                    started = self._start(step) or started
        if scope.failed is not None:
            if not scope.calls:
                self._end_block(scope, None, scope.failed)
        elif not scope.agenda:
            try:
                output = None if scope.skipped else self._output_inside(scope)
                self._decide_round(scope, output)
            except AutomateError as error:
                self._end_block(scope, None, error)
            else:
                self._end_block(scope, output, None)

    def _output_inside(self, scope: BlockScope) -> Any:
        output = self._program.block_output(scope.block, scope.inside)
        if self._program.output_ref(scope.block, scope.inside) is not None:
            self._draft.turn.outputs[scope.block.id, scope.position] = NOT_HERE
            return output
        name = f"output of step {scope.block.id!r}"
        encoded = stored_output(output, name, self._most_output)
        self._draft.keep_output((scope.block.id, scope.position), encoded)
        return output

    def _end_block(self, scope: BlockScope, output: Any, error: AutomateError | None) -> None:
        block, position = scope.block, scope.position
        run = self._run(block, position)
        if error is not None:
            self._cancel_rest(scope.inside.steps)
            self._end_run(run, StepStatus.FAILED, error=error)
        elif scope.skipped and position < 0:
            self._end_run(run, StepStatus.SKIPPED)
        else:
            self._end_run(run, StepStatus.COMPLETED, output=output)
            run.output_ref = self._program.output_ref(block, scope.inside)
        self._drop_scopes(scope)
        if position < 0:
            if error is not None:
                self._step_failed(block, error)
            return
        elements = self._elements[block.id]
        elements.running -= 1
        if error is None:
            elements.unfinished -= 1
        else:
            elements.note_failed(run)

    def _drop_scopes(self, scope: BlockScope) -> None:
        """Forget the inside of a block that has ended."""
        del self._scopes[scope.inside.path]
        for step in scope.inside.steps:
            self._drop_block(step)

    def _drop_block(self, step: Step) -> None:
        """Forget a step that has ended, with what goes on inside it."""
        elements = self._elements.pop(step.id, None)
        self._stirred.pop(step.id, None)
        if not step.is_block:
            return
        positions: Collection[int] = (-1,)
        if elements is not None:
            positions = (elements.round,) if step.loops else range(len(elements.values))
        for position in positions:
            scope = self._scopes.get(list_path(step.id, position))
            if scope is not None:
                self._drop_scopes(scope)


def elements_completed(runs: Iterable[StepRun]) -> dict[str, int]:
    """Return the numbers behind the last elements or rounds that have completed, by step."""
    found: dict[str, int] = {}
    for run in runs:
        if run.position >= found.get(run.step_id, 0) and run.status is StepStatus.COMPLETED:
            found[run.step_id] = run.position + 1
    return found


HAD_FAILED = "the workflow had failed"
WAS_CANCELLED = "the execution was cancelled"


def has_attempts(step: Step, run: StepRun, error: AutomateError) -> bool:
    """Return True if *step* has attempts left for this *error*."""
    # Without an action or a sub-workflow there is nothing to try again.
    able = step.action is not None or step.workflow is not None
    if not able or run.attempts >= step.retry.attempts:
        return False
    return step.retry.allows(error.code, retryable=error.retryable)


def not_retried(error: AutomateError, reason: str) -> AutomateError:
    """Return *error* as that of a step which has attempts left, and doesn't get them."""
    last = within(error, f"{error}; it was not tried again, since {reason}")
    last.trace = error.trace
    return last


def within(error: AutomateError, text: str) -> AutomateError:
    """Return *error* as that of the step around it, with another *text*; it keeps its group."""
    outer = AutomateError(error.code, text)
    outer.group = group_of(error)
    return outer
