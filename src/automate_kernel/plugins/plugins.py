"""All plugins of an application, behind one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from automate_kernel.base.arguments import check_flag, check_table
from automate_kernel.base.errors import PluginError, did_you_mean, type_name
from automate_kernel.plugins.compatibility import normal_name
from automate_kernel.plugins.hooks import Hooks, require_known_hooks
from automate_kernel.plugins.kinds import KINDS, kind_named, kind_of_class
from automate_kernel.plugins.records import PluginRecord, Policy
from automate_kernel.plugins.registry import ConnectorRegistry, ProviderRegistry, Registry
from automate_kernel.plugins.targets import describe_failure, load_target, normal_target

Listed = Iterable[str] | Mapping[str, str]


class Plugins:
    """
    The plugins of an application, of every kind.

    *settings* holds, by kind, the paths that the application lists (or paths by key). With
    *discover* the installed plugins count too. The other arguments are the `Policy`.
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
        check_flag(discover, "discover")
        check_flag(strict, "strict")
        self.policy: Policy = Policy.of(strict=strict, disabled=disabled, winners=winners)
        listings = check_table(settings, "listed", '{"connector": ["shop.plugins:Slack"]}')
        # A misspelt kind would be passed over.
        listed = {kind_named(name).name: paths for name, paths in listings.items()}
        common: Any = {"discover": discover, "policy": self.policy}
        self.providers: ProviderRegistry = ProviderRegistry(listed.get("provider", ()), **common)
        """The providers."""
        self.connectors: ConnectorRegistry = ConnectorRegistry(
            listed.get("connector", ()), **common
        )
        """The connectors."""
        made: dict[str, Registry[Any]] = {"provider": self.providers, "connector": self.connectors}
        for name in [name for name in KINDS if name not in made]:
            made[name] = Registry(name, listed.get(name, ()), **common)
        self._registries = made
        self.secrets_backends: Registry[Any] = made["secrets_backend"]
        """The classes of secrets backends."""
        self.outbox_stores: Registry[Any] = made["outbox_store"]
        """The classes of outbox stores."""
        self.filters: Registry[Any] = made["filter"]
        """The template filters."""
        self.hooks: Hooks = Hooks(made["hook"])
        """The receivers of hooks."""

    def registry(self, kind: str) -> Registry[Any]:
        """Return the registry of the plugins of *kind*."""
        return self._registries[kind_named(kind).name]

    def register(
        self, plugin: Any, kind: str | None = None, *, key: str | None = None, replace: bool = False
    ) -> None:
        """
        Add a class, a function, a hook object, or the path of one.

        A class is of the kind of its base class. A path is imported to find that out, unless *kind*
        is given. ``key=path`` is a path with its *key*: one class can serve several keys, each
        with its own config.
        """
        if isinstance(plugin, str) and key is None and "=" in plugin:
            key, _, plugin = (part.strip() for part in plugin.partition("="))
        if kind is None:
            if isinstance(plugin, str):
                path, plugin = plugin, _imported(
                    plugin, f"{plugin!r} can't be registered",
                    "correct the path, or say the kind= to have it imported at first use",
                )  # fmt: skip
                if not isinstance(plugin, type):
                    raise _no_class(path, plugin)
            kind = kind_of_class(plugin).name
        registry = self.registry(kind)
        if kind == "hook" and not isinstance(plugin, str):
            require_known_hooks(plugin)  # here, where the caller sees the error
        registry.register(plugin, key=key, replace=replace)
        if kind == "hook" and not isinstance(plugin, str):
            name = key or registry.kind.key_of(plugin)
            if name in registry:  # unless it is switched off
                self.hooks.add(plugin, name)

    def get(self, kind: str, key: str) -> Any:
        """Return the plugin *key* of *kind*, imported now if it was not yet. See `Registry.get`."""
        return self.registry(kind).get(key)

    def named(self, kind: str, name: str) -> Any:
        """
        Return the plugin of *kind* whose key is *name*, or the class at that dotted path.

        Raises `PluginError`, with the remedy, if it can't be had or is none of that kind.
        """
        registry = self.registry(kind)
        if name in registry or not {".", ":"} & set(name):
            return registry.get(name)
        found = _imported(
            name, f"the {registry.kind} {name!r} can't be imported",
            "correct the path, or install what it needs",
        )  # fmt: skip
        registry.kind.require_fit(found, name)
        return found

    def keys(self, kind: str) -> list[str]:
        """Return the usable keys of *kind*."""
        return self.registry(kind).keys()

    def records(self, kind: str | None = None) -> list[PluginRecord]:
        """Return the records of all plugins, usable or not; imports no installed plugin."""
        kinds = list(KINDS) if kind is None else [kind_named(kind).name]
        return [record for name in kinds for record in self._registries[name].records()]

    def load_all(self) -> list[PluginRecord]:
        """Import every plugin, to see which work. In strict mode the first broken one raises."""
        for registry in self._registries.values():
            if registry.kind.of_kernels:
                registry.load_all()
        return self.records()

    def unused_config(self, config: Iterable[str]) -> list[str]:
        """
        Return a line for each key of *config* that no connector and no provider has.

        Plugins that can't be used count as there.
        """
        records = [*self.records("connector"), *self.records("provider")]
        known = sorted({record.key for record in records})
        return [
            f"config has {key!r}, which is no connector and no provider"
            + (f" ({near})" if (near := did_you_mean(key, known)) else "")
            for key in config
            if key not in known
        ]

    def hidden(self) -> list[str]:
        """Return a line for each provider whose operations a connector of the same key hides."""
        both = {*self.connectors.keys()} & {*self.providers.keys()}
        return [
            f"there are a connector and a provider {key!r}: actions are looked for in the connector"
            " alone, and both read the config of that key"
            for key in sorted(both)
        ]

    def unmatched(self) -> list[str]:
        """Return the names in *disabled* and *winners* that fit no plugin: misspellings, likely."""
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
        return self.hooks.hook

    def __repr__(self) -> str:
        return f"<Plugins{' strict' if self.policy.strict else ''}>"


def _no_class(path: str, found: Any) -> PluginError:
    """Return the error for a *path* that leads to something else than a class."""
    hint = 'write the path of a class, "package.module:Class"'
    if isinstance(found, ModuleType):
        name = found.__name__
        own = [each for each in vars(found).values() if _is_plugin(each, name)]
        paths = ", ".join(f'"{name}:{each.__name__}"' for each in own)
        hint = f"write {paths}" if own else f'write "{name}:Class"; no class of it is a plugin yet'
    return PluginError(f"the plugin {path!r} is {type_name(found)}, and no class", hint=hint)


def _is_plugin(found: Any, module: str) -> bool:
    if not isinstance(found, type) or found.__module__ != module:
        return False
    try:
        kind_of_class(found)
    except PluginError:
        return False
    return True


def _imported(path: str, problem: str, hint: str) -> Any:
    """Return the class at a dotted *path*; its failure is a `PluginError` with *problem*."""
    try:
        return load_target(normal_target(path))
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end its application
        raise PluginError(f"{problem}: {describe_failure(error)[0]}", hint=hint) from error
