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
_OURS = "automate"
"""A part of the name of each of our groups."""
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
            entries = _entry_points()
            _scans[place] = _found(each for each in entries if each.group in GROUPS)
            _misspelt[place] = tuple(_find_misspelt(entries))
            for wrong in _misspelt[place]:
                logger.warning("%s, which nobody reads; %s", wrong, wrong.remedy)
        return _scans[place]


def misspelt() -> tuple[Misspelt, ...]:
    """Return the entry-point groups of installed distributions that are nearly one of ours."""
    scan()
    return _misspelt[tuple(sys.path)]


def _find_misspelt(entries: Iterable[EntryPoint]) -> Iterator[Misspelt]:
    ours = list(GROUPS)
    # One of each group: to name its distribution is enough.
    for group, entry in sorted({each.group: each for each in entries}.items()):
        if group in GROUPS:
            continue
        remedy = did_you_mean(group, ours, cutoff=0.75) or f"there are: {', '.join(ours)}"
        yield Misspelt(group, _described(entry.dist)[0], remedy)


def _begins_like_ours(group: str) -> bool:
    return group in GROUPS or re.split(r"[.:-]", group, maxsplit=1)[0] in _ROOTS


def _entry_points() -> list[EntryPoint]:
    """
    Return the entry points of our groups, and of those whose names begin like them.

    Not by `importlib.metadata.entry_points`, which parses those of all distributions: most have
    nothing of ours, as one look at the text says.
    """
    from importlib.metadata import distributions

    found: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            # The first on sys.path is the one that imports.
            if (name := _name_of(distribution)) in seen:
                continue
            seen.add(name)
            if _OURS in (distribution.read_text("entry_points.txt") or ""):
                found += [e for e in distribution.entry_points if _begins_like_ours(e.group)]
        except Exception as error:
            where = getattr(distribution, "_path", "an installed distribution")
            logger.error("%s is damaged, and its plugins are not seen: %s", where, error)
    return found


def _name_of(distribution: Distribution) -> str:
    # Of the folder's name, where it has one: the other is in a text that has to be read and parsed.
    known = getattr(distribution, "_normalized_name", None)
    return known if isinstance(known, str) else str(distribution.metadata["Name"]).lower()


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
        # Not `metadata` and `requires`: each parses the whole file anew, a long README too.
        headers = _headers(distribution.read_text("METADATA"))
        if headers is None:  # another format than a wheel's
            metadata = distribution.metadata
            return metadata["Name"], metadata["Version"], tuple(distribution.requires or ())
        name, version = (next(iter(headers[each]), None) for each in ("name", "version"))
        return name, version, tuple(headers["requires-dist"])
    except Exception:  # no METADATA, or none that can be read: the plugin may still work
        return None, None, ()


def _headers(metadata: str | None) -> dict[str, list[str]] | None:
    """Return the values of the headers that are needed here, of a wheel's METADATA."""
    if metadata is None:
        return None
    found: dict[str, list[str]] = {"name": [], "version": [], "requires-dist": []}
    for line in metadata.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if (values := found.get(name.lower())) is not None:
            values.append(value.strip())
    return found
