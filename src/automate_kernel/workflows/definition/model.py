"""
The model of a workflow: what starts it, its steps, and what happens when one fails.

YAML, JSON and Python build these same objects. `automate_kernel.workflows.definition.loader` reads
the first two, with a line for each problem. They are frozen: a workflow that runs can't change.

**Order.** A step without ``needs`` starts when the step before it in the list has ended, even if
that one was skipped. ``needs: [a, b]`` waits for those steps instead, and ``needs: []`` for none.

**Skipping.** A step whose ``if`` is false is SKIPPED. Steps that name it in ``needs`` are skipped
with it, unless they have an ``if`` of their own: that one then decides alone, and may look at
``steps.a.status``. The output of a skipped step is null.

**Failing.** ``timeout`` bounds each attempt. A failed attempt is tried again as ``retry`` says.
Only when no attempt is left does ``on_failure`` of the step apply: ``fail`` (the default) starts
nothing more and fails the workflow; ``continue`` leaves the step FAILED with null as its output,
and goes on as if it had completed.

**Recovery.** When the workflow fails, the steps under its own ``on_failure`` run; they see
``error`` beside the usual names. The workflow ends FAILED whatever they do.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from automate_kernel.errors import WorkflowError, did_you_mean
from automate_kernel.workflows.definition.duration import Duration
from automate_kernel.workflows.definition.fields import (
    Condition,
    Identifier,
    JsonTree,
    OperationName,
    Part,
    PlainText,
    RetryPolicy,
    StepInput,
)
from automate_kernel.workflows.definition.structure import (
    effective_needs,
    step_problems,
    topological_order,
)
from automate_kernel.workflows.definition.triggers import (
    EventTrigger,
    ManualTrigger,
    ScheduleTrigger,
    Trigger,
    WebhookTrigger,
    trigger_types,
)
from automate_kernel.workflows.engine.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)

__all__ = [
    "Event",
    "EventTrigger",
    "Execution",
    "ExecutionStatus",
    "ManualTrigger",
    "RetryPolicy",
    "ScheduleTrigger",
    "Step",
    "StepRun",
    "StepStatus",
    "Trigger",
    "WebhookTrigger",
    "Workflow",
    "published",
    "workflow_json_schema",
]


def _listed(value: Any) -> Any:
    """A single value as a list of one, which is how definitions may write it."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Step(Part):
    """One call of an action, once or for each element of a list."""

    id: Identifier
    """What other steps call it: ``steps.<id>.output``."""
    action: OperationName
    """``connector.action``, ``provider.capability``, or an action of the host."""
    name: PlainText | None = None
    """What people call it."""
    input: StepInput = Field(default_factory=dict)
    """The action's fields; any text in it may be a template."""
    needs: Annotated[Sequence[str], AfterValidator(tuple)] | None = None
    """The steps to wait for; None means the one before, an empty list none."""
    if_: Condition | None = Field(default=None, validation_alias="if", serialization_alias="if")
    """Whether to run at all, decided when its turn comes."""
    for_each: JsonTree = None
    """A list, or a template that gives one: the action is called per ``item`` (at ``index``), and
    ``steps.<id>.output`` is the list of outputs, in the same order."""
    concurrency: int = Field(default=1, ge=1, le=1000)
    """How many elements of ``for_each`` may run at once."""
    retry: RetryPolicy = RetryPolicy(attempts=1)
    """Without it there is one attempt."""
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    """Seconds that one attempt may take; None leaves it to the worker."""
    on_failure: Literal["fail", "continue"] = "fail"
    """What the workflow does once no attempt is left."""

    @model_validator(mode="after")
    def _for_each_fits(self) -> Step:
        if self.for_each is None and "concurrency" in self.model_fields_set:
            raise PydanticCustomError(
                "step",
                "concurrency means nothing without for_each",
                {"hint": "add for_each, or take concurrency out"},
            )
        if not (self.for_each is None or isinstance(self.for_each, list) or _templated(self)):
            raise PydanticCustomError(
                "step",
                "for_each is neither a list nor a template that gives one",
                {"hint": 'for example for_each: "{{ event.payload.lines }}"'},
            )
        return self

    @property
    def skipped_with_needs(self) -> bool:
        """Whether it is skipped when one of its needs was: they are explicit, and it has no if."""
        return self.needs is not None and self.if_ is None


def _templated(step: Step) -> bool:
    return isinstance(step.for_each, str) and "{{" in step.for_each


if TYPE_CHECKING:
    _Triggers = Trigger | Sequence[Trigger]
else:
    # To a type checker one trigger will do; validation always sees a list, because the errors of
    # a union would be told once per branch.
    _Triggers = Annotated[
        Sequence[Trigger],
        BeforeValidator(_listed),
        Field(min_length=1),
        AfterValidator(tuple),
    ]


