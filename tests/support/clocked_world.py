"""What tests do with a kernel whose time only they let pass."""

from __future__ import annotations

from automate_kernel import Kernel
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import Execution


class ClockedWorld:
    """A kernel on a storage with a clock of the test's own; a subclass makes both."""

    clock: FakeClock
    kernel: Kernel

    def later(self, seconds: float) -> None:
        """Let time pass, and do all that is due then."""
        self.clock.advance(seconds)
        self.kernel.run_until_idle()

    def see(self, execution_id: str) -> Execution:
        """An execution that is there, as it stands now."""
        found = self.kernel.executions.get(execution_id)
        assert found is not None
        return found
