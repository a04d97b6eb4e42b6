"""The kinds of plugin: their entry-point groups, base classes and keys."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from inspect import getattr_static
from types import FunctionType, ModuleType
from typing import Any

from automate_kernel.base.errors import ErrorCodes, PluginError, did_you_mean, type_name
from automate_kernel.plugins.compatibility import incompatibility
from automate_kernel.plugins.targets import load_target

_KEY = r"[a-z][a-z0-9_-]{0,63}"
_MOST_NAMED = 5
_ANY_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"


def _called_on_the_class(plugin: type, base: type) -> str | None:
    """Return the name of a class method of *base* that *plugin* has as a method of instances."""
    for cls in plugin.__mro__[: plugin.__mro__.index(base)]:
        for name, found in vars(cls).items():
            if isinstance(found, FunctionType) and isinstance(
                getattr_static(base, name, None), classmethod
            ):
                return name
    return None


def _misfit(plugin: Any, base: type, target: str) -> PluginError:
    """Return the error for *plugin*, named *target*, that is no subclass of *base*."""
    derive = f"derive the class from {base.__module__}.{base.__name__}; register classes"
    if isinstance(plugin, ModuleType):
        module = plugin.__name__
        own = [
            f"{module}:{name}"
            for name, each in vars(plugin).items()
            if isinstance(each, type)
            and issubclass(each, base)
            and each.__module__.partition(".")[0] == module.partition(".")[0]
        ]
        hint = (
            f"write {', '.join(own[:_MOST_NAMED])}"
            if own
            else f"write {module}:Class, and {derive}"
        )
        return PluginError(f"{target} is a module, and no class", hint=hint)
    if not isinstance(plugin, type):
        cls = type(plugin)
        known = f"name its class, {cls.__module__}:{cls.__qualname__}"
        hint = known if isinstance(plugin, base) else derive
        return PluginError(f"{target} is {type_name(plugin)}, and no class", hint=hint)
    try:
        kind = kind_of_class(plugin)
    except PluginError:
        problem = f"{target} is no subclass of {base.__name__}: it is {plugin.__qualname__}"
        return PluginError(problem, hint=derive)
    return PluginError(
        f"{target} is no subclass of {base.__name__}: it is a {kind}",
        hint=f"announce it in the entry-point group {kind.groups[0]}, or {derive}",
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of plugin.

    *base* is the class that a plugin derives from, as ``module:Name``, so that the kinds import
    none of them. A plugin that *has_key* states its own; the others can be called by their names.
    Those that are not *of_kernels* are imported by the command line alone.
    """

    name: str
    groups: tuple[str, ...]
    base: str | None = None
    has_key: bool = False
    key_pattern: str = _KEY
    of_kernels: bool = True

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    @property
    def key_rule(self) -> str:
        """The rule for keys of this kind, for people."""
        if self.key_pattern == _KEY:
            return "lower-case letters, digits, _ and -, with a letter first"
        return "letters, digits and _, and no digit first: templates read it as a name"

    def takes_key(self, key: str) -> bool:
        """Return True if *key* is written as keys of this kind are."""
        return re.fullmatch(self.key_pattern, key) is not None

    def require_key(self, key: str) -> None:
        """Raise `PluginError` if *key* is not written as keys of this kind are."""
        if not self.takes_key(key):
            raise PluginError(
                f"{key!r} is no key for plugins of kind {self}",
                code=ErrorCodes.INVALID_ARGUMENT,
                hint=f"use {self.key_rule}",
            )

    def require_fit(self, plugin: Any, target: str) -> None:
        """Raise `PluginError` if *plugin*, named *target*, can't be a plugin of this kind."""
        base: type | None = load_target(self.base) if self.base else None
        if base is not None and not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise _misfit(plugin, base, target)
        if lacking := sorted(getattr(plugin, "__abstractmethods__", ())):
            raise PluginError(
                f"{target} can't be made: it lacks {', '.join(lacking)}",
                hint="write the methods that its base class leaves to it",
            )
        if base is not None and (name := _called_on_the_class(plugin, base)):
            raise PluginError(
                f"{name}() of {target} must be a class method: it is called without an instance",
                hint=f"write @classmethod above def {name}(cls)",
            )
        if self.has_key:
            # Here, as it knows operations, and a project with none needs nothing of them.
            load_target("automate_kernel.plugins.declarations:require_declared")(plugin, target)
        if self.name == "command" and not isinstance(plugin, load_target("typer:Typer")):
            raise PluginError(
                f"{target} is {type_name(plugin)}, and no command",
                hint="its entry point names a typer.Typer, such as automate_cli.command.Commands",
            )
        if self.name == "filter" and not callable(plugin):
            raise PluginError(f"{target} can't be called", hint="a filter is a function")
        needs = getattr(plugin, "automate_requires", "")
        if needs and (problem := incompatibility(str(needs))):
            raise problem

    def key_of(self, plugin: Any) -> str:
        """Return the key that *plugin* states, or else one made of its name."""
        key = getattr(plugin, "key", None)
        if isinstance(key, str) and key:
            return key
        name = str(getattr(plugin, "__name__", type(plugin).__name__))
        if self.base is None:
            return name
        if self.has_key:
            hint = f'give it one: key = "{name.lower()}"'
            raise PluginError(f"class {name} has no key", hint=hint)
        # The specification's secrets backends have none of their own: VaultBackend, vault_backend.
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


