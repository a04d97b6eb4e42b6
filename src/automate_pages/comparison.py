"""Two texts, and two executions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from typing import Any, NamedTuple

from automate_kernel.kernel import Kernel
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import STEP
from automate_kernel.workflows.execution import Execution, StepRun
from automate_pages.formats import MOST, json_text

_MOST_LINES = 2_000
_MOST_STEPS = 200


class ChangedLine(NamedTuple):
    """A line of a comparison: *sign* is ``+``, ``-``, a space, or ``@`` between two stretches."""

    sign: str
    text: str


def changed_lines(before: str, after: str) -> list[ChangedLine]:
    """Return the lines that changed from *before* to *after*, with three lines around."""
    lines = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return [
        ChangedLine(line[:1] or " ", line if line.startswith("@") else line[1:])
        for line in islice(lines, 2, _MOST_LINES)
    ]


@dataclass(frozen=True, slots=True)
class ComparedStep:
    """A step of two executions; None where it has not begun."""

    step_id: str
    first: StepRun | None
    second: StepRun | None
    output: Sequence[ChangedLine] = ()

    @property
    def differs(self) -> bool:
        """True if the step went otherwise, or gave something else."""
        if self.first is None or self.second is None:
            return True
        return bool(self.output) or self.first.status is not self.second.status


def compared_steps(
    kernel: Kernel, rows: Rows, first: Execution, second: Execution
) -> list[ComparedStep]:
    """Return the steps of two executions, in the order in which the first one began them."""
    runs = [_runs(rows, each.id) for each in (first, second)]
    return [
        ComparedStep(
            step_id,
            runs[0].get(step_id),
            runs[1].get(step_id),
            compared_values(
                kernel, *(each[step_id].output if step_id in each else None for each in runs)
            ),
        )
        for step_id in dict.fromkeys([*runs[0], *runs[1]])
    ]


def compared_values(kernel: Kernel, first: Any, second: Any) -> list[ChangedLine]:
    """Return the lines of JSON that differ, without secrets; none if the values are equal."""
    if first == second:
        return []
    return changed_lines(*(json_text(kernel, each)[:MOST] for each in (first, second)))


def _runs(rows: Rows, execution_id: str) -> Mapping[str, StepRun]:
    where = [Where("execution_id", "eq", execution_id), Where("position", "eq", -1)]
    found = rows.select(STEP, where, order_by=("id",), limit=_MOST_STEPS)
    return {row["step_id"]: StepRun.from_row(row) for row in found}
