"""Local folders: links, races, full disks, and what is no file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from automate_files import FilesConnector
from automate_kernel import AutomateError
from automate_kernel.plugins.connectors import ConnectorContext


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    return tmp_path / "root"


@pytest.fixture
def files(root: Path) -> FilesConnector:
    config = {"places": {"here": {"type": "local", "folder": str(root)}}}
    return FilesConnector(config, ctx=ConnectorContext(key="files"))


def test_a_link_is_not_followed(files: FilesConnector, root: Path) -> None:
    outside = root.parent / "outside"
    (root / "file").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    for call in (
        lambda: files.read("here", "file"),
        lambda: files.read("here", "folder/secret.txt"),
        lambda: files.read("here", "loop"),
        lambda: files.checksum("here", "folder/secret.txt"),
        lambda: files.write("here", "folder/new.txt", text="x"),
        lambda: files.delete("here", "folder/secret.txt"),
        lambda: files.move("here", "folder/secret.txt", "mine.txt"),
        lambda: files.mkdir("here", "folder/new"),
        lambda: files.list_files("here", "folder/*"),
    ):
        with pytest.raises(AutomateError) as raised:
            call()
        assert raised.value.code in {"PERMISSION_DENIED", "FAILED_PRECONDITION"}, raised.value
    assert files.list_files("here", "**").files == []
    assert files.stat("here", "file").kind == "link"
    assert [each.name for each in outside.iterdir()] == ["secret.txt"]


def test_writing_replaces_a_link_and_not_what_it_leads_to(
    files: FilesConnector, root: Path
) -> None:
    (root / "file").symlink_to(root.parent / "outside" / "secret.txt")
    files.write("here", "file", text="mine", overwrite=True)
    assert (root.parent / "outside" / "secret.txt").read_text() == "secret"
    assert not (root / "file").is_symlink()


def test_a_folder_that_becomes_a_link_at_the_wrong_moment(
    files: FilesConnector, root: Path
) -> None:
    """Another process swaps a folder for a link over and over: nothing outside is ever touched."""
    outside, done = root.parent / "outside", threading.Event()
    (root / "real").mkdir()
    (root / "link").symlink_to(outside)

    def swap() -> None:
        while not done.is_set():
            for one in ("real", "link"):
                try:
                    os.rename(root / one, root / "d")
                    os.rename(root / "d", root / one)
                except OSError:  # the plugin has made the folder itself
                    shutil.rmtree(root / "d", ignore_errors=True)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for n in range(500):
            try:
                files.write("here", f"d/{n}", text="x")
            except AutomateError:
                pass
            with pytest.raises(AutomateError):
                files.read("here", "d/secret.txt")
    finally:
        done.set()
        swapping.join()
    assert [each.name for each in outside.iterdir()] == ["secret.txt"]


def test_a_pipe_keeps_nobody_waiting(files: FilesConnector, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(AutomateError):
        files.read("here", "pipe")
    assert files.list_files("here").files == []


def test_names_that_are_no_unicode_are_passed_over(files: FilesConnector, root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.txt")).write_text("x")
    (root / "a\nb").write_text("x")
    (root / "good").write_text("x")
    assert [each.path for each in files.list_files("here", "**").files] == ["good"]


def test_a_file_that_is_too_large_for_the_disk_leaves_nothing(root: Path) -> None:
    """A limit of the file's size stands for the full disk: the write fails in the middle."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from automate_files import FilesConnector
from automate_kernel import AutomateError
files = FilesConnector({{"places": {{"here": {{"type": "local", "folder": {str(root)!r}}}}}}})
files.write("here", "a", text="old")
try:
    files.write("here", "a", text="x" * 200_000, overwrite=True)
except AutomateError as error:
    print(error.code, error.retryable)
print(files.read("here", "a").text)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["RESOURCE_EXHAUSTED", "True", "old"], done.stderr
    assert [each.name for each in root.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run it as another user")
def test_what_may_not_be_read_is_denied(files: FilesConnector, root: Path) -> None:
    (root / "a").write_text("x")
    (root / "a").chmod(0)
    with pytest.raises(AutomateError) as raised:
        files.read("here", "a")
    assert raised.value.code == "PERMISSION_DENIED"


def test_no_handle_stays_open(files: FilesConnector, root: Path) -> None:
    def use() -> None:
        files.write("here", "a/b/c", text="x", overwrite=True)
        files.read("here", "a/b/c")
        files.list_files("here", "**")
        for call in (lambda: files.read("here", "a/x/c"), lambda: files.read("here", "a/b")):
            with pytest.raises(AutomateError):
                call()

    use()
    held = handles_below(root)
    for _ in range(20):
        use()
    assert handles_below(root) == held
    with (root / "a" / "b" / "c").open():
        assert len(handles_below(root)) == len(held) + 1, "it would have seen none"


def handles_below(root: Path) -> list[str]:
    """What this process has open there: those that other tests have left are none of it."""
    places = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            places.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(each for each in places if each.startswith(str(root)))


def test_a_root_that_is_away_is_no_empty_list(files: FilesConnector, root: Path) -> None:
    """Else a folder that isn't mounted would look like one whose files were all deleted."""
    root.rmdir()
    for pattern in ("*", "in/*"):
        with pytest.raises(AutomateError):
            files.list_files("here", pattern)


def test_a_pattern_takes_no_time(files: FilesConnector, root: Path) -> None:
    (root / ("a" * 200)).write_text("")
    assert files.list_files("here", "*a" * 60 + "b").files == []
    assert files.list_files("here", "**/" * 60 + "b").files == []
