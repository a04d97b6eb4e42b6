"""
Whether a plugin works with this automate-kernel.

Reads the part of PEP 440 and 508 that says so (``>=0.1,<2``), so that no package is needed for it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from automate_kernel.plugins.records import normal_name

__all__ = ["kernel_version", "requirement_on_kernel", "satisfies"]

KERNEL = "automate-kernel"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^;()]*)\)?\s*(;.*)?")
_CLAUSE = re.compile(
    r"\s*(~=|==|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?([A-Za-z.+_-][\w.+-]*)?\s*"
)
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(.*)")


def kernel_version() -> str | None:
    """The version of this package."""
    version = getattr(sys.modules.get("automate_kernel"), "__version__", None)
    return version if isinstance(version, str) else None


def requirement_on_kernel(requires: Iterable[str]) -> str:
    """The versions of this package that a distribution's requirements ask for; empty for any."""
    clauses: list[str] = []
    for requirement in requires:
        match = _REQUIREMENT.fullmatch(requirement.strip())
        # A marker makes it conditional (most often on an extra); whoever installed it saw to that.
        if match and not match[3] and normal_name(match[1]) == KERNEL and match[2].strip():
            clauses.append(match[2].strip())
    return ",".join(clauses)


def satisfies(version: str, specifier: str) -> bool:
    """
    Whether *version* is one of those that *specifier* (``>=0.1,<2``) allows.

    Raises `ValueError` for a specifier that can't be read.
    """
    return all(_holds(version, clause) for clause in specifier.split(",") if clause.strip())


def _holds(version: str, clause: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise ValueError(f"{clause.strip()!r} is no version specifier")
    operator, digits, star, suffix = match.groups()
    release = _release(digits)
    if star or operator == "~=":
        width = len(release) - (1 if operator == "~=" else 0)
        same = _padded(_release(version), width)[:width] == release[:width]
        if operator == "~=":
            return same and _order(version) >= _order(digits)
        return same == (operator == "==")
    ours, theirs = _order(version), _order(digits + (suffix or ""))
    if operator == "<" and ours[0] == theirs[0] and not suffix:
        return False  # a pre-release of 2.0 is not meant by <2.0
    return {
        "==": ours == theirs,
        "!=": ours != theirs,
        "<=": ours <= theirs,
        ">=": ours >= theirs,
        "<": ours < theirs,
        ">": ours > theirs,
    }[operator]


def _order(version: str) -> tuple[tuple[int, ...], int, str]:
    """A key by which versions sort: a pre-release before its release, a post-release after."""
    match = _VERSION.match(version)
    if match is None:
        return (), 0, version
    release, rest = _release(match[1]), match[2].partition("+")[0]
    while release and release[-1] == 0:
        release = release[:-1]
    rank = 0 if not rest else 1 if "post" in rest else -1
    return release, rank, rest


def _release(version: str) -> tuple[int, ...]:
    match = _VERSION.match(version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _padded(release: tuple[int, ...], width: int) -> tuple[int, ...]:
    return release + (0,) * (width - len(release))
