"""
A dry run of a workflow: every call rendered and none made, every condition decided that can be.

Nothing is written, and no secret is read. The outputs of steps are those that are given. Of others
an example is made up from the action's output schema, where it has one. What depends on an output
that is not known is marked, and a condition that depends on one counts as true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from automate_kernel.base.errors import AutomateError, TemplateError, WorkflowError, type_name
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets.handles import masked
from automate_kernel.templates import TemplateEngine
from automate_kernel.workflows.decide.program import (
    BuildContext,
    TemplateView,
    WorkflowProgram,
    element_names,
    round_names,
)
from automate_kernel.workflows.definition.blocks import local_id, plain_id
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.definition.structure import topological_order
from automate_kernel.workflows.definition.template_names import NamesRead, names_read
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

__all__ = ["DryCall", "DryOutcome", "DryOutput", "DryRun", "DryStep"]

_NO_ID = "00000000-0000-4000-8000-000000000000"
# Elements of a for_each that are shown.
MOST_CALLS = 20
_OF_ELEMENT = ("item", "index", "outer")
# The fields of a step that calls no action.
_WAITED = ("sleep", "wait_for", "approval", "workflow", "input", "continue_as_new")


class DryOutcome(str, Enum):
    """The fate of a step."""

    CALLED = "called"
    WAITS = "waits"
    """It calls nothing: it waits for a time, an event, a person or another workflow, or it
    continues the execution as new."""
    SKIPPED = "skipped"
    UNCLEAR = "unclear"
    """Its condition, or that of a step it needs, depends on outputs that are not known."""
    FAILS = "fails"
    """It can't be rendered, or its input doesn't fit the action."""

    __str__ = str.__str__


class DryOutput(str, Enum):
    """The origin of a step's output."""

    GIVEN = "given"
    EXAMPLE = "example"
    """Made up from the output schema of its action."""
    UNKNOWN = "unknown"
    NONE = "none"
    """It is skipped."""

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class DryCall:
    """One call that would be made; *position* is that in the ``for_each``, or -1."""

    input: Any
    position: int = -1


@dataclass(slots=True)
class DryStep:
    """
    One step: its outcome, its calls, and the output that later steps saw.

    *depends_on* are the outputs (``steps.a.output``) that its condition, list or input reads and
    that are not known, or made up. *elements* is the number of its ``for_each``, of which *calls*
    has the first ones. A step without an *action* waits for what *waits_for* says.
    """

    id: str
    action: str | None
    outcome: DryOutcome = DryOutcome.CALLED
    condition: str | bool | None = None
    waits_for: Any = None
    calls: list[DryCall] = field(default_factory=list)
    elements: int | None = None
    depends_on: list[str] = field(default_factory=list)
    output: Any = None
    output_is: DryOutput = DryOutput.NONE
    problem: str | None = None

    def depend(self, names: Sequence[str]) -> None:
        """Note outputs that it depends on."""
        self.depends_on += [name for name in names if name not in self.depends_on]


@dataclass(slots=True)
class DryRun:
    """
    The dry run of a workflow for *event*.

    *starts* is False if no trigger lets the event start the workflow, and None if that can't be
    decided. *ending* are the steps under ``finally``, as they run after a success. If the workflow
    fails or is cancelled, those in *undoing* are called; *recovery* runs if it fails, and
    *cancelling* if it is cancelled.
    """

    workflow: str
    event: dict[str, Any]
    starts: bool | None = None
    steps: list[DryStep] = field(default_factory=list)
    recovery: list[DryStep] = field(default_factory=list)
    output: Any = None
    problem: str | None = None
    ending: list[DryStep] = field(default_factory=list)
    undoing: list[DryStep] = field(default_factory=list)
    cancelling: list[DryStep] = field(default_factory=list)

    @property
    def every_step(self) -> list[DryStep]:
        """The steps of all its lists."""
        return [*self.steps, *self.ending, *self.undoing, *self.recovery, *self.cancelling]

    @property
    def problems(self) -> list[str]:
        """A line for each step that would fail, and for the workflow's own templates."""
        found = [f"{step.id}: {step.problem}" for step in self.every_step if step.problem]
        return [*found, *([self.problem] if self.problem else [])]

    def step(self, step_id: str) -> DryStep | None:
        """Return the step called *step_id*, or None."""
        return next((one for one in self.every_step if one.id == step_id), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "problems": self.problems}


