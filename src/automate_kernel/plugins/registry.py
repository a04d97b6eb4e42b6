"""The registries of plugins by kind and key, and the decision which plugin gets a key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from automate_kernel.base.errors import ErrorCodes, PluginError, did_you_mean
from automate_kernel.base.forks import new_rlock
from automate_kernel.operations.context import PluginContext
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.compatibility import (
    IncompatibleError,
    incompatibility,
    normal_name,
    requirement_on_kernel,
)
from automate_kernel.plugins.connectors import Connector
from automate_kernel.plugins.discovery import Found, scan
from automate_kernel.plugins.kinds import CONNECTOR, PROVIDER, Kind, kind_named
from automate_kernel.plugins.providers import BaseProvider
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
from automate_kernel.plugins.targets import (
    StillImportingError,
    describe_failure,
    is_being_imported,
    load_target,
    missing_extra,
    normal_target,
    remedy_for,
    target_of,
)
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")
P = TypeVar("P", bound=Plugin)

_UNUSABLE = (PluginState.BROKEN, PluginState.CONFLICT, PluginState.INCOMPATIBLE)
_MOST_SHOWN = 100
_STORIES = {
    PluginState.BROKEN: "is broken",
    PluginState.INCOMPATIBLE: "does not fit this version",
    PluginState.CONFLICT: "is contested",
    PluginState.DISABLED: "is switched off",
}


@dataclass(slots=True, eq=False)
class Candidate:
    """One plugin that wants a key. Changed under its registry's lock only."""

    kind: Kind
    key: str
    target: str
    source: Source
    group: str | None = None
    distribution: str | None = None
    version: str | None = None
    location: str | None = None
    plugin: Any = None
    state: PluginState = PluginState.DISCOVERED
    replaced_by: str | None = None
    error: str | None = None
    traceback: str | None = None
    remedy: str | None = None
    missing_extra: str | None = None

    @classmethod
    def from_found(cls, kind: Kind, found: Found) -> Candidate:
        """Return the candidate that an installed plugin is."""
        brought = (found.group, found.distribution, found.version, found.location)
        candidate = cls(kind, found.key, found.target, Source.ENTRY_POINT, *brought)
        needs = requirement_on_kernel(found.requires)
        problem = incompatibility(needs) if needs else None
        if problem is not None:
            candidate.state = PluginState.INCOMPATIBLE
            candidate.error, candidate.remedy = problem.message, problem.hint
        elif not kind.takes_key(found.key):
            candidate.state = PluginState.BROKEN
            candidate.error = f"{found.key!r} is no key for plugins of kind {kind}"
            author = f"its author ({candidate.origin}) must rename the entry point"
            candidate.remedy = f"{author}, with {kind.key_rule}"
        if candidate.state is not PluginState.DISCOVERED:
            text, remedy = "%s %r from %s is not used: %s (%s)", candidate.remedy
            logger.error(text, kind, candidate.key, candidate.origin, candidate.error, remedy)
        return candidate

    @property
    def origin(self) -> str:
        """The distribution and version that it came with, or else its source."""
        if self.distribution is None:
            return self.source.label
        return f"{self.distribution} {self.version or ''}".rstrip()

    def belongs_to(self, winner: str) -> bool:
        """Return True if *winner*, a target or a distribution, means this plugin."""
        return winner.replace(":", ".") == self.target.replace(":", ".") or (
            self.distribution is not None and normal_name(winner) == normal_name(self.distribution)
        )

    def unusable_error(self) -> PluginError:
        """Return the error for a plugin that is there but can't be used."""
        story = _STORIES.get(self.state, "can't be used")
        reason = f": {self.error}" if self.error else ""
        return PluginError(
            f"{self.kind} {self.key!r} from {self.origin} {story}{reason}",
            hint=self.remedy,
            details={"state": self.state.value, "target": self.target},
        )

    def record(self) -> PluginRecord:
        """Return its state, for people."""
        same = {each.name: getattr(self, each.name) for each in fields(PluginRecord)}
        return PluginRecord(**{**same, "kind": self.kind.name, "source": self.origin})


