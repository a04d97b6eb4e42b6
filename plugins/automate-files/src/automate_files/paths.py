"""Paths below the root of a place, and patterns of such paths."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from itertools import takewhile

from automate_kernel import AutomateError, ErrorCodes

_LONGEST_PATH, _LONGEST_NAME = 1_024, 255
_WILD = frozenset("*?[")


def check_path(path: str) -> str:
    """Return *path* if it leads to something below a root; raise ``INVALID_ARGUMENT`` if not."""
    problem = _problem(path)
    if problem:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the path {path[:80]!r} {problem}",
            hint="write it as folder/name, from the root of its place",
        )
    return path


def check_folder(path: str) -> str:
    """Return *path* as `check_path` does; ``""`` is the root itself."""
    return check_path(path) if path else ""


def is_path(path: str) -> bool:
    """Return True if `check_path` accepts *path*."""
    return _problem(path) is None


def parent_of(path: str) -> str:
    """Return the folder of *path*; ``""`` is the root."""
    return path.rpartition("/")[0]


def joined(folder: str, name: str) -> str:
    """Return the path of *name* in *folder*."""
    return f"{folder}/{name}" if folder else name


class Pattern:
    """
    A pattern of paths: ``*``, ``?`` and ``[a-z]`` within a name, ``**`` for any number of folders.

    Raises ``INVALID_ARGUMENT`` for one that no path can match. To match takes time in proportion to
    the lengths of the two, whatever the pattern is.
    """

    def __init__(self, text: str) -> None:
        check_path(text)
        self.text: str = text
        self._names: list[str] = text.split("/")
        # Python's own expressions don't try again what can't match.
        self._match = [
            None if name == "**" else re.compile(translate(name)).match for name in self._names
        ]

    @property
    def folder(self) -> str:
        """The folder that all its paths are in."""
        fixed = list(takewhile(lambda name: not _WILD & set(name), self._names[:-1]))
        return "/".join(fixed)

    @property
    def depth(self) -> int | None:
        """The number of folders above a path; None if it may be any."""
        return None if "**" in self._names else len(self._names) - 1

    def matches(self, path: str) -> bool:
        """Return True if it means *path*."""
        states = self._with_none({0})
        for name in path.split("/"):
            following = set()
            for state in states - {len(self._match)}:
                match = self._match[state]
                if match is None:
                    following.add(state)
                elif match(name):
                    following.add(state + 1)
            states = self._with_none(following)
        return len(self._match) in states

    def _with_none(self, states: set[int]) -> set[int]:
        """Add the states that ``**`` leads to when it stands for no folder."""
        for state in sorted(states):
            at = state
            while at < len(self._match) and self._match[at] is None:
                at += 1
                states.add(at)
        return states


@lru_cache(maxsize=256)
def compile_pattern(text: str) -> Pattern:
    """Return the `Pattern` of *text*."""
    return Pattern(text)


def _problem(path: str) -> str | None:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not Unicode text"
    if not 0 < size <= _LONGEST_PATH:
        return f"is empty or longer than {_LONGEST_PATH} bytes"
    if "\\" in path or not path.isprintable():
        # A server on Windows takes the first for a slash; the others hide what is meant.
        return "has a backslash or a character that can't be printed"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return "is absolute, or has an empty name, . or .."
        if len(name.encode("utf-8")) > _LONGEST_NAME:
            return f"has a name of more than {_LONGEST_NAME} bytes"
    return None
