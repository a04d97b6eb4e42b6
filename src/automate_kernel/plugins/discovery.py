"""Find the plugins that are installed, without importing any of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automate_kernel.logs import get_logger
from automate_kernel.plugins.kinds import KINDS, kind_of_group
from automate_kernel.plugins.loading import normal_target

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = ["Found", "scan"]

logger = get_logger(__name__)


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


_lock = threading.Lock()
_scans: dict[tuple[str, ...], tuple[Found, ...]] = {}


def scan(*, refresh: bool = False) -> tuple[Found, ...]:
    """
    Every announced plugin, in an order that does not depend on the file system.

    The installed distributions are read once for each ``sys.path``; with *refresh*, again.
    """
    place = tuple(sys.path)
    with _lock:
        if refresh or place not in _scans:
            _scans[place] = tuple(_unique(_found(_entry_points())))
        return _scans[place]


def _entry_points() -> list[EntryPoint]:
    """The entry points in our groups. One look over all of them, not one for each group."""
    from importlib.metadata import distributions, entry_points

    groups = [group for kind in KINDS.values() for group in kind.groups]
    try:
        every = entry_points()
        return [entry for group in groups for entry in every.select(group=group)]
    except Exception:
        logger.warning("the entry points can't be read in one go; reading them one by one")
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            # The first on sys.path is the one that imports.
            if (name := distribution.metadata["Name"].lower()) not in seen:
                seen.add(name)
                found += [e for e in distribution.entry_points if e.group in groups]
        except Exception as error:
            where = getattr(distribution, "_path", "an installed distribution")
            logger.error("%s is damaged, and its plugins are not seen: %s", where, error)
    return found


def _found(entries: Iterable[EntryPoint]) -> list[Found]:
    found: list[Found] = []
    for entry in entries:
        kind = kind_of_group(entry.group)
        if kind is None:
            continue
        name, version, requires = _described(entry.dist)
        target = normal_target(entry.value, announced=True)
        found.append(Found(kind.name, entry.name, target, entry.group, name, version, requires))
    return sorted(found, key=_order)


def _order(found: Found) -> tuple[Any, ...]:
    groups = KINDS[found.kind].groups
    return (found.kind, found.key, found.distribution or "", groups.index(found.group))


def _described(
    distribution: Distribution | None,
) -> tuple[str | None, str | None, tuple[str, ...]]:
    try:
        if distribution is None:
            return None, None, ()
        metadata = distribution.metadata
        return metadata["Name"], metadata["Version"], tuple(distribution.requires or ())
    except Exception:  # no METADATA, or none that can be read: the plugin may still work
        return None, None, ()


def _unique(found: Iterable[Found]) -> Iterator[Found]:
    """Drop the second of two announcements of one target: it may be in an old and a new group."""
    seen: set[tuple[str, str, str]] = set()
    for one in found:
        # Not across keys: one class may well be announced under a second name.
        identity = (one.kind, one.key, one.target)
        if identity not in seen:
            seen.add(identity)
            yield one
