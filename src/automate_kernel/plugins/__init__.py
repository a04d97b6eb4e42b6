"""Plugins: how they are found, who has which key, and when they are imported."""

from automate_kernel.plugins.discovery import Found, scan
from automate_kernel.plugins.facade import Plugins
from automate_kernel.plugins.hooks import Hooks, HookSpecs, hookimpl
from automate_kernel.plugins.kinds import KINDS, Kind
from automate_kernel.plugins.registry import Registry
from automate_kernel.plugins.states import PluginRecord, PluginState, Policy, Source

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
