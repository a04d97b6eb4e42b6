"""The plugins that want the same key, and the decision which of them gets it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from automate_kernel.base.errors import PluginError
from automate_kernel.plugins.compatibility import (
    incompatibility,
    normal_name,
    requirement_on_kernel,
)
from automate_kernel.plugins.discovery import Found
from automate_kernel.plugins.kinds import Kind
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)


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
