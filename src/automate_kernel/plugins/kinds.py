"""The kinds of plugin that there are, and the entry-point groups that each is found in."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from automate_kernel.errors import PluginError, type_name

__all__ = [
    "CONNECTOR",
    "FILTER",
    "HOOK",
    "KINDS",
    "OUTBOX_STORE",
    "PROVIDER",
    "SECRETS_BACKEND",
    "Kind",
    "kind_of_class",
    "kind_of_group",
]

_KEY = r"[a-z][a-z0-9_-]{0,63}"
_ANY_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of plugin.

    *base* is the class that a plugin derives from, as ``module:Name``, so that knowing the kinds
    imports none of them. *registry* is the class of its registry, where it has one of its own.
    """

    name: str
    groups: tuple[str, ...]
    base: str | None = None
    registry: str | None = None
    key_pattern: str = _KEY

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    def base_class(self) -> type | None:
        """The base class, imported now; None if a plugin of this kind need not be a class."""
        if self.base is None:
            return None
        from automate_kernel.plugins.loading import load_target

        loaded: type = load_target(self.base)
        return loaded

    def takes_key(self, key: str) -> bool:
        """Whether *key* is written as keys of this kind are."""
        return re.fullmatch(self.key_pattern, key) is not None


PROVIDER = Kind(
    "provider",
    ("automate.providers", "django_automate.providers"),
    "automate_kernel.providers:BaseProvider",
    "automate_kernel.providers:ProviderRegistry",
)
CONNECTOR = Kind(
    "connector",
    ("automate.connectors", "django_automate.connectors"),
    "automate_kernel.connectors:Connector",
    "automate_kernel.connectors:ConnectorRegistry",
)
SECRETS_BACKEND = Kind(
    "secrets_backend",
    ("automate.secrets_backends", "django_automate.secrets.backends"),
    "automate_kernel.secrets:SecretsBackend",
)
OUTBOX_STORE = Kind(
    "outbox_store", ("automate.outbox_stores",), "automate_kernel.outbox:OutboxStore"
)
FILTER = Kind("filter", ("automate.filters",), key_pattern=r"[A-Za-z_][A-Za-z0-9_]{0,63}")
HOOK = Kind("hook", ("automate.hooks",), key_pattern=_ANY_NAME)

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (PROVIDER, CONNECTOR, SECRETS_BACKEND, OUTBOX_STORE, FILTER, HOOK)
}

_GROUPS = {group: kind for kind in KINDS.values() for group in kind.groups}


def kind_of_group(group: str) -> Kind | None:
    """The kind whose plugins are found in the entry-point group *group*."""
    return _GROUPS.get(group)


def kind_of_class(plugin: Any) -> Kind:
    """The kind of a plugin class, by what it derives from."""
    if not isinstance(plugin, type):
        raise PluginError(
            f"can't tell the kind of {type_name(plugin)}",
            hint="register the class, or say kind='filter' or kind='hook'",
        )
    for kind in KINDS.values():
        module, _, name = (kind.base or "").partition(":")
        # Whoever derives from the base has imported it: no need to import the others.
        base = getattr(sys.modules.get(module), name, None) if name else None
        if isinstance(base, type) and issubclass(plugin, base):
            return kind
    bases = ", ".join(kind.base.partition(":")[2] for kind in KINDS.values() if kind.base)
    raise PluginError(
        f"class {plugin.__qualname__} is of no known kind",
        hint=f"derive it from one of {bases}, or say which kind= it is",
    )
