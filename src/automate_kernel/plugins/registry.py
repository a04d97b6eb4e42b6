"""One kind of plugin by key: who claims a key, who has it, and its class once someone asks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

from automate_kernel.errors import ErrorCodes, PluginError
from automate_kernel.plugins.claims import Claim, refusal, settle
from automate_kernel.plugins.discovery import scan
from automate_kernel.plugins.inspection import key_of, require_fit, require_key
from automate_kernel.plugins.kinds import KINDS, Kind
from automate_kernel.plugins.loading import (
    StillImportingError,
    is_being_imported,
    load_target,
    module_of,
    normal_target,
    remedy_for,
    target_of,
    told,
)
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
from automate_kernel.secrets.logs import get_logger

__all__ = ["Policy", "Registry"]

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")

_UNUSABLE = (PluginState.BROKEN, PluginState.CONFLICT, PluginState.INCOMPATIBLE)


class Registry(Generic[T]):
    """
    The plugins of one *kind*, each under its key.

    A key goes to what was registered, else to what the *settings* list (paths, or paths by key),
    else to what is installed, else to what is built in. Nothing is imported before it is asked
    for, except that a path in the settings without a key has to be, to learn its key.

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
        self.kind: Kind = KINDS[kind] if isinstance(kind, str) else kind
        self.policy: Policy = policy or Policy()
        self._lock = threading.RLock()
        self._claims: dict[str, list[Claim]] = {}
        self._nameless: dict[str, Source] = {}
        self._loaded: dict[str, T] = {}
        self._keys: tuple[str, ...] | None = None
        self._to_scan = discover
        if isinstance(settings, Mapping):
            for key, path in settings.items():
                self.register(path, key=key, source="settings")
        else:
            for path in (settings,) if isinstance(settings, str) else settings:
                self.register(path, source="settings")

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

        The key is the class's own unless *key* says another. Of two registrations of one key the
        second is refused, unless it is to *replace* the first or the host named it the winner.
        A path is imported at first use. *source* is ``register``, ``settings`` or ``builtin``.
        """
        level = Source[source.upper()]
        if isinstance(plugin, str):
            if key is None:
                with self._lock:
                    self._nameless[plugin] = level
                return
            claim = Claim(self.kind, key, normal_target(plugin), level)
        else:
            claim = Claim(
                self.kind, "", target_of(plugin), level, thing=plugin, state=PluginState.LOADED
            )
            require_fit(self.kind, plugin, claim.target)
            claim.key = key or key_of(self.kind, plugin)
        require_key(self.kind, claim.key)
        with self._lock:
            self._refuse_second(claim, replace)
            self._add(claim)

    def get(self, key: str) -> T:
        """
        The plugin *key*, imported now if it was not yet.

        Raises `PluginError`, with the remedy, if there is none or it can't be used.
        """
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        self._prepare()
        claim = self._holder(key)
        if claim is None:
            raise self._unknown(key)
        return self._load(claim)

    def keys(self) -> list[str]:
        """The keys that can be used, sorted. A plugin that was not loaded yet may still fail."""
        self._prepare()
        with self._lock:
            if self._keys is None:  # asked for at every call of an operation
                claims = self._every_claim()
                self._keys = tuple(
                    sorted({c.key for c in claims if c.usable and not c.replaced_by})
                )
            return list(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def load_all(self) -> dict[str, T]:
        """
        Every plugin that loads, by key. What does not is logged and left out.

        In strict mode the first one that is broken, incompatible or contested raises.
        """
        loaded: dict[str, T] = {}
        for key in self.keys():
            try:
                loaded[key] = self.get(key)
            except PluginError:
                if self.policy.strict:
                    raise
        if self.policy.strict:
            for claim in self._every_claim():
                if claim.state in _UNUSABLE and claim.replaced_by is None:
                    raise refusal(claim)
        return loaded

    def records(self) -> list[PluginRecord]:
        """Every plugin that is known, the unusable ones too, by key."""
        self._prepare()
        return [claim.record() for claim in self._every_claim()]

    def mark_broken(self, key: str, error: BaseException) -> PluginError:
        """Take the plugin *key* out of use because of *error*, and return what to raise for it."""
        claim = self._holder(key)
        if claim is None:
            return self._unknown(key)
        self._mark(claim, PluginState.BROKEN, error)
        return refusal(claim)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.kind}s>"

    def _prepare(self) -> None:
        if self._to_scan:
            with self._lock:
                if self._to_scan:
                    self._to_scan = False
                    for found in scan():
                        if found.kind == self.kind.name:
                            self._add(Claim.from_found(self.kind, found))
        for path, level in list(self._nameless.items()):
            self._name(path, level)

    def _name(self, path: str, level: Source) -> None:
        """Import what *path* names to learn its key."""
        claim = Claim(self.kind, path, normal_target(path), level)
        failure: BaseException | None = None
        try:
            thing = load_target(claim.target)
            if is_being_imported(module_of(claim.target)):
                return
            require_fit(self.kind, thing, claim.target)
            key = key_of(self.kind, thing)
            require_key(self.kind, key)
            claim.key, claim.thing, claim.state = key, thing, PluginState.LOADED
        except (KeyboardInterrupt, StillImportingError) as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return  # by its own module, as it is imported; it gets its key when that is done
        except BaseException as error:
            failure = error
        with self._lock:
            if self._nameless.pop(path, None) is None:
                return  # another thread was quicker
            self._add(claim)
        if failure is not None:
            self._mark(claim, self._state_for(failure), failure)
            if self.policy.strict:
                raise refusal(claim) from failure

    def _add(self, claim: Claim) -> None:
        claims = self._claims.setdefault(claim.key, [])
        same = (claim.source, claim.target.replace(":", "."))
        # A module that is loaded again registers its classes anew: the last one is meant.
        claims[:] = [c for c in claims if (c.source, c.target.replace(":", ".")) != same]
        claims.append(claim)
        settle(claims, self.policy)
        self._forget(claim.key)

    def _forget(self, key: str) -> None:
        self._loaded.pop(key, None)
        self._keys = None

    def _refuse_second(self, claim: Claim, replace: bool) -> None:
        claims = self._claims.get(claim.key, [])
        rivals = [c for c in claims if c.source == claim.source and c.target != claim.target]
        if replace:
            claims[:] = [c for c in claims if c not in rivals]
        elif (
            rivals
            and claim.source is Source.REGISTER
            and not self.policy.winner(self.kind.name, claim.key)
        ):
            raise PluginError(
                f"{self.kind} {claim.key!r} is registered already, as {rivals[0].target}",
                code=ErrorCodes.ALREADY_EXISTS,
                hint="register it with another key=, or with replace=True",
            )

    def _every_claim(self) -> list[Claim]:
        with self._lock:
            claims = [claim for key in self._claims.values() for claim in key]
        return sorted(claims, key=lambda claim: (claim.key, -claim.source, claim.target))

    def _holder(self, key: str) -> Claim | None:
        """The claim that has the key, or one that says why nobody does."""
        with self._lock:
            claims = [c for c in self._claims.get(key, ()) if c.replaced_by is None]
            return max(claims, key=lambda claim: (claim.usable, claim.source), default=None)

    def _load(self, claim: Claim) -> T:
        if not claim.usable:
            raise refusal(claim)
        try:
            thing = claim.thing if claim.thing is not None else load_target(claim.target)
            require_fit(self.kind, thing, claim.target)
        except (KeyboardInterrupt, StillImportingError):
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end its host
            self._mark(claim, self._state_for(error), error)
            raise refusal(claim) from error
        if claim.thing is None and is_being_imported(module_of(claim.target)):
            return thing  # type: ignore[no-any-return]  # its module may fail yet: not LOADED
        self._publish(claim, thing)
        return thing  # type: ignore[no-any-return]

    def _publish(self, claim: Claim, thing: T) -> None:
        with self._lock:
            if not claim.usable or claim.replaced_by is not None:
                return
            claim.state, claim.thing = PluginState.LOADED, thing
            self._loaded[claim.key] = thing
        own = vars(thing).get("key") if isinstance(thing, type) else None
        if claim.source is Source.ENTRY_POINT and isinstance(own, str) and own != claim.key:
            logger.warning(
                "%s %r calls itself %r; it is known by the name of its entry point",
                self.kind,
                claim.key,
                own,
            )

    def _mark(self, claim: Claim, state: PluginState, error: BaseException) -> None:
        with self._lock:
            if claim.state in (PluginState.BROKEN, PluginState.INCOMPATIBLE):
                return
            claim.state = state
            claim.error, claim.traceback = told(error)
            claim.remedy = remedy_for(
                error, kind=self.kind.name, key=claim.key, origin=claim.origin
            )
            self._forget(claim.key)
        logger.error(
            "%s %r from %s is %s and is not used: %s",
            self.kind,
            claim.key,
            claim.origin,
            state.lower(),
            claim.error,
            exc_info=error,
        )

    @staticmethod
    def _state_for(error: BaseException) -> PluginState:
        incompatible = getattr(error, "incompatible", False)
        return PluginState.INCOMPATIBLE if incompatible else PluginState.BROKEN

    def _unknown(self, key: str) -> PluginError:
        known = self.keys()
        close = get_close_matches(str(key), known, n=1)
        failed = [c.key for c in self._every_claim() if c.state in _UNUSABLE]
        hints = [f"did you mean {close[0]!r}?"] if close else []
        hints.append("there are: " + (", ".join(known) or f"no {self.kind}s at all"))
        if failed:
            hints.append("these can't be used: " + ", ".join(failed))
        if not close:
            hints.append("install the distribution that brings it, or register it")
        return PluginError(
            f"there is no {self.kind} {key!r}", code=ErrorCodes.NOT_FOUND, hint="; ".join(hints)
        )
