"""Workflows: their definitions, their executions, and the engine that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_kernel.workflows.definition.admission import Concurrency, Debounce, StartRate
    from automate_kernel.workflows.definition.approval import Approval, FormField, Notice
    from automate_kernel.workflows.definition.fields import RetryPolicy
    from automate_kernel.workflows.definition.loader import (
        dumps,
        load_workflow,
        load_workflows,
        loads,
    )
    from automate_kernel.workflows.definition.model import (
        Compensation,
        Step,
        Workflow,
        workflow_json_schema,
    )
    from automate_kernel.workflows.definition.triggers import (
        EventTrigger,
        ManualTrigger,
        ScheduleTrigger,
        WebhookTrigger,
    )
    from automate_kernel.workflows.definition.waits import SleepUntil, WaitFor
    from automate_kernel.workflows.execution import (
        Event,
        Execution,
        ExecutionStatus,
        StepRun,
        StepStatus,
    )
    from automate_kernel.workflows.steer.attempts import StepAttempt
    from automate_kernel.workflows.steer.documents import StoredWorkflows
    from automate_kernel.workflows.steer.executions import ExecutionStore
    from automate_kernel.workflows.store.pauses import PausedWorkflow
__all__ = [
    "Approval",
    "Compensation",
    "Concurrency",
    "Debounce",
    "Event",
    "EventTrigger",
    "Execution",
    "ExecutionStatus",
    "ExecutionStore",
    "FormField",
    "ManualTrigger",
    "Notice",
    "PausedWorkflow",
    "RetryPolicy",
    "ScheduleTrigger",
    "SleepUntil",
    "StartRate",
    "Step",
    "StepAttempt",
    "StepRun",
    "StepStatus",
    "StoredWorkflows",
    "WaitFor",
    "WebhookTrigger",
    "Workflow",
    "dumps",
    "load_workflow",
    "load_workflows",
    "loads",
    "workflow_json_schema",
]

if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "definition.admission": ("Concurrency", "Debounce", "StartRate"),
            "definition.approval": ("Approval", "FormField", "Notice"),
            "definition.fields": ("RetryPolicy",),
            "definition.loader": ("dumps", "load_workflow", "load_workflows", "loads"),
            "definition.model": ("Compensation", "Step", "Workflow", "workflow_json_schema"),
            "definition.triggers": (
                "EventTrigger",
                "ManualTrigger",
                "ScheduleTrigger",
                "WebhookTrigger",
            ),
            "definition.waits": ("SleepUntil", "WaitFor"),
            "execution": ("Event", "Execution", "ExecutionStatus", "StepRun", "StepStatus"),
            "steer.attempts": ("StepAttempt",),
            "steer.documents": ("StoredWorkflows",),
            "steer.executions": ("ExecutionStore",),
            "store.pauses": ("PausedWorkflow",),
        },
    )
