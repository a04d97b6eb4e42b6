"""Who claims a key, who gets it, and what to tell whoever asks for one that can't be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from automate_kernel.errors import PluginError
from automate_kernel.plugins.compatibility import (
    KERNEL,
    kernel_version,
    requirement_on_kernel,
    satisfies,
)
from automate_kernel.plugins.discovery import Found
from automate_kernel.plugins.kinds import Kind
from automate_kernel.plugins.records import PluginRecord, PluginState, Policy, Source, normal_name
from automate_kernel.secrets.logs import get_logger

__all__ = ["Claim", "incompatibility", "refusal", "settle"]

logger: logging.Logger = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Claim:
    """One plugin's claim on a key. Changed under its registry's lock only."""

    kind: Kind
    key: str
    target: str
    source: Source
    found: Found | None = None
    thing: Any = None
    state: PluginState = PluginState.DISCOVERED
    replaced_by: str | None = None
    error: str | None = None
    traceback: str | None = None
    remedy: str | None = None

    @classmethod
    def from_found(cls, kind: Kind, found: Found) -> Claim:
        """The claim of an installed plugin."""
        claim = cls(kind, found.key, found.target, Source.ENTRY_POINT, found)
        needs = requirement_on_kernel(found.requires)
        problem = incompatibility(needs) if needs else None
        if problem is not None:
            claim.state = PluginState.INCOMPATIBLE
            claim.error, claim.remedy = problem.message, problem.hint
        elif not kind.takes_key(found.key):
            claim.state = PluginState.BROKEN
            claim.error = f"{found.key!r} is no key for plugins of kind {kind}"
            claim.remedy = f"its author ({claim.origin}) must rename the entry point"
        if claim.state is not PluginState.DISCOVERED:
            logger.error(
                "%s %r from %s is not used: %s", kind, claim.key, claim.origin, claim.error
            )
        return claim

    @property
    def origin(self) -> str:
        """The distribution and version that it came with, or who named it."""
        if self.found is None or self.found.distribution is None:
            return self.source.label
        return f"{self.found.distribution} {self.found.version or ''}".rstrip()

    @property
    def usable(self) -> bool:
        """Whether it may be loaded, or was."""
        return self.state in (PluginState.DISCOVERED, PluginState.LOADED)

    def belongs_to(self, winner: str) -> bool:
        """Whether *winner*, a target or a distribution, means this claim."""
        distribution = self.found.distribution if self.found else None
        return winner.replace(":", ".") == self.target.replace(":", ".") or (
            distribution is not None and normal_name(winner) == normal_name(distribution)
        )

    def record(self) -> PluginRecord:
        """What is known of it, for people."""
        return PluginRecord(
            kind=self.kind.name,
            key=self.key,
            target=self.target,
            source=self.origin,
            state=self.state,
            group=self.found.group if self.found else None,
            distribution=self.found.distribution if self.found else None,
            version=self.found.version if self.found else None,
            replaced_by=self.replaced_by,
            error=self.error,
            traceback=self.traceback,
            remedy=self.remedy,
        )


def settle(claims: Sequence[Claim], policy: Policy) -> None:
    """
    Decide which of the *claims* on one key has it, by source and by what the host decided.

    A claim that failed keeps its key from lower sources: a broken replacement must not bring back
    what it replaced.
    """
    live = []
    for claim in claims:
        _reset(claim)
        if _disable(claim, policy):
            continue
        live.append(claim)
    if not live:
        return
    level = max(claim.source for claim in live)
    rivals = [claim for claim in live if claim.source == level]
    for claim in live:
        if claim.source != level:
            claim.replaced_by = level.label
    fitting = [claim for claim in rivals if claim.state is not PluginState.INCOMPATIBLE]
    _decide(fitting or rivals, rivals, policy)


def _reset(claim: Claim) -> None:
    claim.replaced_by = None
    if claim.state in (PluginState.CONFLICT, PluginState.DISABLED):
        claim.state = PluginState.DISCOVERED if claim.thing is None else PluginState.LOADED
        claim.error = claim.remedy = None


def _disable(claim: Claim, policy: Policy) -> bool:
    by_key = policy.disables(claim.kind.name, claim.key)
    distribution = claim.found.distribution if claim.found else None
    if not by_key and not policy.disables_distribution(distribution):
        return False
    claim.state = PluginState.DISABLED
    claim.error = None
    claim.remedy = f"take {claim.key if by_key else distribution!r} out of the disabled plugins"
    return True


def _decide(contenders: Sequence[Claim], rivals: Sequence[Claim], policy: Policy) -> None:
    kind, key = contenders[0].kind, contenders[0].key
    if len(contenders) > 1 and (wanted := policy.winner(kind.name, key)):
        named = [claim for claim in contenders if claim.belongs_to(wanted)]
        contenders = named if len(named) == 1 else contenders
    if len(contenders) == 1:
        for claim in rivals:
            if claim is not contenders[0]:
                claim.replaced_by = contenders[0].origin
        return
    names = ", ".join(sorted(f"{claim.origin} ({claim.target})" for claim in contenders))
    problem = f"more than one {kind} claims the key {key!r}: {names}"
    logger.error("%s; none of them is used", problem)
    for claim in contenders:
        if not claim.usable:
            continue  # its own failure says more
        claim.state = PluginState.CONFLICT
        claim.error = problem
        claim.remedy = (
            f"name the one to use with winners={{'{kind.name}:{key}': {claim.target!r}}},"
            " or uninstall the others"
        )


def incompatibility(specifier: str) -> PluginError | None:
    """The error of a plugin that needs *specifier* of this package, or None if this fits."""
    version = kernel_version()
    try:
        if version is None or satisfies(version, specifier):
            return None
        problem = f"it needs {KERNEL} {specifier}, and this is {version}"
    except ValueError as error:
        problem = f"it does not say clearly which {KERNEL} it needs: {error}"
    return IncompatibleError(problem, hint=f"install versions of it and of {KERNEL} that fit")


class IncompatibleError(PluginError):
    """A plugin needs another version of this package."""

    incompatible = True


_STORIES = {
    PluginState.BROKEN: "is broken",
    PluginState.INCOMPATIBLE: "does not fit this version",
    PluginState.CONFLICT: "is contested",
    PluginState.DISABLED: "is switched off",
}


def refusal(claim: Claim) -> PluginError:
    """What to raise for a plugin that is there but can't be used."""
    story = _STORIES.get(claim.state, "can't be used")
    reason = f": {claim.error}" if claim.error else ""
    return PluginError(
        f"{claim.kind} {claim.key!r} from {claim.origin} {story}{reason}",
        hint=claim.remedy,
        details={"state": claim.state.value, "target": claim.target},
    )
