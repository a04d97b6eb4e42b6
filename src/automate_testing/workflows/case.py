"""One case of a test of a workflow: its event, the answers of actions, the expectations."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from automate_kernel.base.durations import OptionalDuration
from automate_kernel.base.errors import AutomateError, ErrorCodes, did_you_mean
from automate_kernel.kernel import Kernel
from automate_kernel.operations.replacement import ReplacedCall
from automate_kernel.workflows.definition.fields import (
    DefinitionModel,
    JsonTree,
    OperationName,
    PlainText,
    refused,
)
from automate_kernel.workflows.definition.model import CodeWorkflow, Workflow
from automate_kernel.workflows.execution import (
    Event,
    EventType,
    Execution,
    ExecutionStatus,
    StepStatus,
)
from automate_kernel.workflows.store.events import triggering_event
from automate_testing.workflows.kit import WorkflowTest
from automate_testing.workflows.matching import differences, matches, shown, unmatched


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


class FakeError(DefinitionModel):
    """The error that an action answers with."""

    code: Annotated[ErrorCodes, Field(strict=False)] = ErrorCodes.INTERNAL
    message: str = "the test's error"
    retryable: bool | None = None
    """Overrides the code's answer."""


class Answer(DefinitionModel):
    """One answer of a replaced action: its output, or an error."""

    when: JsonTree = None
    """The fields of the input that it is for; without it, any input."""
    output: JsonTree = None
    error: FakeError | None = None
    times: int | None = Field(default=None, ge=1)
    """It is given so many times, and then the next answer that fits; without it, always."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Answer:
        if self.error is not None and "output" in self.model_fields_set:
            raise refused("answer", "it has an output and an error", "take one of them out")
        return self


Answers = Annotated[Sequence[Answer], BeforeValidator(_listed), Field(min_length=1)]
Replace = Mapping[OperationName, Answers]


class GivenEvent(DefinitionModel):
    """The event that starts the workflow; what is left out is as its first trigger expects it."""

    name: PlainText | None = None
    payload: JsonTree = None
    type: EventType | None = None
    source: str = ""
    tenant_id: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)

    def made_for(self, workflow: Workflow) -> Event:
        """Return the event itself."""
        event = triggering_event(
            workflow, self.payload, name=self.name, source=self.source, headers=dict(self.headers)
        )
        given = {"type": self.type or event.type, "tenant_id": self.tenant_id}
        return Event.from_json({**event.to_json(), **given, "labels": dict(self.labels)})


class Emitted(DefinitionModel):
    """An event that comes while the workflow runs."""

    name: PlainText
    payload: JsonTree = None
    tenant_id: str | None = None
    """By default that of the event which starts it."""


class Signalled(DefinitionModel):
    """A signal to the execution."""

    name: PlainText
    payload: JsonTree = None

    def send(self, kernel: Kernel, workflow: Workflow, execution_id: str) -> None:
        """Send it; raises `AutomateError` if nothing in the execution could ever take it."""
        waits = (step.wait_for for _, step in workflow.walk() if step.wait_for is not None)
        names = [each.signal for each in waits if each.signal is not None]
        # What code waits for is not known before it does.
        if not isinstance(workflow, CodeWorkflow) and self.name not in names:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"the workflow waits for no signal {self.name!r}",
                hint=did_you_mean(self.name, names, also=f"it has {', '.join(names) or 'none'}"),
            )
        kernel.signal(execution_id, self.name, self.payload)


class Decided(DefinitionModel):
    """The decision of a person, for which a step of the execution waits."""

    step: PlainText
    approved: bool = True
    by: PlainText
    roles: Sequence[str] = ()
    comment: str = ""
    form: Mapping[str, Any] = Field(default_factory=dict)
    position: int = -1

    def make(self, kernel: Kernel, execution_id: str) -> None:
        """Approve or reject, and run what follows."""
        decide = kernel.approvals.approve if self.approved else kernel.approvals.reject
        try:
            decide(
                execution_id, self.step, self.position, by=self.by, roles=self.roles,
                comment=self.comment, form=self.form,
            )  # fmt: skip
        except AutomateError as error:
            if error.code is not ErrorCodes.NOT_FOUND:
                raise
            raise self._not_asked(kernel, execution_id) from None
        with kernel.executing_here():
            kernel.run_until_idle()

    def _not_asked(self, kernel: Kernel, execution_id: str) -> AutomateError:
        """Return the error for a step that asks nobody, with the steps that do."""
        asked = sorted(
            one.step_id if one.position < 0 else f"{one.step_id} at position {one.position}"
            for one in kernel.executions.waits(execution_id)
            if one.about == "approval"
        )
        place = f" at position {self.position}" if self.position >= 0 else ""
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"step {self.step!r} waits for no decision{place}",
            hint=f"those that wait: {', '.join(asked) or 'none'}",
        )


class Then(DefinitionModel):
    """
    Something that happens while the workflow runs.

    Time passes, then an event comes, a signal, and the decision of a person; then it is cancelled.
    """

    after: OptionalDuration = None  # type: ignore[assignment]
    emit: Emitted | None = None
    signal: Signalled | None = None
    decide: Decided | None = None
    cancel: Literal[True] | None = None


class Expected(DefinitionModel):
    """The expectations of a case. Fields that are left out are not compared."""

    starts: bool = True
    """False: no trigger's ``if`` holds for the event."""
    status: Annotated[ExecutionStatus, Field(strict=False)] | None = None
    error: str | None = None
    """A part of the execution's error."""
    error_code: str | None = None
    calls: Sequence[Mapping[str, Any]] | None = None
    """All calls of replaced actions in their order, each ``action: {fields of its input}``."""
    calls_in_any_order: Sequence[Mapping[str, Any]] | None = None
    outputs: Mapping[str, Any] = Field(default_factory=dict)
    """The outputs of steps by their ids."""
    output: JsonTree = None
    """The output of the workflow."""
    skipped: Sequence[str] = ()
    """The steps that are SKIPPED; others may be too."""
    failed: Sequence[str] = ()
    """The steps that are FAILED; others may be too."""
    attempts: Mapping[str, int] = Field(default_factory=dict)
    """The number of attempts of steps by their ids: of all elements, or of the last rounds."""

    @model_validator(mode="after")
    def _nothing_of_no_start(self) -> Expected:
        others = sorted(self.model_fields_set - {"starts"})
        if not self.starts and others:
            message = f"what does not start has no {others[0]}"
            raise refused("expect", message, f"take {', '.join(others)} out")
        return self

    @model_validator(mode="after")
    def _calls_name_one_action(self) -> Expected:
        for name in ("calls", "calls_in_any_order"):
            for index, call in enumerate(getattr(self, name) or ()):
                if len(call) != 1:
                    hint = "write - slack.post: {text: hello}"
                    raise refused("call", "a call is one action with its input", hint,
                                  at=(name, index))  # fmt: skip
        return self

    def unknown_steps(self, workflow: Workflow) -> Iterator[str]:
        """Yield a line for each step that no execution of *workflow* can have."""
        if isinstance(workflow, CodeWorkflow):
            return
        for field_ in ("outputs", "skipped", "failed", "attempts"):
            for step_id in getattr(self, field_):
                if not workflow.has(step_id):
                    hint = _of_step(workflow, step_id)
                    yield f"{field_}: the workflow has no step {step_id!r} ({hint})"

    def problems(
        self, workflow: Workflow, execution: Execution, calls: Sequence[ReplacedCall]
    ) -> Iterator[str]:
        """Yield a line for each thing that is otherwise in an execution of *workflow*."""
        yield from self._end_problems(execution)
        if self.calls is not None:
            yield from _in_order(self.calls, calls)
        if self.calls_in_any_order is not None:
            yield from _in_any_order(self.calls_in_any_order, calls)
        if "output" in self.model_fields_set:
            yield from differences(self.output, execution.output, "output")
        for step_id, expected in self.outputs.items():
            yield from _output_of(workflow, execution, step_id, expected)
        yield from _statuses(execution, StepStatus.SKIPPED, self.skipped)
        yield from _statuses(execution, StepStatus.FAILED, self.failed)
        for step_id, number in self.attempts.items():
            made = sum(run.attempts for run in execution.runs_of(step_id))
            if made != number:
                yield f"attempts.{step_id}: expected {number}, got {made}"

    def _end_problems(self, execution: Execution) -> Iterator[str]:
        ends = self.status
        if ends is None and self.error is None and self.error_code is None:
            ends = ExecutionStatus.COMPLETED
        if ends not in (None, execution.status):
            why = f" ({execution.error_code}: {execution.error})" if execution.error else ""
            why = why or _unended(execution)
            yield f"status: expected {ends}, got {execution.status}{why}"
        if self.error is not None and self.error not in (execution.error or ""):
            yield f"error: expected {self.error!r} in it, got {execution.error!r}"
        if self.error_code not in (None, execution.error_code):
            yield f"error_code: expected {self.error_code}, got {execution.error_code}"


