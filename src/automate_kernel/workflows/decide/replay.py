"""
The next moves of an execution whose workflow is code.

The function runs from its begin in each wake-up. A call that the record holds returns what was
recorded; the first that it doesn't hold is made. So a turn here is what the steps of a definition
are to `automate_kernel.workflows.decide.advance`: runs to save, then calls to make.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections import Counter, deque
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

from automate_kernel.base.errors import AutomateError, ErrorCodes, UnknownHereError
from automate_kernel.operations.error_mapping import is_bug
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.outputs import stored_output
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.outbox.item import MAX_DELAY_SECONDS
from automate_kernel.secrets.handles import masked
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import group_of, log_error
from automate_kernel.storage.values import storable
from automate_kernel.templates import TemplateEngine
from automate_kernel.workflows.code.calls import (
    ContinuedAsNewError,
    Gather,
    Pending,
    StepFailedError,
    StepRequest,
    WorkflowInterruptedError,
)
from automate_kernel.workflows.code.context import SyncWorkflowContext, WorkflowContext
from automate_kernel.workflows.code.routine import PlainRoutine, Routine, in_workflow, leave
from automate_kernel.workflows.code.workflow import WorkflowFunction
from automate_kernel.workflows.decide.activation import Activation, Turns, turns_of
from automate_kernel.workflows.decide.advance import (
    HAD_FAILED,
    WAS_CANCELLED,
    has_attempts,
    not_retried,
    within,
)
from automate_kernel.workflows.decide.agenda import Waits
from automate_kernel.workflows.decide.children import BegunChild
from automate_kernel.workflows.decide.executor_tasks import WaitEnd
from automate_kernel.workflows.decide.phases import note_not_undone
from automate_kernel.workflows.decide.program import (
    BuildContext,
    Reads,
    TemplateView,
    WorkflowProgram,
)
from automate_kernel.workflows.decide.record import (
    LONGEST_PLACE,
    CallPlace,
    ChangedCodeError,
    Path,
    Record,
    changed,
    step_failed,
)
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn, TurnDraft
from automate_kernel.workflows.decide.waiting import WaitingSteps
from automate_kernel.workflows.definition.model import Step
from automate_kernel.workflows.definition.waits import SleepUntil
from automate_kernel.workflows.execution import (
    Event,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")
Receive = Callable[[Any, "BaseException | None"], None]

_LONGEST_ID = 200
_NO_LOOP = "no running event loop"


class HostOperations(Protocol):
    """The application's actions, as a workflow in code needs them."""

    def of_function(self, function: Callable[..., Any]) -> OperationSpec | None:
        """Return the spec of an action that was made from *function*, or None."""

    def clean_error(self, error: BaseException, what: str) -> AutomateError:
        """Return *error* as one for people, whose texts hold no secret."""


