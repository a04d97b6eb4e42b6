"""
The phases of an execution: its own steps, and what cleans up after them.

::

    steps ─┬─ all have ended ─────────────────────────────▶ finally ─▶ COMPLETED
           ├─ failed ──────▶ compensations ─▶ on_failure ─▶ finally ─▶ FAILED
           └─ cancelled ───▶ compensations ─▶ on_cancel ──▶ finally ─▶ CANCELLED

Where an execution stands follows from its status, its error and the rows of its steps. So each
phase goes on after a crash where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from automate_kernel.base.errors import ErrorCodes
from automate_kernel.workflows.definition.model import Step, Workflow
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)


class Ending(Enum):
    """The way that an execution takes through its phases, and the status that it ends with."""

    SUCCESS = ExecutionStatus.COMPLETED
    FAILURE = ExecutionStatus.FAILED
    CANCEL = ExecutionStatus.CANCELLED


# Looked at in every turn: a global is faster than a member of an enumeration.
SUCCESS, FAILURE, CANCEL = Ending
_CANCELLING = ExecutionStatus.CANCELLING

NOT_UNDONE = "not undone: "
"""The words of an error behind which stand the steps whose compensations have failed."""


def ending_of(execution: Execution) -> Ending:
    """Return how *execution* ends as it is now. A cancellation counts more than an error."""
    if execution.status is _CANCELLING:
        return CANCEL
    return SUCCESS if execution.error_code is None else FAILURE


@dataclass(frozen=True, slots=True)
class Phase:
    """
    Steps that run one after the other or side by side, as their *needs* say.

    *elements* has the positions of the elements that compensations undo, by the compensation's id.
    """

    steps: Sequence[Step]
    needs: Mapping[str, Sequence[str]]
    elements: Mapping[str, Sequence[int]] = field(default_factory=dict)


NOTHING = Phase((), {})
"""A phase without steps."""


def phase_names(ending: Ending, workflow: Workflow, runs: Mapping[StepKey, StepRun]) -> list[str]:
    """
    Return the phases that lead to *ending*, the first one first.

    An execution that fails under ``finally`` is not undone: its own steps have succeeded.
    """
    if ending is SUCCESS:
        return ["steps", "finally"] if workflow.finally_ else ["steps"]
    if ending is CANCEL:
        return ["compensations", "on_cancel", "finally"]
    if any((step.id, position) in runs for step in workflow.finally_ for position in (-1, 0)):
        return ["finally"]
    return ["compensations", "on_failure", "finally"]


def phases_of(workflow: Workflow) -> dict[str, Phase]:
    """Return the phases that are the same in every execution: all but the compensations."""
    return {
        name: Phase(steps, {step.id: workflow.needs_of(step.id) for step in steps})
        for name, steps in workflow.groups().items()
    }


def compensations(workflow: Workflow, runs: Mapping[StepKey, StepRun]) -> Phase:
    """Return the phase that undoes what has COMPLETED by now."""
    undoing = workflow.compensations
    if not undoing:
        return NOTHING
    completed: dict[str, list[int]] = {}
    for (step_id, position), run in runs.items():
        if step_id in undoing and run.status is StepStatus.COMPLETED:
            completed.setdefault(step_id, []).append(position)
    steps: list[Step] = []
    needs: dict[str, Sequence[str]] = {}
    elements: dict[str, Sequence[int]] = {}
    # Against the order of the graph: it needs no clock, and is the same after a crash.
    for step_id in reversed(workflow.order()):
        compensation, positions = undoing.get(step_id), sorted(completed.get(step_id, ()))
        if compensation is None:
            continue
        # A loop is undone as a whole: not every round is known any more.
        many = compensation.for_each is not None
        positions = [position for position in positions if (position >= 0) is many]
        if many:
            elements[compensation.id] = positions
        if positions:
            needs[compensation.id] = [steps[-1].id] if steps else []
            steps.append(compensation)
    return Phase(steps, needs, elements)


def not_undone(workflow: Workflow, runs: Mapping[StepKey, StepRun]) -> list[str]:
    """Return the steps whose compensations have FAILED, with their errors."""
    return [
        f"{step_id!r} ({run.error})"
        for step_id, compensation in workflow.compensations.items()
        if (run := runs.get((compensation.id, -1))) is not None and run.status is StepStatus.FAILED
    ]


def note_not_undone(execution: Execution, failed: Sequence[str]) -> None:
    """Add to the error of *execution* the steps whose compensations have *failed*, if any has."""
    left = f"{NOT_UNDONE}{', '.join(failed)}"
    if failed and left not in (execution.error or ""):
        execution.error_code = execution.error_code or str(ErrorCodes.ABORTED)
        execution.error = f"{execution.error}; {left}" if execution.error else left


def undone(workflow: Workflow, runs: Mapping[StepKey, StepRun]) -> dict[str, list[int]]:
    """Return the steps that have been undone, each with the positions of its runs that were."""
    found: dict[str, list[int]] = {}
    for step_id, compensation in workflow.compensations.items():
        for (its_id, position), run in runs.items():
            if its_id == compensation.id and run.status is StepStatus.COMPLETED:
                found.setdefault(step_id, []).append(position)
    return found
