"""What an execution does, told while it happens."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from automate_kernel import signals
from automate_kernel.cli.output import Output, seconds
from automate_kernel.workflows.execution import Execution, StepRun

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Progress"]


class Progress:
    """
    Prints a line for each thing that happens to one execution of *kernel*, until it ends.

    `ended` is set when it has. The signals come from the worker's threads.
    """

    def __init__(self, kernel: Any, out: Output, execution_id: str | None = None) -> None:
        self.ended: threading.Event = threading.Event()
        self.execution_id = execution_id
        self._kernel, self._out = kernel, out
        self._begun: dict[tuple[str, int], float] = {}
        self._receivers = (
            (signals.step_started, self._started),
            (signals.step_completed, self._completed),
            (signals.step_failed, self._failed),
            (signals.workflow_completed, self._over),
            (signals.workflow_failed, self._over),
        )

    def __enter__(self) -> Self:
        for signal, receiver in self._receivers:
            signal.connect(receiver, sender=self._kernel)
        return self

    def __exit__(self, *exc: object) -> None:
        for signal, receiver in self._receivers:
            signal.disconnect(receiver, sender=self._kernel)

    def _is_other(self, execution: Execution) -> bool:
        return self.execution_id is not None and execution.id != self.execution_id

    def _started(self, sender: Any, execution: Execution, step: StepRun, **more: Any) -> None:
        if self._is_other(execution):
            return
        self._begun.setdefault((step.step_id, step.position), time.monotonic())
        if step.attempts > 1:
            why = f" after {step.error_code}: {step.error}" if step.error else ""
            self._out.line(f"↻ {_name(step)}  attempt {step.attempts}{why}", "yellow")
        else:
            self._out.line(f"▶ {_name(step)}", "cyan")

    def _completed(self, sender: Any, execution: Execution, step: StepRun, **more: Any) -> None:
        if not self._is_other(execution):
            self._out.line(f"✓ {_name(step)}  {self._took(step)}", "green")

    def _failed(
        self, sender: Any, execution: Execution, step: StepRun, error: Any, **more: Any
    ) -> None:
        if not self._is_other(execution):
            self._out.line(f"✗ {_name(step)}  {self._took(step)}  {error.code}: {error}", "red")

    def _over(self, sender: Any, execution: Execution, **more: Any) -> None:
        if not self._is_other(execution):
            self.ended.set()

    def _took(self, step: StepRun) -> str:
        begun = self._begun.get((step.step_id, step.position))
        return seconds(time.monotonic() - begun) if begun is not None else ""


def _name(step: StepRun) -> str:
    return step.step_id if step.position < 0 else f"{step.step_id}[{step.position}]"
