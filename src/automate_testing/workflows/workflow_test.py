"""The kit for tests of workflows."""

from automate_testing.workflows.kit import MovableClock, WorkflowTest

__all__ = ["MovableClock", "WorkflowTest"]
