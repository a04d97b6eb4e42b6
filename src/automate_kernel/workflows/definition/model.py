"""
The model of a workflow: its triggers, its steps, and the consequences of a failure.

YAML, JSON and Python build these same objects. `automate_kernel.workflows.definition.loader` reads
the first two, with a line for each problem. They are frozen: a workflow that runs can't change.

**Order.** A step without ``needs`` starts when the step before it in the list has ended, even if
that step was skipped. ``needs: [a, b]`` waits for those steps instead, and ``needs: []`` for none.

**Skipping.** A step whose ``if`` is false is SKIPPED. Steps that name it in ``needs`` are skipped
with it, unless they have an ``if`` of their own. That condition then decides alone, and may look at
``steps.a.status``. The output of a skipped step is null.

**Failing.** ``timeout`` bounds each attempt. A failed attempt is tried again as ``retry`` says.
Only when no attempt is left does ``on_failure`` of the step apply: ``fail`` (the default) starts
nothing more and fails the workflow; ``continue`` leaves the step FAILED with null as its output,
and goes on as if it had completed.

**Blocks.** A step with ``steps`` runs these in the same execution: once, or for each element of
its ``for_each``. A step with ``switch`` runs one of several lists.

**Loops.** A step with ``while`` or ``until`` is done in rounds, one after the other. A condition
decides once per round. ``continue_as_new`` lets the execution end, and another one of the same
workflow begin with new input.

**Cleaning up.** When the workflow fails, it is undone: the ``compensate`` of each step that has
COMPLETED is called, in the reverse order of the steps. Then the steps under its own ``on_failure``
run, and it ends FAILED in any case. When it is cancelled, it is undone too; then the steps under
``on_cancel`` run. The steps under ``finally`` run at the end of every execution, however it ends.
All of them see ``error`` beside the usual names.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from pydantic_core import InitErrorDetails

from automate_kernel.base.durations import OptionalDuration
from automate_kernel.base.errors import WorkflowError, did_you_mean
from automate_kernel.outbox.item import MAX_CONCURRENCY
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.definition.admission import (
    START_FIELDS,
    ConcurrencyField,
    Debounce,
    StartRate,
)
from automate_kernel.workflows.definition.approval import Approval, FormField, Notice
from automate_kernel.workflows.definition.blocks import (
    INDEX_WIDTH,
    MOST_DEPTH,
    MOST_PATH,
    block_of,
    list_of,
    lists_around,
    local_id,
    plain_id,
    top_id,
)
from automate_kernel.workflows.definition.fields import (
    Condition,
    DefinitionModel,
    Identifier,
    JsonTree,
    OperationName,
    PlainText,
    RetryPolicy,
    StepInput,
    refused,
)
from automate_kernel.workflows.definition.labels import LabelTexts
from automate_kernel.workflows.definition.structure import (
    STEP_GROUPS,
    DefinitionProblem,
    FieldPath,
    effective_needs,
    step_problems,
    topological_order,
)
from automate_kernel.workflows.definition.triggers import TRIGGERS, ScheduleTrigger, Trigger
from automate_kernel.workflows.definition.waits import Pause, Sleep, WaitFor
from automate_kernel.workflows.execution import Event


def _listed(value: Any) -> Any:
    """Return a single value as a list of one: definitions may write it without brackets."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Compensation(DefinitionModel):
    """
    The call that undoes a step, once the step has COMPLETED and its workflow fails or is cancelled.

    A step with ``for_each`` has it called for each element that has COMPLETED.
    """

    action: OperationName
    """``connector.action``, ``provider.capability``, or an action of the host."""
    input: StepInput = Field(default_factory=dict)
    """The action's fields. Templates see the ``output`` of the call to undo, with ``for_each`` its
    ``item`` and ``index``, the ``error``, and the steps that have ended."""
    # Not validated: that would build the model before somebody needs it.
    retry: RetryPolicy = RetryPolicy.model_construct(attempts=1)
    """The policy for failed attempts; without it there is one attempt."""
    timeout: OptionalDuration = None  # type: ignore[assignment]
    """Seconds that one attempt may take; None leaves it to the worker."""
    heartbeat: OptionalDuration = None  # type: ignore[assignment]
    """Seconds that one attempt may go on without reporting progress; None is for ever."""
    runs_on: PlainText | None = None
    """The executor that makes the call; see `Step.runs_on`."""


