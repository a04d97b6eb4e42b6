"""Plugins: their discovery, keys, states and hooks."""

from automate_kernel.plugins.discovery import Found, scan
from automate_kernel.plugins.hooks import Hooks, HookSpecs, hookimpl
from automate_kernel.plugins.kinds import KINDS, Kind
from automate_kernel.plugins.plugins import Plugins
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
from automate_kernel.plugins.registries import ConnectorRegistry, ProviderRegistry
from automate_kernel.plugins.registry import Registry

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
