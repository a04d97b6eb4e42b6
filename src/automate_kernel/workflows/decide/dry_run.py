"""
A dry run of a workflow: every call rendered and none made, every condition decided that can be.

`advance` decides, as in a real run. A program answers it that knows only some outputs: those that
are given, and examples made up from the output schemas of actions. What depends on other outputs is
marked, and a condition that depends on them counts as true. What fails is noted, and the run goes
on. Nothing is written, and no secret is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, TemplateError, WorkflowError, type_name
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets.handles import masked
from automate_kernel.templates import TemplateEngine
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.advance import advance
from automate_kernel.workflows.decide.program import (
    BuildContext,
    Inside,
    TemplateView,
    WorkflowProgram,
    element_names,
    round_names,
)
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall
from automate_kernel.workflows.definition.blocks import (
    block_of,
    lists_around,
    local_id,
    plain_id,
    top_id,
)
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
# The fields that say what a step without an action does.
_WAITED = ("sleep", "wait_for", "approval", "workflow", "input", "continue_as_new")
_OF_WAITS = frozenset({*_WAITED, "wait", "timeout", "retry", "heartbeat", "runs_on"})
# The action that a dry run calls in the place of a wait.
_WAIT = "automate.wait"


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
    Run *workflow* for *event*, with the *outputs* of steps that are known.

    *spec* finds the spec of an action, and *redact* takes secrets out of values. Raises
    `WorkflowError` for outputs of steps that there are not.
    """
    for step_id, output in outputs.items():
        if workflow.step(step_id).for_each is not None and not isinstance(output, list):
            raise WorkflowError(
                f"the output of step {step_id!r} is a list, since it has for_each",
                hint=f"{type_name(output)} was given: give the outputs of its elements",
            )
    program = _DryProgram(workflow, templates, context, outputs, spec, redact)
    result = DryRun(workflow.name, redact(event.to_json()))
    try:
        result.starts = program.starts_on(event)
        if result.starts:
            program.admission(event)
    except TemplateError as error:
        program.problems.append(str(error))
    execution = Execution(
        id=_NO_ID, name=workflow.name, definition_id=workflow.hash(), event=event,
        status=ExecutionStatus.RUNNING, tenant_id=event.tenant_id,
        created_at=runtime.utc_now(),
    )  # fmt: skip
    program.walk(execution)
    result.steps = program.found(workflow.order())
    result.ending = program.found(program.in_order("finally"))
    result.output = program.rendered_output
    done = program.done(execution)
    failed = replace(execution, steps=[*map(replace, done)])
    failed.error_code, failed.error = "INTERNAL", "[error.message]"
    program.walk(failed)
    result.undoing = program.found(each for each in program.seen if each in program.undoes)
    result.recovery = program.found(program.in_order("on_failure"))
    program.walk(replace(execution, steps=done, status=ExecutionStatus.CANCELLING))
    result.cancelling = program.found(program.in_order("on_cancel"))
    result.problem = "; ".join(program.problems) or None
    return result


class _DryView(TemplateView):
    """The steps as templates see them in a dry run, with the outputs that are *shown*."""

    def __init__(
        self,
        steps: Sequence[Step],
        execution: Execution,
        runs: Mapping[StepKey, StepRun],
        shown: Mapping[str, Any],
        around: _DryView | None = None,
    ) -> None:
        super().__init__(steps, execution, runs)
        self._shown, self._around = shown, around

    def paths(self) -> dict[str, str]:
        """Return the paths of the steps that have completed, by the ids that templates use."""
        own = {
            local_id(step.id): step.id
            for step in self._steps
            if (run := self.runs.get((step.id, -1))) and run.status is StepStatus.COMPLETED
        }
        return {**(self._around.paths() if self._around else {}), **own}

    def steps(self) -> dict[str, Any]:
        """Return the steps that have ended, here and around, by the ids in their own lists."""
        own = {local_id(path): its for path, its in super().steps().items()}
        return {**(self._around.steps() if self._around else {}), **own}

    def _step(self, step: Step, run: StepRun) -> dict[str, Any]:
        found = super()._step(step, run)
        if run.status is StepStatus.COMPLETED:
            found["output"] = self._shown.get(step.id)
        return found