KINDS = (
    "action", "sleep", "wait_for", "approval", "workflow", "steps", "switch", "continue_as_new",
)  # fmt: skip
"""The fields of which a step has exactly one."""

NO_KIND = ("is missing", "add it: action: http.post")
"""The problem of a step that has none of them, and its hint; it stands at ``action``."""

_WAITS = ("sleep", "wait_for", "approval", "continue_as_new")
_BLOCKS = ("steps", "switch")
# What means nothing to a step that only waits, or is a block.
_OF_CALLS = ("input", "retry", "timeout")
# What means nothing without the field after it.
_BELONGS = (
    ("wait", ("workflow",)), ("cases", ("switch",)), ("default", ("switch",)),
    ("output", _BLOCKS), ("heartbeat", ("action",)), ("runs_on", ("action",)),
)  # fmt: skip


# What means nothing without rounds.
_OF_LOOPS = ("every", "max_rounds", "on_max_rounds")
MOST_ROUNDS = 1_000_000
"""So many rounds a loop may be allowed at most."""


_CaseSteps = Annotated[Sequence["Step"], Field(min_length=1), AfterValidator(tuple)]


class Step(DefinitionModel):
    """
    A call of an action, a wait, a sub-workflow or a block of steps.

    It has exactly one of `action`, `sleep`, `wait_for`, `approval`, `workflow`, `steps`, `switch`
    and `continue_as_new`. With `for_each` it is done for each element of a list, with `while` or
    `until` in rounds.
    """

    id: Identifier
    """Its name in other steps: ``steps.<id>.output``."""
    action: OperationName | None = None
    """``connector.action``, ``provider.capability``, or an action of the host."""
    sleep: Sleep | None = None
    """A duration, a template that gives one, or ``{until: …}``: a time with an offset from UTC."""
    wait_for: WaitFor | None = None
    """An event or a signal to wait for; it is the step's output."""
    approval: Approval | None = None
    """A question to people; the decision is the step's output."""
    workflow: PlainText | None = None
    """The name of a workflow to start, with `input` as the payload of its event."""
    wait: bool = True
    """With `workflow`: wait for its end, and take its output. False goes on at once."""
    steps: Annotated[Sequence[Step], Field(min_length=1), AfterValidator(tuple)] | None = None
    """The steps of a block. Other steps see the block's output only."""
    switch: Condition | None = None
    """A template whose value chooses one of *cases*."""
    cases: Annotated[Mapping[PlainText, _CaseSteps], Field(min_length=1)] | None = None
    """With `switch`: the steps to run, by the value as text. Their ids differ in all cases."""
    default: Annotated[Sequence[Step], Field(min_length=1), AfterValidator(tuple)] | None = None
    """With `switch`: the steps to run for any other value. Without them the step is SKIPPED."""
    continue_as_new: StepInput | None = None
    """The payload of the execution that follows this one. The step is the last of its workflow."""
    output: JsonTree = None
    """The output of a block, a template that sees its steps; without it, that of its last step."""
    name: PlainText | None = None
    """Its name for people."""
    input: StepInput = Field(default_factory=dict)
    """The action's fields; any text in it may be a template."""
    needs: Annotated[Sequence[str], AfterValidator(tuple)] | None = None
    """The steps to wait for; None means the step before, an empty list no step."""
    if_: Condition | None = Field(default=None, validation_alias="if", serialization_alias="if")
    """The condition to run at all, decided when its turn comes."""
    for_each: JsonTree = None
    """A list, or a template that gives one: the action is called per ``item`` (at ``index``), and
    ``steps.<id>.output`` is the list of outputs, in the same order."""
    concurrency: int = Field(default=1, ge=1, le=1000)
    """The number of elements of ``for_each`` that may run at once."""
    while_: Condition | None = Field(
        default=None, validation_alias="while", serialization_alias="while"
    )
    """A condition that is decided before each round, and lets it begin. It sees the round's number
    as ``index``, from 0, and the output of the round before as ``last``."""
    until: Condition | None = None
    """A condition that is decided after each round, and ends the loop. It sees ``index``, ``last``,
    the round's own ``output`` and, of a block, the steps inside it."""
    every: Pause | None = None
    """The pause between two rounds: a duration, or a template that gives one."""
    max_rounds: int = Field(default=1000, ge=1, le=MOST_ROUNDS)
    """The number of rounds after which a loop that has not ended ends as *on_max_rounds* says."""
    on_max_rounds: Literal["fail", "continue"] = "fail"
    """``fail`` lets the step fail; with ``continue`` it completes with the last round's output."""
    # Not validated: that would build the model before somebody needs it.
    retry: RetryPolicy = RetryPolicy.model_construct(attempts=1)
    """The policy for failed attempts; without it there is one attempt."""
    timeout: OptionalDuration = None  # type: ignore[assignment]
    """Seconds that one attempt may take; None leaves it to the worker."""
    heartbeat: OptionalDuration = None  # type: ignore[assignment]
    """With `action`: seconds that one attempt may go on without reporting progress."""
    runs_on: PlainText | None = None
    """With `action`: the executor that makes the call, or ``here`` for the worker itself. Without
    it the patterns of the executors decide."""
    on_failure: Literal["fail", "continue"] = "fail"
    """The reaction of the workflow once no attempt is left."""
    compensate: Compensation | None = None
    """The call that undoes it, if the workflow fails or is cancelled after it."""

    @model_validator(mode="after")
    def _does_one_thing(self) -> Step:
        does = [name for name in KINDS if getattr(self, name) is not None]
        if not does:
            raise refused("step", *NO_KIND, at=("action",))
        if len(does) > 1:
            message = f"a step does one thing, not {' and '.join(does)}"
            raise refused("step", message, "make a step of each")
        given = self.model_fields_set
        if does[0] in (*_WAITS, *_BLOCKS) and (idle := sorted(given.intersection(_OF_CALLS))):
            inside = "timeout" in idle and does[0] in ("wait_for", "approval")
            hint = f"write timeout inside {does[0]}" if inside else "take it out"
            if does[0] in _BLOCKS:
                hint = f"give {idle[0]} to the steps inside"
            raise refused("step", f"{idle[0]} means nothing with {does[0]}", hint)
        for name, owners in _BELONGS:
            if name in given and does[0] not in owners:
                message = f"{name} means nothing without {' or '.join(owners)}"
                raise refused("step", message, "take it out")
        if self.switch is not None and self.cases is None:
            hint = "add them: cases: {express: [{id: fly, action: ship.fly}]}"
            raise refused("step", "a switch has cases", hint)
        return self

    @model_validator(mode="after")
    def _for_each_fits(self) -> Step:
        if self.for_each is None and "concurrency" in self.model_fields_set:
            message = "concurrency means nothing without for_each"
            raise refused("step", message, "add for_each, or take concurrency out")
        templated = isinstance(self.for_each, str) and "{{" in self.for_each
        if not (self.for_each is None or isinstance(self.for_each, list) or templated):
            message = "for_each is neither a list nor a template that gives one"
            raise refused("step", message, 'for example for_each: "{{ event.payload.lines }}"')
        return self

    @model_validator(mode="after")
    def _rounds_fit(self) -> Step:
        conditions = [self.while_, self.until]
        if None not in conditions:
            raise refused("step", "a loop has while or until, not both", "take one of them out")
        for name in _OF_LOOPS:
            if not self.loops and name in self.model_fields_set:
                message = f"{name} means nothing without while or until"
                hint = 'for example until: "{{ output.done }}"'
                raise refused("step", message, hint)
        if self.loops and self.for_each is not None:
            message = "for_each and a loop stand in one step"
            raise refused("step", message, "put the loop inside a block with for_each")
        if self.continue_as_new is not None and (self.loops or self.for_each is not None):
            message = "an execution is continued once: no loop, and no for_each"
            raise refused("step", message, "take that out")
        return self

    @cached_property
    def compensation(self) -> Step | None:
        """The step that undoes this one, whose id no author can give: ``<id>.compensate``."""
        if self.compensate is None:
            return None
        return Step.model_construct(
            id=f"{self.id}.compensate",
            action=self.compensate.action,
            input=self.compensate.input,
            needs=(),
            for_each=self.for_each,
            concurrency=self.concurrency,
            retry=self.compensate.retry,
            timeout=self.compensate.timeout,
            heartbeat=self.compensate.heartbeat,
            runs_on=self.compensate.runs_on,
            on_failure="continue",
        )

    @property
    def loops(self) -> bool:
        """Return True if it is done in rounds."""
        return self.while_ is not None or self.until is not None

    @property
    def repeats(self) -> bool:
        """Return True if it is done for elements of a list, or in rounds: at positions from 0."""
        return self.for_each is not None or self.loops

    @property
    def is_block(self) -> bool:
        """Return True if it runs steps of its own."""
        return self.steps is not None or self.switch is not None

    @property
    def lists(self) -> dict[tuple[str, ...], Sequence[Step]]:
        """The lists of steps inside it, by their places in it."""
        found: dict[tuple[str, ...], Sequence[Step]] = {}
        if self.steps is not None:
            found["steps",] = self.steps
        for case, steps in (self.cases or {}).items():
            found["cases", case] = steps
        if self.default is not None:
            found["default",] = self.default
        return found

    def inner_needs(self) -> dict[str, tuple[str, ...]]:
        """Return the ids that each step inside it waits for, as in its own list."""
        needs: dict[str, tuple[str, ...]] = {}
        for steps in self.lists.values():
            needs.update(effective_needs([((), step.id, step.needs) for step in steps]))
        return needs

    def chosen(self, case: str) -> Sequence[Step] | None:
        """Return the steps that a switch runs for the value *case*; None if it runs nothing."""
        return (self.cases or {}).get(case, self.default)

    @property
    def does(self) -> str:
        """The thing that it does, in a few words: the action's name, or what it waits for."""
        if self.action is not None:
            return self.action
        if self.wait_for is not None:
            return f"wait for {self.wait_for.event or self.wait_for.signal}"
        if self.workflow is not None:
            return f"workflow {self.workflow}"
        if self.steps is not None:
            return f"steps {', '.join(step.id for step in self.steps)}"
        if self.switch is not None:
            return f"switch {', '.join(self.cases or ())}"
        if self.continue_as_new is not None:
            return "continue as new"
        return "sleep" if self.approval is None else "approval"

    @property
    def skipped_with_needs(self) -> bool:
        """Return True if it is skipped with its needs: it names them, and has no ``if``."""
        return self.needs is not None and self.if_ is None


