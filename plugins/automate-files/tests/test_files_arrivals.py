"""Arrivals: each file once, when it is whole, however many there are."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from logged import logged
from automate_files import FilesConnector
from automate_files.arrivals import Arrivals
from automate_files.config import FileWatch
from automate_files.place import FileEntry, FilePlace
from automate_files.sketch import Sketch, fingerprint
from automate_kernel import Kernel
from automate_kernel.plugins.connectors import ConnectorContext
from automate_kernel.storage import MemoryStorage
from automate_testing import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

LOGGER = logging.getLogger(__name__)
NUMBERS = st.integers().map(fingerprint)


@given(st.sets(NUMBERS, max_size=99), st.sets(NUMBERS, max_size=99), st.sets(NUMBERS, max_size=99))
def test_the_difference_of_sketches_is_that_of_the_sets(
    both: set[int], ours: set[int], theirs: set[int]
) -> None:
    """Or it is not told: of two numbers one in 2.4 million pairs shares all of its cells."""
    one, two = Sketch(both | ours), Sketch.from_text(Sketch(both | theirs).to_text())
    differ = (both | ours) - (both | theirs), (both | theirs) - (both | ours)
    assert one.difference(two) in ((differ, None) if len(ours | theirs) > 1 else (differ,))


def test_a_difference_that_is_too_large_is_never_half_told() -> None:
    for count in range(0, 3000, 100):
        numbers = {fingerprint(count, n) for n in range(count)}
        found = Sketch(numbers).difference(Sketch())
        assert found in (None, (numbers, set()))
        assert found is not None or count > 250


@pytest.mark.parametrize("text", ["", "x", "ä" * 10, "0" * 7039, "~" * 7040])
def test_text_that_is_no_sketch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no sketch"):
        Sketch.from_text(text)


def test_a_sketch_has_one_length() -> None:
    for count in (0, 1000):
        assert len(Sketch(fingerprint(n) for n in range(count)).to_text()) == 7040


class Shelf(FilePlace):
    """A place whose files are as a test says."""

    def __init__(self) -> None:
        super().__init__("shelf", max_entries=1_000_000)
        self.files: dict[str, FileEntry] = {}

    def put(self, path: str, size: int = 1, modified: int = 1) -> None:
        self.files[path] = FileEntry(path, "file", size, modified)

    def walk(self, pattern: str, *, after: str = "") -> Any:
        return iter(list(self.files.values()))

    stat = entries = read = write = rename = delete = mkdir = None  # type: ignore[assignment]


Shelf.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def look(shelf: Shelf, state: Any, most: int = 5_000, **watch: Any) -> tuple[list[str], Any, int]:
    """Return the paths of all pages, the state after them, and the state's characters at most."""
    arrivals, paths, longest = Arrivals(shelf, FileWatch(place="shelf", **watch), LOGGER), [], 0
    while True:
        found = arrivals.look(state, most)
        state = json.loads(json.dumps(found.state))
        longest = max(longest, len(json.dumps(state)))
        paths += [each.path for each in found.files]
        if not found.more:
            return paths, state, longest


def test_a_file_is_found_when_it_is_the_same_twice() -> None:
    shelf = Shelf()
    _, state, _ = look(shelf, None)
    for size in (1, 2, 3):  # it grows
        shelf.put("a", size)
        found, state, _ = look(shelf, state)
        assert found == []
    found, state, _ = look(shelf, state)
    assert found == ["a"]
    assert look(shelf, state)[0] == []


def test_files_that_were_there_are_left_out_unless_asked_for() -> None:
    shelf = Shelf()
    shelf.put("a")
    _, state, _ = look(shelf, None)
    assert look(shelf, state)[0] == []
    _, state, _ = look(shelf, None, existing=True)
    assert look(shelf, state, existing=True)[0] == ["a"]
    assert look(shelf, None, existing=True, settled=False)[0] == ["a"]


def test_unfinished_names_are_not_looked_at() -> None:
    shelf = Shelf()
    _, state, _ = look(shelf, None, settled=False)
    for path in ("in/.a", "a.part", "in/b.tmp", "c.filepart", "d~", "in/e"):
        shelf.put(path)
    assert look(shelf, state, settled=False)[0] == ["in/e"]


def test_100_000_files_fit_in_the_cursor() -> None:
    """Whatever comes then is found, with times of long ago too."""
    shelf = Shelf()
    for number in range(100_000):
        shelf.put(f"folder/{number}", modified=number + 1)
    found, state, longest = look(shelf, None, existing=True)
    assert found == []
    found, state, longer = look(shelf, state, most=40_000, existing=True)
    assert len(found) == len(set(found)) == 100_000
    assert max(longest, longer) < 65_536 / 4
    shelf.put("old", modified=5)
    for number in range(200):
        del shelf.files[f"folder/{number}"]
    _, state, _ = look(shelf, state)
    found, state, _ = look(shelf, state)
    assert found == ["old"]


def test_many_at_once_are_all_found() -> None:
    """More than a sketch can tell, new ones and ones with times of long ago."""
    for first in (1_000_000, 0):
        shelf = Shelf()
        for number in range(1000):
            shelf.put(f"a{number}", modified=500_000)
        _, state, _ = look(shelf, None, settled=False)
        for number in range(5000):
            shelf.put(f"b{number}", modified=first + number)
        found, state, _ = look(shelf, state, most=500, settled=False)
        assert {each for each in found if each[0] == "b"} == {f"b{n}" for n in range(5000)}
        assert look(shelf, state, settled=False)[0] == []


