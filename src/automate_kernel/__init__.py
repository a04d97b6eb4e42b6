"""
Write an automation capability once, and run it durably in any Python app.

`Kernel` puts a host's plugins, workflows, secrets and storage together. Plugin authors start at
`Connector`, `BaseProvider` or `SecretsBackend`.

Names are loaded at their first use, so a plugin that needs `Connector` doesn't pay for workflows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_kernel.base.errors import (
        AutomateError,
        ConfigError,
        ErrorCodes,
        LeaseLostError,
        OutputError,
        PayloadError,
        PluginError,
        SecretDeniedError,
        SecretError,
        SecretNotFoundError,
        SecretUnavailableError,
        StorageError,
        TemplateError,
        WebhookRejectedError,
        WorkflowError,
    )
    from automate_kernel.kernel import Kernel
    from automate_kernel.operations.context import (
        Call,
        ConnectorContext,
        ProviderContext,
        current_call,
        current_item,
    )
    from automate_kernel.outbox import OutboxItem, OutboxStore
    from automate_kernel.plugins import ProviderRegistry, hookimpl
    from automate_kernel.plugins.connectors import (
        ActionSpec,
        Connector,
        FieldOption,
        PolledEvent,
        PollResult,
        TriggerSpec,
        action,
        options,
        poll,
    )
    from automate_kernel.plugins.providers import BaseProvider, CapabilitySpec, capability
    from automate_kernel.secrets import SecretsBackend
    from automate_kernel.storage import MemoryStorage
    from automate_kernel.storage.output_store import FileOutputStore, OutputStore
    from automate_kernel.templates import register_filter
    from automate_kernel.worker import OutboxReaper
    from automate_kernel.workflows import Event, Execution, Step, StepRun, Workflow
    from automate_kernel.workflows.automation import Automation
    from automate_kernel.workflows.code import (
        ApprovalAnswer,
        StepFailedError,
        SyncWorkflowContext,
        WorkflowContext,
        WorkflowInterruptedError,
    )

__all__ = [
    "ActionSpec",
    "ApprovalAnswer",
    "AutomateError",
    "Automation",
    "BaseProvider",
    "Call",
    "CapabilitySpec",
    "ConfigError",
    "Connector",
    "ConnectorContext",
    "ErrorCodes",
    "Event",
    "Execution",
    "FieldOption",
    "FileOutputStore",
    "Kernel",
    "LeaseLostError",
    "MemoryStorage",
    "OutboxItem",
    "OutboxReaper",
    "OutboxStore",
    "OutputError",
    "OutputStore",
    "PayloadError",
    "PluginError",
    "PollResult",
    "PolledEvent",
    "ProviderContext",
    "ProviderRegistry",
    "SecretDeniedError",
    "SecretError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "SecretsBackend",
    "Step",
    "StepFailedError",
    "StepRun",
    "StorageError",
    "SyncWorkflowContext",
    "TemplateError",
    "TriggerSpec",
    "WebhookRejectedError",
    "Workflow",
    "WorkflowContext",
    "WorkflowError",
    "WorkflowInterruptedError",
    "action",
    "capability",
    "current_call",
    "current_item",
    "hookimpl",
    "options",
    "poll",
    "register_filter",
]

__version__ = "0.1.0"


if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "workflows.automation": ("Automation",),
            "plugins.connectors": (
                "ActionSpec",
                "Connector",
                "FieldOption",
                "PollResult",
                "PolledEvent",
                "TriggerSpec",
                "action",
                "options",
                "poll",
            ),
            "operations.context": (
                "Call",
                "ConnectorContext",
                "ProviderContext",
                "current_call",
                "current_item",
            ),
            "base.errors": (
                "AutomateError",
                "ConfigError",
                "ErrorCodes",
                "LeaseLostError",
                "OutputError",
                "PayloadError",
                "PluginError",
                "SecretDeniedError",
                "SecretError",
                "SecretNotFoundError",
                "SecretUnavailableError",
                "StorageError",
                "TemplateError",
                "WebhookRejectedError",
                "WorkflowError",
            ),
            "kernel": ("Kernel",),
            "outbox": (
                "OutboxItem",
                "OutboxStore",
            ),
            "plugins": (
                "ProviderRegistry",
                "hookimpl",
            ),
            "plugins.providers": (
                "BaseProvider",
                "CapabilitySpec",
                "capability",
            ),
            "secrets": ("SecretsBackend",),
            "storage": ("MemoryStorage",),
            "storage.output_store": ("FileOutputStore", "OutputStore"),
            "templates": ("register_filter",),
            "worker": ("OutboxReaper",),
            "workflows": (
                "Event",
                "Execution",
                "Step",
                "StepRun",
                "Workflow",
            ),
            "workflows.code": (
                "ApprovalAnswer",
                "StepFailedError",
                "SyncWorkflowContext",
                "WorkflowContext",
                "WorkflowInterruptedError",
            ),
        },
    )
