"""The meaning of steps that wait: what they wait for, what answers them, and what a timeout is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from automate_kernel.base.durations import format_duration, parse_duration
from automate_kernel.base.errors import AutomateError, ErrorCodes, UnknownHereError
from automate_kernel.operations.outputs import stored_output
from automate_kernel.secrets.handles import masked
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.agenda import Waits
from automate_kernel.workflows.decide.children import (
    BegunChild,
    Child,
    check_held_keys,
    child_event,
    child_id,
    error_of,
)
from automate_kernel.workflows.decide.continuations import BEGUN_BY, Successor, successor_of
from automate_kernel.workflows.decide.executor_tasks import WaitEnd, task_end
from automate_kernel.workflows.decide.program import TemplateView, WorkflowProgram
from automate_kernel.workflows.decide.questions import approval_wait
from automate_kernel.workflows.decide.waits import (
    MOST_BYTES,
    Arrived,
    Wait,
    are_equal,
    child_key,
    event_key,
    signal_key,
    values_at,
)
from automate_kernel.workflows.definition.blocks import plain_id
from automate_kernel.workflows.definition.model import Step
from automate_kernel.workflows.definition.waits import (
    UNTIL_REMEDY,
    SleepUntil,
    WaitFor,
    read_instant,
)
from automate_kernel.workflows.execution import Event, StepKey, StepRun, StepStatus

LOOK_SECONDS = 0.5
"""The seconds between two looks for signals that executions wait for beside their calls."""

# It stands in the wait's row, for people.
_MOST_MATCH_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of a waiting step: its wait or, if it ended at once, its answer."""

    wait: Wait | None = None
    answer: WaitEnd = field(default_factory=WaitEnd)
    child: Child | None = None


