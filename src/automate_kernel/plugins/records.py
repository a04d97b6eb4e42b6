"""
The record of a plugin: its key, its source and its state.

::

    DISCOVERED ─first use─▶ LOADED
        │          └─fails─▶ BROKEN
        ├─ needs another automate-kernel ─▶ INCOMPATIBLE
        ├─ another one claims its key ────▶ CONFLICT
        └─ the application switched it off ──────▶ DISABLED
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from automate_kernel.base.arguments import check_table, check_texts
from automate_kernel.plugins.compatibility import normal_name


class PluginState(str, Enum):
    """The state of a plugin, as drawn above."""

    DISCOVERED = "DISCOVERED"
    LOADED = "LOADED"
    BROKEN = "BROKEN"
    INCOMPATIBLE = "INCOMPATIBLE"
    CONFLICT = "CONFLICT"
    DISABLED = "DISABLED"

    __str__ = str.__str__

    @property
    def usable(self) -> bool:
        """True if the plugin may be loaded, or was."""
        return self in (PluginState.DISCOVERED, PluginState.LOADED)


class Source(IntEnum):
    """The place that names a plugin. The higher one gets the key."""

    BUILTIN = 0
    ENTRY_POINT = 1
    SETTINGS = 2
    REGISTER = 3

    @property
    def label(self) -> str:
        """The word for people."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """
    A plugin as it stands, for lists and reports.

    *source* is the distribution and its version, or ``settings``, ``register`` or ``builtin``.
    *location* is the folder that the distribution is installed in.
    *replaced_by* names the source that has the key instead. *remedy* says what to do about a state
    other than DISCOVERED and LOADED. With *missing_extra* its distribution is installed without the
    extra that this plugin needs.
    """

    kind: str
    key: str
    target: str
    source: str
    state: PluginState
    group: str | None = None
    distribution: str | None = None
    version: str | None = None
    location: str | None = field(default=None, repr=False)
    replaced_by: str | None = None
    error: str | None = None
    traceback: str | None = field(default=None, repr=False)
    remedy: str | None = None
    missing_extra: str | None = None

    @property
    def usable(self) -> bool:
        """True if its key gives this plugin."""
        return self.replaced_by is None and self.state.usable


@dataclass(frozen=True, slots=True)
class Policy:
    """
    The application's decisions about plugins.

    *disabled* holds keys (``slack``), keys of one kind (``connector:slack``) or names of
    distributions. *winners* gives a contested key, with or without its kind, to a target or a
    distribution. With *strict* a plugin that is broken or contested is an error wherever all are
    loaded, and not only for who asks for it.
    """

    strict: bool = False
    disabled: frozenset[str] = frozenset()
    winners: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        strict: bool = False,
        disabled: Iterable[str] = (),
        winners: Mapping[str, str] | None = None,
    ) -> Policy:
        """Return the policy of an application's settings."""
        names = check_texts(disabled, "disabled", 'disabled=["slack"]')
        chosen = check_table(winners, "winners", '{"slack": "acme-slack"}', of=str)
        return cls(strict, frozenset(names), dict(chosen))

    def disables(self, kind: str, key: str) -> bool:
        """Return True if the key is switched off for every plugin."""
        return key in self.disabled or f"{kind}:{key}" in self.disabled

    def disables_distribution(self, name: str | None) -> bool:
        """Return True if all plugins of the distribution *name* are switched off."""
        return name is not None and normal_name(name) in map(normal_name, self.disabled)

    def winner(self, kind: str, key: str) -> str | None:
        """Return the target or distribution that gets a contested key."""
        return self.winners.get(f"{kind}:{key}") or self.winners.get(key)
