"""A function as a workflow: its definition, the payload that it takes, and its result."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from automate_kernel.base.errors import WorkflowError, did_you_mean
from automate_kernel.operations.annotated import Results
from automate_kernel.operations.signature import type_hints
from automate_kernel.workflows.code.function import payload_values
from automate_kernel.workflows.definition.admission import START_FIELDS
from automate_kernel.workflows.definition.model import CodeWorkflow
from automate_kernel.workflows.definition.problems import in_one_line
from automate_kernel.workflows.definition.triggers import (
    TRIGGERS,
    EventTrigger,
    ManualTrigger,
    Trigger,
)

On = str | Trigger | Sequence[str | Trigger] | None
"""The names of events, or triggers, that start a workflow; None is by hand alone."""


class WorkflowFunction:
    """A function that is a workflow, with its *definition*."""

    def __init__(self, function: Callable[..., Any], definition: CodeWorkflow) -> None:
        self.function: Callable[..., Any] = function
        self.definition: CodeWorkflow = definition
        name = definition.name
        self._payload, self._optional = payload_values(function, name)
        hints = type_hints(function)
        self._result = Results(hints.get("return"), f"the result of workflow {name!r}")

    @property
    def asynchronous(self) -> bool:
        """True if it is an ``async def``."""
        return inspect.iscoroutinefunction(self.function)

    def defined_as(self, definition: CodeWorkflow) -> WorkflowFunction:
        """Return the same function with an earlier *definition*: with other triggers, say."""
        return WorkflowFunction(self.function, definition.awaiting(self.definition.awaited))

    def arguments(self, payload: Any) -> tuple[Any, ...]:
        """
        Return the arguments beside the context, for an event with *payload*.

        Raises ``INVALID_ARGUMENT`` for a payload that does not fit.
        """
        if self._payload is None or (payload is None and self._optional):
            return ()
        return (self._payload.read(payload),)

    def payload(self, value: Any) -> Any:
        """Return the argument *value* as the payload of an event."""
        return value if self._payload is None else self._payload.write(value)

    def payload_schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of the payload, or None if nothing is known of it."""
        return None if self._payload is None else self._payload.json_schema()

    def read(self, output: Any) -> Any:
        """Return the value that the stored *output* of an execution makes."""
        return self._result.read(output)

    def output(self, result: Any) -> Any:
        """Return the *result* of the function as JSON."""
        return self._result.write(result)


def workflow_function(
    function: Callable[..., Any],
    *,
    on: On = None,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    version: int = 1,
    timeout: float | str | timedelta | None = None,
    waits: Mapping[str, str] | None = None,
) -> WorkflowFunction:
    """Return *function* as a workflow; raises `WorkflowError` for options that don't fit."""
    if not inspect.isroutine(function):
        hint = "write @kernel.workflow above it"
        if isinstance(function, (str, *TRIGGERS.values())):
            hint = f"write @kernel.workflow(on={function!r}) above it"
        raise WorkflowError("a workflow is a function", hint=hint)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise WorkflowError("a workflow can't be a generator", hint="take its yield out")
    given: list[Any] = [on] if isinstance(on, str) or not isinstance(on, Sequence) else list(on)
    triggers = [
        ManualTrigger() if each is None else EventTrigger(event=each)
        if isinstance(each, str) else each
        for each in given
    ]  # fmt: skip
    if description is None:
        described = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        description = described or None
    called = name or function.__name__
    options = {
        "name": called,
        "title": title,
        "description": description,
        "version": version,
        "trigger": triggers,
        "timeout": timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
        "code": f"{function.__module__}:{function.__qualname__}",
    }
    try:
        definition = CodeWorkflow.model_validate(options)
    except ValidationError as error:
        problems = in_one_line(error, options)
        raise WorkflowError(f"workflow {called!r} is not as it must be: {problems}") from None
    return WorkflowFunction(
        function, definition.awaiting({*awaited_events(function), *(waits or {}).items()})
    )


_OPTIONS = tuple(inspect.signature(workflow_function).parameters)[1:]

# What other tools, and definitions in YAML, call the events and times on which a workflow starts.
_MEANT: Mapping[str, str] = {
    **dict.fromkeys(
        ("trigger", "triggers", "event", "events"),
        'write on="order.created", or on=[…]',
    ),
    **dict.fromkeys(("schedule", "cron", "every"), 'write on=ScheduleTrigger(cron="0 9 * * *")'),
    **dict.fromkeys(START_FIELDS, "a workflow in YAML has it: let it start this one"),
    "labels": "the workflow sets them: ctx.label(order=7)",
    **dict.fromkeys(
        ("retry", "retries", "compensate"), "it is an option of a step: ctx.step(…, retry=3)"
    ),
}


def check_options(options: Iterable[str]) -> None:
    """Raise `WorkflowError` for an option that a workflow in code doesn't have."""
    for name in options:
        if name not in _OPTIONS:
            hint = _MEANT.get(name) or did_you_mean(name, _OPTIONS)
            raise WorkflowError(
                f"a workflow in code has no option {name!r}",
                hint=hint or f"the options are {', '.join(_OPTIONS)}",
            )


def awaited_events(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """
    Yield the events that *function* waits for, as far as its source says: name and leading field.

    These are the calls of ``wait_for`` whose event and fields stand there as text.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):  # no source is installed, or it is a lambda's
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        named = {each.arg: each.value for each in node.keywords}
        event = node.args[0] if node.args else named.get("event")
        if node.func.attr == "wait_for" and isinstance(event, ast.Constant):
            field = _leading(named.get("match"))
            if isinstance(event.value, str) and field is not None:
                yield event.value, field


def _leading(match: ast.expr | None) -> str | None:
    """Return the first field of *match* in order, empty without one; None if it isn't text."""
    if match is None:
        return ""
    keys = match.keys if isinstance(match, ast.Dict) else [None]
    fields = [key.value for key in keys if isinstance(key, ast.Constant)]
    if len(fields) < len(keys) or not all(isinstance(field, str) for field in fields):
        return None
    return min(map(str, fields), default="")
