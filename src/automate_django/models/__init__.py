"""The models: the kernel's tables, and what only the Django host has."""

from automate_django.models.api import ApiToken, IdempotencyRecord
from automate_django.models.audit import AuditEntry, StagedImport
from automate_django.models.definitions import WorkflowDocument, WorkflowStamp, WorkflowVersion
from automate_django.models.tables import (
    OutboxActivity,
    OutboxFailure,
    OutboxItem,
    OutboxLabel,
    OutboxLane,
    OutboxLimit,
    OutboxPause,
    OutboxSlot,
    OutboxWorker,
    SchemaVersion,
    UniqueIfSet,
    WebhookDelivery,
    WorkflowActivity,
    WorkflowDefinition,
    WorkflowExecution,
    WorkflowSchedule,
    WorkflowStep,
)
from automate_django.models.tasks import TaskResult

__all__ = [
    "ApiToken",
    "AuditEntry",
    "IdempotencyRecord",
    "OutboxActivity",
    "OutboxFailure",
    "OutboxItem",
    "OutboxLabel",
    "OutboxLane",
    "OutboxLimit",
    "OutboxPause",
    "OutboxSlot",
    "OutboxWorker",
    "SchemaVersion",
    "StagedImport",
    "TaskResult",
    "UniqueIfSet",
    "WebhookDelivery",
    "WorkflowActivity",
    "WorkflowDefinition",
    "WorkflowDocument",
    "WorkflowExecution",
    "WorkflowSchedule",
    "WorkflowStamp",
    "WorkflowStep",
    "WorkflowVersion",
]
