"""Workflows in code: a Python function whose calls are saved, and replayed after a crash."""

from automate_kernel.workflows.code.calls import StepFailedError, WorkflowInterruptedError
from automate_kernel.workflows.code.context import SyncWorkflowContext, WorkflowContext

__all__ = ["StepFailedError", "SyncWorkflowContext", "WorkflowContext", "WorkflowInterruptedError"]