def test_after_many_were_deleted_the_others_are_no_news() -> None:
    shelf = Shelf()
    for number in range(5000):
        shelf.put(f"a{number}", modified=number)
    _, state, _ = look(shelf, None, settled=False)
    for number in range(4000):
        del shelf.files[f"a{number}"]
    shelf.put("new", modified=10_000)
    found, state, _ = look(shelf, state, settled=False)
    assert found == ["new"]
    shelf.files.clear()
    found, state, _ = look(shelf, state, settled=False)
    assert (found, state["known"]["newest"]) == ([], -1)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 3), st.integers(1, 50)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.just(("look",)),
    ),
    max_size=40,
)


@given(ACTS, st.integers(1, 3), st.booleans(), st.booleans())
@settings(max_examples=150)
def test_it_is_as_if_all_that_was_seen_were_remembered(
    acts: list[Any], most: int, existing: bool, settled: bool
) -> None:
    shelf, watch = Shelf(), {"existing": existing, "settled": settled}
    known: set[FileEntry] | None = None
    last: set[FileEntry] = set()
    state = None
    for act in [*acts, ("look",), ("look",)]:
        if act[0] == "put":
            shelf.put(f"f{act[1]}", act[2], act[3])
        elif act[0] == "delete":
            shelf.files.pop(f"f{act[1]}", None)
        else:
            there = set(shelf.files.values())
            if known is None:
                known = set() if existing else there
            new = {each for each in there - known if not settled or each in last}
            found, state, _ = look(shelf, state, most, **watch)
            assert sorted(found) == sorted(each.path for each in new)
            known, last = (known & there) | new, there


def test_a_workflow_starts_once_for_each_file(tmp_path: Path) -> None:
    """With the kernel's own clock and cursor, in two places; one of which is away."""
    (tmp_path / "in").mkdir()
    config = {
        "places": {
            "here": {"type": "local", "folder": str(tmp_path)},
            "away": {"type": "local", "folder": str(tmp_path / "nowhere")},
        },
        "watches": {
            "lost": {"place": "away"},
            "csv": {"place": "here", "pattern": "in/**/*.csv"},
        },
    }
    clock, seen = FakeClock(), list[str]()
    kernel = Kernel(
        MemoryStorage(clock), plugins=[FilesConnector], discover=False, config={"files": config}
    )

    @kernel.action("note.add")
    def add(text: str) -> None:
        seen.append(text)

    kernel.add_workflow({
        "name": "import",
        "trigger": {"type": "event", "event": "files.arrived"},
        "steps": [{"id": "note", "action": "note.add", "input": {
            "text": "{{ event.payload.watch }} {{ event.payload.path }} {{ event.payload.size }}"}}],
    })  # fmt: skip

    def after(seconds: float) -> list[str]:
        clock.advance(seconds)
        kernel.run_until_idle()
        found, seen[:] = list(seen), []
        return found

    assert after(0) == []
    (tmp_path / "in" / "a.csv").write_text("half")
    assert after(31) == []
    (tmp_path / "in" / "a.csv").write_text("whole!")
    assert after(31) == []
    assert after(31) == ["csv in/a.csv 6"]
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "b.csv").write_text("b")
    (tmp_path / "in" / "a.txt").write_text("c")
    os.utime(tmp_path / "in" / "deep" / "b.csv", (1, 1))  # as rsync leaves it
    assert after(31) == []
    assert after(31) == ["csv in/deep/b.csv 1"]
    assert after(31) == []
    (state,) = kernel.polls.find()
    assert state.state == "ok"


def test_a_watch_for_which_there_is_no_room_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before may fill a poll's events exactly."""
    monkeypatch.setattr("automate_files.connector._MOST_ARRIVALS", 2)
    place = {"type": "local", "folder": str(tmp_path)}
    watch = {"place": "here", "settled": False, "existing": True}
    watches = {name: {**watch, "pattern": f"*.{name}"} for name in ("a", "b")}
    files = FilesConnector({"places": {"here": place}, "watches": watches})
    for name in ("1.a", "2.a", "1.b"):
        (tmp_path / name).write_text("")
    first = files.arrived(None)
    assert [each.payload["path"] for each in first.events] == ["1.a", "2.a"] and first.more
    second = files.arrived(first.cursor)
    assert [each.payload["path"] for each in second.events] == ["1.b"] and not second.more
    assert logged(caplog, "automate.plugins") == []


def test_a_changed_watch_begins_anew(tmp_path: Path) -> None:
    """Else all that its new pattern means would be news."""
    (tmp_path / "a.txt").write_text("")

    def arrived(pattern: str, cursor: Any) -> Any:
        config = {
            "places": {"here": {"type": "local", "folder": str(tmp_path)}},
            "watches": {"w": {"place": "here", "pattern": pattern, "settled": False}},
        }
        return FilesConnector(config, ctx=ConnectorContext(key="files")).arrived(cursor)

    cursor = arrived("*.csv", None).cursor
    again = arrived("*", cursor)
    assert again.events == []
    (tmp_path / "b.txt").write_text("")
    assert [each.payload["path"] for each in arrived("*", again.cursor).events] == ["b.txt"]