def dry_run(
    workflow: Workflow,
    event: Event,
    *,
    outputs: Mapping[str, Any],
    templates: TemplateEngine,
    context: BuildContext,
    spec: Callable[[str], OperationSpec],
    redact: Callable[[Any], Any],
) -> DryRun:
    """
    Walk through *workflow* for *event*, with the *outputs* of steps that are known.

    *spec* finds the spec of an action, and *redact* takes secrets out of values. Raises
    `WorkflowError` for outputs of steps that there are not.
    """
    for step_id in outputs:
        workflow.step(step_id)
    program = WorkflowProgram(workflow, templates, context)
    result = DryRun(workflow.name, redact(event.to_json()))
    try:
        result.starts = program.starts_on(event)
        if result.starts:
            program.admission(event)
    except TemplateError as error:
        _note(result, error)
    walk = _Walk(program, event, outputs, templates, spec, redact)
    order = {step.id: step for step in workflow.every_step()}
    result.steps = walk.steps([order[step_id] for step_id in workflow.order()])
    try:
        result.output = walk.rendered(workflow.output, "output", [])
    except TemplateError as error:
        _note(result, error)
    groups = workflow.groups()
    result.ending = walk.group(groups["finally"])
    walk.fail()
    result.undoing = walk.undone(workflow, result.steps)
    result.recovery = walk.group(groups["on_failure"])
    walk.cancel()
    result.cancelling = walk.group(groups["on_cancel"])
    return result


def _note(result: DryRun, problem: AutomateError) -> None:
    result.problem = f"{result.problem}; {problem}" if result.problem else str(problem)


