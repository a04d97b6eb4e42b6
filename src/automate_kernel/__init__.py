"""
Write an automation capability once, and run it durably in any Python app.

`Kernel` puts a host's plugins, workflows, secrets and storage together. Plugin authors start at
`Connector`, `BaseProvider` or `SecretsBackend`.
"""

from .connectors import ActionSpec, Connector, TriggerSpec, action
from .context import Call, ConnectorContext, ProviderContext, current_call
from .errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    LeaseLostError,
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
from .kernel import Kernel
from .outbox import OutboxItem, OutboxReaper, OutboxStore
from .plugins import hookimpl
from .providers import BaseProvider, CapabilitySpec, ProviderRegistry, capability
from .secrets import SecretsBackend
from .storage import MemoryStorage
from .templates import register_filter
from .workflows import Event, Execution, Step, StepRun, Workflow

__all__ = [
    "ActionSpec",
    "AutomateError",
    "BaseProvider",
    "Call",
    "CapabilitySpec",
    "ConfigError",
    "Connector",
    "ConnectorContext",
    "ErrorCodes",
    "Event",
    "Execution",
    "Kernel",
    "LeaseLostError",
    "MemoryStorage",
    "OutboxItem",
    "OutboxReaper",
    "OutboxStore",
    "PayloadError",
    "PluginError",
    "ProviderContext",
    "ProviderRegistry",
    "SecretDeniedError",
    "SecretError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "SecretsBackend",
    "Step",
    "StepRun",
    "StorageError",
    "TemplateError",
    "TriggerSpec",
    "WebhookRejectedError",
    "Workflow",
    "WorkflowError",
    "action",
    "capability",
    "current_call",
    "hookimpl",
    "register_filter",
]

__version__ = "0.1.0"
