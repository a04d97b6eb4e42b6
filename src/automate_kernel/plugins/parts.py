"""
The parts of a kernel that may be plugins: secrets backends, stores, executors, relays.

Each is given as itself, or named: by its class, its dotted path, or the key of an installed plugin.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from automate_kernel.base.arguments import check_age, several
from automate_kernel.base.errors import (
    ConfigError,
    ErrorCodes,
    PluginError,
    did_you_mean,
    type_name,
)
from automate_kernel.operations.executors import HERE, Placement, StepExecutor
from automate_kernel.outbox import OutboxStore, RowsOutboxStore
from automate_kernel.outbox.item import check_text
from automate_kernel.plugins.plugins import Plugins
from automate_kernel.relays.relay import Relay
from automate_kernel.relays.relays import Route
from automate_kernel.relays.subscriptions import EventSubscription, SubscribedBroker, Subscriptions
from automate_kernel.secrets import (
    EnvSecretsBackend,
    MemorySecretsBackend,
    SecretResolver,
    SecretsBackend,
)
from automate_kernel.secrets.backends import BUILT_IN
from automate_kernel.secrets.handles import reveal, secret_keys
from automate_kernel.storage import Storage
from automate_kernel.storage.output_store import FileOutputStore, LateOutputStore, OutputStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

# -- secrets backends ------------------------------------------------------------------------


def secrets_backends(given: Any, plugins: Plugins) -> list[SecretsBackend]:
    """
    Return the secrets backends that are *given*: one, several, a mapping for tests, or None.

    None is the environment variables ``AUTOMATE_SECRET_…``. Raises `ConfigError` for what is no
    backend, and `PluginError` for a plugin that can't be had.
    """
    if given is None:
        return [EnvSecretsBackend()]
    if isinstance(given, Mapping):
        return [MemorySecretsBackend(given)]
    if not isinstance(given, (str, type, SecretsBackend, Iterable)):
        raise ConfigError(
            f"secrets can't be {type_name(given)}",
            hint="pass backends, their keys, or a mapping for tests",
        )
    if isinstance(given, (str, type, SecretsBackend)):
        given = [given]
    return [_secrets_backend(each, plugins) for each in given]


def _secrets_backend(given: Any, plugins: Plugins) -> SecretsBackend:
    options: Mapping[str, Any] = {}
    if isinstance(given, Mapping):
        options = {name: value for name, value in given.items() if name != "backend"}
        given = given.get("backend")
        if given is None:
            raise ConfigError(
                "secrets: a table of options names no backend",
                hint='write {"backend": "vault", …}, with the key of an installed plugin',
            )
    if isinstance(given, SecretsBackend):
        return given
    built_in = BUILT_IN.get(given) if isinstance(given, str) else None
    cls = _backend_class(built_in or given, plugins)
    try:
        backend: SecretsBackend = cls(**options)
    except TypeError as error:
        trouble = "doesn't take these options" if options else "needs arguments"
        _refuse("secrets backend", cls, trouble, error, hint=_options_hint(cls, given, options))
    return backend


def _backend_class(given: Any, plugins: Plugins) -> Any:
    """Return the class of a secrets backend that is *given* as itself, or by its key or path."""
    if not isinstance(given, str):
        if isinstance(given, type) and issubclass(given, SecretsBackend):
            return given
        raise ConfigError(
            f"a secrets backend can't be {_given_name(given)}",
            hint="pass a SecretsBackend, its class, or the key or dotted path of one",
        )
    known = plugins.registry("secrets_backend")
    is_key = not set(".:") & set(given)
    if is_key and not known.knows(given):
        keys = sorted({*BUILT_IN, *known.keys()})
        hint = did_you_mean(given, keys, also=f"there are: {', '.join(keys)}")
        raise PluginError(
            f"there is no secrets backend {given!r}", code=ErrorCodes.NOT_FOUND, hint=hint
        )
    return plugins.named("secrets_backend", given)


def _options_hint(cls: Any, given: Any, options: Mapping[str, Any]) -> str:
    """Return how a secrets backend is named that takes other options than *options*."""
    try:
        takes = list(inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        takes = []
    if not takes:
        return "pass an instance instead of its key or path"
    if not isinstance(given, str):
        return f"pass an instance; it takes: {', '.join(each.name for each in takes)}"
    near = [did_you_mean(name, [each.name for each in takes]) for name in options]
    words = next((each for each, name in zip(near, options, strict=True) if each), "")
    needed = [f'"{each.name}": …' for each in takes if each.default is each.empty]
    written = ", ".join([f'{{"backend": "{given}"', *needed])
    known = ", ".join(each.name for each in takes)
    return " ".join(filter(None, [words, f"write {written}}}; it takes: {known}"]))


# -- the outbox ------------------------------------------------------------------------------


def outbox_store(
    given: OutboxStore | str | None,
    plugins: Plugins,
    storage: Storage,
    *,
    lease_seconds: float,
    retention_seconds: float | None,
    failed_retention_seconds: float | None,
) -> OutboxStore:
    """
    Return the outbox that is *given*, or an outbox in *storage* that keeps items for these seconds.

    *given* may name a class, by key or dotted path; None is `RowsOutboxStore`. Raises
    `ConfigError` for what is no outbox, and `PluginError` for a plugin that can't be had.
    """
    if given is not None and not isinstance(given, str):
        if not isinstance(given, OutboxStore):
            raise ConfigError(
                f"an outbox can't be {_given_name(given)}",
                hint="pass an OutboxStore, or the key or dotted path of its class",
            )
        return given
    cls: Any = plugins.named("outbox_store", given) if given else RowsOutboxStore
    try:
        store: OutboxStore = cls(storage, lease_seconds=lease_seconds)
    except TypeError as error:
        trouble = "can't be made from a storage and lease_seconds"
        hint = "pass an instance instead of its key or path"
        _refuse("outbox store", cls, trouble, error, hint=hint)
    kept = {
        "retention_seconds": retention_seconds,
        "failed_retention_seconds": failed_retention_seconds,
    }
    for name, age in kept.items():
        setattr(store, name, age if age is None else check_age(age, name))
    return store


# -- the output store ------------------------------------------------------------------------


def output_store(
    given: OutputStore | str | Path | Mapping[str, Any] | None,
    plugins: Plugins,
    secrets: SecretResolver,
    render: Callable[[Any, str], Any],
) -> OutputStore | None:
    """
    Return the output store that is *given*: itself, a folder, or a plugin with its options.

    *render* renders the templates of an option; it gets the option's place for errors; *secrets*
    are those that options refer to. Raises `ConfigError` for what is no store, or has other
    options.
    """
    if given is None or isinstance(given, OutputStore):
        return given
    if isinstance(given, (str, Path)):
        return FileOutputStore(given)
    if isinstance(given, Mapping):
        return _named_output_store(given, plugins, secrets, render)
    raise ConfigError(
        f"an output store can't be {type_name(given)}",
        hint="pass a folder, a subclass of OutputStore's instance, or"
        ' {"store": KEY} with its options',
    )


def _named_output_store(
    given: Mapping[str, Any],
    plugins: Plugins,
    secrets: SecretResolver,
    render: Callable[[Any, str], Any],
) -> OutputStore:
    """Return the output store of a plugin: made now, or later if it needs secrets for that."""
    options, name = {**given}, given.get("store")
    options.pop("store", None)
    if not isinstance(name, str):
        raise ConfigError(
            "the output store's options name no store",
            hint='write {"store": "s3", …}, with the key of an installed plugin',
        )
    cls = plugins.named("output_store", name)
    rendered = {
        # In Python an option may be anything: a path, an object.
        each: render(value, f"output_store.{each}")
        if isinstance(value, (str, list, tuple, Mapping))
        else value
        for each, value in options.items()
    }
    signature = inspect.signature(cls)
    # A store that reads secrets itself, at each connection, sees the new value of a rotated secret.
    reader = {"secrets": secrets} if "secrets" in signature.parameters else {}
    try:
        signature.bind(**{**reader, **options})
    except TypeError as error:
        raise ConfigError(
            f"the output store {name!r} doesn't take these options: {error}",
            hint=f"it takes: {', '.join(signature.parameters)}",
        ) from None

    def make() -> OutputStore:
        made: OutputStore = cls(**{**reader, **reveal(rendered, secrets)})
        return made

    keys = frozenset(secret_keys(rendered))
    return LateOutputStore(make, keys) if keys else make()


# -- executors, relays, subscriptions ----------------------------------------------------------


class NamedParts:
    """
    Reads the tables of settings that hold parts by name.

    An entry is a part itself, or a table that says by one key which part it is: the key of an
    installed plugin, with its options, or a part that is made. *render* and *secrets* are for the
    options, as in `output_store`. Each method raises `ConfigError` for what is no such part, or has
    other options.
    """

    def __init__(
        self, plugins: Plugins, secrets: SecretResolver, render: Callable[[Any, str], Any]
    ) -> None:
        self._plugins, self._secrets, self._render = plugins, secrets, render

    def step_executors(self, given: Mapping[str, Any]) -> dict[str, Placement]:
        """Return the executors that are *given* by name."""
        return {name: self._placement(name, entry) for name, entry in given.items()}

    def _placement(self, name: str, given: Any) -> Placement:
        place = f"executors.{name}"
        if name == HERE:
            raise ConfigError(f"{place} can't have this name", hint=f"{HERE} is the worker itself")
        entry = _entry(
            place, name, given, "type", StepExecutor, "names no type",
            'write {"type": "nats", …}: the key of an installed plugin, or a StepExecutor',
        )  # fmt: skip
        patterns, durable = several(entry.pop("operations", ())), entry.pop("durable", False)
        if not isinstance(durable, bool) or not all(isinstance(each, str) for each in patterns):
            raise ConfigError(
                f"{place}: operations is a list of patterns, and durable true or false",
                hint='for example operations = ["llm.*"]',
            )
        executor = self._part(place, entry, "type", "step_executor", queue=name)
        if durable and not executor.supports_durable:
            raise ConfigError(
                f"{place}: an executor of the type {given['type']!r} can't be durable",
                hint="take durable out: its calls are held in a worker",
            )
        return Placement(name, executor, tuple(patterns), durable)

    def relay_routes(self, given: Mapping[str, Any]) -> dict[str, Route]:
        """Return the relays that are *given* by name."""
        return {name: self._route(name, entry) for name, entry in given.items()}

    def _route(self, name: str, given: Any) -> Route:
        place = f"relays.{name}"
        entry = _entry(
            place, name, given, "to", Relay, "doesn't say where its events go",
            'write {"to": "nats", …}: the key of an installed plugin, or a Relay',
        )  # fmt: skip
        patterns = several(entry.pop("events", ("*",)))
        if not patterns or not all(isinstance(each, str) and each for each in patterns):
            raise ConfigError(
                f"{place}: events is a list of patterns", hint='for example events = ["order.*"]'
            )
        return Route(name, self._part(place, entry, "to", "relay"), tuple(patterns))

    def subscriptions(self, given: Mapping[str, Any]) -> Subscriptions:
        """Return the subscriptions that are *given* by name."""
        return Subscriptions({name: self._subscribed(name, entry) for name, entry in given.items()})

    def _subscribed(self, name: str, given: Any) -> SubscribedBroker:
        place = f"subscriptions.{name}"
        entry = _entry(
            place, name, given, "from", EventSubscription, "doesn't say whose events come",
            'write {"from": "nats", …}: a plugin\'s key, or an EventSubscription',
        )  # fmt: skip
        tenant_id = entry.pop("tenant_id", None)
        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")
        part = self._part(place, entry, "from", "subscription", durable=f"automate-{name}")
        return SubscribedBroker(name, part, tenant_id)

    def _part(self, place: str, entry: dict[str, Any], key: str, kind: str, **ours: Any) -> Any:
        """Return the part that the rest of *entry* describes; *ours* are options by default."""
        part = entry.pop(key)
        if not isinstance(part, str):
            if entry:
                raise ConfigError(f"{place}: a part that is made takes no {', '.join(entry)}")
            return part
        cls: Any = self._plugins.named(kind, part)
        options, takes = {**ours, **entry}, inspect.signature(cls).parameters
        if unknown := sorted(set(entry) - set(takes)):
            hint = did_you_mean(unknown[0], takes, also=f"it takes: {', '.join(takes)}")
            raise ConfigError(f"{place} doesn't take {unknown[0]!r}", hint=hint)
        rendered = {name: self._render(value, f"{place}.{name}") for name, value in options.items()}
        try:
            return cls(**reveal(rendered, self._secrets))
        except TypeError as error:
            _refuse(place, cls, "doesn't take these options", error, hint="see its page")


def _entry(
    place: str, name: str, given: Any, key: str, base: type, lack: str, hint: str
) -> dict[str, Any]:
    """Return the entry at *place* as a table of its own, which says by *key* which part it is."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place} can't have this name", hint="use letters, digits, _ and -")
    if isinstance(given, base):
        return {key: given}
    if not isinstance(given, Mapping) or not isinstance(given.get(key), (str, base)):
        raise ConfigError(f"{place} {lack}", hint=hint)
    return dict(given)


# -- refusals --------------------------------------------------------------------------------


def _given_name(given: Any) -> str:
    """Return what was given in the place of an instance: ``an int``, ``the class Drawer``."""
    return f"the class {given.__name__}" if isinstance(given, type) else type_name(given)


def _refuse(what: str, cls: Any, trouble: str, error: TypeError, *, hint: str) -> NoReturn:
    """Raise a `ConfigError` for a class that could not be called."""
    # A call that does not fit is described by names; other texts may have values.
    _, is_call, reason = str(error).partition("() ")
    text = f"the {what} {getattr(cls, '__name__', cls)} {trouble}{is_call and f': {reason}'}"
    raise ConfigError(text, hint=hint) from error
