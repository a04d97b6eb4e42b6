"""Workflows: definitions, executions, and what moves them on."""

from .execution import Event, Execution, ExecutionStatus, StepRun, StepStatus
from .loader import dumps, load_workflow, load_workflows, loads
from .model import (
    EventTrigger,
    ManualTrigger,
    RetryPolicy,
    ScheduleTrigger,
    Step,
    WebhookTrigger,
    Workflow,
    workflow_json_schema,
)
from .state import ExecutionStore

__all__ = [
    "Event",
    "EventTrigger",
    "Execution",
    "ExecutionStatus",
    "ExecutionStore",
    "ManualTrigger",
    "RetryPolicy",
    "ScheduleTrigger",
    "Step",
    "StepRun",
    "StepStatus",
    "WebhookTrigger",
    "Workflow",
    "dumps",
    "load_workflow",
    "load_workflows",
    "loads",
    "workflow_json_schema",
]
