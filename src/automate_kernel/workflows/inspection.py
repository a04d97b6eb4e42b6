"""What the steps of an execution were given, put together again from what is stored."""

from __future__ import annotations

from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.handles import masked
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.program import Program

__all__ = ["step_input"]


def step_input(program: Program, execution: Execution, step_id: str, position: int = -1) -> Any:
    """
    The input of one step, or of one element of its ``for_each``, as the step's templates give it.

    It is not stored: it follows from the definition, the event and the outputs of the steps
    before, which are. Secrets stand in it as ``[secret KEY]``. What a template reads elsewhere
    (the time, an environment variable) may have been something else then. Raises `TemplateError`,
    or ``NOT_FOUND`` for an element that there is not.
    """
    step = program.workflow.step(step_id)
    seen = program.seen(execution)
    extra: dict[str, Any] = {}
    if position >= 0:
        elements = program.elements(step, seen) if step.for_each is not None else []
        if position >= len(elements):
            raise AutomateError(ErrorCodes.NOT_FOUND, f"step {step_id!r} has no element {position}")
        extra = {"item": elements[position], "index": position}
    return masked(program.input(step, seen, extra))
