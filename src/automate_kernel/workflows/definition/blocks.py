"""
The paths of steps inside blocks.

A step inside a block is known by its path, ``lines.charge`` in the definition. In an execution it
is ``lines[3].charge``, for element 3 of the block's ``for_each``, or for round 3 of a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

MOST_DEPTH = 5
"""So many blocks may stand in each other."""

MOST_PATH = 200
"""The longest path, which the column of the step's id bounds."""

# Room for the position of an element: [9999999].
INDEX_WIDTH = 9

_INDEX = re.compile(r"\[\d+\]")
_ELEMENT = re.compile(r"\[(\d+)\]")


def plain_id(path: str) -> str:
    """Return the path as it is in the definition, without the positions of elements."""
    return _INDEX.sub("", path) if "[" in path else path


def top_id(path: str) -> str:
    """Return the id of the outermost step on the way to *path*."""
    return plain_id(path.partition(".")[0])


def local_id(path: str) -> str:
    """Return the id that the step at *path* has in its own list."""
    return path.rpartition(".")[2]


def list_of(path: str) -> str:
    """Return the path of the list that the step at *path* is in, or "" for a list of no block."""
    return path.rpartition(".")[0]


def list_path(block_id: str, position: int) -> str:
    """Return the path of the list inside a block, for one element of it (or -1)."""
    return f"{block_id}[{position}]" if position >= 0 else block_id


def block_of(path: str) -> tuple[str, int]:
    """Return the block whose inside has the list at *path*, and the position of the element."""
    if not path.endswith("]"):
        return path, -1
    block_id, _, position = path[:-1].rpartition("[")
    return block_id, int(position)


def round_of(key: tuple[str, int], loop_id: str) -> int:
    """Return the round of a loop that a run, of this step and position, is or is inside; or -1."""
    path, position = key
    if path == loop_id:
        return position
    if not path.startswith(f"{loop_id}["):
        return -1
    return int(path[len(loop_id) + 1 : path.index("]", len(loop_id))])


def elements_begun(step_ids: Iterable[str]) -> dict[str, set[int]]:
    """Return the elements of blocks inside which the steps *step_ids* are, by the blocks' ids."""
    found: dict[str, set[int]] = {}
    for path in step_ids:
        if "." in path:
            for each in _ELEMENT.finditer(path):
                found.setdefault(path[: each.start()], set()).add(int(each[1]))
    return found


def inside(path: str, blocks: Iterable[str]) -> bool:
    """Return True if the step at *path* is inside one of these *blocks*, at any depth."""
    if "." not in path:
        return False
    return path.startswith(tuple(f"{each}{mark}" for each in blocks for mark in ".["))


def within(path: str, needs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the *needs* of a list's steps with their paths, where *path* is that of the list."""
    return {
        f"{path}.{step_id}": tuple(f"{path}.{need}" for need in own)
        for step_id, own in needs.items()
    }


def lists_around(path: str) -> Iterator[str]:
    """Yield the paths of the lists around the step at *path*, the innermost one first."""
    while path := list_of(path):
        yield path
