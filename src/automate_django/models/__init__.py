"""The models: the kernel's tables, and what only the Django host has."""

from automate_django.models.kernel import (
    OutboxItem,
    OutboxLane,
    OutboxPause,
    UniqueIfSet,
    WebhookDelivery,
    WorkflowDefinition,
    WorkflowExecution,
    WorkflowSchedule,
    WorkflowStep,
)

__all__ = [
    "OutboxItem",
    "OutboxLane",
    "OutboxPause",
    "WebhookDelivery",
    "WorkflowDefinition",
    "WorkflowExecution",
    "WorkflowSchedule",
    "WorkflowStep",
    "UniqueIfSet",
]