class _DryProgram(WorkflowProgram):
    """
    A program that answers `advance` with what is known, and notes what it was asked.

    A step that waits calls an action in it, so that nothing waits.
    """

    def __init__(
        self,
        workflow: Workflow,
        templates: TemplateEngine,
        context: BuildContext,
        given: Mapping[str, Any],
        spec: Callable[[str], OperationSpec],
        redact: Callable[[Any], Any],
    ) -> None:
        self._waits: dict[str, dict[str, Any]] = {}
        document = workflow.to_dict()
        for group in workflow.groups():
            if group in document:
                document[group] = _without_waits(document[group], "", self._waits)
        super().__init__(Workflow.from_dict(document), templates, context)
        self._templates, self._given, self._spec, self._redact = templates, given, spec, redact
        self.seen: dict[str, DryStep] = {}
        """The steps that this walk has come to, by their paths."""
        self.problems: list[str] = []
        """The problems of the workflow's own templates."""
        self.rendered_output: Any = None
        self.shown: dict[str, Any] = {}
        self.origins: dict[str, DryOutput] = {}
        self._lacks: dict[str, str] = {}  # errors of actions that there are not
        self.unclear: set[str] = set()
        # Blocks and lists of which an element stands for what is not known.
        self.unknown_items: set[str] = set()
        self._undecided: set[str] = set()
        self._inside: dict[str, list[str]] = {}
        self._all_needs: dict[str, Sequence[str]] = dict(self.needs)

    # -- the walk ----------------------------------------------------------------------------

    def walk(self, execution: Execution) -> None:
        """Bring *execution* to its end, and note its steps."""
        self.seen = {}
        now = execution.created_at or runtime.utc_now()
        turns = advance(self, Activation(execution=execution, waits={}, now=now, alone=True))
        turn = next(turns)
        while not turn.last:
            turn = turns.send(([self._outcome(call) for call in turn.calls], 0.0))

    def _outcome(self, call: StepCall) -> CallOutcome:
        output = self.shown.get(call.step.id)
        if call.step.for_each is not None:
            each = output if isinstance(output, list) else []
            output = dict(enumerate(each)).get(call.run.position)
        return CallOutcome(call, output)

    def done(self, execution: Execution) -> list[StepRun]:
        """Return the runs of the workflow's own steps: those that can't be called have failed."""
        own = {step.id for step in self.workflow.steps}
        runs = [run for run in execution.steps if top_id(run.step_id) in own]
        for run in runs:
            dry = self.seen.get(run.step_id)
            if dry is not None and dry.outcome is DryOutcome.FAILS:
                run.status = StepStatus.FAILED
        return runs

    def in_order(self, group: str) -> Sequence[str]:
        """Return the ids of a list of the workflow's own, in the order of their needs."""
        return topological_order(self.phases[group].needs)

    def found(self, ids: Iterable[str]) -> list[DryStep]:
        """Return the steps with these *ids*, each block followed by those inside it."""
        return [dry for step_id in ids for dry in self._found(step_id)]

    def _found(self, step_id: str) -> Iterator[DryStep]:
        dry = self.seen.get(step_id)
        if dry is None:  # skipped with what it needs
            step = self.workflow.step(plain_id(step_id))
            dry = DryStep(step_id, self._action(step), DryOutcome.SKIPPED, step.if_)
        if dry.outcome is not DryOutcome.SKIPPED and step_id in self._lacks:
            dry.outcome, dry.problem = DryOutcome.FAILS, dry.problem or self._lacks[step_id]
        inner = self.found(self._inside.get(step_id, ())) if step_id in self.seen else []
        failing = next((each for each in inner if each.problem), None)
        if failing is not None:
            dry.outcome, dry.problem = DryOutcome.FAILS, f"step {failing.id!r} inside it fails"
        yield dry
        yield from inner

    # -- what is decided ---------------------------------------------------------------------

    def view(self, execution: Execution, runs: Mapping[StepKey, StepRun]) -> TemplateView:
        return _DryView(self.workflow.every_step(), execution, runs, self.shown)

    def condition(self, step: Step, view: TemplateView) -> bool:
        if step.id in self.seen:  # asked again before each element, until the first has ended
            return True
        dry = self.seen[step.id] = DryStep(step.id, self._action(step), condition=step.if_)
        try:
            holds = self._holds(step, view, dry)
        except AutomateError as error:
            holds = _fail(dry, error)
        if not holds:
            dry.outcome = DryOutcome.SKIPPED
            return False
        if step.id not in self.undoes:
            self._give_output(step, dry)
        if not dry.problem and plain_id(step.id) in self._waits:
            self._note_wait(step, view, dry)
        return True

    def _holds(self, step: Step, view: TemplateView, dry: DryStep) -> bool:
        if step.skipped_with_needs and self.unclear.intersection(self._all_needs[step.id]):
            self.unclear.add(step.id)
            dry.outcome = DryOutcome.UNCLEAR
        if not isinstance(step.if_, str):
            return super().condition(step, view)
        reading = _Reading(self, step, view)
        depends = reading.depends(names_read(step.if_, bare=True))
        if not depends:
            return super().condition(step, view)
        self.unclear.add(step.id)
        dry.outcome = DryOutcome.UNCLEAR
        dry.depend(depends)
        return True

    def elements(self, step: Step, view: TemplateView) -> list[Any]:
        dry, reading, known = self.seen[step.id], _Reading(self, step, view), None
        if dry.problem:
            return []
        try:
            reading.marked(step.for_each)
            dry.depend([*reading.unknown, *reading.made_up])
            if not reading.unknown:
                known = super().elements(step, view)
        except AutomateError as error:
            _fail(dry, error)
            return []
        dry.elements = None if known is None else len(known)
        if known is None or (step.is_block and not known):
            self.unknown_items.add(step.id)
            known = ["[item]"]
        # Of a block the first element stands for all.
        shown = known[: 1 if step.is_block else MOST_CALLS]
        if dry.output_is is DryOutput.EXAMPLE:
            dry.output = self.shown[step.id] = self.shown[step.id][:1] * max(1, len(shown))
        return shown

    def goes_on(self, step: Step, view: TemplateView, names: Mapping[str, Any]) -> bool:
        return bool(names["index"] == 0)

    def is_over(self, step: Step, view: TemplateView, names: Mapping[str, Any]) -> bool:
        return True

    def case(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> str:
        dry, reading = self.seen[step.id], _Reading(self, step, view)
        reading.marked(step.switch)
        dry.depend(reading.unknown)
        any_case = next(iter(step.cases or ()))
        if reading.unknown:
            self._undecided.add(step.id)
            return any_case
        try:
            value = super().case(step, view, extra)
        except AutomateError as error:
            _fail(dry, error)
            return any_case
        if step.chosen(value) is None and step.for_each is None:
            dry.outcome, dry.output_is, dry.output = DryOutcome.SKIPPED, DryOutput.NONE, None
        return value

    def inside(
        self,
        block: Step,
        position: int,
        steps: Sequence[Step],
        view: Any,
        names: Mapping[str, Any],
    ) -> Inside:
        if self.seen[block.id].problem:
            steps = ()
        elif block.id in self._undecided:
            steps = [step for each in block.lists.values() for step in each]
        its = super().inside(block, position, steps, view, names)
        inner = _DryView(its.steps, view.execution, view.runs, self.shown, view)
        inner.names = its.view.names
        self._all_needs.update(its.needs)
        shown = {step.id for step in its.steps}
        self._inside[block.id] = [path for path in topological_order(its.needs) if path in shown]
        return replace(its, view=inner)

    def block_output(self, block: Step, inside: Inside) -> Any:
        return None

    def input(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        dry, reading = self.seen[step.id], _Reading(self, step, view)
        if dry.problem or plain_id(step.id) in self._waits:
            return {}
        try:
            value = reading.rendered(step.input, f"steps.{step.id}.input", extra)
            dry.depend([*reading.unknown, *reading.made_up])
            if step.action and not reading.unknown and not reading.made_up:
                self._spec(step.action).validate(value, called=step.action)
            dry.calls.append(DryCall(value, extra.get("index", -1)))
            dry.calls.sort(key=lambda call: call.position)
        except AutomateError as error:
            _fail(dry, error)
        return {}

    def output(self, view: TemplateView) -> Any:
        try:
            self.rendered_output = _Reading(self, None, view).rendered(
                self.workflow.output, "output", {}
            )
        except TemplateError as error:
            self.problems.append(str(error))

    def _note_wait(self, step: Step, view: TemplateView, dry: DryStep) -> None:
        if dry.outcome is DryOutcome.CALLED:
            dry.outcome = DryOutcome.WAITS
        waits = self._waits[plain_id(step.id)]
        found = {name: _without_conditions(value) for name, value in waits.items()}
        names: Mapping[str, Any] = {}
        if step.for_each is not None:
            self.unknown_items.add(step.id)
            names = element_names(view, "[item]", 0)
        elif step.loops:
            names = round_names(view, step, 0)
        reading = _Reading(self, step, view)
        try:
            dry.waits_for = reading.rendered(found, f"steps.{step.id}", names)
        except AutomateError as error:
            _fail(dry, error)
        dry.depend(reading.unknown)

    def rendered(self, tree: Any, path: str, view: TemplateView, names: Mapping[str, Any]) -> Any:
        """Render *tree*, without secrets."""
        template = self._templates.compile(tree, path)
        return self._redact(masked(self._render(template, view, names)))

    # -- outputs -----------------------------------------------------------------------------

    def _action(self, step: Step) -> str | None:
        return None if plain_id(step.id) in self._waits else step.action

    def _give_output(self, step: Step, dry: DryStep) -> None:
        given, action, schema = plain_id(step.id), self._action(step), None
        dry.output_is, dry.output = DryOutput.UNKNOWN, None
        try:
            schema = self._spec(action).output_json_schema() if action else None
        except AutomateError as error:
            self._lacks[step.id] = str(error)
        if given in self._given:
            dry.output_is, dry.output = DryOutput.GIVEN, self._redact(self._given[given])
        elif schema is not None:
            example = example_of(schema, f"steps.{step.id}.output")
            dry.output_is = DryOutput.EXAMPLE
            dry.output = example if step.for_each is None else [example]
        self.origins[step.id], self.shown[step.id] = dry.output_is, dry.output


class _Reading:
    """The outputs that a *step*'s templates read; what is *unknown* is marked, or *made up*."""

    def __init__(self, program: _DryProgram, step: Step | None, view: Any) -> None:
        self._program, self._view, self._paths = program, view, view.paths()
        path = "" if step is None else step.id
        self._undone = program.undoes.get(path)
        around = (block_of(each)[0] for each in lists_around(path))
        self.unknown_item = not program.unknown_items.isdisjoint((path, *around))
        self.unknown: list[str] = []
        self.made_up: list[str] = []

    def rendered(self, tree: Any, path: str, names: Mapping[str, Any]) -> Any:
        """Render *tree*, with a mark for each text that depends on what is not known."""
        return self._program.rendered(self.marked(tree), path, self._view, names)

    def marked(self, tree: Any) -> Any:
        """Return *tree* with the marks; what it depends on is noted."""
        if isinstance(tree, str):
            read = names_read(tree)
            self.made_up += self._outputs(read, DryOutput.EXAMPLE)
            found = [*self._outputs(read, DryOutput.UNKNOWN), *self._element(read)]
            self.unknown += [name for name in found if name not in self.unknown]
            return f"[depends on {', '.join(found)}]" if found else tree
        if isinstance(tree, Mapping):
            return {self.marked(key): self.marked(value) for key, value in tree.items()}
        return [*map(self.marked, tree)] if isinstance(tree, (list, tuple)) else tree

    def depends(self, read: NamesRead) -> list[str]:
        """Return what keeps a condition from being decided that reads this."""
        found = self._outputs(read, DryOutput.UNKNOWN, DryOutput.EXAMPLE)
        found += self._element(read)
        unclear = {self._paths.get(each) for each in read.steps} & self._program.unclear
        return found or ([f"steps.{each}.status" for each in read.steps] if unclear else [])

    def _element(self, read: NamesRead) -> list[str]:
        return [name for name in _OF_ELEMENT if self.unknown_item and name in read.names]

    def _outputs(self, read: NamesRead, *origins: DryOutput) -> list[str]:
        """Return the outputs of these *origins* that a template reads."""
        of = self._program.origins
        steps = [each for each, path in self._paths.items() if of.get(path) in origins]
        if not read.any_step:
            outputs = (
                path[1] for path in read.paths
                if path[0] == "steps" and path[1] in steps and path[2:3] in ((), ("output",))
            )  # fmt: skip
            steps = list(dict.fromkeys(outputs))
        if self._undone and of.get(self._undone) in origins and "output" in read.names:
            steps.append(self._undone)
        return [f"steps.{each}.output" for each in steps]


def _fail(dry: DryStep, error: AutomateError) -> bool:
    dry.outcome, dry.problem = DryOutcome.FAILS, dry.problem or str(error)
    return True


def _without_waits(
    steps: Sequence[Mapping[str, Any]], path: str, waits: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return *steps* with a call in the place of each wait, whose fields are put in *waits*."""
    found = []
    for step in steps:
        own, kept = f"{path}{step['id']}", dict(step)
        if not {"action", "steps", "switch"} & step.keys():
            waits[own] = {name: step[name] for name in _WAITED if name in step}
            kept = {name: value for name, value in step.items() if name not in _OF_WAITS}
            kept["action"] = _WAIT
        for name in {"steps", "default"} & step.keys():
            kept[name] = _without_waits(step[name], f"{own}.", waits)
        if "cases" in step:
            cases = step["cases"].items()
            kept["cases"] = {case: _without_waits(its, f"{own}.", waits) for case, its in cases}
        found.append(kept)
    return found


def _without_conditions(tree: Any) -> Any:
    """Return what a step waits for without what is decided only when it comes."""
    if isinstance(tree, Mapping):
        return {name: value for name, value in tree.items() if name not in ("if", "notify")}
    return tree
