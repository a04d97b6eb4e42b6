"""What tests do with a kernel whose time only they let pass."""

from __future__ import annotations

from typing import Any

from automate_kernel import Kernel
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus


class ClockedWorld:
    """A kernel on a storage with a clock of the test's own; a subclass makes both."""

    clock: FakeClock
    kernel: Kernel

    def add(self, name: str, *steps: dict[str, Any], **more: Any) -> None:
        """Add a workflow, which is started by hand unless *more* says otherwise."""
        more.setdefault("trigger", {"type": "manual"})
        self.kernel.add_workflow({"name": name, "steps": list(steps), **more})

    def start(self, name: str, payload: Any = None, **options: Any) -> str:
        """Start an execution, and go as far as it goes now."""
        execution_id = self.kernel.start(name, payload, **options)
        self.run()
        return execution_id

    def run(self) -> None:
        self.kernel.run_until_idle()

    def later(self, seconds: float) -> None:
        """Let time pass, and do all that is due then."""
        self.clock.advance(seconds)
        self.run()

    def see(self, execution_id: str) -> Execution:
        """An execution that is there, as it stands now."""
        found = self.kernel.executions.get(execution_id)
        assert found is not None
        return found

    def status(self, execution_id: str) -> ExecutionStatus:
        return self.see(execution_id).status

    def step(self, execution_id: str, step_id: str, position: int = -1) -> StepStatus | None:
        run = self.see(execution_id).step(step_id, position)
        return run and run.status

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.kernel.storage.begin() as rows:
            return rows.select(table)