if TYPE_CHECKING:
    _Triggers = Trigger | Sequence[Trigger]
else:
    # To a type checker one trigger will do. Validation always sees a list, because a union would
    # report its errors once per branch.
    _Triggers = Annotated[
        Sequence[Trigger], BeforeValidator(_listed), Field(min_length=1), AfterValidator(tuple)
    ]


class Workflow(DefinitionModel):
    """A workflow: its triggers, its steps, and the steps to recover from a failure."""

    name: PlainText
    title: PlainText | None = None
    description: str | None = None
    version: int | None = Field(default=None, ge=1)
    """The author's own count. Executions are pinned to `hash`, not to this."""
    trigger: _Triggers
    """The trigger that starts it, or a list of which any one does."""
    steps: Annotated[Sequence[Step], Field(min_length=1), AfterValidator(tuple)]
    on_failure: Annotated[Sequence[Step], AfterValidator(tuple)] = ()
    """Steps that run when the workflow has failed."""
    on_cancel: Annotated[Sequence[Step], AfterValidator(tuple)] = ()
    """Steps that run when the workflow is cancelled."""
    finally_: Annotated[
        Sequence[Step],
        AfterValidator(tuple),
        Field(validation_alias="finally", serialization_alias="finally"),
    ] = ()
    """Steps that run at the end, however the workflow ends."""
    output: JsonTree = None
    """A template for the output of the execution."""
    timeout: OptionalDuration = None  # type: ignore[assignment]
    """Seconds that an execution may take in all, waits included."""
    env: Annotated[Sequence[str], AfterValidator(tuple)] = ()
    """The environment variables that its templates read; the host must allow them as well."""
    concurrency: ConcurrencyField = None  # type: ignore[assignment]
    """The number of its executions that may go on at once, or a mapping with *key* and
    *when_full*."""
    rate_limit: StartRate | None = None
    """The number of its executions that may begin in a time; others begin later."""
    debounce: Debounce | None = None
    """A wait for the last of many events, which then starts one execution."""
    labels: LabelTexts = Field(default_factory=dict)
    """Labels of its executions, by which they are found; templates on the event."""

    _by_id: dict[str, Step] = PrivateAttr(default_factory=dict)
    _needs: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _steps_fit(self) -> Workflow:
        groups = {
            name: [((name, n), step.id, step.needs) for n, step in enumerate(steps)]
            for name, steps in self.groups().items()
        }
        errors = [
            InitErrorDetails(
                type=refused("steps", each.message, each.hint, see=each.see),
                loc=each.path,
                input=None,
            )
            for each in step_problems(groups)
        ]
        errors += [
            InitErrorDetails(
                type=refused("steps", "only a step under steps is undone", "take it out"),
                loc=(name, n, "compensate"),
                input=None,
            )
            for name, steps in self.groups().items()
            for n, step in enumerate(steps)
            if name != "steps" and step.compensate is not None
        ]
        if not errors:
            errors = [
                InitErrorDetails(
                    type=refused("steps", each.message, each.hint), loc=each.path, input=None
                )
                for each in (*_block_problems(self), *_continuation_problems(self))
            ]
        if errors:
            title = type(self).__name__
            raise ValidationError.from_exception_data(title, errors, hide_input=True)
        self._by_id.update({step.id: step for _, step in self.walk()})
        self._by_id.update({step.id: step for step in self.compensations.values()})
        self._needs.update(dict.fromkeys((step.id for step in self.compensations.values()), ()))
        for steps in groups.values():
            self._needs.update(effective_needs(steps))
        return self

    @model_validator(mode="after")
    def _starts_fit(self) -> Workflow:
        if self.debounce is not None and self.rate_limit is not None:
            message = "debounce and rate_limit are two ways to begin later"
            raise refused("workflow", message, "take one of them out")
        ids = [each.id for each in self.triggers if isinstance(each, ScheduleTrigger) and each.id]
        if twice := next((each for each in ids if ids.count(each) > 1), None):
            raise refused("workflow", f"two schedules have the id {twice!r}", "rename one of them")
        overlaps = {getattr(each, "overlap", "allow") for each in self.triggers} - {"allow"}
        if overlaps and self.concurrency is not None:
            message = f"overlap: {min(overlaps)} means nothing beside concurrency"
            raise refused("workflow", message, "leave it to concurrency: take overlap out")
        return self

    def groups(self) -> dict[str, Sequence[Step]]:
        """Return its lists of steps by their fields: ``steps``, and those that clean up."""
        lists = (self.steps, self.on_failure, self.on_cancel, self.finally_)
        return dict(zip(STEP_GROUPS, lists, strict=True))

    def every_step(self) -> tuple[Step, ...]:
        """
        Return all its steps, those that clean up too, but no compensations.

        Those inside blocks are left out: see `walk`.
        """
        return self._every_step

    def walk(self) -> Iterator[tuple[FieldPath, Step]]:
        """
        Yield all its steps with their places in the definition, each block before those inside it.

        The id of a step inside a block is its path: ``lines.charge``.
        """
        for name, steps in self.groups().items():
            yield from _walk((name,), "", steps)

    @property
    def has_blocks(self) -> bool:
        """Return True if any of its steps is a block."""
        return any(step.is_block for step in self.every_step())

    def has(self, path: str) -> bool:
        """Return True if an execution of it can have a step at *path*: ``lines[3].charge``."""
        blocks = (block_of(each) for each in lists_around(path))
        return plain_id(path) in self._by_id and all(
            self.step(block_id).repeats is (position >= 0) for block_id, position in blocks
        )

    @cached_property
    def _every_step(self) -> tuple[Step, ...]:
        return tuple(step for steps in self.groups().values() for step in steps)

    @cached_property
    def compensations(self) -> dict[str, Step]:
        """The steps that undo others, by the ids of those."""
        undoing = {step.id: step.compensation for step in self.steps}
        return {step_id: step for step_id, step in undoing.items() if step is not None}

    @property
    def cleans_up(self) -> bool:
        """True if there is anything to do for it once it is cancelled."""
        return bool(self.compensations or self.on_cancel or self.finally_)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """All triggers that start it, as a tuple even if there is only one."""
        return tuple(_listed(self.trigger))

    def triggers_for(self, event: Event) -> tuple[Trigger, ...]:
        """
        Return the triggers that *event* pulls, before their ``if`` is decided.

        A manual or scheduled event is for the one workflow that it names.
        """
        return tuple(each for each in self.triggers if each.matches(event, self.name))

    def step(self, step_id: str) -> Step:
        """
        Return the step called *step_id*, also of those that clean up; raises `WorkflowError`.

        The id of a step inside a block is its path, with or without the positions of elements.
        """
        found = self.find_step(step_id)
        if found is None:
            raise self._no_step(f"no step {step_id!r}", step_id, self._by_id)
        return found

    def gives_list(self, step_id: str) -> bool:
        """Return True if the output of a step is the list of those of its elements."""
        return self.step(step_id).for_each is not None

    def find_step(self, step_id: str) -> Step | None:
        """Return the step called *step_id*, as `step` does, or None."""
        return self._by_id.get(plain_id(step_id))

    @cached_property
    def awaited(self) -> frozenset[tuple[str, str]]:
        """The events that its steps wait for: of each the name, and the field that it leads by."""
        waits = (step.wait_for for step in self._by_id.values())
        return frozenset(
            (one.event, one.leading) for one in waits if one is not None and one.event is not None
        )

    def _no_step(self, missing: str, step_id: str, known: Iterable[str]) -> WorkflowError:
        hint = did_you_mean(step_id, known) or f"it has {', '.join(map(repr, known))}"
        return WorkflowError(f"workflow {self.name!r} has {missing}", hint=hint)

    def needs_of(self, step_id: str) -> tuple[str, ...]:
        """Return the ids that the step waits for; that of the step before if it names no needs."""
        return self._needs[self.step(step_id).id]

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Return the steps (without those that clean up) and the ids that each waits for."""
        return {step.id: self._needs[step.id] for step in self.steps}

    def order(self) -> tuple[str, ...]:
        """Return the ids of the steps, each after all that it needs, otherwise as listed."""
        return topological_order(self.graph())

    def followers(self, step_id: str) -> tuple[str, ...]:
        """
        Return *step_id* and the ids of all steps that wait for it, directly or not, in order.

        Raises `WorkflowError` for an unknown step, or a step that cleans up.
        """
        order = self.order()
        self.check_outside(step_id)
        if step_id not in order:
            raise self._no_step(f"no step {step_id!r} to go on from", step_id, self.graph())
        found = {step_id}
        for each in order:
            if found.intersection(self._needs[each]):
                found.add(each)
        return tuple(each for each in order if each in found)

    def inside_block(self, step_id: str) -> bool:
        """Return True if this is a step inside a block, which does not stand alone."""
        undoing = (step.id for step in self.compensations.values())
        return "." in step_id and plain_id(step_id) in self._by_id and step_id not in undoing

    def check_outside(self, step_id: str) -> None:
        """Raise `WorkflowError` if this is a step inside a block."""
        if self.inside_block(step_id):
            text = f"step {step_id!r} is inside the block {top_id(step_id)!r}"
            raise WorkflowError(text, hint="name the block instead")

    def recovery_order(self) -> tuple[str, ...]:
        """Return the ids of the steps under on_failure, in the order of `order`."""
        return topological_order({step.id: self._needs[step.id] for step in self.on_failure})

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as a JSON object, without fields that have their defaults."""
        data = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if len(data["trigger"]) == 1:
            data["trigger"] = data["trigger"][0]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workflow:
        """
        Read the workflow that `to_dict` wrote.

        It is for definitions that were checked already. `loads` explains the problems of others.
        """
        return (CodeWorkflow if "code" in data else cls).model_validate(dict(data))

    def body(self) -> JsonText:
        """Return `to_dict` as JSON, as it is stored with the first execution."""
        return self._body

    @cached_property
    def _body(self) -> JsonText:
        return encode_json(self.to_dict(), "workflow")

    def hash(self) -> str:
        """Return the SHA-256 (hex) of the workflow's content, whatever its format was."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _walk(place: FieldPath, path: str, steps: Sequence[Step]) -> Iterator[tuple[FieldPath, Step]]:
    for n, step in enumerate(steps):
        own = f"{path}.{step.id}" if path else step.id
        yield (*place, n), step.model_copy(update={"id": own}) if path else step
        for fields, inner in step.lists.items():
            yield from _walk((*place, n, *fields), own, inner)


def _block_problems(workflow: Workflow) -> Iterator[DefinitionProblem]:
    """Find the problems of steps inside blocks."""
    names = frozenset(step.id for step in workflow.every_step())
    for group, steps in workflow.groups().items():
        for n, step in enumerate(steps):
            if step.is_block:
                yield from _inner_problems((group, n), step, names, 1, 0)


def _inner_problems(
    place: FieldPath, block: Step, names: frozenset[str], depth: int, indexes: int
) -> Iterator[DefinitionProblem]:
    """
    Find the problems of the steps inside a *block*, whose id is its path.

    *names* are the ids in the lists around it. It is number *depth* of the blocks in each other,
    and *indexes* of those around it have a ``for_each`` or are loops.
    """
    if depth > MOST_DEPTH:
        hint = "make the inner ones a workflow of its own"
        yield DefinitionProblem(place, f"more than {MOST_DEPTH} blocks stand in each other", hint)
        return
    indexes += block.repeats
    own: set[str] = set()
    for fields, steps in block.lists.items():
        at = (*place, *fields)
        yield from step_problems(
            {"steps": [((*at, n), s.id, s.needs) for n, s in enumerate(steps)]}
        )
        here = {step.id for step in steps}
        for n, step in enumerate(steps):
            path = f"{block.id}.{step.id}"
            if step.id in names or step.id in own:
                where = "the lists around" if step.id in names else "all cases"
                message, hint = f"another step is called {step.id!r}", f"its id differs in {where}"
                yield DefinitionProblem((*at, n, "id"), message, hint)
            elif step.id == "compensate" and block.compensate is not None:
                message = "'compensate' is taken by the block"
                yield DefinitionProblem((*at, n, "id"), message, "give it another id")
            elif len(path) + INDEX_WIDTH * indexes > MOST_PATH:
                message = f"its path ({path}) is longer than {MOST_PATH} characters"
                yield DefinitionProblem((*at, n, "id"), message, "shorten the ids")
            if step.compensate is not None:
                message = "a step inside a block is not undone by itself"
                hint = "give it to the block, or make the block a workflow of its own"
                yield DefinitionProblem((*at, n, "compensate"), message, hint)
            if step.is_block:
                inner = step.model_copy(update={"id": path})
                around = names | here
                yield from _inner_problems((*at, n), inner, around, depth + 1, indexes)
        own |= here


def _continuation_problems(workflow: Workflow) -> Iterator[DefinitionProblem]:
    """Find the steps that continue the execution elsewhere than at the end of its own steps."""
    by_path = {step.id: step for _, step in workflow.walk()}
    outer = effective_needs([((), step.id, step.needs) for step in workflow.steps])
    for place, step in workflow.walk():
        if step.continue_as_new is None:
            continue
        at = (*place, "continue_as_new")
        around = [by_path[path] for path in lists_around(step.id)]
        if place[0] != "steps":
            yield DefinitionProblem(at, "only a step under steps continues", "move it there")
        elif any(block.repeats for block in around):
            message = "an execution is continued once: this is inside a for_each or a loop"
            yield DefinitionProblem(at, message, "move it behind that block")
        for own in (step, *around):
            block = by_path.get(list_of(own.id))
            needs = outer if block is None else block.inner_needs()
            after = next((each for each in needs if local_id(own.id) in needs[each]), None)
            if after is not None and place[0] == "steps":
                message = f"the execution ends with it, and {after!r} comes after it"
                hint = f"move {after!r} in front of it, or give {after!r} other needs"
                yield DefinitionProblem(at, message, hint)


class CodeWorkflow(Workflow):
    """
    A workflow whose steps are the calls of a function.

    Its hash is over these fields, not over the function's source: see *version*.
    """

    version: int = Field(default=1, ge=1)
    """The version of the function. Executions go on with the version that they began with."""
    steps: Annotated[Sequence[Step], Field(max_length=0), AfterValidator(tuple)] = ()
    code: str = Field(min_length=1, max_length=500)
    """The function: ``shop.flows:fulfil``."""

    _waits: frozenset[tuple[str, str]] = PrivateAttr(default=frozenset())

    def awaiting(self, waits: Iterable[tuple[str, str]]) -> CodeWorkflow:
        """Note the events that the function waits for: of each the name and a field."""
        self._waits = frozenset(waits)
        return self

    @property
    def cleans_up(self) -> bool:
        """True: its function is told of a cancellation, and may undo what it has done."""
        return True

    def gives_list(self, step_id: str) -> bool:
        """Return False: each of its calls has an output of its own."""
        return False

    @property
    def awaited(self) -> frozenset[tuple[str, str]]:
        """The events that its function is known to wait for."""
        return self._waits


def workflow_json_schema() -> dict[str, Any]:
    """
    Return the JSON Schema (2020-12) of a definition, for editors and other languages.

    The fields' docstrings are the descriptions.
    """
    schema = Workflow.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    starts, triggers = START_FIELDS.values(), TRIGGERS.values()
    models: list[type[BaseModel]] = [
        Workflow, Step, Compensation, RetryPolicy, WaitFor, Approval, FormField, Notice,
        *starts, *triggers,
    ]  # fmt: skip
    for model in models:
        own = schema if model is Workflow else definitions[model.__name__]
        for name, text in _field_docs(model).items():
            field = model.model_fields.get(name)
            if field is not None:
                own["properties"][field.validation_alias or name]["description"] = text
    for name, trigger in TRIGGERS.items():
        own = definitions[trigger.__name__]
        # In Python the class is the type; in a definition only this field is.
        own["required"] = ["type", *own.get("required", ())]
        own["properties"]["type"] = {"const": name, "type": "string"}
    number = {"type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY}
    schema["properties"]["concurrency"]["anyOf"].insert(0, number)
    many = schema["properties"]["trigger"]
    about = {key: many.pop(key) for key in ("title", "description") if key in many}
    schema["properties"]["trigger"] = {**about, "anyOf": [many["items"], many]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _field_docs(model: type[BaseModel]) -> dict[str, str]:
    """
    Return the docstring under each field.

    pydantic could collect them when the class is made. That would make every import of the model
    half as slow again, though only this schema shows them.
    """
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, DefinitionModel) or base is DefinitionModel:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except OSError:  # no source is installed
            continue
        for pair in pairwise(getattr(tree.body[0], "body", [])):
            match pair:
                case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    docs[name] = inspect.cleandoc(text).replace("``", "`")
    return docs