class Workflow(Part):
    """A workflow: its triggers, its steps, and what to do when it fails."""

    name: PlainText
    title: PlainText | None = None
    description: str | None = None
    version: int | None = Field(default=None, ge=1)
    """The author's own count. Executions are pinned to `hash`, whatever this says."""
    trigger: _Triggers
    """What starts it: one trigger, or a list of which any one does."""
    steps: Annotated[Sequence[Step], Field(min_length=1), AfterValidator(tuple)]
    on_failure: Annotated[Sequence[Step], AfterValidator(tuple)] = ()
    """Steps that run when the workflow has failed."""
    output: JsonTree = None
    """A template for what the execution gives back."""
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    """Seconds that an execution may take in all, waits included."""
    env: Annotated[Sequence[str], AfterValidator(tuple)] = ()
    """The environment variables that its templates read; the host must allow them as well."""

    _by_id: dict[str, Step] = PrivateAttr(default_factory=dict)
    _needs: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _steps_fit(self) -> Workflow:
        problems = step_problems(
            [(("steps", n), step.id, step.needs) for n, step in enumerate(self.steps)],
            [(("on_failure", n), step.id, step.needs) for n, step in enumerate(self.on_failure)],
        )
        if problems:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError(
                            "steps",
                            "{problem}",
                            {"problem": each.message, "hint": each.hint, "see": each.see},
                        ),
                        loc=each.path,
                        input=None,
                    )
                    for each in problems
                ],
                hide_input=True,
            )
        self._by_id.update({step.id: step for step in (*self.steps, *self.on_failure)})
        for group in (self.steps, self.on_failure):
            self._needs.update(effective_needs([(step.id, step.needs) for step in group]))
        return self

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """All that start it, also if there is one only."""
        return tuple(_listed(self.trigger))

    def triggers_for(self, event: Event) -> tuple[Trigger, ...]:
        """
        The triggers that *event* pulls, before their ``if`` is looked at.

        A manual or scheduled event is for the one workflow that it names.
        """
        return tuple(each for each in self.triggers if each.matches(event, self.name))

    def step(self, step_id: str) -> Step:
        """The step called *step_id*, one under on_failure too; raises `WorkflowError`."""
        try:
            return self._by_id[step_id]
        except KeyError:
            raise WorkflowError(
                f"workflow {self.name!r} has no step {step_id!r}",
                hint=did_you_mean(step_id, self._by_id)
                or f"it has {', '.join(map(repr, self._by_id))}",
            ) from None

    def needs_of(self, step_id: str) -> tuple[str, ...]:
        """What the step waits for, with the step before it filled in where it names no needs."""
        return self._needs[self.step(step_id).id]

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Every step's id (without those under on_failure) and the ids that it waits for."""
        return {step.id: self._needs[step.id] for step in self.steps}

    def order(self) -> tuple[str, ...]:
        """The ids of the steps, each after all that it needs, otherwise as they are listed."""
        return topological_order(self.graph())

    def followers(self, step_id: str) -> tuple[str, ...]:
        """
        The step called *step_id*, and all that wait for it or for one that does, in order.

        Raises `WorkflowError` if it is none of the steps, or one under on_failure.
        """
        if step_id not in {step.id for step in self.steps}:
            known = [step.id for step in self.steps]
            raise WorkflowError(
                f"workflow {self.name!r} has no step {step_id!r} to go on from",
                hint=did_you_mean(step_id, known) or f"it has {', '.join(map(repr, known))}",
            )
        found = {step_id}
        for each in self.order():
            if found.intersection(self._needs[each]):
                found.add(each)
        return tuple(each for each in self.order() if each in found)

    def recovery_order(self) -> tuple[str, ...]:
        """As `order`, of the steps under on_failure."""
        return topological_order({step.id: self._needs[step.id] for step in self.on_failure})

    def to_dict(self) -> dict[str, Any]:
        """The definition as a JSON object, without what is as by default."""
        data = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if len(data["trigger"]) == 1:
            data["trigger"] = data["trigger"][0]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workflow:
        """
        The workflow that `to_dict` wrote.

        For definitions that were checked already. `loads` explains what is wrong with others.
        """
        return cls.model_validate(dict(data))

    def hash(self) -> str:
        """SHA-256 (hex) of what the workflow says, however it was written down."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def workflow_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition, for editors and other languages."""
    from automate_kernel.workflows.definition.model import published

    return published(Workflow)


def published(workflow: type[BaseModel]) -> dict[str, Any]:
    """The schema of *workflow*, with the fields' docstrings as descriptions."""
    schema = workflow.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for model in _models(workflow):
        own = schema if model is workflow else definitions[model.__name__]
        for name, text in _field_docs(model).items():
            field = model.model_fields.get(name)
            if field is not None:
                own["properties"][field.validation_alias or name]["description"] = text
    for name, trigger in trigger_types().items():
        own = definitions[trigger.__name__]
        # In Python the class says it; in a definition nothing else does.
        own["required"] = ["type", *own.get("required", ())]
        own["properties"]["type"] = {"const": name, "type": "string"}
    many = schema["properties"]["trigger"]
    about = {key: many.pop(key) for key in ("title", "description") if key in many}
    schema["properties"]["trigger"] = {**about, "anyOf": [many["items"], many]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _models(workflow: type[BaseModel]) -> Iterator[type[BaseModel]]:
    from automate_kernel.workflows.definition.model import Step

    yield from (workflow, Step, RetryPolicy)
    yield from trigger_types().values()


def _field_docs(model: type[BaseModel]) -> dict[str, str]:
    """
    The docstring under each field.

    pydantic would collect them as well, but when the class is made: that costs every import of
    the model half again as much, for what only this schema shows.
    """
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Part) or base is Part:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except OSError:  # no source is installed
            continue
        body = getattr(tree.body[0], "body", [])
        for statement, following in pairwise(body):
            name = getattr(getattr(statement, "target", None), "id", None)
            text = getattr(getattr(following, "value", None), "value", None)
            if isinstance(following, ast.Expr) and isinstance(text, str) and name:
                docs[name] = inspect.cleandoc(text).replace("``", "`")
    return docs
