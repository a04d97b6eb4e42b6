"""Arrivals: the files of a watch that are new or changed since the last look."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from automate_files.config import FileWatch
from automate_files.place import FileEntry, FilePlace
from automate_files.sketch import Sketch, fingerprint


@dataclass(frozen=True, slots=True)
class Look:
    """The *files* that have arrived, the state for the next look, and whether it comes at once."""

    files: list[FileEntry]
    state: dict[str, Any]
    more: bool = False


@dataclass(slots=True)
class _Seen:
    """A set of files in little space, and the newest time of them."""

    sketch: Sketch = field(default_factory=Sketch)
    newest: int = -1

    @classmethod
    def of(cls, files: Mapping[int, FileEntry]) -> _Seen:
        return cls(Sketch(files), max((each.modified for each in files.values()), default=-1))

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> _Seen:
        return cls(Sketch.from_text(state["sketch"]), int(state["newest"]))

    def to_json(self) -> dict[str, Any]:
        return {"sketch": self.sketch.to_text(), "newest": self.newest}


class Arrivals:
    """
    The files of a watch that are new or changed: each is found once by path, size and time or etag.

    Its state has two sets: the files that are *known*, as they were found or there at first, and
    those of the last look. One that must have *settled* is found if the last look has it too. The
    sets are kept as sketches, so the state is as small with 100,000 files as with ten, and what was
    deleted leaves it by itself.
    """

    def __init__(self, place: FilePlace, watch: FileWatch, logger: logging.Logger) -> None:
        self._place, self._watch, self._logger = place, watch, logger
        self._ignores = re.compile("|".join(map(translate, watch.ignore)) or "(?!)").match
        # A state of another watch of this name says nothing of this one.
        self._of = f"{fingerprint(watch.place, watch.pattern, watch.ignore):x}"
        settled = watch.settled
        self._settled = not place.appears_whole if settled is None else settled

    def look(self, state: Mapping[str, Any] | None, most: int) -> Look:
        """Return at most *most* arrivals since *state*, which is None at the first look."""
        files = {_number(each): each for each in self._files()}
        now = Sketch(files)
        if state is None or state["of"] != self._of:
            known = _Seen() if self._watch.existing else _Seen.of(files)
            last = _Seen()
            passed = None
        else:
            known, last = _Seen.load(state["known"]), _Seen.load(state["last"])
            passed = tuple(state["passed"]) if state.get("passed") else None
        new = self._beside(files, now, known)
        if self._settled:
            moving = self._moving(files, now, last, first=last.sketch.size == 0)
            ready = new - moving
        else:
            ready = new
        ordered = sorted((files[each].modified, files[each].path, each) for each in ready)
        if passed is not None:
            ordered = [each for each in ordered if each[:2] > passed]
        page, rest = ordered[:most], ordered[most:]
        found = [files[number] for _, _, number in page]
        if rest:
            # The sets stay as they are until the last page: what has passed is known by its place.
            assert page  # noqa: S101
            same = {
                "of": self._of,
                "known": known.to_json(),
                "last": last.to_json(),
                "passed": list(page[-1][:2]),
            }
            return Look(found, same, more=True)
        missing = new - ready
        known_now = {number: each for number, each in files.items() if number not in missing}
        newest = max((each.modified for each in known_now.values()), default=-1)
        following = {
            "of": self._of,
            "known": _Seen(now.without(missing), newest).to_json(),
            "last": (_Seen.of(files) if self._settled else _Seen()).to_json(),
        }
        return Look(found, following)

    def _files(self) -> Iterable[FileEntry]:
        for each in self._place.walk(self._watch.pattern):
            if not self._ignores(each.path.rpartition("/")[2]):
                yield each

    def _beside(self, files: Mapping[int, FileEntry], now: Sketch, known: _Seen) -> set[int]:
        """Return the numbers of the files that aren't known."""
        found = _only_in(files, now, known)
        if found is not None:
            return found
        newer = {number for number, each in files.items() if each.modified > known.newest}
        gone = known.sketch.size - (len(files) - len(newer))
        self._logger.warning(
            "%s: more has changed since the last look than can be told one by one (%d files, %d "
            "before); %s",
            self._place.name, len(files), known.sketch.size,
            "those with a newer time are new" if gone > 0 else "all are taken for new",
        )  # fmt: skip
        # Many were deleted, so that the others are old; or many came, with times of long ago. Of
        # all of them the kernel drops those that it has had.
        return newer if gone > 0 else set(files)

    @staticmethod
    def _moving(
        files: Mapping[int, FileEntry], now: Sketch, last: _Seen, *, first: bool
    ) -> set[int]:
        """Return the numbers of the files that were not so at the last look."""
        found = set(files) if first else _only_in(files, now, last)
        return set(files) if found is None else found


def _only_in(files: Mapping[int, FileEntry], now: Sketch, before: _Seen) -> set[int] | None:
    """Return the numbers of *files* that *before* hasn't, or None if they are too many to tell."""
    found = now.difference(before.sketch)
    if found is not None:
        return found[0]
    # What is newer than all before is new in any case; without it few may be left to tell.
    newer = {number for number, each in files.items() if each.modified > before.newest}
    found = now.without(newer).difference(before.sketch)
    return None if found is None else found[0] | newer


def _number(entry: FileEntry) -> int:
    return fingerprint(entry.path, entry.size, entry.modified, entry.etag)