def resolve_conflict(candidates: Sequence[Candidate], policy: Policy) -> None:
    """
    Decide which of the *candidates* for one key gets it, by source and by *policy*.

    A candidate that failed keeps its key from lower sources: a broken replacement must not bring
    back the plugin that it replaced.
    """
    for candidate in candidates:
        candidate.replaced_by = None
        by_key = policy.disables(candidate.kind.name, candidate.key)
        if by_key or policy.disables_distribution(candidate.distribution):
            switched_off = candidate.key if by_key else candidate.distribution
            candidate.state, candidate.error = PluginState.DISABLED, None
            candidate.remedy = f"take {switched_off!r} out of the disabled plugins"
        elif candidate.state in (PluginState.CONFLICT, PluginState.DISABLED):
            loaded = candidate.plugin is not None
            candidate.state = PluginState.LOADED if loaded else PluginState.DISCOVERED
            candidate.error = candidate.remedy = None
    live = [each for each in candidates if each.state is not PluginState.DISABLED]
    if not live:
        return
    level = max(candidate.source for candidate in live)
    rivals = [candidate for candidate in live if candidate.source == level]
    for candidate in live:
        if candidate.source != level:
            candidate.replaced_by = level.label
    fitting = [candidate for candidate in rivals if candidate.state is not PluginState.INCOMPATIBLE]
    _decide(fitting or rivals, rivals, policy)


def _decide(contenders: Sequence[Candidate], rivals: Sequence[Candidate], policy: Policy) -> None:
    kind, key = contenders[0].kind, contenders[0].key
    if len(contenders) > 1 and (wanted := policy.winner(kind.name, key)):
        named = [candidate for candidate in contenders if candidate.belongs_to(wanted)]
        contenders = named if len(named) == 1 else contenders
    if len(contenders) == 1:
        for candidate in rivals:
            if candidate is not contenders[0]:
                candidate.replaced_by = contenders[0].origin
        return
    names = ", ".join(
        sorted(f"{candidate.origin} ({candidate.target})" for candidate in contenders)
    )
    problem = f"more than one {kind} claims the key {key!r}: {names}"
    logger.error("%s; none of them is used", problem)
    for candidate in contenders:
        if not candidate.state.usable:
            continue  # its own failure says more
        candidate.state = PluginState.CONFLICT
        candidate.error = problem
        candidate.remedy = (
            f"name the one to use with winners={{'{kind.name}:{key}': {candidate.target!r}}},"
            " or uninstall the others"
        )