class _Walk:
    """The steps that were walked through so far, and what is known of their outputs."""

    def __init__(
        self,
        program: WorkflowProgram,
        event: Event,
        outputs: Mapping[str, Any],
        templates: TemplateEngine,
        spec: Callable[[str], OperationSpec],
        redact: Callable[[Any], Any],
    ) -> None:
        self._program = program
        self._given = outputs
        self._templates = templates
        self._spec = spec
        self._redact = redact
        self._execution = Execution(
            id=_NO_ID, name=program.workflow.name, definition_id=program.workflow.hash(),
            event=event, status=ExecutionStatus.RUNNING, tenant_id=event.tenant_id,
            created_at=datetime.now(timezone.utc),
        )  # fmt: skip
        self._runs: dict[StepKey, StepRun] = {}
        self._view: TemplateView = program.view(self._execution, self._runs)
        self._unknown: set[str] = set()
        self._examples: set[str] = set()
        self._unclear: set[str] = set()
        self._needs: Mapping[str, Sequence[str]] = program.needs
        self._blocks: dict[str, list[DryStep]] = {}
        # False inside a block whose list depends on outputs that are not known.
        self._item_known = True
        # The step that is undone, whose output its compensation sees.
        self._undone: DryStep | None = None

    def fail(self) -> None:
        """Let the workflow have failed, for the steps that recover from it."""
        self._execution.error_code, self._execution.error = "INTERNAL", "[error.message]"

    def cancel(self) -> None:
        """Let the workflow be cancelled instead."""
        self._execution.error_code = self._execution.error = None
        self._execution.status = ExecutionStatus.CANCELLING

    def group(self, steps: Sequence[Step]) -> list[DryStep]:
        """Return what would become of a list of the workflow's own, in the order of its needs."""
        order = topological_order({step.id: self._needs[step.id] for step in steps})
        by_id = {step.id: step for step in steps}
        return self.steps([by_id[step_id] for step_id in order])

    def undone(self, workflow: Workflow, steps: Sequence[DryStep]) -> list[DryStep]:
        """Return the compensations of *steps*, as if all had completed: the last one first."""
        undoing = workflow.compensations
        done = (DryOutcome.CALLED, DryOutcome.UNCLEAR, DryOutcome.WAITS)
        return [
            self._undo(workflow.step(each.id), undoing[each.id], each)
            for each in reversed(steps)
            if each.id in undoing and each.outcome in done
        ]

    def _undo(self, step: Step, compensation: Step, undone: DryStep) -> DryStep:
        dry, self._undone = DryStep(compensation.id, compensation.action), undone
        names: dict[str, Any] = {"output": undone.output}
        element = True
        try:
            if step.for_each is not None:
                # The first element stands for all.
                known = self._elements(step, dry)
                element = bool(known)
                names = element_names(self._view, known[0] if known else "[item]", 0)
                outputs = undone.output if isinstance(undone.output, list) else []
                names = {**names, "output": outputs[0] if outputs else None}
            path = f"steps.{compensation.id}.input"
            position = 0 if step.for_each is not None else -1
            given = self._input(compensation, dry, path, names, element=element)
            dry.calls = [DryCall(given, position)]
        except AutomateError as error:
            dry.outcome, dry.problem = DryOutcome.FAILS, str(error)
        finally:
            self._undone = None
        return dry

    def _undone_output(self, read: NamesRead, origin: DryOutput) -> list[str]:
        """Return the output of the step that is undone, if that is of *origin* and is read."""
        if self._undone is None or self._undone.output_is is not origin:
            return []
        return [f"steps.{self._undone.id}.output"] if "output" in read.names else []

    # -- steps -------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> list[DryStep]:
        """Return what would become of *steps*, each block followed by those inside it."""
        found = []
        for step in steps:
            inner: list[DryStep] = []
            if step.is_block:
                self._blocks[step.id] = inner
            found += [self.step(step), *inner]
        return found

    def step(self, step: Step) -> DryStep:
        """Return what would become of *step*."""
        dry = DryStep(step.id, step.action, condition=step.if_)
        try:
            if self._skips(step, dry):
                dry.outcome = DryOutcome.SKIPPED
                self._end(step, StepStatus.SKIPPED, None)
                return dry
            self._call(step, dry)
            if dry.outcome is DryOutcome.SKIPPED:  # a switch without a case for its value
                self._end(step, StepStatus.SKIPPED, None)
                return dry
        except AutomateError as error:
            dry.outcome, dry.problem = DryOutcome.FAILS, str(error)
        self._give_output(step, dry)
        return dry

    def _skips(self, step: Step, dry: DryStep) -> bool:
        waited_for = self._needs[step.id]
        needs = [self._runs.get((need, -1)) for need in waited_for]
        if step.skipped_with_needs:
            if any(run is not None and run.status is StepStatus.SKIPPED for run in needs):
                return True
            if self._unclear.intersection(map(local_id, waited_for)):
                self._unclear.add(local_id(step.id))
                dry.outcome = DryOutcome.UNCLEAR
        if not isinstance(step.if_, str):
            return step.if_ is False
        read = names_read(step.if_, bare=True)
        guessed = self._guessed(read, self._unknown | self._examples)
        if not self._item_known:
            guessed += [name for name in _OF_ELEMENT if name in read.names]
        if guessed or self._unclear.intersection(read.steps):
            self._unclear.add(local_id(step.id))
            dry.outcome = DryOutcome.UNCLEAR
            dry.depend(guessed or [f"steps.{each}.status" for each in read.steps])
            return False
        return not self._program.condition(step, self._view)

    def _call(self, step: Step, dry: DryStep) -> None:
        if step.is_block:
            self._look_inside(step, dry)
            return
        if not step.action:
            self._wait(step, dry)
            return
        path = f"steps.{step.id}.input"
        if step.loops:
            first = round_names(self._view, step, 0)
            dry.calls = [DryCall(self._input(step, dry, path, first), 0)]
            return
        if step.for_each is None:
            dry.calls = [DryCall(self._input(step, dry, path, {}))]
            return
        known = self._elements(step, dry)
        if known is None:
            shown = element_names(self._view, "[item]", 0)
            dry.calls = [DryCall(self._input(step, dry, path, shown, element=False), 0)]
            return
        dry.elements = len(known)
        for position, item in enumerate(known[:MOST_CALLS]):
            names = element_names(self._view, item, position)
            dry.calls.append(DryCall(self._input(step, dry, path, names), position))

    def _look_inside(self, block: Step, dry: DryStep) -> None:
        """Walk through the steps inside a block; the first element, or round, stands for all."""
        around = self._view, self._unknown, self._examples, self._unclear, self._item_known
        needs = self._needs
        view, position, item = self._view, 0 if block.loops else -1, None
        if block.for_each is not None:
            known = self._elements(block, dry)
            dry.elements = None if known is None else len(known)
            self._item_known = self._item_known and bool(known)
            position, item = 0, known[0] if known else "[item]"
        extra = {} if position < 0 else element_names(view, item, position)
        if block.loops:
            extra = round_names(view, block, 0)
        steps = self._inner_steps(block, dry, extra)
        its = self._program.inside(block, position, steps, view, extra)
        order = topological_order(its.needs)
        by_path = {step.id: step for step in its.steps}
        self._view, self._needs = its.view, its.needs
        self._unknown, self._examples, self._unclear = (
            set(self._unknown), set(self._examples), set(self._unclear)
        )  # fmt: skip
        inner = self.steps([by_path[path] for path in order if path in by_path])
        self._blocks[block.id] += inner
        failing = next((one for one in inner if one.problem), None)
        if failing is not None:
            dry.outcome, dry.problem = DryOutcome.FAILS, f"step {failing.id!r} inside it fails"
        self._view, self._unknown, self._examples, self._unclear, self._item_known = around
        self._needs = needs

    def _inner_steps(self, block: Step, dry: DryStep, extra: Mapping[str, Any]) -> Sequence[Step]:
        """Return the steps that would run in a block; all of a switch whose value is unknown."""
        if block.steps is not None:
            return block.steps
        guessed: list[str] = []
        self._marked(block.switch, guessed, element=self._item_known)
        dry.depend(guessed)
        if not guessed:
            chosen = block.chosen(self._program.case(block, self._view, extra))
            if chosen is not None:
                return chosen
            if block.for_each is None:
                dry.outcome = DryOutcome.SKIPPED
            return ()
        return [step for steps in block.lists.values() for step in steps]

    def _wait(self, step: Step, dry: DryStep) -> None:
        if dry.outcome is DryOutcome.CALLED:
            dry.outcome = DryOutcome.WAITS
        fields = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        found = {name: _without_conditions(fields[name]) for name in _WAITED if name in fields}
        guessed: list[str] = []
        # Of the elements of a list the first one stands for all.
        listed = step.for_each is not None
        names = element_names(self._view, "[item]", 0) if listed else None
        if step.loops:
            names = round_names(self._view, step, 0)
        path = f"steps.{step.id}"
        dry.waits_for = self.rendered(found, path, guessed, names, element=not listed)
        dry.depend(guessed)

    def _elements(self, step: Step, dry: DryStep) -> list[Any] | None:
        """Return the elements of a step's list; None if it depends on unknown outputs."""
        unknown = self._read(step.for_each, dry)
        return None if unknown else self._program.elements(step, self._view)

    def _input(
        self,
        step: Step,
        dry: DryStep,
        path: str,
        names: Mapping[str, Any],
        *,
        element: bool = True,
    ) -> Any:
        guessed: list[str] = []
        value = self.rendered(step.input, path, guessed, names, element=element)
        guessed += self._made_up(step.input)
        dry.depend(guessed)
        if not guessed and element and step.action:
            self._spec(step.action).validate(value, called=step.action)
        return value

    # -- templates ---------------------------------------------------------------------------

    def rendered(
        self,
        tree: Any,
        path: str,
        guessed: list[str],
        names: Mapping[str, Any] | None = None,
        *,
        element: bool = True,
    ) -> Any:
        """
        Render *tree*, with a mark for what depends on unknown outputs, which are put in *guessed*.

        Unless the *element* is known, the same holds for ``item`` and ``index``.
        """
        known = self._marked(tree, guessed, element=element)
        compiled = self._templates.compile(known, path)
        return self._redact(masked(self._program.render(compiled, self._view, names)))

    def _marked(self, tree: Any, guessed: list[str], *, element: bool) -> Any:
        if isinstance(tree, str):
            return self._mark(tree, guessed, element=element)
        if isinstance(tree, Mapping):
            return {
                self._mark(key, guessed, element=element): self._marked(
                    value, guessed, element=element
                )
                for key, value in tree.items()
            }
        if isinstance(tree, (list, tuple)):
            return [self._marked(value, guessed, element=element) for value in tree]
        return tree

    def _mark(self, text: str, guessed: list[str], *, element: bool) -> str:
        read = names_read(text)
        found = self._guessed(read, self._unknown)
        found += self._undone_output(read, DryOutput.UNKNOWN)
        if not (element and self._item_known):
            found += [name for name in _OF_ELEMENT if name in read.names]
        guessed += [name for name in found if name not in guessed]
        return f"[depends on {', '.join(found)}]" if found else text

    def _guessed(self, read: NamesRead, steps: set[str]) -> list[str]:
        """Return the outputs of *steps* that a template reads."""
        if read.any_step:
            return [f"steps.{step_id}.output" for step_id in self._runs_of(steps)]
        found = {
            path[1]: None
            for path in read.paths
            if path[0] == "steps" and path[1] in steps and path[2:3] in ((), ("output",))
        }
        return [f"steps.{step_id}.output" for step_id in found]

    def _runs_of(self, steps: set[str]) -> list[str]:
        return [
            step_id
            for step_id, position in self._runs
            if position < 0 and local_id(step_id) in steps
        ]

    def _read(self, tree: Any, dry: DryStep) -> list[str]:
        """Note the outputs that *tree* reads and that are guessed; return the unknown ones."""
        unknown: list[str] = []
        self._marked(tree, unknown, element=True)
        dry.depend([*unknown, *self._made_up(tree)])
        return unknown

    def _made_up(self, tree: Any) -> list[str]:
        reads = [names_read(text) for text in _texts(tree)]
        return [
            name
            for read in reads
            for name in (
                *self._guessed(read, self._examples),
                *self._undone_output(read, DryOutput.EXAMPLE),
            )
        ]

    # -- outputs -----------------------------------------------------------------------------

    def _give_output(self, step: Step, dry: DryStep) -> None:
        given = plain_id(step.id)
        if given in self._given:
            dry.output_is, output = DryOutput.GIVEN, self._redact(self._given[given])
            if step.for_each is not None and not isinstance(output, list):
                raise WorkflowError(
                    f"the output of step {step.id!r} is a list, since it has for_each",
                    hint=f"{type_name(output)} was given: give the outputs of its elements",
                )
        else:
            dry.output_is, output = self._example(step, dry)
        dry.output = output
        self._end(step, StepStatus.COMPLETED, output)

    def _example(self, step: Step, dry: DryStep) -> tuple[DryOutput, Any]:
        try:
            schema = self._spec(step.action).output_json_schema() if step.action else None
        except AutomateError as error:
            schema, dry.problem, dry.outcome = None, dry.problem or str(error), DryOutcome.FAILS
        if schema is None:
            self._unknown.add(local_id(step.id))
            return DryOutput.UNKNOWN, None
        self._examples.add(local_id(step.id))
        one = example_of(schema, f"steps.{step.id}.output")
        if step.for_each is None:
            return DryOutput.EXAMPLE, one
        return DryOutput.EXAMPLE, [one] * max(1, len(dry.calls))

    def _end(self, step: Step, status: StepStatus, output: Any) -> None:
        outputs = output if step.for_each is not None and isinstance(output, list) else ()
        given = ((-1, None if outputs else output), *enumerate(outputs))
        for position, value in given:
            run = StepRun(
                execution_id=_NO_ID, step_id=step.id, position=position, status=status, output=value
            )
            self._runs[run.key] = run


def _without_conditions(tree: Any) -> Any:
    """Return what a step waits for without what is decided only when it comes."""
    if isinstance(tree, Mapping):
        return {name: value for name, value in tree.items() if name not in ("if", "notify")}
    return tree


def _texts(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, Mapping):
        return [text for key, value in tree.items() for text in (key, *_texts(value))]
    if isinstance(tree, (list, tuple)):
        return [text for value in tree for text in _texts(value)]
    return []