class WaitingSteps:
    """
    The waiting steps of one execution.

    Each is seen through the view of its list. *activation* finds the workflows that they start. One
    that isn't known here raises `UnknownHereError`, which may be another worker's to go on with.
    """

    def __init__(self, program: WorkflowProgram, activation: Activation) -> None:
        self._program, self._execution = program, activation.execution
        self._find_child = activation.find_child
        self._alone = activation.alone
        # Events that a step has taken: each answers one step of an execution.
        self._taken: set[str] | None = None

    def begin(
        self,
        step: Step,
        run: StepRun,
        view: TemplateView,
        extra: Mapping[str, Any],
        now: datetime,
    ) -> Begun:
        """Begin what *step* waits for *now*; *extra* are the names of its element."""
        if step.workflow is not None:
            # An attempt that was not saved is begun again, under the same id.
            run.attempts += 1
            try:
                return self._begin_child(step, run, view, extra, now)
            except UnknownHereError as lack:
                if self.is_left(lack):
                    run.attempts -= 1
                raise
        if step.continue_as_new is not None:
            return self._continue(step, view, now)
        if step.wait_for is not None:
            return self._begin_wait_for(step, step.wait_for, run, view, extra)
        if step.approval is not None:
            asked = masked(self._program.question(step, view, extra))
            return Begun(approval_wait(run, step.approval, asked, self._execution.tenant_id))
        seconds = self._sleep_seconds(step, view, extra, now)
        return Begun(Wait(run, "time", seconds=seconds) if seconds > 0 else None)

    def is_left(self, error: AutomateError) -> bool:
        """Return True if *error* leaves the execution to a worker that knows more."""
        return isinstance(error, UnknownHereError) and not self._alone

    def answer(
        self,
        step: Step,
        view: TemplateView,
        extra: Mapping[str, Any],
        event: Event,
    ) -> WaitEnd | None:
        """Return the end of a wait for which *event* has come; None if it doesn't answer."""
        if step.action is not None:
            return task_end(event)
        if step.workflow is not None:
            error = error_of(step.workflow, event.payload)
            if error is not None:
                return WaitEnd(error=error)
            return WaitEnd(event.payload["output"], ref=event.payload["output_ref"])
        if step.approval is not None:
            return WaitEnd(step.approval.answered(event.payload))
        if step.wait_for is None or event.id in self._events_taken():
            return None
        if not self._fits(step, view, extra, event):
            return None
        self._events_taken().add(event.id)
        output = event.to_json()
        name = f"output of step {step.id!r}"
        return WaitEnd(output, encoded=stored_output(output, name, MOST_BYTES, inside=1))

    def take(self, output: Any) -> None:
        """Let the event that *output* was made of answer no other step."""
        if isinstance(output, dict) and "id" in output:
            self._events_taken().add(output["id"])

    def is_over(self, step: Step, key: StepKey, come: Arrived | None, waits: Waits) -> bool:
        """
        Return True if the time of a wait is over: of a sleep by the clock of *waits*.

        Of another only once what has *come* says so: something may be on its way that was sent in
        time. One whose end has come by the clock is asked about soon again.
        """
        if step.sleep is not None:
            return waits.is_due(key)
        if come is not None and come.over:
            return True
        if waits.is_due(key):
            waits.add(key, LOOK_SECONDS)
        return False

    def timed_out(self, step: Step) -> WaitEnd:
        """Return the end of a wait whose time is over."""
        if step.sleep is not None:
            return WaitEnd()
        if step.approval is not None:
            try:
                return WaitEnd(step.approval.timed_out())
            except AutomateError as error:
                return WaitEnd(error=error)
        if step.action is not None:
            text = "its workflow took longer than its timeout"
            return WaitEnd(error=AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text))
        what, limit = step.does, step.timeout
        if step.wait_for is not None:
            if step.wait_for.on_timeout == "continue":
                return WaitEnd()
            what = f"what it waits for ({step.wait_for.event or step.wait_for.signal})"
            limit = step.wait_for.timeout
        text = f"{what} did not come within {format_duration(limit or 0.0)}"
        if step.workflow is not None:
            text = f"sub-workflow {step.workflow!r} took longer than {format_duration(limit or 0)}"
        return WaitEnd(error=AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text))

    # -- time --------------------------------------------------------------------------------

    def _sleep_seconds(
        self, step: Step, view: TemplateView, extra: Mapping[str, Any], now: datetime
    ) -> float:
        given = self._program.sleep(step, view, extra)
        until = isinstance(step.sleep, SleepUntil)
        try:
            if until:
                return (read_instant(given) - now).total_seconds()
            return parse_duration(given)
        except (ValueError, OverflowError) as error:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"steps.{step.id}.sleep: {error}",
                hint=UNTIL_REMEDY if until else None,  # a duration's error has its own
            ) from None

    # -- events and signals ------------------------------------------------------------------

    def _begin_wait_for(
        self,
        step: Step,
        waited: WaitFor,
        run: StepRun,
        view: TemplateView,
        extra: Mapping[str, Any],
    ) -> Begun:
        match = masked(self._program.match(step, view, extra))
        encode_json(match, f"steps.{step.id}.wait_for.match", _MOST_MATCH_BYTES)
        if waited.signal is not None:
            key = signal_key(self._execution, waited.signal)
            details = {"signal": waited.signal, "match": match}
            return Begun(Wait(run, "signal", key, details, waited.timeout))
        name, leading = waited.event or "", waited.leading
        key = event_key(self._execution.tenant_id, name, leading, match.get(leading))
        details = {"event": name, "match": match}
        return Begun(Wait(run, "event", key, details, waited.timeout, (name, leading)))

    def _fits(self, step: Step, view: TemplateView, extra: Mapping[str, Any], event: Event) -> bool:
        match = masked(self._program.match(step, view, extra))
        for path, value in match.items():
            found = values_at(event.payload, path)
            if not found or not are_equal(found[0], value):
                return False
        return self._program.signal_fits(step, view, extra, event)

    def _events_taken(self) -> set[str]:
        if self._taken is None:
            waits, runs = self._program.awaiting, self._execution.steps
            outputs = (run.output for run in runs if plain_id(run.step_id) in waits)
            self._taken = {one["id"] for one in outputs if isinstance(one, dict) and "id" in one}
            # Which has begun it, or its chain: a step waits for the next one.
            before = self._execution.events_taken or {}
            self._taken |= {self._execution.event.id, str(before.get(BEGUN_BY, ""))}
        return self._taken

    # -- continuing --------------------------------------------------------------------------

    def _continue(self, step: Step, view: TemplateView, now: datetime) -> Begun:
        """Note the payload of the execution that follows; it begins when this one has ended."""
        other = self.continued_by(view)
        if other is not None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"step {other.step_id!r} continues the execution already",
                hint="let the if of each exclude the other",
            )
        payload = masked(self._program.payload(step, view))
        successor = self.successor(payload, now)
        return Begun(None, WaitEnd({"execution_id": successor.id, "payload": payload}))

    def continued_by(self, view: TemplateView) -> StepRun | None:
        """Return the run of a step that has continued the execution, or None."""
        runs = (view.runs.get((path, -1)) for path in self._program.continuing)
        return next((run for run in runs if run and run.status is StepStatus.COMPLETED), None)

    def successor(self, payload: Any, now: datetime) -> Successor:
        """Return the execution that follows this one, with *payload*."""
        pinned = self._program.workflow
        found = successor_of(self._execution, pinned, payload, now, self._find_child)
        ended = (StepStatus.COMPLETED, StepStatus.FAILED)
        steps = (
            pinned.find_step(run.step_id)
            for run in self._execution.steps if run.status in ended
        )  # fmt: skip
        waits = (step.wait_for for step in steps if step is not None)
        names = frozenset(one.event for one in waits if one is not None and one.event is not None)
        return replace(found, waited=names)

    # -- sub-workflows -----------------------------------------------------------------------

    def _begin_child(
        self,
        step: Step,
        run: StepRun,
        view: TemplateView,
        extra: Mapping[str, Any],
        now: datetime,
    ) -> Begun:
        execution_id, name = child_id(self._execution, run), step.workflow or ""
        payload = masked(self._program.input(step, view, extra))
        encode_json(payload, f"input of step {step.id!r}")
        child = self._child(step, run, execution_id, payload, now)
        before = BegunChild.of_run(run) if step.wait else None
        if before is not None and before.has_input(payload):
            again = self._child(step, run, before.execution_id, payload, now)
            # One of another definition begins anew: that may be what mends it.
            if again.workflow.hash() == before.definition:
                child = replace(again, goes_on=True)
        check_held_keys(child.event, name, child.admission)
        started = {"execution_id": child.id}
        if not step.wait:
            return Begun(None, WaitEnd(started), child)
        details = {**started, "workflow": name}
        wait = Wait(run, "workflow", child_key(child.id), details, step.timeout)
        # For those who look at the step meanwhile.
        run.output = started
        return Begun(wait, child=child)

    def _child(
        self, step: Step, run: StepRun, execution_id: str, payload: Any, now: datetime
    ) -> Child:
        """Return the sub-workflow that *step* starts, as the execution with that id."""
        if self._find_child is None:
            raise AutomateError(ErrorCodes.UNIMPLEMENTED, "sub-workflows can't be started here")
        name = step.workflow or ""
        event = child_event(
            self._execution, run, execution_id, name, payload, now.isoformat(), waited=step.wait
        )
        try:
            workflow, admission = self._find_child(name, event)
        except UnknownHereError as lack:
            if self._alone or lack.reason != "UNKNOWN_WORKFLOW":
                raise
            text = f"doesn't know the workflow {name!r}: {lack}"
            raise UnknownHereError(text, reason=lack.reason) from None
        return Child(execution_id, workflow, event, step.wait, admission)