class CodeProgram(WorkflowProgram):
    """
    A workflow in code, as executions of it need it.

    Its steps come from the function's calls, with values in place of templates. *functions* finds
    the workflow that was made of a function.
    """

    def __init__(
        self,
        function: WorkflowFunction,
        templates: TemplateEngine,
        context: BuildContext,
        operations: HostOperations,
        functions: Callable[[Callable[..., Any]], WorkflowFunction | None],
    ) -> None:
        super().__init__(function.definition, templates, context)
        self._templates = templates
        # The function may look at any of them.
        self.reads = Reads(None)
        self.function: WorkflowFunction = function
        self.operations: HostOperations = operations
        self.functions: Callable[[Callable[..., Any]], WorkflowFunction | None] = functions

    def input(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Return the input of a step."""
        return step.input

    def sleep(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Return the seconds of a sleep, or the time that it lasts until."""
        return step.sleep.until if isinstance(step.sleep, SleepUntil) else step.sleep

    def match(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that an awaited event must have, by its fields."""
        return dict(step.wait_for.match) if step.wait_for is not None else {}

    def question(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return title, description and ``by`` of the step's approval."""
        asked = step.approval
        if asked is None:
            return {}
        return {"title": asked.title, "description": asked.description, "by": asked.by}

    def notice(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Render the input of the call that tells of the step's approval."""
        notify = step.approval.notify if step.approval is not None else None
        given = {} if notify is None else notify.input
        return self._templates.compile(given, "notify").render(self._names(view, extra))

    def replay(self, activation: Activation) -> Turns:
        """Bring an execution as far as it goes now, as `advance` does."""
        driver = _Driver(self, activation)
        try:
            yield from turns_of(lambda: driver)
        finally:
            driver.close()


class _StoppedError(BaseException):
    """The code does not repeat its record, say; nothing of it may go on."""


class _Scope:
    """One line of calls: those of the workflow, or of a coroutine in a ``gather``."""

    def __init__(self, path: Path, routine: Routine, end: Receive) -> None:
        self.path: Path = path
        self.routine: Routine = routine
        self.end: Receive = end
        self.calls: int = 0
        """The number of its last call."""
        self.draws: int = 0
        self.due: deque[StepRequest[Any]] = deque()
        """The compensations that come before anything else."""
        self.then: Callable[[], None] | None = None
        """The next move after them."""
        self._names: Counter[str] = Counter()

    def next_path(self) -> Path:
        """Return the number of its next call."""
        return (*self.path, self.calls + 1)

    def step_id(self, name: str) -> str:
        """Return the id of a step called *name*, which no other has."""
        self._names[name] += 1
        place = f"@{'.'.join(map(str, self.path))}" if self.path else ""
        count = f"#{self._names[name]}" if self._names[name] > 1 else ""
        return f"{name}{place}{count}"


class _Join:
    """The results of a ``gather``, until the last of its members has ended."""

    def __init__(self, size: int, receive: Receive) -> None:
        self._results: list[Any] = [None] * size
        self._errors: list[BaseException | None] = [None] * size
        self._open = size
        self._receive = receive

    def put(self, place: int, value: Any, error: BaseException | None) -> None:
        """Take in the end of the member at *place*."""
        self._results[place], self._errors[place] = value, error
        self._open -= 1
        if not self._open:
            # The first in the list, whichever failed first: a replay must raise the same.
            failed = next((each for each in self._errors if each is not None), None)
            self._receive(tuple(self._results) if failed is None else None, failed)


@dataclass(slots=True)
class _Open:
    """A call that has not ended: its request, its run, and the one that waits for it."""

    request: StepRequest[Any]
    run: StepRun
    place: CallPlace
    receive: Receive


class _Driver:
    """The state of one wake-up: the function, its record, and the calls that are open."""

    def __init__(self, program: CodeProgram, activation: Activation) -> None:
        self.first = True
        execution, waits = activation.execution, activation.waits
        self._most_output = activation.most_output
        self._program, self._execution = program, execution
        self._crashes, self._left = activation.crashes, activation.left
        self._alone = activation.alone
        self._inbox, self._time = activation.arrived, activation.now
        self._record = Record(execution.steps)
        timed = (
            run.key for run in execution.steps
            if run.status is StepStatus.RETRY
            or (run.status is StepStatus.WAITING and run.key in waits)
        )  # fmt: skip
        self._waits = Waits({key: waits.get(key, 0.0) for key in timed})
        self._draft = TurnDraft(execution, self._waits, sorts_keys=activation.sorts_keys)
        self._runs = self._draft.runs
        self._view = program.view(execution, self._runs)
        self._waiting = WaitingSteps(program, activation)
        self._open: dict[StepKey, _Open] = {}
        # Waits for which something may have come.
        self._to_answer: list[StepKey] = []
        self._in_flight: set[StepKey] = set()
        self._to_call: list[StepKey] = []
        self._ready: deque[Callable[[], None]] = deque()
        self._scope: _Scope | None = None
        """The scope that runs at this moment."""
        self._unawaited: dict[Pending[Any], None] = {}
        self._versions: dict[str, int] = {}
        self._result: tuple[Any, BaseException | None] | None = None
        self._changed: AutomateError | None = None
        self._interruption: AutomateError | None = None
        self._thrown = False
        """True once the interruption was raised in the function."""
        self._undo_failures: list[str] = []
        self._routines: list[Routine] = []
        # An operator has cancelled it, and what it has done is undone.
        self._cancelling = execution.status is ExecutionStatus.CANCELLING
        if self._cancelling:
            text = "the execution is cancelled"
            self._interruption = AutomateError(ErrorCodes.CANCELLED, text)
        elif execution.error_code is not None:
            code = ErrorCodes.of(execution.error_code)
            self._interruption = AutomateError(code, execution.error or "")
        self._begin_function()

    def _begin_function(self) -> None:
        function = self._program.function
        try:
            arguments = function.arguments(self._execution.event.payload)
        except AutomateError as error:
            if self._record:  # others have taken it
                self._changed = ChangedCodeError(f"its calls are recorded; now {error.message}")
            self._ended(None, error)
            return
        if function.asynchronous:
            routine: Routine = function.function(WorkflowContext(self), *arguments)
        else:
            routine = self._plain = PlainRoutine(
                function.function, SyncWorkflowContext(self), *arguments
            )
        self._enter(_Scope((), routine, self._ended))

    def _enter(self, scope: _Scope) -> None:
        self._routines.append(scope.routine)
        self._ready.append(partial(self._go_on, scope, None, None))

    def _ended(self, value: Any, error: BaseException | None) -> None:
        self._result = value, error

    def close(self) -> None:
        """Leave the function; what it waits for is in the record."""
        for routine in reversed(self._routines):
            leave(routine)
        self._routines.clear()

    def pass_time(self, elapsed: float) -> None:
        """Bring the retries nearer, and the end of the workflow's time."""
        if self._waits.due:
            self._waits.pass_time(elapsed)
        self._time += timedelta(seconds=elapsed)
        if self._left is not None:
            self._left -= elapsed

    # -- the context's other side ------------------------------------------------------------

    @property
    def event(self) -> Event:
        """The event that started the execution."""
        return self._execution.event

    @property
    def execution_id(self) -> str:
        """The execution's id."""
        return self._execution.id

    @property
    def tenant_id(self) -> str | None:
        """The execution's tenant."""
        return self._execution.tenant_id

    def find(self, function: Callable[..., Any]) -> OperationSpec | None:
        """Return the spec of an action of the application that was made from *function*."""
        return self._program.operations.of_function(function)

    def workflow(self, function: Callable[..., Any]) -> WorkflowFunction:
        """Return the workflow that was made of *function*; raises ``NOT_FOUND``."""
        found = self._program.functions(function)
        if found is None:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"{getattr(function, '__qualname__', function)} is no workflow here",
                hint="write @kernel.workflow above the function, or pass a workflow's name",
            )
        return found

    def note(self, pending: Pending[Any]) -> None:
        """Note a call that must be awaited before the workflow ends."""
        self._unawaited[pending] = None

    def ask(self, pending: Awaitable[T]) -> T:
        """Make the calls of a plain workflow, and return their value."""
        return self._plain.ask(pending)

    def be_ready(self, request: StepRequest[Any]) -> None:
        """Note that a call stands ready that undoes what was done."""
        request.since = self._running().calls

    def undo_later(self, request: StepRequest[Any]) -> None:
        """Have a call made before the next one, or at the end: it undoes what was done."""
        self._running().due.append(request)

    def now(self, line: str) -> datetime:
        """Return the time, and record it."""
        scope = self._running()
        place = CallPlace(line, scope.next_path(), kind="value")
        time = self._mark(scope, scope.step_id("now"), place, self._time.isoformat())
        return datetime.fromisoformat(time)

    def draw(self) -> bytes:
        """Return 32 bytes that follow from the execution and the number of draws before."""
        scope = self._running()
        scope.draws += 1
        seed = self._execution.seed or self._execution.id
        text = f"{seed}\n{scope.path}\n{scope.draws}"
        return hashlib.sha256(text.encode()).digest()

    def version(self, change: str, newest: int, line: str) -> int:
        """Return the version of a change that this execution follows, and record it."""
        scope, step_id = self._running(), f"version.{change}"
        path, run = scope.next_path(), self._runs.get((step_id, -1))
        known = CallPlace.read(run.place) if run is not None else None
        if run is not None and known is not None:
            self._versions[change] = int(run.output)
            if known.path == path:  # a coroutine beside this one may have been the first to ask
                self._record.check(step_id, known)
                if self._versions[change] > newest:
                    now = f"{newest} is the newest at {line}"
                    self._change(changed(f"{step_id} {run.output}", known, now))
                scope.calls += 1
        elif change not in self._versions:
            if self._record.reaches(scope.path, path[-1]):
                self._versions[change] = 1
            else:
                place = CallPlace(line, path, kind="value")
                self._versions[change] = self._mark(scope, step_id, place, newest)
        return self._versions[change]

    def label(self, labels: Mapping[str, str]) -> None:
        """Set labels of the execution, which are saved with the next checkpoint."""
        self._draft.label(labels)

    def _mark(self, scope: _Scope, step_id: str, place: CallPlace, output: Any) -> Any:
        """Return what is recorded at the next call of *scope*; else record *output*."""
        run = self._run(scope, step_id, place)
        if run.status is not StepStatus.COMPLETED:
            self._end_run(run, StepStatus.COMPLETED, output=output)
        return run.output

    def _running(self) -> _Scope:
        if self._scope is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "the context of a workflow is used outside of it",
                hint="pass values to a step, not the context",
            )
        return self._scope

    # -- the function ------------------------------------------------------------------------

    def _run_ready(self) -> None:
        try:
            while self._ready and self._changed is None:
                self._ready.popleft()()
        except _StoppedError:
            self._ready.clear()

    def _go_on(self, scope: _Scope, value: Any, error: BaseException | None) -> None:
        """Let *scope* run up to its next call, or its end."""
        self._scope = scope
        inside = in_workflow.set(True)
        try:
            routine = scope.routine
            asked = routine.send(value) if error is None else routine.throw(error)
        except StopIteration as stop:
            after = partial(scope.end, stop.value, None)
        except _StoppedError:
            raise
        except BaseException as raised:
            if is_interruption(raised):
                raise
            after = partial(scope.end, None, raised)
        else:
            after = partial(self._asked, scope, asked)
            if isinstance(asked, Gather):  # it may be left before it begins
                self._routines += (one for one in asked.members if isinstance(one, Coroutine))
        finally:
            self._scope = None
            in_workflow.reset(inside)
        if self._changed is not None:  # the function has held the error of it up
            raise _StoppedError
        scope.then = after
        self._undo_next(scope)

    def _undo_next(self, scope: _Scope) -> None:
        """Begin the next compensation of *scope*; without any, do what comes then."""
        if scope.due:
            request = scope.due.popleft()
            self._begin(scope, request, scope.next_path(), partial(self._undone, scope, request))
        elif scope.then is not None:
            then, scope.then = scope.then, None
            then()

    def _undone(
        self, scope: _Scope, request: StepRequest[Any], _: Any, error: BaseException | None
    ) -> None:
        if error is not None:
            self._undo_failures.append(f"{request.name!r} ({error})")
        self._ready.append(partial(self._undo_next, scope))

    def _asked(self, scope: _Scope, asked: Any) -> None:
        """Begin what *scope* asks for."""
        receive = partial(self._resume, scope)
        if isinstance(asked, StepRequest):
            self._begin(scope, asked, scope.next_path(), receive)
        elif isinstance(asked, Gather):
            self._gather(scope, asked, receive)
        else:
            receive(None, _foreign(type(asked).__name__))

    def _resume(self, scope: _Scope, value: Any, error: BaseException | None) -> None:
        self._ready.append(partial(self._go_on, scope, value, error))

    def _gather(self, scope: _Scope, gather: Gather, receive: Receive) -> None:
        members = gather.members
        for member in members:
            if not inspect.isawaitable(member):
                text = f"ctx.gather can't await {type(member).__name__}"
                hint = "pass it what ctx.step returns, without await, or coroutines"
                receive(None, AutomateError(ErrorCodes.INVALID_ARGUMENT, text, hint=hint))
                return
        path = scope.next_path()
        scope.calls += 1
        end = partial(self._ended_inside, path, receive)
        if not members:
            end((), None)
        join = _Join(len(members), end)
        for place, member in enumerate(members):
            put, own = partial(join.put, place), (*path, place + 1)
            if isinstance(member, StepRequest):
                self._begin(scope, member, own, put)
            else:
                routine = member if isinstance(member, Coroutine) else _awaiting(member)
                self._enter(_Scope(own, routine, partial(self._ended_inside, own, put)))

    def _ended_inside(
        self, path: Path, receive: Receive, value: Any, error: BaseException | None
    ) -> None:
        """Pass the end of a ``gather``, or of its member, on; unless its record goes on."""
        self._changed = self._changed or self._record.unrepeated(inside=path)
        if self._changed is None:
            receive(value, error)

    def _begin(
        self, scope: _Scope, request: StepRequest[Any], path: Path, receive: Receive
    ) -> None:
        """Begin a call; one that has ended before gives what is recorded."""
        if request.asked:
            if request.result is None:
                text = f"the call at {request.place} is awaited twice at the same time"
                self._change(AutomateError(ErrorCodes.FAILED_PRECONDITION, text))
            receive(*request.result)
            return
        request.asked = True
        self._unawaited.pop(request, None)
        place = CallPlace(request.place, path, request.recovers, request.kind, request.since)
        run = self._run(scope, scope.step_id(request.name), place)
        if run.status is StepStatus.COMPLETED:
            self._check_event(request, run, place, run.output)
            if self._changed is not None:
                raise _StoppedError
        one = self._open[run.key] = _Open(request, run, place, receive)
        if run.status.finished:
            self._deliver(one, recorded=True)
        elif run.status is StepStatus.WAITING:
            self._to_answer.append(run.key)
        else:
            self._to_call.append(run.key)

    def _run(self, scope: _Scope, step_id: str, place: CallPlace) -> StepRun:
        """Return the run of the next call of *scope*, recorded or new."""
        problem: AutomateError | None = self._record.check(step_id, place)
        if len(step_id) > _LONGEST_ID or len(str(place)) > LONGEST_PLACE:
            problem = AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"the step at {place} is nested too deep for its id",
                hint="give it a shorter name=, or nest fewer gathers",
            )
        if problem is not None:
            self._change(problem)
        if len(place.path) == len(scope.path) + 1:
            scope.calls += 1
        run = self._runs.get((step_id, -1))
        if run is None:
            run = StepRun(execution_id=self._execution.id, step_id=step_id)
        if not run.status.finished:
            run.place = str(place)
        return run

    def _check_event(
        self, request: StepRequest[Any], run: StepRun, place: CallPlace, event: Any
    ) -> None:
        """Note that the code has changed if *event* answers a wait for another one."""
        waited = request.options.get("wait_for")
        if waited is None or not isinstance(event, Mapping):
            return
        come, now = event["name"], waited.event or waited.signal
        if come != now:
            recorded = CallPlace.read(run.place) or place
            what = f"{run.step_id} for {come!r}"
            self._changed = changed(what, recorded, f"{run.step_id} for {now!r} at {place}")

    def _change(self, problem: AutomateError) -> NoReturn:
        self._changed = problem
        raise _StoppedError

    def _deliver(self, one: _Open, *, recorded: bool = False) -> None:
        """Give the outcome of a call to the one that waits for it; it may be a *recorded* one."""
        request, run = one.request, one.run
        del self._open[run.key]
        value: Any = None
        error: BaseException | None = None
        if run.status is StepStatus.COMPLETED:
            if "wait_for" in request.options:
                self._waiting.take(run.output)
            try:
                value = request.read(run.output)
            except AutomateError as unfit:
                error = unfit
                # The code that recorded it could read it; and a sub-workflow has code of its own.
                foreign = recorded or "workflow" in request.options
                if foreign and not self._alone and not self._record.goes_on_after(one.place.path):
                    now = f"its output can't be read: {unfit.message}"
                    self._changed = changed(run.step_id, one.place, now)
                    return
        elif run.status is StepStatus.FAILED:
            code = ErrorCodes.of(run.error_code)
            error = StepFailedError(run.step_id, code, run.error or "", run.error_group)
        else:
            self._thrown = True
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            error = WorkflowInterruptedError(self._interruption or cancelled)
        request.result = value, error
        one.receive(value, error)

    # -- outcomes ----------------------------------------------------------------------------

    def settle(self, outcome: CallOutcome) -> None:
        """Take in the outcome of a call."""
        self._in_flight.discard(outcome.call.run.key)
        if outcome.wait is not None:
            self._draft.wait(outcome.wait)
            return
        self._take_in(outcome.call.step, outcome.call.run, outcome)

    def _take_in(self, step: Step, run: StepRun, outcome: CallOutcome | WaitEnd) -> None:
        """End the attempt of a run that was called, or has waited."""
        one, error = self._open.get(run.key), outcome.error
        if error is None:
            self._end_run(run, StepStatus.COMPLETED, output=outcome.output)
            run.output_ref, encoded = outcome.ref, outcome.encoded
            if encoded is None and outcome.ref is None and run.output is not None:
                # Before the function gets it: what that changes must not be saved.
                encoded = stored_output(run.output, f"output of step {run.step_id!r}")
            if encoded is not None:
                self._draft.keep_output(run.key, encoded)
        else:
            if one is not None and has_attempts(step, run, error):
                over = self._why_over(one)
                if over is None:
                    self._retry(step, run, error)
                    return
                error = not_retried(error, over)
            self._end_run(run, StepStatus.FAILED, error=error)
        if one is not None and self._changed is None:
            self._deliver(one)

    def _why_over(self, one: _Open) -> str | None:
        """Return the reason why a call that has failed is not tried again; None if it is."""
        if self._changed is not None and not self._hands_over:
            return HAD_FAILED
        if not self._is_held or one.request.recovers:
            return None
        return WAS_CANCELLED if self._cancelling else HAD_FAILED

    @property
    def _is_held(self) -> bool:
        """True if nothing new begins until the function knows that it is interrupted."""
        return self._interruption is not None and not self._thrown

    def _retry(self, step: Step, run: StepRun, error: AutomateError) -> None:
        self._close(run)
        self._draft.retry(step, run, error)

    def _end_run(
        self,
        run: StepRun,
        status: StepStatus,
        *,
        output: Any = None,
        error: AutomateError | None = None,
    ) -> None:
        self._close(run)
        self._draft.end(run, status, output, error)

    def _close(self, run: StepRun) -> None:
        """End the wait of *run*, if it waits."""
        if run.status is StepStatus.WAITING:
            self._draft.turn.answered.append(run.key)

    # -- the next turn -----------------------------------------------------------------------

    def next_turn(self) -> Turn:
        """Let the function go on as far as it can, and return the turn that has come together."""
        execution, settled = self._execution, self._draft.settled()
        error = execution.error_code, execution.error, execution.error_group
        if not self._hands_over:
            self._go_through()
        if self._hands_over:
            execution.error_code, execution.error, execution.error_group = error
            return self._left_to_others(settled)
        turn = self._draft.take()
        if turn.end is not None:
            return turn
        wait = self._waits.until_next()
        if turn.calls or self._in_flight:
            turn.next_retry = self._bounded(wait)
        elif self._open:
            # Nothing but a signal wakes what waits without a limit.
            turn.wait = self._bounded(MAX_DELAY_SECONDS if wait is None else wait)
        else:
            raise AutomateError(ErrorCodes.INTERNAL, "the workflow waits for nothing")
        return turn

    @property
    def _hands_over(self) -> bool:
        """True if the code does not repeat its record, or a workflow that it starts isn't known."""
        return self._changed is not None and self._waiting.is_left(self._changed)

    def _left_to_others(self, settled: Turn) -> Turn:
        """Return the turn of an execution that is handed over, of which only *settled* is kept."""
        # What has come into the turn since follows from code that goes another way.
        turn = self._draft.back_to(settled)
        self._in_flight.difference_update(call.run.key for call in turn.calls)
        if isinstance(self._changed, UnknownHereError):
            turn.lack = self._changed
        if not self._in_flight:
            turn.wait = 0.0
        return turn

    def _go_through(self) -> None:
        """Run the function as far as it goes now, and begin its calls."""
        self._run_ready()
        due = self._waits.take_due()
        while True:
            self._answer_waits(due)
            self._run_ready()
            self._check_time()
            if self._is_held and not self._in_flight:
                self._interrupt()
                self._run_ready()
            retried = [key for key in (*due, *self._waits.take_due()) if self._is_retried(key)]
            self._start_calls(retried)
            due = []
            if not (self._ready or self._to_answer) or self._changed is not None:
                break
        over = self._changed is not None or self._result is not None
        if over and not self._in_flight:
            self._check_end()
            if not self._hands_over:
                self._end()

    def _is_retried(self, key: StepKey) -> bool:
        one = self._open.get(key)
        return one is not None and one.run.status is StepStatus.RETRY

    def _bounded(self, wait: float | None) -> float | None:
        """Return *wait*, cut where the workflow's time ends."""
        if wait is None or self._left is None or self._interruption is not None:
            return wait
        return min(wait, max(0.0, self._left))

    def _check_time(self) -> None:
        over = self._left is not None and self._left <= 0 and self._interruption is None
        if over and self._result is None:
            error = AutomateError(ErrorCodes.DEADLINE_EXCEEDED, "the workflow took too long")
            self._interruption = error
            self._fail(error)

    def _interrupt(self) -> None:
        """Raise the interruption wherever the function waits."""
        for key, one in sorted(self._open.items(), key=lambda each: each[1].place.path):
            if not one.request.recovers and key not in self._in_flight:
                self._abandon(one)
                self._end_run(one.run, StepStatus.CANCELLED)
                self._deliver(one)

    def _abandon(self, one: _Open) -> None:
        """Cancel the sub-workflow that a run waits for."""
        waits = one.run.status is StepStatus.WAITING and one.run.output is not None
        if waits and "workflow" in one.request.options:
            self._draft.turn.abandoned.append(one.run.output["execution_id"])

    def _start_calls(self, retried: Sequence[StepKey]) -> None:
        # A retry that was due as the function came to it is in both.
        keys, self._to_call = list(dict.fromkeys((*self._to_call, *retried))), []
        for key in keys:
            one = self._open.get(key)
            if one is None or key in self._in_flight or self._waits.holds(key):
                continue
            if self._changed is not None:
                return
            if self._is_held and not one.request.recovers:
                self._to_call.append(key)
            elif "action" in one.request.options:
                self._call(one)
            else:
                self._begin_wait(one)

    # -- waits -------------------------------------------------------------------------------

    def _answer_waits(self, due: Sequence[StepKey]) -> None:
        """End the waits for which something has come, and those whose time is over."""
        looked, self._to_answer = dict.fromkeys(self._to_answer), []
        # Whatever comes in the same moment as the end of the time counts.
        found = dict.fromkeys((*self._inbox, *looked, *due))
        waiting = [(key, one) for key in found if (one := self._open.get(key)) is not None]
        # An event answers the first of them, as they are written.
        for key, one in sorted(waiting, key=lambda each: each[1].place.path):
            if one.run.status is not StepStatus.WAITING:
                continue
            if self._is_held and not one.request.recovers:
                continue  # it is cancelled with the others
            step = one.request.step(one.run.step_id)
            come = self._inbox.pop(key, None)
            answer = self._answer_of(step, come.events if come is not None else ())
            if answer is None and self._waiting.is_over(step, key, come, self._waits):
                answer = self._waiting.timed_out(step)
                self._abandon(one)
            if answer is not None:
                if answer.error is None:
                    # The code may have begun to wait for another one since.
                    self._check_event(one.request, one.run, one.place, answer.output)
                self._draft.take_labels(answer.labels)
                self._take_in(step, one.run, answer)

    def _answer_of(self, step: Step, events: Sequence[Event]) -> WaitEnd | None:
        try:
            found = (self._waiting.answer(step, self._view, {}, event) for event in events)
            return next((answer for answer in found if answer is not None), None)
        except AutomateError as error:
            return WaitEnd(error=error)

    def _begin_wait(self, one: _Open) -> None:
        """Begin a step that waits; it may end at once."""
        run, step = one.run, one.request.step(one.run.step_id)
        try:
            begun = self._waiting.begin(step, run, self._view, {}, self._time)
        except AutomateError as error:
            if self._waiting.is_left(error):
                self._changed = error
                return
            self._take_in(step, run, WaitEnd(error=error))
            return
        if begun.child is not None:
            self._draft.turn.children.append(begun.child)
        self._waits.drop(run.key)
        wait = begun.wait
        if wait is None:
            self._take_in(step, run, begun.answer)
            return
        if step.approval is not None and step.approval.notify is not None:
            # No definition has it.
            notify = step.approval.notify.model_dump(mode="json", exclude_defaults=True)
            wait = replace(wait, details={**wait.details, "notify": notify})
        self._draft.wait(wait)

    def _call(self, one: _Open) -> None:
        run, request = one.run, one.request
        self._draft.begin(run, self._crashes, first=self.first)
        self._in_flight.add(run.key)
        self._waits.drop(run.key)
        self._draft.add(run)
        unbounded = request.recovers or self._thrown
        self._draft.turn.calls.append(
            StepCall(request.step(run.step_id), run, request.input, request.spec, unbounded)
        )

    # -- the end -----------------------------------------------------------------------------

    def _check_end(self) -> None:
        """Note that the code has changed if the function has ended, and its record goes on."""
        if self._changed is not None or self._alone or self._result is None:
            return
        error, end = self._result[1], ""
        if isinstance(error, Exception):
            what = f"workflow {self._execution.name!r}"
            end = self._program.operations.clean_error(error, what).message
        self._changed = self._record.unrepeated(end)

    def _end(self) -> None:
        """End the execution with the function's result, or its error."""
        failure = self._final_failure()
        if failure is not None and (self._changed is not None or not self._cancelling):
            self._fail(failure)
        for one in list(self._open.values()):
            self._abandon(one)
        for run in list(self._execution.steps):
            if BegunChild.of_run(run) is not None:
                # The code has not come to it, or makes another call by now.
                self._draft.drop(run)
            elif not run.status.finished:
                self._end_run(run, StepStatus.CANCELLED)
        if self._cancelling:
            self._draft.turn.end = ExecutionStatus.CANCELLED
        elif self._execution.error_code is not None:
            self._draft.turn.end = ExecutionStatus.FAILED
        else:
            self._draft.turn.end = ExecutionStatus.COMPLETED
        if self._undo_failures and self._draft.turn.end is not ExecutionStatus.COMPLETED:
            note_not_undone(self._execution, self._undo_failures)

    def _final_failure(self) -> AutomateError | None:
        """Return the error that the execution ends with, or None after taking its output."""
        value, error = self._result or (None, None)
        if self._changed is not None:
            error = self._changed
        elif error is None and self._interruption is None:
            error = self._unawaited_error() or self._record.unrepeated()
        if isinstance(error, ContinuedAsNewError):
            return self._continue(error.payload)
        if error is not None:
            return self._failure(error)
        if self._interruption is not None:
            return None
        try:
            output = self._program.function.output(value)
            encoded = stored_output(output, "output of the workflow", self._most_output)
        except AutomateError as unfit:
            return unfit
        self._draft.turn.output, self._draft.turn.encoded = output, encoded
        self._draft.turn.size += len(encoded)
        return None

    def _continue(self, payload: Any) -> AutomateError | None:
        """Let another execution follow this one; return the error if that can't be."""
        if self._interruption is not None:
            return None
        error = self._unawaited_error() or self._record.unrepeated()
        if error is not None:
            return self._failure(error)
        try:
            given = self._program.function.payload(payload)
            self._draft.turn.successor = self._waiting.successor(masked(given), self._time)
        except AutomateError as unfit:
            if self._waiting.is_left(unfit):
                self._changed = unfit
            return unfit
        return None

    def _unawaited_error(self) -> AutomateError | None:
        for pending in self._unawaited:
            return AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the workflow has ended without the step {pending.name!r} at {pending.place}",
                hint="write await in front of it, or pass it to ctx.gather",
            )
        return None

    def _failure(self, error: BaseException) -> AutomateError:
        """Return the execution's error for what the function raised."""
        if isinstance(error, WorkflowInterruptedError):
            return error.reason
        if isinstance(error, ChangedCodeError):
            return error.as_failure()
        if isinstance(error, StepFailedError):
            return within(error, f"{step_failed(error.step_id)}{error}")
        if isinstance(error, RuntimeError) and _NO_LOOP in str(error):
            error = _foreign("asyncio")
        clean = self._program.operations.clean_error(error, f"workflow {self._execution.name!r}")
        if not isinstance(error, AutomateError):
            level = logging.ERROR if is_bug(error) else logging.WARNING
            log_error(
                logger, level, "execution %s: %s", self._execution.id, clean.message,
                trace=clean.trace,
            )  # fmt: skip
        return clean

    def _fail(self, error: AutomateError) -> None:
        if self._execution.error_code is None:
            self._execution.error_code = str(error.code)
            self._execution.error = storable(str(error))
            self._execution.error_group = group_of(error)
            self._draft.turn.failed = error


def _foreign(what: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"a workflow awaits nothing but its context's calls, and not {what}",
        hint="move it into an async def function, and call that with ctx.step",
    )


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable
