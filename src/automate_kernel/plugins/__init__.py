"""Plugins: their discovery, keys, states and hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_kernel.plugins.discovery import Found, scan
    from automate_kernel.plugins.hooks import Hooks, HookSpecs, hookimpl
    from automate_kernel.plugins.kinds import KINDS, Kind
    from automate_kernel.plugins.plugins import Plugins
    from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
    from automate_kernel.plugins.registry import ConnectorRegistry, ProviderRegistry, Registry
__all__ = [
    "KINDS",
    "ConnectorRegistry",
    "Found",
    "HookSpecs",
    "Hooks",
    "Kind",
    "PluginRecord",
    "PluginState",
    "Plugins",
    "Policy",
    "ProviderRegistry",
    "Registry",
    "Source",
    "hookimpl",
    "scan",
]

if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "discovery": ("Found", "scan"),
            "hooks": ("Hooks", "HookSpecs", "hookimpl"),
            "kinds": ("KINDS", "Kind"),
            "plugins": ("Plugins",),
            "records": ("PluginRecord", "PluginState", "Policy", "Source"),
            "registry": ("ConnectorRegistry", "ProviderRegistry", "Registry"),
        },
    )