def _of_step(workflow: Workflow, step_id: str) -> str:
    """Return a hint for a step that no execution of *workflow* can have."""
    known = [each.id for _, each in workflow.walk()]
    if step_id not in known:
        return did_you_mean(step_id, known) or f"it has {', '.join(known)}"
    one, path = "", ""
    for part in step_id.split("."):
        one, path = f"{one}.{part}".lstrip("."), f"{path}.{part}".lstrip(".")
        if path != step_id and workflow.step(path).repeats:
            one += "[0]"
    return f"it runs once for each element or round: {one} is the first"


def _unended(execution: Execution) -> str:
    """Return the steps that an execution waits in."""
    ids = sorted({run.step_id for run in execution.steps if run.status is StepStatus.WAITING})
    return f" (it waits in {', '.join(ids)})" if ids else ""


def _statuses(execution: Execution, wanted: StepStatus, ids: Sequence[str]) -> Iterator[str]:
    for step_id in ids:
        run = execution.step(step_id)
        if run is None or run.status is not wanted:
            got = run.status if run is not None else "nothing of it"
            yield f"{wanted.lower()}: expected step {step_id!r} {wanted}, got {got}"


def _output_of(
    workflow: Workflow, execution: Execution, step_id: str, expected: Any
) -> Iterator[str]:
    run, place = execution.step(step_id), f"outputs.{step_id}"
    if run is None or run.status is not StepStatus.COMPLETED:
        got = run.status if run is not None else "it did not run"
        yield f"{place}: expected {shown(expected)}, and it has not completed ({got})"
        return
    output = run.output
    # As templates see it: of a list all, and of a loop that of its last round.
    if workflow.gives_list(step_id):
        output = [one.output for one in execution.runs_of(step_id) if one.position >= 0]
    yield from differences(expected, output, place)


