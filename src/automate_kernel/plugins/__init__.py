"""Plugins: how they are found, who has which key, and when they are imported."""

from .discovery import Found, scan
from .facade import Plugins
from .hooks import Hooks, HookSpecs, hookimpl
from .kinds import KINDS, Kind
from .registry import Registry
from .states import PluginRecord, PluginState, Policy, Source

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
