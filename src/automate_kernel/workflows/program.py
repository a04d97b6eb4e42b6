"""A workflow with its templates compiled, as executions of it need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from automate_kernel.errors import TemplateError
from automate_kernel.workflows.execution import Execution, StepRun, StepStatus
from automate_kernel.workflows.model import Step, Workflow

__all__ = ["Program", "Templates"]


class Templates(Protocol):
    """What compiles the templates of a workflow (`automate_kernel.templates.TemplateEngine`)."""

    def compile(self, value: Any, path: str = "") -> Any:
        """A compiled tree, whose ``render`` takes a context."""

    def condition(self, text: Any, path: str = "") -> Any:
        """A compiled condition, whose ``test`` takes a context and gives a bool."""


class Program:
    """
    A compiled workflow. Compiling raises `TemplateError` that names step and field.

    *context* builds what templates see from the four names of the specification and extra ones.
    """

    def __init__(self, workflow: Workflow, templates: Templates, context: Any) -> None:
        self.workflow = workflow
        self._context = context
        self._inputs: dict[str, Any] = {}
        self._conditions: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        self._output = templates.compile(workflow.output, path="output")
        for group, steps in (("steps", workflow.steps), ("on_failure", workflow.on_failure)):
            for step in steps:
                self._compile(step, f"{group}.{step.id}", templates)
        self._triggers = [
            templates.condition(one.if_, path=f"trigger[{n}].if") if one.if_ is not None else None
            for n, one in enumerate(workflow.triggers)
        ]

    def _compile(self, step: Step, path: str, templates: Templates) -> None:
        self._inputs[step.id] = templates.compile(step.input, path=f"{path}.input")
        if step.if_ is not None:
            self._conditions[step.id] = templates.condition(step.if_, path=f"{path}.if")
        if step.for_each is not None:
            self._lists[step.id] = templates.compile(step.for_each, path=f"{path}.for_each")

    def starts_on(self, event: Any) -> bool:
        """Whether *event* pulls a trigger of this workflow whose condition holds."""
        matching = self.workflow.triggers_for(event)
        context = self._context(event.to_json(), {}, {}, {})
        for trigger, condition in zip(self.workflow.triggers, self._triggers, strict=True):
            if trigger in matching and (condition is None or condition.test(context)):
                return True
        return False

    def condition(self, step: Step, execution: Execution) -> bool:
        """Whether the step's ``if`` holds now."""
        condition = self._conditions.get(step.id)
        return condition is None or bool(condition.test(self._seen(execution)))

    def elements(self, step: Step, execution: Execution) -> list[Any]:
        """What the step's ``for_each`` goes over; raises `TemplateError` if it is no list."""
        value = self._lists[step.id].render(self._seen(execution))
        if not isinstance(value, list):
            raise TemplateError(
                f"steps.{step.id}.for_each gave a {type(value).__name__}, not a list",
                hint="give a list, or a template that results in one",
            )
        return value

    def input(self, step: Step, execution: Execution, extra: Mapping[str, Any]) -> Any:
        """The input of one call; secrets in it are still handles."""
        return self._inputs[step.id].render(self._seen(execution, extra))

    def output(self, execution: Execution) -> Any:
        """What the execution gives back."""
        return self._output.render(self._seen(execution))

    def _seen(self, execution: Execution, extra: Mapping[str, Any] | None = None) -> Any:
        steps = {
            step.id: seen
            for step in (*self.workflow.steps, *self.workflow.on_failure)
            if (seen := _seen_step(step, execution)) is not None
        }
        names = dict(extra or {})
        if execution.error_code is not None:
            names["error"] = {"code": execution.error_code, "message": execution.error}
        about = {
            "id": execution.id,
            "name": execution.name,
            "tenant_id": execution.tenant_id,
            "created_at": execution.created_at and execution.created_at.isoformat(),
        }
        return self._context(execution.event.to_json(), about, steps, names)


def _seen_step(step: Step, execution: Execution) -> dict[str, Any] | None:
    """How templates see a step: nothing at all before it has ended."""
    run = execution.step(step.id)
    if run is None or not run.status.finished:
        return None
    output = run.output
    if step.for_each is not None and run.status is StepStatus.COMPLETED:
        output = [one.output for one in _elements(step, execution)]
    return {"output": output, "status": run.status.value, "error": run.error}


def _elements(step: Step, execution: Execution) -> list[StepRun]:
    return [run for run in execution.runs_of(step.id) if run.position >= 0]
