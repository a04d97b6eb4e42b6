"""All plugins of a host behind one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import ErrorCodes, PluginError
from automate_kernel.plugins.hooks import Hooks, require_known_hooks
from automate_kernel.plugins.inspection import key_of
from automate_kernel.plugins.kinds import KINDS, Kind, kind_of_class
from automate_kernel.plugins.loading import load_target, normal_target, told
from automate_kernel.plugins.records import PluginRecord, Policy, normal_name
from automate_kernel.plugins.registry import Registry

if TYPE_CHECKING:
    from automate_kernel.connectors import ConnectorRegistry
    from automate_kernel.providers import ProviderRegistry

__all__ = ["Plugins"]

Listed = Iterable[str] | Mapping[str, str]


class Plugins:
    """
    Every plugin that the host has, of every kind.

    *settings* holds, by kind, the paths that the host lists (or paths by key). With *discover* the
    installed ones count too. The rest decides about them; see `Policy`.
    """

    def __init__(
        self,
        discover: bool = True,
        strict: bool = False,
        disabled: Iterable[str] = (),
        winners: Mapping[str, str] | None = None,
        *,
        settings: Mapping[str, Listed] | None = None,
    ) -> None:
        self.policy: Policy = Policy.of(strict=strict, disabled=disabled, winners=winners)
        listed = dict(settings or {})
        for name in listed:
            _kind(name)  # a misspelt kind would be passed over
        self._registries: dict[str, Registry[Any]] = {
            kind.name: _registry(kind, listed.get(kind.name, ()), discover, self.policy)
            for kind in KINDS.values()
        }
        self._hooks = Hooks(self._registries["hook"])

    @property
    def providers(self) -> ProviderRegistry:
        """The providers."""
        return self._registries["provider"]  # type: ignore[return-value]

    @property
    def connectors(self) -> ConnectorRegistry:
        """The connectors."""
        return self._registries["connector"]  # type: ignore[return-value]

    @property
    def secrets_backends(self) -> Registry[Any]:
        """The classes of secrets backends."""
        return self._registries["secrets_backend"]

    @property
    def outbox_stores(self) -> Registry[Any]:
        """The classes of outbox stores."""
        return self._registries["outbox_store"]

    @property
    def filters(self) -> Registry[Any]:
        """The template filters."""
        return self._registries["filter"]

    def registry(self, kind: str) -> Registry[Any]:
        """The registry of the plugins of *kind*."""
        return self._registries[_kind(kind).name]

    def register(
        self, plugin: Any, kind: str | None = None, *, key: str | None = None, replace: bool = False
    ) -> None:
        """
        Add a class, a function, a hook object, or the path of one.

        The kind is told from what a class derives from; a path is imported for that, unless *kind*
        says it.
        """
        if kind is None:
            plugin = _imported(plugin) if isinstance(plugin, str) else plugin
            kind = kind_of_class(plugin).name
        registry = self.registry(kind)
        if kind == "hook" and not isinstance(plugin, str):
            require_known_hooks(plugin)  # who registers it stands there, and hears of it
        registry.register(plugin, key=key, replace=replace)
        if kind == "hook" and not isinstance(plugin, str):
            name = key or key_of(registry.kind, plugin)
            if name in registry:  # unless it is switched off
                self._hooks.add(plugin, name)

    def get(self, kind: str, key: str) -> Any:
        """The plugin *key* of *kind*, imported now if it was not yet. See `Registry.get`."""
        return self.registry(kind).get(key)

    def keys(self, kind: str) -> list[str]:
        """The keys of *kind* that can be used."""
        return self.registry(kind).keys()

    def records(self, kind: str | None = None) -> list[PluginRecord]:
        """Every plugin that is known, the unusable ones too; imports none that is installed."""
        kinds = list(KINDS) if kind is None else [_kind(kind).name]
        return [record for name in kinds for record in self._registries[name].records()]

    def load_all(self) -> list[PluginRecord]:
        """Import every plugin, to see which work. In strict mode the first that doesn't raises."""
        for registry in self._registries.values():
            registry.load_all()
        return self.records()

    def without_plugin(self, config: Iterable[str]) -> dict[str, str | None]:
        """
        The keys of *config* that no connector and no provider has, each with the nearest one.

        Plugins that can't be used count as there.
        """
        records = [*self.records("connector"), *self.records("provider")]
        known = sorted({record.key for record in records})
        return {
            key: next(iter(get_close_matches(key, known, n=1)), None)
            for key in config
            if key not in known
        }

    def unmatched(self) -> list[str]:
        """What the host disabled or named a winner and that is not there: a misspelling, likely."""
        records = self.records()
        known = {record.key for record in records}
        known |= {f"{record.kind}:{record.key}" for record in records}
        brought = {normal_name(record.distribution) for record in records if record.distribution}
        targets = {record.target.replace(":", ".") for record in records} | brought
        wrong = [
            n for n in self.policy.disabled if n not in known and normal_name(n) not in brought
        ]
        for key, winner in self.policy.winners.items():
            if key not in known:
                wrong.append(key)
            elif winner.replace(":", ".") not in targets and normal_name(winner) not in targets:
                wrong.append(winner)
        return sorted(wrong)

    @property
    def hook(self) -> Any:
        """Pluggy's relay: ``plugins.hook.automate_configure(kernel=…)`` calls every receiver."""
        return self._hooks.manager.hook

    def notify(self, name: str, **arguments: Any) -> list[Exception]:
        """Call the receivers of a hook that can't change anything any more. See `Hooks.notify`."""
        return self._hooks.notify(name, **arguments)

    def receives(self, name: str) -> bool:
        """Whether anybody receives the hook *name*."""
        return self._hooks.receives(name)

    def around(self, name: str, **arguments: Any) -> AbstractContextManager[None]:
        """Enter what the receivers of a hook return, while the block runs. See `Hooks.around`."""
        return self._hooks.around(name, **arguments)

    def __repr__(self) -> str:
        return f"<Plugins{' strict' if self.policy.strict else ''}>"


def _registry(kind: Kind, settings: Listed, discover: bool, policy: Policy) -> Registry[Any]:
    if kind.registry is None:
        return Registry(kind, settings, discover=discover, policy=policy)
    # By name, since providers and connectors are built on this package.
    made: Registry[Any] = load_target(kind.registry)(settings, discover=discover, policy=policy)
    return made


def _imported(path: str) -> Any:
    try:
        return load_target(normal_target(path))
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end its host
        raise PluginError(
            f"{path!r} can't be registered: {told(error)[0]}",
            hint="correct the path, or say the kind= to have it imported at first use",
        ) from error


def _kind(name: str) -> Kind:
    kind = KINDS.get(name)
    if kind is None:
        close = get_close_matches(str(name), KINDS, n=1)
        raise PluginError(
            f"there is no kind of plugin {name!r}",
            code=ErrorCodes.INVALID_ARGUMENT,
            hint=(f"did you mean {close[0]!r}? " if close else "")
            + "there are: "
            + ", ".join(KINDS),
        )
    return kind
