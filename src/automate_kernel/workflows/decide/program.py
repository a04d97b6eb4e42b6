"""A workflow with its templates compiled, as executions of it need them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    TemplateError,
    type_name,
)
from automate_kernel.outbox.labels import checked_labels
from automate_kernel.secrets.handles import masked
from automate_kernel.secrets.logs import get_logger
from automate_kernel.templates import Condition, Template, TemplateContext, TemplateEngine
from automate_kernel.workflows.decide.admission import Admission, admission_of
from automate_kernel.workflows.decide.phases import Phase, phases_of
from automate_kernel.workflows.definition.admission import START_FIELDS
from automate_kernel.workflows.definition.approval import Approval
from automate_kernel.workflows.definition.blocks import (
    block_of,
    list_of,
    list_path,
    local_id,
    plain_id,
    within,
)
from automate_kernel.workflows.definition.model import CodeWorkflow, Step, Workflow
from automate_kernel.workflows.definition.triggers import Trigger
from automate_kernel.workflows.definition.waits import SleepUntil
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)

logger: logging.Logger = get_logger(__name__)

BuildContext = Callable[..., TemplateContext]
"""Builds the context of templates: from event, execution, steps, and other names."""


_STEPS = re.compile(r"\bsteps\b(?:\s*\.\s*(\w+)|\s*\[\s*(['\"])([^'\"]*)\2\s*\])?")
# Methods of the mapping, with which a template reads steps that it doesn't name.
_METHODS = frozenset({"get", "items", "keys", "values"})


class Reads:
    """The steps whose outputs the texts of a workflow may read, or one too many; of none, all."""

    def __init__(self, workflow: Workflow | None) -> None:
        self._all = workflow is None
        self._ids: set[str] = set()
        left: list[Any] = [] if workflow is None else [workflow.to_dict()]
        while left:
            part = left.pop()
            if isinstance(part, dict):
                if "compensate" in part:
                    # `output` is the step's own there.
                    self._ids.add(str(part.get("id")))
                if "while" in part or "until" in part:
                    # `last` and `output` are the step's own there.
                    self._ids.add(str(part.get("id")))
                if "output" not in part:
                    self._add_last(part)
                # `steps` is a field of the definition too.
                left += [value for name, value in part.items() if name not in ("id", "action")]
                left += [name for name in part if "{" in name]
            elif isinstance(part, list):
                left += part
            elif isinstance(part, str):
                self._add(part)

    def _add(self, text: str) -> None:
        for found in _STEPS.finditer(text):
            step_id = found[1] or found[3]
            self._all = self._all or step_id is None or step_id in _METHODS
            self._ids.add(step_id or "")

    def _add_last(self, block: dict[str, Any]) -> None:
        """Note the last steps inside a block, whose outputs are its own."""
        lists = [block.get("steps"), block.get("default")]
        cases = block.get("cases")
        lists += cases.values() if isinstance(cases, dict) else ()
        lasts = (steps[-1] for steps in lists if isinstance(steps, list) and steps)
        self._ids.update(str(last.get("id")) for last in lasts if isinstance(last, dict))

    def __contains__(self, path: object) -> bool:
        return self._all or (isinstance(path, str) and local_id(path) in self._ids)


class WorkflowProgram:
    """
    A compiled workflow. Compiling raises `TemplateError` that names step and field.

    *context* builds the names that templates see from the four of the specification and extra ones.
    """

    def __init__(
        self, workflow: Workflow, templates: TemplateEngine, context: BuildContext
    ) -> None:
        self.workflow = workflow
        compensations = workflow.compensations
        every = (*workflow.every_step(), *compensations.values())
        self.needs: dict[str, tuple[str, ...]] = {
            step.id: workflow.needs_of(step.id) for step in every
        }
        """The ids that each step waits for."""
        self.reads: Reads = Reads(workflow)
        """The steps whose outputs some template reads."""
        self.phases: dict[str, Phase] = phases_of(workflow)
        """Its phases, without the compensations."""
        self.undoes: dict[str, str] = {step.id: own for own, step in compensations.items()}
        """The steps that compensations undo, by the ids of those."""
        own = {step.id for step in workflow.steps}
        self.recovery: frozenset[str] = frozenset(
            [step.id for place, step in workflow.walk() if place[0] != "steps"]
        ).union(self.needs.keys() - own)
        """The ids of the steps that clean up: no failure stops them, and no timeout."""
        self._context = context
        self._inputs: dict[str, Template] = {}
        self._conditions: dict[str, Condition] = {}
        self._lists: dict[str, Template] = {}
        self._sleeps: dict[str, Template] = {}
        self._matches: dict[str, Template] = {}
        self._signals: dict[str, Condition] = {}
        self._questions: dict[str, Template] = {}
        self._notices: dict[str, Template] = {}
        self._switches: dict[str, Template] = {}
        self._outputs: dict[str, Template] = {}
        self._pauses: dict[str, Template] = {}
        self._payloads: dict[str, Template] = {}
        self._whiles: dict[str, Condition] = {}
        self._untils: dict[str, Condition] = {}
        self._needs_inside: dict[str, dict[str, tuple[str, ...]]] = {}
        self._output = templates.compile(workflow.output, path="output")
        for place, step in workflow.walk():
            self._compile(step, f"{place[0]}.{step.id}", templates)
        for step in compensations.values():
            self._compile(step, f"steps.{step.id}", templates)
        compiled = [self._output]
        for some in (
            self._inputs, self._lists, self._sleeps, self._matches, self._questions,
            self._switches, self._outputs, self._pauses, self._payloads,
        ):  # fmt: skip
            compiled += some.values()
        self._constant = {template for template in compiled if template.constant}
        self._compile_starts(workflow, templates)

    def _compile_starts(self, workflow: Workflow, templates: TemplateEngine) -> None:
        """Compile what is rendered before an execution begins."""
        self._keys = {
            field: templates.compile(key, path=f"{field}.key")
            for field in START_FIELDS
            if (key := getattr(getattr(workflow, field), "key", None)) is not None
        }
        self._labels = {
            name: templates.compile(value, path=f"labels.{name}")
            for name, value in workflow.labels.items()
        }
        self._triggers = [
            templates.condition(one.if_, path=f"trigger[{n}].if") if one.if_ is not None else None
            for n, one in enumerate(workflow.triggers)
        ]

    @cached_property
    def loops(self) -> bool:
        """True if any of its steps is done in rounds."""
        return any(step.loops for _, step in self.workflow.walk())

    @cached_property
    def awaiting(self) -> frozenset[str]:
        """The steps that wait for an event or a signal: what one has taken, no other takes."""
        steps = (step for _, step in self.workflow.walk())
        return frozenset(step.id for step in steps if step.wait_for is not None)

    @cached_property
    def continuing(self) -> tuple[str, ...]:
        """The steps that continue the execution as new."""
        steps = (step for _, step in self.workflow.walk())
        return tuple(step.id for step in steps if step.continue_as_new is not None)

    def _compile(self, step: Step, path: str, templates: TemplateEngine) -> None:
        self._inputs[step.id] = templates.compile(step.input, path=f"{path}.input")
        if step.if_ is not None:
            self._conditions[step.id] = templates.condition(step.if_, path=f"{path}.if")
        if step.for_each is not None:
            self._lists[step.id] = templates.compile(step.for_each, path=f"{path}.for_each")
        if step.loops:
            self._compile_loop(step, path, templates)
        if step.is_block:
            self._needs_inside[step.id] = step.inner_needs()
        if step.switch is not None:
            self._switches[step.id] = templates.compile(step.switch, path=f"{path}.switch")
        if step.continue_as_new is not None:
            where = f"{path}.continue_as_new"
            self._payloads[step.id] = templates.compile(step.continue_as_new, path=where)
        if step.output is not None:
            self._outputs[step.id] = templates.compile(step.output, path=f"{path}.output")
        if step.sleep is not None or step.wait_for is not None:
            self._compile_wait(step, path, templates)
        if step.approval is not None:
            self._compile_approval(step.id, step.approval, f"{path}.approval", templates)

    def _compile_loop(self, step: Step, path: str, templates: TemplateEngine) -> None:
        for name, condition in (("while", step.while_), ("until", step.until)):
            if condition is not None:
                compiled = self._whiles if name == "while" else self._untils
                compiled[step.id] = templates.condition(condition, path=f"{path}.{name}")
        if step.every is not None:
            self._pauses[step.id] = templates.compile(step.every, path=f"{path}.every")

    def _compile_wait(self, step: Step, path: str, templates: TemplateEngine) -> None:
        if step.sleep is not None:
            until = isinstance(step.sleep, SleepUntil)
            value = step.sleep.until if isinstance(step.sleep, SleepUntil) else step.sleep
            where = f"{path}.sleep.until" if until else f"{path}.sleep"
            self._sleeps[step.id] = templates.compile(value, path=where)
        if step.wait_for is not None:
            match, condition = dict(step.wait_for.match), step.wait_for.if_
            path = f"{path}.wait_for"
            self._matches[step.id] = templates.compile(match, path=f"{path}.match")
            if condition is not None:
                self._signals[step.id] = templates.condition(condition, path=f"{path}.if")

    def _compile_approval(
        self, step_id: str, approval: Approval, path: str, templates: TemplateEngine
    ) -> None:
        by = approval.by if isinstance(approval.by, str) else list(approval.by)
        question = {"title": approval.title, "description": approval.description, "by": by}
        self._questions[step_id] = templates.compile(question, path=path)
        if approval.notify is not None:
            given, path = approval.notify.input, f"{path}.notify.input"
            self._notices[step_id] = templates.compile(given, path=path)

    def _render(
        self, template: Template, view: TemplateView, extra: Mapping[str, Any] | None = None
    ) -> Any:
        # Nothing is put together that no template reads.
        if template in self._constant:
            return template.render(_NO_NAMES)
        return template.render(self._names(view, extra))

    def starts_on(self, event: Event) -> bool:
        """Return True if *event* pulls a trigger of this workflow whose condition holds."""
        return any(self.pulls(trigger, event) for trigger in self.workflow.triggers_for(event))

    def pulls(self, trigger: Trigger, event: Event) -> bool:
        """Return True if the condition of *trigger*, which *event* matches, holds."""
        for known, condition in zip(self.workflow.triggers, self._triggers, strict=True):
            if condition is not None and known == trigger:
                return condition.test(self._context(event.to_json(), {}, {}, {}))
        return True

    def admission(self, event: Event) -> Admission | None:
        """Return the conditions on a start for *event*; None for a workflow without any."""
        names = self._context(event.to_json(), {}, {}, {}) if self._keys else _NO_NAMES
        # No secret gets into a key, not even as its hash.
        keys = {field: masked(key.render(names)) for field, key in self._keys.items()}
        return admission_of(self.workflow, event.tenant_id, keys)

    def labels(self, event: Event) -> dict[str, str]:
        """
        Return the labels of an execution that *event* starts.

        What can't be a label is left out with a warning: no work is lost for want of a label.
        """
        names = self._context(event.to_json(), {}, {}, {}) if self._labels else _NO_NAMES
        found: dict[str, str] = {}
        for name, template in self._labels.items():
            try:
                value = template.render(names)
                if value is None or value == "":
                    continue
                if masked(value) != value:
                    raise PayloadError("it is a secret")
                found |= checked_labels({name: value})
            except AutomateError as error:
                logger.warning(
                    "an execution of workflow %r has no label %r: %s",
                    self.workflow.name, name, error.message,
                )  # fmt: skip
        return found

    def view(self, execution: Execution, runs: Mapping[StepKey, StepRun]) -> TemplateView:
        """Return *execution* as the templates of this workflow see it; *runs* are its steps."""
        return TemplateView(self.workflow.every_step(), execution, runs)

    def condition(self, step: Step, view: TemplateView) -> bool:
        """Return True if the step's ``if`` holds now."""
        condition = self._conditions.get(plain_id(step.id))
        return condition is None or condition.test(self._names(view))

    def elements(self, step: Step, view: TemplateView) -> list[Any]:
        """Render the list of the step's ``for_each``; raises `TemplateError` for anything else."""
        value = self._render(self._lists[plain_id(step.id)], view)
        if not isinstance(value, list):
            raise TemplateError(
                f"steps.{step.id}.for_each gave {type_name(value)}, not a list",
                hint="give a list, or a template that results in one",
            )
        return value

    def goes_on(self, step: Step, view: TemplateView, names: Mapping[str, Any]) -> bool:
        """Return True if the ``while`` of a loop lets its next round begin."""
        condition = self._whiles.get(plain_id(step.id))
        return condition is None or condition.test(self._names(view, names))

    def is_over(self, step: Step, view: TemplateView, names: Mapping[str, Any]) -> bool:
        """Return True if the ``until`` of a loop ends it after a round."""
        condition = self._untils.get(plain_id(step.id))
        return condition is not None and condition.test(self._names(view, names))

    def pause(self, step: Step, view: TemplateView, names: Mapping[str, Any]) -> float:
        """Return the seconds between two rounds of a loop."""
        template = self._pauses.get(plain_id(step.id))
        if template is None:
            return 0.0
        try:
            return parse_duration(self._render(template, view, names))
        except (ValueError, OverflowError) as error:
            text = f"steps.{step.id}.every: {error}"
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, text) from None

    def payload(self, step: Step, view: TemplateView) -> Any:
        """Render the payload of the execution that follows this one."""
        return self._render(self._payloads[plain_id(step.id)], view)

    def inside(
        self,
        block: Step,
        position: int,
        steps: Sequence[Step],
        view: TemplateView,
        names: Mapping[str, Any],
    ) -> Inside:
        """
        Return the *steps* inside a block, as they run for one element or round (or -1).

        *view* is what the block itself sees, and *names* are those of the element.
        """
        path = list_path(block.id, position)
        inner = [step.model_copy(update={"id": f"{path}.{step.id}"}) for step in steps]
        needs = within(path, self._needs_inside[plain_id(block.id)])
        return Inside(path, inner, needs, InnerView(view, inner, names or view.names))

    def case(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> str:
        """Render the value of a switch, as text; raises `TemplateError` for a list or mapping."""
        value = self._render(self._switches[plain_id(step.id)], view, extra)
        if isinstance(value, (list, dict)):
            raise TemplateError(
                f"steps.{step.id}.switch gave {type_name(value)}", hint="give text or a number"
            )
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return str(masked(value))

    def output_ref(self, block: Step, inside: Inside) -> str | None:
        """Return the key in the output store of a block's output, if that of its last step is."""
        if plain_id(block.id) in self._outputs or not inside.steps:
            return None
        last = inside.view.runs.get((inside.steps[-1].id, -1))
        return None if last is None else last.output_ref

    def block_output(self, block: Step, inside: Inside) -> Any:
        """Render the output of a block whose steps have ended."""
        template = self._outputs.get(plain_id(block.id))
        if template is not None:
            return masked(self._render(template, inside.view))
        ended = inside.view.steps()
        return ended[local_id(inside.steps[-1].id)]["output"] if inside.steps else None

    def place(
        self, execution: Execution, runs: Mapping[StepKey, StepRun], step_id: str
    ) -> tuple[Step, TemplateView]:
        """
        Return the step at a path of *execution*, and what its templates see.

        Raises `WorkflowError` for an unknown step, and ``NOT_FOUND`` for an element of a block that
        does not exist.
        """
        path = list_of(step_id) if step_id not in self.undoes else ""
        if not path:
            return self.workflow.step(step_id), self.view(execution, runs)
        self.workflow.step(step_id)
        block_id, position = block_of(path)
        block, view = self.place(execution, runs, block_id)
        if (position >= 0) is not block.repeats:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no step {step_id!r}")
        names = self.element(block, view, position)
        lists = block.lists.values()
        own = local_id(step_id)
        steps = next(each for each in lists if any(step.id == own for step in each))
        inside = self.inside(block, position, steps, view, names)
        return next(step for step in inside.steps if step.id == step_id), inside.view

    def element(self, step: Step, view: TemplateView, position: int) -> dict[str, Any]:
        """
        Return the names that one element of a step sees, or one round; none at -1.

        Raises ``NOT_FOUND`` if there is no such element, or the round before is forgotten.
        """
        if position < 0:
            return {}
        if step.loops:
            if position and (step.id, position - 1) not in view.runs:
                text = f"round {position} of step {step.id!r} has not begun, or is not kept"
                raise AutomateError(ErrorCodes.NOT_FOUND, text)
            return round_names(view, step, position)
        elements = self.elements(step, view) if step.for_each is not None else []
        if position >= len(elements):
            text = f"step {step.id!r} has no element {position}"
            raise AutomateError(ErrorCodes.NOT_FOUND, text)
        return element_names(view, elements[position], position)

    def input(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Render the input of one call; secrets in it are still handles."""
        return self._render(self._inputs[plain_id(step.id)], view, extra)

    def sleep(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Render the duration of a sleep, or the time that it lasts until."""
        return self._render(self._sleeps[plain_id(step.id)], view, extra)

    def match(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Render the values that an awaited event must have, by its fields."""
        found: dict[str, Any] = self._render(self._matches[plain_id(step.id)], view, extra)
        return found

    def signal_fits(
        self, step: Step, view: TemplateView, extra: Mapping[str, Any], event: Event
    ) -> bool:
        """Return True if the condition of the step's ``wait_for`` holds for *event*."""
        condition = self._signals.get(plain_id(step.id))
        if condition is None:
            return True
        return condition.test(self._names(view, {**extra, "signal": event.to_json()}))

    def question(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Render title, description and ``by`` of the step's approval."""
        found: dict[str, Any] = self._render(self._questions[plain_id(step.id)], view, extra)
        return found

    def notice(self, step: Step, view: TemplateView, extra: Mapping[str, Any]) -> Any:
        """Render the input of the call that tells of the step's approval."""
        return self._render(self._notices[plain_id(step.id)], view, extra)

    def output(self, view: TemplateView) -> Any:
        """Render the output of the execution."""
        return self._render(self._output, view)

    def _names(self, view: TemplateView, extra: Mapping[str, Any] | None = None) -> TemplateContext:
        execution = view.execution
        names = {**view.names, **(extra or {})}
        if execution.error_code is not None:
            names["error"] = {"code": execution.error_code, "message": execution.error}
        elif execution.status in _CANCEL:
            names["error"] = _CANCELLED
        elif self.workflow.finally_:
            names["error"] = None
        return self._context(view.event, view.about, view.steps(), names)


_NO_NAMES = TemplateContext()
_CANCEL = (ExecutionStatus.CANCELLING, ExecutionStatus.CANCELLED)
_CANCELLED = {"code": ErrorCodes.CANCELLED.value, "message": "the execution was cancelled"}


class TemplateView:
    """
    An execution as templates see it.

    A step that has ended never changes, so its part is built once, however many elements read it.
    """

    names: Mapping[str, Any] = MappingProxyType({})
    """The names of the element of a block that it is inside."""

    def __init__(
        self, steps: Sequence[Step], execution: Execution, runs: Mapping[StepKey, StepRun]
    ) -> None:
        self.execution: Execution = execution
        self.runs: Mapping[StepKey, StepRun] = runs
        self._steps = steps
        self._ended: dict[str, dict[str, Any]] = {}
        self.event: dict[str, Any] = execution.event.to_json()
        self.about: dict[str, Any] = {
            "id": execution.id,
            "name": execution.name,
            "tenant_id": execution.tenant_id,
            "created_at": execution.created_at and execution.created_at.isoformat(),
        }

    def steps(self) -> dict[str, Any]:
        """Return the steps that have ended, by their own ids; templates see no others."""
        if len(self._ended) < len(self._steps):
            for step in self._steps:
                run = self.runs.get((step.id, -1))
                if run is not None and run.status.finished and step.id not in self._ended:
                    self._ended[step.id] = self._step(step, run)
        # In the workflow's order, whichever ended first: a crash must change nothing.
        return {step.id: self._ended[step.id] for step in self._steps if step.id in self._ended}

    def _step(self, step: Step, run: StepRun) -> dict[str, Any]:
        output = run.output
        if step.for_each is not None and run.status is StepStatus.COMPLETED:
            output = []
            while (one := self.runs.get((step.id, len(output)))) is not None:
                output.append(one.output)
        return {"output": output, "status": run.status.value, "error": run.error}


class InnerView(TemplateView):
    """An execution as templates inside a block see it, which is *around* them."""

    def __init__(
        self, around: TemplateView, steps: Sequence[Step], names: Mapping[str, Any]
    ) -> None:
        self.execution, self.runs = around.execution, around.runs
        self.event, self.about = around.event, around.about
        self.names = names
        self._around, self._steps, self._ended = around, steps, {}

    def steps(self) -> dict[str, Any]:
        """Return the steps that have ended, here and around, by the ids in their own lists."""
        own = {local_id(path): its for path, its in super().steps().items()}
        return {**self._around.steps(), **own}


def element_names(
    view: TemplateView, item: Any, position: int, name: str = "item"
) -> dict[str, Any]:
    """Return the names that the templates of one element see, beside those of *view*."""
    names = {name: item, "index": position}
    return {**names, "outer": view.names} if view.names else names


def round_names(view: TemplateView, step: Step, number: int) -> dict[str, Any]:
    """Return the names that the templates of one round of a loop see, beside those of *view*."""
    last = view.runs.get((step.id, number - 1)) if number else None
    return element_names(view, last and last.output, number, "last")


@dataclass(frozen=True, slots=True)
class Inside:
    """The inside of a block for one element: the path, the steps, their needs and their view."""

    path: str
    steps: Sequence[Step]
    needs: Mapping[str, Sequence[str]]
    view: TemplateView


def step_input(
    program: WorkflowProgram, execution: Execution, step_id: str, position: int = -1
) -> Any:
    """
    Render the input of one step, or of one element of its ``for_each``.

    The input is not stored. It follows from the definition, the event and the outputs of the steps
    before. Secrets stand in it as ``[secret KEY]``. Other values that a template reads (the time,
    an environment variable) may have been different at the time of the call. Raises
    `TemplateError`, or ``NOT_FOUND`` for an element that does not exist.
    """
    if isinstance(program.workflow, CodeWorkflow):
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            "the inputs of a workflow in code follow from its code, and are not kept",
        )
    runs = {run.key: run for run in execution.steps}
    step, view = program.place(execution, runs, step_id)
    extra = program.element(step, view, position)
    undone = runs.get((step_id.removesuffix(".compensate"), position))
    if step_id.endswith(".compensate") and undone is not None:
        extra["output"] = undone.output
    return masked(program.input(step, view, extra))
