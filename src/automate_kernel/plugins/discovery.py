"""Discovery of the installed plugins, without an import of any of them."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automate_kernel.errors import did_you_mean
from automate_kernel.plugins.kinds import GROUPS
from automate_kernel.plugins.targets import normal_target
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

logger: logging.Logger = get_logger(__name__)
_ROOTS = frozenset({"automate", "automates", "automate_kernel", "django_automate"})


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that a distribution announces. *requires* are the distribution's requirements."""

    kind: str
    key: str
    target: str
    group: str
    distribution: str | None
    version: str | None
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Misspelt:
    """An entry-point group that looks like one of ours and is none, so nobody reads it."""

    group: str
    distribution: str | None
    remedy: str

    def __str__(self) -> str:
        return f"{self.distribution or 'a distribution'} announces plugins in {self.group!r}"


_lock = threading.Lock()
_misspelt: dict[tuple[str, ...], tuple[Misspelt, ...]] = {}
_scans: dict[tuple[str, ...], tuple[Found, ...]] = {}


def scan(*, refresh: bool = False) -> tuple[Found, ...]:
    """
    Return every announced plugin, in an order that does not depend on the file system.

    The installed distributions are read once for each ``sys.path``; with *refresh*, again.
    """
    place = tuple(sys.path)
    with _lock:
        if refresh or place not in _scans:
            _scans[place] = _found(_entry_points())
            _misspelt[place] = tuple(_find_misspelt())
            for wrong in _misspelt[place]:
                logger.warning("%s, which nobody reads; %s", wrong, wrong.remedy)
        return _scans[place]


def misspelt() -> tuple[Misspelt, ...]:
    """Return the entry-point groups of installed distributions that are nearly one of ours."""
    scan()
    return _misspelt[tuple(sys.path)]


def _find_misspelt() -> Iterator[Misspelt]:
    from importlib.metadata import entry_points

    ours = list(GROUPS)
    try:
        groups = entry_points().groups
    except Exception:  # damaged metadata, which the scan reports
        return
    for group in sorted(groups):
        root = re.split(r"[.:-]", group, maxsplit=1)[0].replace("-", "_")
        if group in ours or root not in _ROOTS:
            continue
        remedy = did_you_mean(group, ours, cutoff=0.75) or f"there are: {', '.join(ours)}"
        entry = next(iter(entry_points(group=group)))
        yield Misspelt(group, _described(entry.dist)[0], remedy)


def _entry_points() -> list[EntryPoint]:
    """Return the entry points in our groups, from one look over all of them."""
    from importlib.metadata import distributions, entry_points

    try:
        every = entry_points()
        return [entry for group in GROUPS for entry in every.select(group=group)]
    except Exception:
        logger.warning("the entry points can't be read in one go; reading them one by one")
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            # The first on sys.path is the one that imports.
            if (name := distribution.metadata["Name"].lower()) not in seen:
                seen.add(name)
                found += [e for e in distribution.entry_points if e.group in GROUPS]
        except Exception as error:
            where = getattr(distribution, "_path", "an installed distribution")
            logger.error("%s is damaged, and its plugins are not seen: %s", where, error)
    return found


def _found(entries: Iterable[EntryPoint]) -> tuple[Found, ...]:
    found: list[Found] = []
    for entry in entries:
        name, version, requires = _described(entry.dist)
        kind, target = GROUPS[entry.group].name, normal_target(entry.value, announced=True)
        found.append(Found(kind, entry.name, target, entry.group, name, version, requires))
    groups = list(GROUPS)
    found.sort(key=lambda f: (f.kind, f.key, f.distribution or "", groups.index(f.group)))
    # Of two announcements of one target the first counts: it may be in an old and a new group. Not
    # across keys: one class may well be announced under a second name.
    first: dict[tuple[str, str, str], Found] = {}
    for one in found:
        first.setdefault((one.kind, one.key, one.target), one)
    return tuple(first.values())


def _described(distribution: Distribution | None) -> tuple[str | None, str | None, tuple[str, ...]]:
    try:
        if distribution is None:
            return None, None, ()
        metadata = distribution.metadata
        return metadata["Name"], metadata["Version"], tuple(distribution.requires or ())
    except Exception:  # no METADATA, or none that can be read: the plugin may still work
        return None, None, ()
