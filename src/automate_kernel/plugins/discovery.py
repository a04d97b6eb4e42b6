"""Discovery of the installed plugins, without an import of any of them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from automate_kernel.base.errors import did_you_mean
from automate_kernel.base.forks import new_lock
from automate_kernel.plugins.kinds import GROUPS
from automate_kernel.plugins.targets import normal_target
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from importlib.metadata import Distribution

logger: logging.Logger = get_logger(__name__)
_OURS = b"automate"
"""A part of the name of each of our groups."""
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_ROOTS = frozenset({"automate", "automates", "automate_kernel", "django_automate"})


@dataclass(frozen=True, slots=True)
class Found:
    """
    A plugin that a distribution announces.

    *requires* are the distribution's requirements, *location* the folder that it is installed in.
    """

    kind: str
    key: str
    target: str
    group: str
    distribution: str | None
    version: str | None
    requires: tuple[str, ...] = ()
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Misspelt:
    """An entry-point group whose name is nearly ours, so nobody reads it."""

    group: str
    distribution: str | None
    remedy: str

    def __str__(self) -> str:
        return f"{self.distribution or 'a distribution'} announces plugins in {self.group!r}"


class Announced(NamedTuple):
    """One line of a distribution's ``entry_points.txt``."""

    group: str
    name: str
    value: str
    dist: Distribution


_lock = new_lock()
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
    """Return the entry-point groups of installed distributions whose names are nearly ours."""
    scan()
    return _misspelt[tuple(sys.path)]


def _find_misspelt(entries: Iterable[Announced]) -> Iterator[Misspelt]:
    ours = list(GROUPS)
    # One of each group: to name its distribution is enough.
    for group, entry in sorted({each.group: each for each in entries}.items()):
        if group in GROUPS:
            continue
        remedy = did_you_mean(group, ours, cutoff=0.75) or f"there are: {', '.join(ours)}"
        yield Misspelt(group, _described(entry.dist)[0], remedy)


def _begins_like_ours(group: str) -> bool:
    return group in GROUPS or re.split(r"[.:-]", group, maxsplit=1)[0] in _ROOTS


def _entry_points() -> list[Announced]:
    """
    Return the entry points of our groups, and of those whose names begin like them.

    Not by `importlib.metadata.entry_points`, which parses those of all distributions: most have
    nothing of ours, as one look at the bytes says.
    """
    from importlib.metadata import distributions

    found: list[Announced] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            # The first on sys.path is what an import finds.
            if (name := _name_of(distribution)) in seen:
                continue
            seen.add(name)
            content = _read(distribution, "entry_points.txt")
            if content is not None and _OURS in content:
                found += _announced(distribution, content.decode())
        except Exception as error:
            where = getattr(distribution, "_path", "an installed distribution")
            logger.error("%s is damaged, and its plugins are not seen: %s", where, error)
    return found


def _read(distribution: Distribution, name: str) -> bytes | None:
    """Return a file of *distribution*, or None if it isn't there."""
    folder = _folder_of(distribution)
    if folder is None:
        text = distribution.read_text(name)
        return text.encode() if text is not None else None
    return read_small(f"{folder}/{name}")


def _folder_of(distribution: Distribution) -> str | None:
    """Return the folder of its metadata; None in a zip file, or of an installer of its own."""
    folder = getattr(distribution, "_path", None)
    return str(folder) if isinstance(folder, PurePath) else None


def read_small(path: str) -> bytes | None:
    """Return a small file, or None if it isn't there or may not be read."""
    try:
        # Not by `open`, which takes twice the time: there may be hundreds.
        file = os.open(path, _READ)
        try:
            return os.read(file, os.fstat(file).st_size)
        finally:
            os.close(file)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
        return None  # as a distribution's `read_text` has it


def _announced(distribution: Distribution, text: str) -> Iterator[Announced]:
    """Yield the entry points in the *text* of a distribution whose groups begin like ours."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif line and not line.startswith("#") and _begins_like_ours(group):
            name, _, value = line.partition("=")
            yield Announced(group, name.strip(), value.strip(), distribution)


def _name_of(distribution: Distribution) -> str:
    # From the folder's name, where it has one: the other name has to be read and parsed.
    folder = _folder_of(distribution) or ""
    name, _, version = folder[folder.rfind(os.sep) + 1 :].partition("-")
    if version and name.isidentifier() and "__" not in name:
        return name.lower()  # as it is normalized, for most; there may be hundreds
    known = getattr(distribution, "_normalized_name", None)
    return known if isinstance(known, str) else str(distribution.metadata["Name"]).lower()


def _found(entries: Iterable[Announced]) -> tuple[Found, ...]:
    found: list[Found] = []
    for entry in entries:
        about = _described(entry.dist)
        folder = _folder_of(entry.dist)
        place = os.path.dirname(folder) if folder is not None else None  # noqa: PTH120
        kind, target = GROUPS[entry.group].name, normal_target(entry.value, announced=True)
        found.append(Found(kind, entry.name, target, entry.group, *about, place))
    groups = list(GROUPS)
    found.sort(key=lambda f: (f.kind, f.key, f.distribution or "", groups.index(f.group)))
    # The first of two announcements of a target counts: it may be in an old and a new group. Not
    # across keys: one class may well be announced under a second name.
    first: dict[tuple[str, str, str], Found] = {}
    for one in found:
        first.setdefault((one.kind, one.key, one.target), one)
    return tuple(first.values())


def _described(distribution: Distribution | None) -> tuple[str | None, str | None, tuple[str, ...]]:
    try:
        if distribution is None:
            return None, None, ()
        # Not `metadata` and `requires`: each parses the whole file again, a long README too.
        content = _read(distribution, "METADATA")
        headers = _headers(content.decode() if content is not None else None)
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
    for line in metadata.replace("\r\n", "\n").partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if (values := found.get(name.lower())) is not None:
            values.append(value.strip())
    return found
