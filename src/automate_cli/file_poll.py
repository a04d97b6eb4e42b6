"""Notices when the files of a project change."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_SUFFIXES = (".py", ".yaml", ".yml", ".toml")
_WORKFLOWS = (*_SUFFIXES, ".json")
_SKIPPED = {"node_modules", "site-packages", "__pycache__"}
_MOST = 20_000
_SHORTEST = 0.25
# Looking takes a twentieth of one processor at most, however large the folder is.
_SHARE = 20

_State = dict[str, tuple[int, int, int]]


class FilePoll:
    """
    Looks at the code and the workflows below *folder*, and at *workflows* beside it.

    It polls: that needs no library of a system's own, and works on network disks and in containers.
    """

    def __init__(self, folder: Path, workflows: Collection[Path] = ()) -> None:
        self._folder, self._workflows = folder, workflows
        self._more: set[str] = set()
        self.pause = _SHORTEST
        """The number of seconds until it is time to look again."""
        self._known = self._pending = self._look()

    def add(self, files: Collection[str]) -> None:
        """Look at these *files* too, from now on."""
        new = set(files) - self._more
        self._more |= new
        state = self._state_of(new)
        self._known, self._pending = {**state, **self._known}, {**state, **self._pending}

    def changed(self) -> list[str]:
        """
        Return the files that were changed, made or removed; none while they still change.

        Their names are relative to the folder.
        """
        begun = time.perf_counter()
        state = self._look()
        self.pause = max(_SHORTEST, (time.perf_counter() - begun) * _SHARE)
        settled, self._pending = state == self._pending, state
        if not settled or state == self._known:
            return []
        before, self._known = self._known, state
        names = sorted(name for name in {*before, *state} if before.get(name) != state.get(name))
        return [self._shown(name) for name in names]

    def _shown(self, name: str) -> str:
        path = Path(name)
        return str(path.relative_to(self._folder) if path.is_relative_to(self._folder) else path)

    def _look(self) -> _State:
        return self._state_of(self._names())

    def _state_of(self, names: Iterable[str]) -> _State:
        state: _State = {}
        for name in names:
            try:
                about = os.stat(name)  # noqa: PTH116 - ten times quicker than through a Path
            except OSError:
                continue
            state[name] = (about.st_mtime_ns, about.st_size, about.st_ino)
            if len(state) >= _MOST:
                break
        return state

    def _names(self) -> Iterator[str]:
        yield from self._more
        for each in self._workflows:
            yield from _files(str(each), _WORKFLOWS) if each.is_dir() else [str(each)]
        yield from _files(str(self._folder), _SUFFIXES)


def _files(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the files below *folder*, but for those of hidden folders and environments."""
    for place, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [each for each in folders if each[0] != "." and each not in _SKIPPED]
        yield from (f"{place}{os.sep}{each}" for each in files if each.endswith(suffixes))