def _one(call: Mapping[str, Any]) -> tuple[str, Any]:
    ((name, given),) = call.items()
    return name, {} if given is None else given


def _told(name: str, given: Any) -> str:
    return f"{name} {shown(given)}"


def _in_order(expected: Sequence[Mapping[str, Any]], made: Sequence[ReplacedCall]) -> Iterator[str]:
    for index in range(max(len(expected), len(made))):
        place = f"calls[{index}]"
        if index >= len(made):
            yield f"{place}: expected {_told(*_one(expected[index]))}, and no more calls were made"
            continue
        name, given = made[index].call.operation, made[index].input
        if index >= len(expected):
            yield f"{place}: not expected: {_told(name, given)}"
            continue
        action, wanted = _one(expected[index])
        if action != name:
            yield f"{place}: expected {_told(action, wanted)}, got {_told(name, given)}"
        else:
            yield from differences(wanted, given, f"{place}.{action}")


def _in_any_order(
    expected: Sequence[Mapping[str, Any]], made: Sequence[ReplacedCall]
) -> Iterator[str]:
    wanted = [_one(call) for call in expected]
    fits = [
        [
            number
            for number, one in enumerate(made)
            if one.call.operation == action and matches(given, one.input)
        ]
        for action, given in wanted
    ]
    for row in unmatched(fits):
        yield f"calls_in_any_order: expected {_told(*wanted[row])}, and no such call was made"
    others = [
        [row for row, columns in enumerate(fits) if number in columns]
        for number in range(len(made))
    ]
    for number in unmatched(others):
        one = made[number]
        yield f"calls_in_any_order: not expected: {_told(one.call.operation, one.input)}"