PROVIDER = Kind(
    "provider",
    ("automate.providers", "django_automate.providers"),
    "automate_kernel.plugins.providers:BaseProvider",
    has_key=True,
)
CONNECTOR = Kind(
    "connector",
    ("automate.connectors", "django_automate.connectors"),
    "automate_kernel.plugins.connectors:Connector",
    has_key=True,
)
SECRETS_BACKEND = Kind(
    "secrets_backend",
    ("automate.secrets_backends", "django_automate.secrets.backends"),
    "automate_kernel.secrets:SecretsBackend",
)
OUTBOX_STORE = Kind(
    "outbox_store", ("automate.outbox_stores",), "automate_kernel.outbox:OutboxStore"
)
OUTPUT_STORE = Kind(
    "output_store",
    ("automate.output_stores",),
    "automate_kernel.storage.output_store:OutputStore",
)
STEP_EXECUTOR = Kind(
    "step_executor",
    ("automate.step_executors",),
    "automate_kernel.operations.executors:StepExecutor",
)
RELAY = Kind("relay", ("automate.relays",), "automate_kernel.relays.relay:Relay")
SUBSCRIPTION = Kind(
    "subscription",
    ("automate.subscriptions",),
    "automate_kernel.relays.subscriptions:EventSubscription",
)
FILTER = Kind("filter", ("automate.filters",), key_pattern=r"[A-Za-z_][A-Za-z0-9_]{0,63}")
HOOK = Kind("hook", ("automate.hooks",), key_pattern=_ANY_NAME)
COMMAND = Kind("command", ("automate.commands",), of_kernels=False)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        PROVIDER,
        CONNECTOR,
        SECRETS_BACKEND,
        OUTBOX_STORE,
        OUTPUT_STORE,
        STEP_EXECUTOR,
        RELAY,
        SUBSCRIPTION,
        FILTER,
        HOOK,
        COMMAND,
    )
}

GROUPS: dict[str, Kind] = {group: kind for kind in KINDS.values() for group in kind.groups}
"""The kind whose plugins are found in each entry-point group."""


def kind_named(name: str) -> Kind:
    """Return the kind *name*; raises `PluginError` if there is none."""
    kind = KINDS.get(name)
    if kind is None:
        raise PluginError(
            f"there is no kind of plugin {name!r}",
            code=ErrorCodes.INVALID_ARGUMENT,
            hint=did_you_mean(name, KINDS, also=f"there are: {', '.join(KINDS)}"),
        )
    return kind


def kind_of_class(plugin: Any) -> Kind:
    """Return the kind of a plugin class, by its base class."""
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
