"""Each action, at each kind of place."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import s3fs
from automate_files import FilesConnector
from automate_files.config import S3PlaceConfig
from automate_files.fsspec_place import S3Place
from automate_kernel import AutomateError, Call, Kernel
from automate_kernel.operations.context import calling
from automate_kernel.operations.drafts import Draft
from files_support import SECRETS, Secrets
from waiting import at_once


class Files:
    """Calls actions at the place ``main``."""

    def __init__(self, place: dict[str, Any], **more: dict[str, Any]) -> None:
        config = {"files": {"places": {"main": place, **more}}}
        self.kernel = Kernel(
            plugins=[FilesConnector], discover=False, config=config, secrets=SECRETS
        )

    def __call__(self, action: str, path: str | None = None, **input: Any) -> Any:
        named = {"path": path} if path is not None else {}
        given = {"place": "main", **named, **input}
        return self.kernel.invoke(f"files.{action}", given, literal=True)

    def fails(self, code: str, action: str, path: str | None = None, **input: Any) -> AutomateError:
        with pytest.raises(AutomateError) as raised:
            self(action, path, **input)
        assert raised.value.code == code, raised.value
        return raised.value

    def paths(self, pattern: str = "**") -> list[str]:
        return [each["path"] for each in self("list", pattern=pattern)["files"]]


@pytest.fixture
def files(place_config: dict[str, Any]) -> Iterator[Files]:
    found = Files(place_config)
    yield found
    found.kernel.close()


def test_a_file_comes_back_as_it_was_written(files: Files) -> None:
    data = bytes(range(256)) * 9000
    written = files("write", "a/b/c.bin", base64=base64.b64encode(data).decode())
    assert (written["size"], written["changed"]) == (len(data), True)
    content = files("read", "a/b/c.bin", encoding="base64")
    assert base64.b64decode(content["base64"]) == data
    assert content["next_offset"] is None
    assert files("stat", "a/b/c.bin")["size"] == len(data)
    assert files("checksum", "a/b/c.bin")["digest"] == hashlib.sha256(data).hexdigest()
    assert files.paths() == ["a/b/c.bin"]


def test_an_empty_file_and_odd_names(files: Files) -> None:
    for path in ("empty", "ä ö/日本 #1?.txt", "a+b&c=d%20", "-rf", "~", "[x]"):
        files("write", path, text="")
        assert files("read", path)["text"] == ""
        assert files("stat", path)["kind"] == "file"
    assert len(files.paths()) == 6


def test_nothing_is_replaced_unless_said(files: Files) -> None:
    files("write", "a.txt", text="one")
    assert files("write", "a.txt", text="one")["changed"] is False
    files.fails("ALREADY_EXISTS", "write", "a.txt", text="two")
    assert files("read", "a.txt")["text"] == "one"
    files("write", "a.txt", text="two", overwrite=True)
    assert files("read", "a.txt")["text"] == "two"
    assert files.paths() == ["a.txt"]  # and nothing unfinished


def test_parts_end_with_whole_characters(files: Files) -> None:
    text = "aä€😀" * 3
    files("write", "t", text=text)
    found, at = "", 0
    while at is not None:
        part = files("read", "t", offset=at, max_bytes=5)
        found += part["text"]
        at = part["next_offset"]
    assert found == text


def test_a_part_from_beyond_the_end_is_empty_and_one_from_beyond_all_files_is_refused(
    files: Files,
) -> None:
    """The error of the place was tried again, as a fault of the plugin."""
    files("write", "t", text="abc")
    for at in (3, 4, 2**43):
        part = files("read", "t", offset=at, max_bytes=5)
        assert (part["text"], part["next_offset"]) == ("", None)
    files.fails("INVALID_ARGUMENT", "read", "t", offset=2**63)


def test_what_is_no_text_is_an_error(files: Files) -> None:
    files("write", "b", base64="/w==")
    files.fails("FAILED_PRECONDITION", "read", "b")
    assert files("read", "b", encoding="latin-1")["text"] == "ÿ"


def test_sizes_are_bounded(place_config: dict[str, Any]) -> None:
    files = Files({**place_config, "max_bytes": 10})
    files.fails("INVALID_ARGUMENT", "write", "a", text="x" * 11)
    files("write", "a", text="x" * 10)
    assert files("read", "a")["size"] == 10
    Files(place_config)("write", "a", text="x" * 11, overwrite=True)
    assert "max_bytes" in str(files.fails("FAILED_PRECONDITION", "read", "a"))
    assert files("read", "a", max_bytes=10)["next_offset"] == 10


def test_lists_by_pattern_and_by_page(files: Files) -> None:
    for path in ("a.csv", "b.txt", "in/a.csv", "in/deep/a.csv", "in/deep/b.csv", "in.csv", "in-1"):
        files("write", path, text=path)
    assert files.paths("*.csv") == ["a.csv", "in.csv"]
    assert files.paths("**/*.csv") == [
        "a.csv",
        "in.csv",
        "in/a.csv",
        "in/deep/a.csv",
        "in/deep/b.csv",
    ]
    assert files.paths("in/*") == ["in/a.csv"]
    assert files.paths("in/**") == ["in/a.csv", "in/deep/a.csv", "in/deep/b.csv"]
    assert files.paths("?.[a-c]*") == ["a.csv"]
    assert files.paths("nowhere/*") == []
    found, after = [], None
    while True:
        page = files("list", pattern="**", limit=2, **({"after": after} if after else {}))
        found += [each["path"] for each in page["files"]]
        after = page["after"]
        if after is None:
            break
        assert len(page["files"]) == 2
    assert found == files.paths("**") == sorted(found)
    assert len(found) == 7


def test_a_huge_listing_is_refused(place_config: dict[str, Any]) -> None:
    files = Files({**place_config, "max_entries": 3})
    for n in range(5):
        files("write", f"{n}", text="")
    error = files.fails("RESOURCE_EXHAUSTED", "list", pattern="*")
    assert not error.retryable
    assert "max_entries" in str(error)


def test_copies_and_moves(files: Files) -> None:
    files("write", "a", text="one")
    files("copy", "a", to_path="x/b")
    assert files("copy", "a", to_path="x/b")["changed"] is False
    files("write", "c", text="two")
    files.fails("ALREADY_EXISTS", "copy", "c", to_path="x/b")
    files.fails("ALREADY_EXISTS", "move", "c", to_path="x/b")
    files("move", "c", to_path="x/b", overwrite=True)
    assert files("read", "x/b")["text"] == "two"
    files("move", "a", to_path="y/z/a")
    assert files.paths() == ["x/b", "y/z/a"]
    files.fails("NOT_FOUND", "move", "a", to_path="y/z/b")
    files.fails("INVALID_ARGUMENT", "move", "x/b", to_path="x/b")


def test_a_move_whose_worker_died_between_its_two_halves_is_finished(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, deletion in (("local", "os.unlink"), ("s3", "S3Place._timed")):
        files = Files(request.getfixturevalue(f"{kind}_config"))
        files("write", "a", text="one")
        files("write", "c", text="two")
        module = "local" if kind == "local" else "fsspec_place"
        own = S3Place._timed

        def dies(*args: Any, own: Any = own, **options: Any) -> Any:
            if len(args) < 3 or getattr(args[2], "__name__", "") == "_rm_file":
                raise ConnectionError("killed")
            return own(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(f"automate_files.{module}.{deletion}", dies)
            files.fails("UNAVAILABLE", "move", "a", to_path="b")
        assert files.paths() == ["a", "b", "c"]
        files.fails("ALREADY_EXISTS", "move", "c", to_path="b")
        files("move", "a", to_path="b")
        assert files.paths() == ["b", "c"]
        assert files("read", "b")["text"] == "one"
        files.kernel.close()


def test_an_upload_leaves_no_parts_in_s3_when_its_worker_is_killed(
    s3_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def note(self: Any, method: str, *args: Any, **options: Any) -> dict[str, Any]:
        sent.append(method)
        return {}

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", note)
    place = S3Place("p", S3PlaceConfig(**s3_config), Secrets(**SECRETS))
    place.write("a", [bytes(2**20)] * 101, overwrite=False)
    assert sent == ["put_object"]
    place.close()


@pytest.mark.parametrize("kind", ["local", "sftp"])
def test_what_a_killed_worker_had_begun_to_write_is_deleted_by_the_next_attempt(
    request: pytest.FixtureRequest, kind: str
) -> None:
    files = Files(request.getfixturevalue(f"{kind}_config"))
    first = Call("files.write", execution_id="e", step_id="s", idempotency_key="e:s")
    begun = []
    for call, path in ((first, "n"), (first, "m"), (replace(first, idempotency_key="e:t"), "n")):
        with calling(call):
            begun.append(Draft.of(path).name)
        files("write", begun[-1], text="half")
    given = {"place": "main", "path": "n", "text": "whole"}
    files.kernel.perform(first, given)
    assert len(files.paths()) == 4  # it may be another's, who is only slow
    files.kernel.perform(replace(first, attempt=2), given)
    assert files.paths() == sorted(["n", *begun[1:]])


def test_between_places(place_config: dict[str, Any], tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    files = Files(place_config, other={"type": "local", "folder": str(tmp_path / "other")})
    files("write", "a", text="one")
    files("copy", "a", to_path="b", to_place="other")
    files("move", "a", to_path="c", to_place="other")
    assert files.paths() == []
    assert sorted(each.name for each in (tmp_path / "other").iterdir()) == ["b", "c"]


def test_a_move_to_the_same_file_under_another_places_name_deletes_nothing(
    place_config: dict[str, Any],
) -> None:
    files = Files(place_config, other=place_config)
    files("write", "x/a", text="one")
    for overwrite in (True, False):
        error = files.fails(
            "INVALID_ARGUMENT", "move", "x/a", to_path="x/a", to_place="other", overwrite=overwrite
        )
        assert "are one file" in str(error)
    assert files("read", "x/a")["text"] == "one"
    files("move", "x/a", to_path="y/a", to_place="other")
    assert files.paths() == ["y/a"]


def test_a_move_out_of_a_folder_that_is_a_place_too_deletes_nothing(tmp_path: Any) -> None:
    (tmp_path / "all" / "inbox").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "all")
    files = Files(
        {"type": "local", "folder": str(tmp_path / "all" / "inbox")},
        linked={"type": "local", "folder": str(tmp_path / "link")},
        library={"type": "fsspec", "protocol": "file", "root": str(tmp_path / "all")},
    )
    files("write", "a", text="one")
    for place in ("linked", "library"):
        files.fails("INVALID_ARGUMENT", "move", "a", to_path="inbox/a", to_place=place)
    assert files("read", "a")["text"] == "one"


def test_a_file_that_grows_while_it_is_moved_is_kept(tmp_path: Any) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()

    class Busy(FilesConnector):
        def copy(self, *args: Any, **options: Any) -> Any:
            copied = super().copy(*args, **options)
            (tmp_path / "here" / "log").write_text("one and two")
            return copied

    places = {name: {"type": "local", "folder": str(tmp_path / name)} for name in ("here", "there")}
    (tmp_path / "here" / "log").write_text("one")
    with pytest.raises(AutomateError) as caught:
        Busy({"places": places}).move("here", "log", "log", "there")
    assert (caught.value.code, caught.value.retryable) == ("ABORTED", False)
    assert (tmp_path / "here" / "log").read_text() == "one and two"


def test_deletes(files: Files) -> None:
    files("write", "f/a", text="one")
    if files("stat", "f")["kind"] == "folder":
        files.fails("FAILED_PRECONDITION", "delete", "f")
    assert files("delete", "f/a")["deleted"] is True
    assert files("delete", "f/a")["deleted"] is False
    files.fails("NOT_FOUND", "delete", "f/a", missing_ok=False)


def test_makes_folders(files: Files) -> None:
    files("mkdir", "a/b")
    files("mkdir", "a/b")
    files("write", "a/b/c", text="")
    assert files("stat", "a/b")["kind"] == "folder"


def test_what_is_missing_is_not_found(files: Files) -> None:
    for action in ("read", "stat", "checksum"):
        error = files.fails("NOT_FOUND", action, "no/such")
        assert not error.retryable
    files.fails("NOT_FOUND", "copy", "no/such", to_path="x")


def test_a_folder_is_no_file(files: Files) -> None:
    files("write", "f/a", text="")
    for action in ("read", "checksum"):
        with pytest.raises(AutomateError) as raised:
            files(action, "f")
        assert raised.value.code in {"FAILED_PRECONDITION", "NOT_FOUND"}, raised.value
        assert not raised.value.retryable


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../../b", "/etc/passwd", "a//b", "./a", "a/.", "", "a\0b", "a\nb", "..\\a", "a/",
     "\ud800", "x" * 256, "a/" * 600 + "a", "‮a"],
    ids=lambda path: ascii(path)[:20],
)  # fmt: skip
def test_no_path_leaves_its_place(files: Files, path: str) -> None:
    for action, more in (("read", {}), ("write", {"text": "x"}), ("delete", {}), ("mkdir", {}),
                         ("stat", {}), ("checksum", {}), ("copy", {"to_path": "b"}),
                         ("move", {"to_path": "b"})):  # fmt: skip
        files.fails("INVALID_ARGUMENT", action, path, **more)
    files.fails("INVALID_ARGUMENT", "copy", "a", to_path=path)
    if path:
        files.fails("INVALID_ARGUMENT", "list", pattern=path)


def test_a_read_only_place_stays_as_it_is(place_config: dict[str, Any]) -> None:
    Files(place_config)("write", "a", text="one")
    files = Files({**place_config, "read_only": True})
    assert files("read", "a")["text"] == "one"
    for action, more in (("write", {"text": "x"}), ("delete", {}), ("mkdir", {}),
                         ("copy", {"to_path": "b"}), ("move", {"to_path": "b"})):  # fmt: skip
        files.fails("PERMISSION_DENIED", action, "a", **more)
    assert files.paths() == ["a"]


def test_one_of_many_writers_wins(files: Files) -> None:
    if "memory" in str(files.kernel.connector("files").config):
        pytest.skip("it has nothing atomic")
    done: list[str] = []

    def write(number: int) -> None:
        try:
            files("write", "one", text=f"{number}" * 1000)
            done.append(f"{number}" * 1000)
        except AutomateError as error:
            assert error.code == "ALREADY_EXISTS", error

    at_once(*(partial(write, number) for number in range(8)))
    assert done == [files("read", "one")["text"]]
    assert files.paths() == ["one"]


def test_an_unknown_place_is_named(files: Files) -> None:
    with pytest.raises(AutomateError, match="there is no place 'attic'.*main"):
        files.kernel.invoke("files.read", {"place": "attic", "path": "a"})


def test_forms_offer_the_places(files: Files) -> None:
    assert [each.value for each in files.kernel.options("files.read", "place")] == ["main"]


def test_the_connection_test_sees_a_place_that_is_away(place_config: dict[str, Any]) -> None:
    assert "1 place" in Files(place_config).kernel.connector("files").check()
