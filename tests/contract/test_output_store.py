"""The file store keeps the promises of an output store, and those of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from automate_kernel.base.errors import AutomateError, ConfigError, StorageError
from automate_kernel.storage.output_store import FileOutputStore, OutputStore
from automate_testing.contracts.output_store import OutputStoreContract

KEY = "01890000-0000-7000-8000-000000000000/01890000-0000-7000-8000-000000000001"


class TestFiles(OutputStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> OutputStore:
        return FileOutputStore(tmp_path / "outputs")


@pytest.mark.parametrize(
    "key", ["", "a", "a/b/c", "../a", "a/..", "/a/b", "a/b\n", "a\\b/c", ".a/b", "a/.b", "a b/c"]
)
def test_a_key_leads_nowhere_else(tmp_path: Path, key: str) -> None:
    store = FileOutputStore(tmp_path / "outputs")
    for call in (store.get, store.delete, lambda key: store.put(key, b"1")):
        with pytest.raises(AutomateError, match="can't be a key"):
            call(key)
    assert list(tmp_path.rglob("*")) == []


def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    store = FileOutputStore(tmp_path)
    store.put(KEY, b"1")
    (file,) = (each for each in tmp_path.rglob("*") if each.is_file())
    assert file.stat().st_mode & 0o077 == 0


def test_what_a_dying_process_left_is_deleted_in_time(tmp_path: Path) -> None:
    store = FileOutputStore(tmp_path)
    store.put(KEY, b"1")
    (file,) = (each for each in tmp_path.rglob("*") if each.is_file())
    unfinished = file.with_name(".unfinished")
    unfinished.write_bytes(b"half")
    assert list(store.keys(older_than_seconds=60.0)) == []
    assert unfinished.exists()
    os.utime(unfinished, (0, 0))
    assert list(store.keys(older_than_seconds=60.0)) == []
    assert not unfinished.exists()


def test_empty_folders_go(tmp_path: Path) -> None:
    store = FileOutputStore(tmp_path)
    store.put(KEY, b"1")
    store.delete(KEY)
    assert [each.name for each in tmp_path.rglob("*")] == ["01"]


def test_a_failing_disk_is_an_error_that_may_pass(tmp_path: Path) -> None:
    store = FileOutputStore(tmp_path / "outputs")
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(StorageError, match="can't write"):
        store.put(KEY, b"1")
    with pytest.raises(StorageError, match="can't read"):
        store.get(KEY)
    with pytest.raises(ConfigError, match="is no folder"):
        FileOutputStore(tmp_path / "outputs")