class Registry(Generic[T]):
    """
    The plugins of one *kind*, each under its key.

    The key goes to the plugin of the highest source: registered, in the *settings* (paths, or paths
    by key), installed, built in. A plugin is imported at its first use; a path in the settings
    without a key is imported earlier, to learn its key.

    Safe to use from several threads. No lock is held while a plugin is imported, so that two
    imports that ask for each other's plugins can't lock each other out.
    """

    def __init__(
        self,
        kind: Kind | str,
        settings: Iterable[str] | Mapping[str, str] = (),
        *,
        discover: bool = True,
        policy: Policy | None = None,
    ) -> None:
        self.kind: Kind = kind_named(kind) if isinstance(kind, str) else kind
        self.policy: Policy = policy or Policy()
        self._lock = new_rlock()
        self._candidates: dict[str, list[Candidate]] = {}
        self._nameless: dict[str, Source] = {}
        self._loaded: dict[str, T] = {}
        self._keys: tuple[str, ...] | None = None
        self._to_scan = discover
        keys = settings if isinstance(settings, Mapping) else {}
        for name in (settings,) if isinstance(settings, str) else settings:
            self.register(keys.get(name, name), key=name if keys else None, source="settings")

    def register(
        self,
        plugin: T | str,
        *,
        key: str | None = None,
        source: str = "register",
        replace: bool = False,
    ) -> None:
        """
        Add a class, a function, or the path of one.

        The key is the class's own unless *key* says another. The second registration of a key is
        refused, unless it is to *replace* the first or the application named it the winner. A path
        is imported at first use. *source* is ``register``, ``settings`` or ``builtin``.
        """
        level = Source[source.upper()]
        if isinstance(plugin, str):
            if key is None:
                with self._lock:
                    self._nameless[plugin] = level
                return
            candidate = Candidate(self.kind, key, normal_target(plugin), level)
        else:
            target = target_of(plugin)
            self.kind.require_fit(plugin, target)
            candidate = Candidate(self.kind, key or self.kind.key_of(plugin), target, level)
            candidate.plugin, candidate.state = plugin, PluginState.LOADED
        self.kind.require_key(candidate.key)
        with self._lock:
            self._refuse_second(candidate, replace)
            self._add(candidate)

    def get(self, key: str) -> T:
        """
        Return the plugin *key*, imported now if it was not yet.

        Raises `PluginError`, with the remedy, if there is none or it can't be used.
        """
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        self._prepare()
        candidate = self._holder(key)
        if candidate is None:
            raise self._unknown(key)
        return self._load(candidate)

    def keys(self) -> list[str]:
        """Return the usable keys, sorted. A plugin that was not loaded yet may still fail."""
        self._prepare()
        with self._lock:
            if self._keys is None:  # asked for at every call of an operation
                candidates = self._every_candidate()
                usable = {c.key for c in candidates if c.state.usable and not c.replaced_by}
                self._keys = tuple(sorted(usable))
            return list(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def knows(self, key: str) -> bool:
        """Return True if there is a plugin *key*, usable or not."""
        self._prepare()
        return key in self._candidates

    def load_all(self) -> dict[str, T]:
        """
        Return every plugin that loads, by key. A plugin that fails is logged and left out.

        In strict mode the first that is broken, incompatible or contested raises.
        """
        loaded: dict[str, T] = {}
        for key in self.keys():
            try:
                loaded[key] = self.get(key)
            except PluginError:
                if self.policy.strict:
                    raise
        if self.policy.strict:
            for candidate in self._every_candidate():
                if candidate.state in _UNUSABLE and candidate.replaced_by is None:
                    raise candidate.unusable_error()
        return loaded

    def records(self) -> list[PluginRecord]:
        """Return the records of all known plugins, usable or not, by key."""
        self._prepare()
        return [candidate.record() for candidate in self._every_candidate()]

    def mark_broken(self, key: str, error: BaseException) -> PluginError:
        """Take the plugin *key* out of use because of *error*, and return the error to raise."""
        candidate = self._holder(key)
        if candidate is None:
            return self._unknown(key)
        self._mark(candidate, error)
        return candidate.unusable_error()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.kind}s>"

    def _prepare(self) -> None:
        if self._to_scan:
            with self._lock:
                if self._to_scan:
                    self._to_scan = False
                    for found in scan():
                        if found.kind == self.kind.name:
                            self._add(Candidate.from_found(self.kind, found))
        for path, level in list(self._nameless.items()):
            self._name(path, level)

    def _name(self, path: str, level: Source) -> None:
        """Import the plugin at *path* to learn its key."""
        candidate = Candidate(self.kind, path, normal_target(path), level)
        failure: BaseException | None = None
        try:
            thing = load_target(candidate.target)
            if is_being_imported(candidate.target):
                return
            self.kind.require_fit(thing, candidate.target)
            key = self.kind.key_of(thing)
            self.kind.require_key(key)
            candidate.key, candidate.plugin, candidate.state = key, thing, PluginState.LOADED
        except KeyboardInterrupt:
            raise
        except StillImportingError:
            return  # by its own module, as it is imported; it gets its key when that is done
        except BaseException as error:
            failure = error
        with self._lock:
            if self._nameless.pop(path, None) is None:
                return  # another thread was quicker
            self._add(candidate)
        if failure is not None:
            self._mark(candidate, failure)
            if self.policy.strict:
                raise candidate.unusable_error() from failure

    def _add(self, candidate: Candidate) -> None:
        candidates = self._candidates.setdefault(candidate.key, [])
        same = (candidate.source, candidate.target.replace(":", "."))
        # A module that is loaded again registers its classes again: the last class is meant.
        candidates[:] = [c for c in candidates if (c.source, c.target.replace(":", ".")) != same]
        candidates.append(candidate)
        resolve_conflict(candidates, self.policy)
        self._forget(candidate.key)

    def _forget(self, key: str) -> None:
        self._loaded.pop(key, None)
        self._keys = None

    def _refuse_second(self, candidate: Candidate, replace: bool) -> None:
        candidates = self._candidates.get(candidate.key, [])
        rivals = [
            c for c in candidates if c.source == candidate.source and c.target != candidate.target
        ]
        if replace:
            candidates[:] = [c for c in candidates if c not in rivals]
            return
        decided = self.policy.winner(self.kind.name, candidate.key)
        if rivals and candidate.source is Source.REGISTER and not decided:
            raise PluginError(
                f"{self.kind} {candidate.key!r} is registered already, as {rivals[0].target}",
                code=ErrorCodes.ALREADY_EXISTS,
                hint="register it with another key=, or with replace=True",
            )

    def _every_candidate(self) -> list[Candidate]:
        with self._lock:
            candidates = [candidate for key in self._candidates.values() for candidate in key]
        return sorted(candidates, key=lambda each: (each.key, -each.source, each.target))

    def _holder(self, key: str) -> Candidate | None:
        """Return the candidate that has the key, or one whose state explains why none has it."""
        with self._lock:
            candidates = [c for c in self._candidates.get(key, ()) if c.replaced_by is None]
            return max(candidates, key=lambda each: (each.state.usable, each.source), default=None)

    def _load(self, candidate: Candidate) -> T:
        if not candidate.state.usable:
            raise candidate.unusable_error()
        try:
            thing = load_target(candidate.target) if candidate.plugin is None else candidate.plugin
            self.kind.require_fit(thing, candidate.target)
        except (KeyboardInterrupt, StillImportingError):
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end its process
            self._mark(candidate, error)
            raise candidate.unusable_error() from error
        if candidate.plugin is None and is_being_imported(candidate.target):
            return thing  # type: ignore[no-any-return]  # its module may fail yet: not LOADED
        self._publish(candidate, thing)
        return thing  # type: ignore[no-any-return]

    def _publish(self, candidate: Candidate, thing: T) -> None:
        with self._lock:
            if not candidate.state.usable or candidate.replaced_by is not None:
                return
            candidate.state, candidate.plugin = PluginState.LOADED, thing
            self._loaded[candidate.key] = thing
        own = vars(thing).get("key") if isinstance(thing, type) else None
        if candidate.source is Source.ENTRY_POINT and isinstance(own, str) and own != candidate.key:
            text = "%s %r calls itself %r; it is known by the name of its entry point"
            logger.warning(text, self.kind, candidate.key, own)

    def _mark(self, candidate: Candidate, error: BaseException) -> None:
        unfit = isinstance(error, IncompatibleError)
        state = PluginState.INCOMPATIBLE if unfit else PluginState.BROKEN
        with self._lock:
            if candidate.state in (PluginState.BROKEN, PluginState.INCOMPATIBLE):
                return
            candidate.state = state
            candidate.error, candidate.traceback = describe_failure(error)
            candidate.remedy = remedy_for(
                error, kind=self.kind.name, key=candidate.key, origin=candidate.origin,
                target=candidate.target, distribution=candidate.distribution,
            )  # fmt: skip
            candidate.missing_extra = missing_extra(error, candidate.distribution)
            self._forget(candidate.key)
        if candidate.missing_extra is not None:
            text = "%s %r from %s is not used: %s"
            logger.warning(text, self.kind, candidate.key, candidate.origin, candidate.remedy)
            return
        text = "%s %r from %s is %s and is not used: %s"
        named = (self.kind, candidate.key, candidate.origin)
        logger.error(text, *named, state.lower(), candidate.error, exc_info=error)

    def _unknown(self, key: str) -> PluginError:
        known = self.keys()
        near = did_you_mean(key, known)
        failed = [c.key for c in self._every_candidate() if c.state in _UNUSABLE]
        hints = [near] if near else []
        hints.append("there are: " + (", ".join(known) or f"no {self.kind}s at all"))
        if failed:
            hints.append("these can't be used: " + ", ".join(failed))
        if not near:
            hints.append("install the distribution that brings it, or register it")
        # Strangers choose it, in the path of a webhook, and the log has it.
        shown = key[:_MOST_SHOWN] if isinstance(key, str) else key
        return PluginError(
            f"there is no {self.kind} {shown!r}", code=ErrorCodes.NOT_FOUND, hint="; ".join(hints)
        )


