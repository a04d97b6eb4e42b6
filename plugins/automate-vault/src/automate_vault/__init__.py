"""Secrets of HashiCorp Vault and OpenBao for automate-kernel."""

from __future__ import annotations

from automate_vault.backend import VaultBackend
from automate_vault.logins import AppRoleLogin, KubernetesLogin, TokenLogin
from automate_vault.writable import WritableVaultBackend

__all__ = [
    "AppRoleLogin",
    "KubernetesLogin",
    "TokenLogin",
    "VaultBackend",
    "WritableVaultBackend",
]
