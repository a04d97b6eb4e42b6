"""The contract of backends that can be written to, for files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from automate_kernel import ConfigError
from automate_kernel.base.errors import SecretError
from automate_kernel.secrets import (
    EnvSecretsBackend,
    SecretResolver,
    WritableFileSecretsBackend,
)
from automate_testing import WritableSecretsBackendContract
from broken_places import broken_folders


class TestWritableFileSecretsBackend(WritableSecretsBackendContract):
    @pytest.fixture
    def writable(self, tmp_path: Path) -> WritableFileSecretsBackend:
        return WritableFileSecretsBackend(tmp_path / "tokens")

    @pytest.fixture
    def broken(
        self, tmp_path: Path, known_key: str, missing_key: str
    ) -> dict[str, WritableFileSecretsBackend]:
        folder = tmp_path / "broken"
        return broken_folders(WritableFileSecretsBackend, folder, known_key, missing_key)


def test_only_its_user_can_read_a_file(tmp_path: Path) -> None:
    backend = WritableFileSecretsBackend(tmp_path / "a" / "tokens")
    backend.set_secret("key", "value")
    assert stat.S_IMODE((tmp_path / "a" / "tokens").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "tokens" / "key").stat().st_mode) == 0o600
    assert [each.name for each in (tmp_path / "a" / "tokens").iterdir()] == ["key"]


@pytest.mark.parametrize("key", ["../key", "a/b", ".key", ""])
def test_a_key_leads_to_no_other_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(SecretError):
        WritableFileSecretsBackend(tmp_path).set_secret(key, "value")
    with pytest.raises(SecretError), WritableFileSecretsBackend(tmp_path).locked(key):
        pass


@pytest.mark.parametrize("value", ["", "a\n", "x" * 70_000])
def test_what_would_not_come_back_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(SecretError) as caught:
        WritableFileSecretsBackend(tmp_path).set_secret("key", value)
    assert "xxx" not in str(caught.value)


def test_a_resolver_knows_where_to_write(tmp_path: Path) -> None:
    backend = WritableFileSecretsBackend(tmp_path)
    assert SecretResolver([EnvSecretsBackend(), backend]).writable is backend
    with pytest.raises(ConfigError, match="can be written to"):
        SecretResolver([EnvSecretsBackend()]).writable  # noqa: B018
