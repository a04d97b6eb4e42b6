"""Workflows in code: a Python function whose calls are saved, and replayed after a crash."""

from automate_kernel.workflows.code.calls import StepFailedError, WorkflowInterruptedError
from automate_kernel.workflows.code.context import (
    ApprovalAnswer,
    BaseWorkflowContext,
    SyncWorkflowContext,
    WorkflowContext,
)

__all__ = [
    "ApprovalAnswer",
    "BaseWorkflowContext",
    "StepFailedError",
    "SyncWorkflowContext",
    "WorkflowContext",
    "WorkflowInterruptedError",
]
