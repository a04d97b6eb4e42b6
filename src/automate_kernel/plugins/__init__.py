"""Plugins: how they are found, who has which key, and when they are imported."""

from automate_kernel.plugins.discovery import Found, scan
from automate_kernel.plugins.hooks import Hooks, HookSpecs, hookimpl
from automate_kernel.plugins.kinds import KINDS, Kind
from automate_kernel.plugins.plugins import Plugins
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
from automate_kernel.plugins.registry import Registry

__all__ = [
    "KINDS",
    "Found",
    "HookSpecs",
    "Hooks",
    "Kind",
    "PluginRecord",
    "PluginState",
    "Plugins",
    "Policy",
    "Registry",
    "Source",
    "hookimpl",
    "scan",
]
