"""Secrets: backends hold them, handles stand for them, the redactor hides them."""

from __future__ import annotations

from automate_kernel.base.errors import (
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets.backends import (
    EnvSecretsBackend,
    FileSecretsBackend,
    MemorySecretsBackend,
    SecretsBackend,
    WritableFileSecretsBackend,
    WritableSecretsBackend,
)
from automate_kernel.secrets.handles import Sealed, SecretRef, areveal, masked, reveal
from automate_kernel.secrets.lease_lock import LeaseLock, LockEntry, LockState
from automate_kernel.secrets.logs import RedactingFilter
from automate_kernel.secrets.redaction import Redactor
from automate_kernel.secrets.resolver import SecretReport, SecretResolver, SecretStatus

__all__ = [
    "EnvSecretsBackend",
    "FileSecretsBackend",
    "LeaseLock",
    "LockEntry",
    "LockState",
    "MemorySecretsBackend",
    "RedactingFilter",
    "Redactor",
    "Sealed",
    "SecretDeniedError",
    "SecretError",
    "SecretNotFoundError",
    "SecretRef",
    "SecretReport",
    "SecretResolver",
    "SecretStatus",
    "SecretUnavailableError",
    "SecretsBackend",
    "WritableFileSecretsBackend",
    "WritableSecretsBackend",
    "areveal",
    "masked",
    "reveal",
]
