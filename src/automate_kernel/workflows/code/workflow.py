"""A function as a workflow: its definition, the payload that it takes, and its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from automate_kernel.errors import WorkflowError
from automate_kernel.operations.signature import type_hints
from automate_kernel.workflows.code.function import Values, payload_values
from automate_kernel.workflows.definition.model import CodeWorkflow
from automate_kernel.workflows.definition.triggers import EventTrigger, ManualTrigger, Trigger

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
        self._result = Values(hints.get("return"), f"the result of workflow {name!r}")

    @property
    def asynchronous(self) -> bool:
        """True if it is an ``async def``."""
        return inspect.iscoroutinefunction(self.function)

    def defined_as(self, definition: CodeWorkflow) -> WorkflowFunction:
        """Return the same function with an earlier *definition*: with other triggers, say."""
        return WorkflowFunction(self.function, definition)

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
    timeout: float | str | None = None,
) -> WorkflowFunction:
    """Return *function* as a workflow; raises `WorkflowError` for options that don't fit."""
    if not inspect.isroutine(function):
        raise WorkflowError("a workflow is a function", hint="write @kernel.workflow above it")
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
    try:
        definition = CodeWorkflow(
            name=called,
            title=title,
            description=description,
            version=version,
            trigger=triggers,
            timeout=timeout,  # type: ignore[arg-type]
            code=f"{function.__module__}:{function.__qualname__}",
        )
    except ValidationError as error:
        problems = "; ".join(each["msg"] for each in error.errors(include_input=False))
        raise WorkflowError(f"workflow {called!r} is not as it must be: {problems}") from None
    return WorkflowFunction(function, definition)
