"""The kit for tests of workflows."""

from automate_kernel.workflow_tests.kit import MovableClock, WorkflowTest

__all__ = ["MovableClock", "WorkflowTest"]