class Case(DefinitionModel):
    """A case: an event or a payload, answers of actions, and what is expected."""

    name: PlainText
    workflow: PlainText | None = None
    """The workflow's name, where the file has several."""
    payload: JsonTree = None
    """The payload of the event; short for ``event: {payload: …}``."""
    event: GivenEvent | None = None
    replace: Replace = Field(default_factory=dict)
    """Answers for this case, before those of the whole file."""
    then: Sequence[Then] = ()
    """Events and times while it runs. At the end all time is skipped that it waits."""
    expect: Expected = Expected()

    @model_validator(mode="after")
    def _one_payload(self) -> Case:
        if self.event is not None and "payload" in self.model_fields_set:
            hint = "put the payload into the event"
            raise refused("case", "it has a payload and an event", hint)
        return self


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of a case: its *problems*, none if it is as expected."""

    name: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    line: int | None = None

    @property
    def passed(self) -> bool:
        """True if all is as expected."""
        return not self.problems


class Fake:
    """The answers of one action, as a function of its input."""

    def __init__(self, name: str, answers: Sequence[Answer]) -> None:
        self._name = name
        self._answers = answers
        self._given = [0] * len(answers)
        self._lock = threading.Lock()

    # The whole input: no field of an action begins with an underscore.
    def __call__(self, _input: Any) -> Any:
        """Give the first answer that fits and is not used up."""
        with self._lock:
            for place, answer in enumerate(self._answers):
                used_up = answer.times is not None and self._given[place] >= answer.times
                if not used_up and (answer.when is None or matches(answer.when, _input)):
                    self._given[place] += 1
                    return _given(answer)
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the test has no answer left of {self._name!r} for {shown(_input)}",
            hint="add one without when and times",
            retryable=False,
        )


def _given(answer: Answer) -> Any:
    if answer.error is None:
        return answer.output
    error = answer.error
    raise AutomateError(error.code, error.message, retryable=error.retryable)


def run_case(
    case: Case,
    kernel: Kernel,
    workflow: Workflow,
    *,
    replace: Mapping[str, Sequence[Answer]],
    real: Literal[True] | frozenset[str],
    line: int | None = None,
) -> CaseResult:
    """Run *case* with *workflow* on *kernel*, and return what is otherwise than expected."""
    began = time.monotonic()
    try:
        with WorkflowTest(kernel) as test:
            problems = list(case.expect.unknown_steps(workflow))
            problems = problems or list(_problems(case, test, workflow, replace, real))
    except AutomateError as error:
        problems = [str(error)]
    return CaseResult(case.name, problems, time.monotonic() - began, line)


def _let_happen(
    each: Then, test: WorkflowTest, workflow: Workflow, execution_id: str, tenant_id: str | None
) -> str | None:
    """Let one thing happen while the workflow runs; return what is wrong with it, if anything."""
    if each.after is not None:
        test.pass_time(each.after)
    if each.emit is not None:
        named = "tenant_id" in each.emit.model_fields_set
        tenant_id = each.emit.tenant_id if named else tenant_id
        test.emit(each.emit.name, each.emit.payload, tenant_id=tenant_id)
    if each.signal is not None:
        try:
            each.signal.send(test.kernel, workflow, execution_id)
        except AutomateError as error:
            return f"signal: {error}"
        test.pass_time(0)
    if each.decide is not None:
        try:
            each.decide.make(test.kernel, execution_id)
        except AutomateError as error:
            return f"decide: {error}"
    if each.cancel:
        if not test.kernel.executions.cancel(execution_id):
            return "cancel: the execution had ended"
        test.pass_time(0)
    return None


def _problems(
    case: Case,
    test: WorkflowTest,
    workflow: Workflow,
    replace: Mapping[str, Sequence[Answer]],
    real: Literal[True] | frozenset[str],
) -> Iterator[str]:
    event = (case.event or GivenEvent(payload=case.payload)).made_for(workflow)
    starts = test.kernel.workflows.program(workflow.hash()).starts_on(event)
    if starts is not case.expect.starts:
        yield (
            "starts: the event starts it, though it is not expected to"
            if starts
            else f"starts: no trigger's condition holds for the event {event.name!r}"
        )
    if not starts:
        return
    answers = {name: list(case.replace.get(name, ())) for name in (*case.replace, *replace)}
    for name, given in replace.items():
        answers[name] += given
    for name, given in answers.items():
        test.replace(name, Fake(name, given))
    if real is not True:
        test.allow_only(*real)
    execution = test.start(workflow.name, event=event)
    for number, each in enumerate(case.then):
        if problem := _let_happen(each, test, workflow, execution.id, event.tenant_id):
            yield f"then[{number}].{problem}"
            return
    yield from case.expect.problems(workflow, test.finish(execution), test.calls)