class OperationRegistry(Registry[type[P]], Generic[P]):
    """The common part of `ConnectorRegistry` and `ProviderRegistry`."""

    plugin_kind: ClassVar[Kind]

    def __init__(
        self,
        settings: Iterable[str] | Mapping[str, str] = (),
        *,
        discover: bool = True,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(self.plugin_kind, settings, discover=discover, policy=policy)

    def create(
        self, key: str, config: Mapping[str, Any] | None = None, ctx: PluginContext | None = None
    ) -> P:
        """Return an instance of the plugin *key*, with its config checked."""
        cls = self.get(key)
        return create(cls, config, ctx or cls.context_class(key=key))

    @property
    def names(self) -> dict[str, str]:
        """The display names, by key. Loads every plugin; broken plugins are left out."""
        return {key: cls.display_name or key for key, cls in self.load_all().items()}

    def specs(self) -> dict[str, Sequence[OperationSpec]]:
        """Return all operations, by key. Loads every plugin; broken plugins are left out."""
        return {key: cls.operation_specs() for key, cls in self.load_all().items()}


class ConnectorRegistry(OperationRegistry[Connector]):
    """The connectors: registered, listed in the settings, installed, or built in."""

    plugin_kind: ClassVar[Kind] = CONNECTOR


class ProviderRegistry(OperationRegistry[BaseProvider]):
    """The providers: registered, listed in the settings, installed, or built in."""

    plugin_kind: ClassVar[Kind] = PROVIDER
