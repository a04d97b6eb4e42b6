"""Workflows in code: a Python function whose calls are saved, and replayed after a crash."""

from automate_kernel.workflows.code.calls import StepFailedError, WorkflowInterruptedError
from automate_kernel.workflows.code.context import (
    ApprovalAnswer,
    SyncWorkflowContext,
    WorkflowContext,
)

__all__ = [
    "ApprovalAnswer",
    "StepFailedError",
    "SyncWorkflowContext",
    "WorkflowContext",
    "WorkflowInterruptedError",
]
