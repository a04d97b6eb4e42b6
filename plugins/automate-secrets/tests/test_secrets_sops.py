"""The SOPS backend on files that the real program has encrypted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from automate_kernel.base.errors import (
    ConfigError,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import SecretsBackend
from automate_testing import SecretsBackendContract
from automate_secrets.sops import SopsBackend

Key = tuple[Path, str]
SOPS = str(Path(sys.executable).parent / "sops")


def encrypted(folder: Path, key: Key, content: Any, name: str = "secrets.json") -> Path:
    """Return a file with *content*, encrypted for *key*."""
    plain, file = folder / f"plain-{name}", folder / name
    plain.write_text(content if isinstance(content, str) else json.dumps(content))
    command = [SOPS, "--encrypt", "--age", key[1], "--output", str(file), str(plain)]
    subprocess.run(command, check=True, capture_output=True)
    plain.unlink()
    return file


class TestSopsBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(
        self, tmp_path: Path, age_key: Key, known_key: str, known_value: str
    ) -> SecretsBackend:
        file = encrypted(tmp_path, age_key, {known_key: known_value})
        return SopsBackend(file, age_key_file=age_key[0])

    @pytest.fixture
    def broken(
        self, tmp_path: Path, age_key: Key, other_age_key: Key, its: Any
    ) -> dict[str, SecretsBackend]:
        content = {its.key: its.value, "other": "value-of-other"}
        file = encrypted(tmp_path, age_key, content, "good.json")
        changed = json.loads(file.read_text())
        del changed["other"]
        texts = {
            "changed by hand": json.dumps(changed), "cut off": file.read_text()[:40], "empty": "",
            "never encrypted": json.dumps(content), "no object": "[]",
        }  # fmt: skip
        made = {}
        for number, (failure, text) in enumerate(texts.items()):
            (tmp_path / f"{number}.json").write_text(text)
            made[failure] = SopsBackend(tmp_path / f"{number}.json", age_key_file=age_key[0])
        return {
            **made,
            "no file": SopsBackend(tmp_path / "away.json", age_key_file=age_key[0]),
            "another key": SopsBackend(file, age_key_file=other_age_key[0]),
            "no key": SopsBackend(file, age_key_file=tmp_path / "none"),
            "a program that fails": SopsBackend(file, program="false"),
            "a program that says nothing": SopsBackend(file, program="true"),
            "a program that says no object": SopsBackend(file, program="echo"),
        }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.yaml", "database:\n  password: hunter2-hunter2\n  port: 5432\n"),
        ("s.json", '{"database": {"password": "hunter2-hunter2", "port": 5432}}'),
        ("s.ini", "[database]\npassword = hunter2-hunter2\nport = 5432\n"),
    ],
)
def test_a_key_is_a_path_in_the_file(tmp_path: Path, age_key: Key, name: str, content: str) -> None:
    backend = SopsBackend(encrypted(tmp_path, age_key, content, name), age_key_file=age_key[0])
    assert backend.get_secret("database/password") == "hunter2-hunter2"
    assert backend.get_secret("database/port") == "5432"
    for missing in ("database/user", "database/password/more", "password", "database/"):
        with pytest.raises(SecretNotFoundError):
            backend.get_secret(missing)


def test_a_dotenv_file(tmp_path: Path, age_key: Key) -> None:
    file = encrypted(tmp_path, age_key, "TOKEN=token-of-shop\n", "s.env")
    assert SopsBackend(file, age_key_file=age_key[0]).get_secret("TOKEN") == "token-of-shop"


def test_a_changed_file_counts_at_once(tmp_path: Path, age_key: Key) -> None:
    """And an unchanged one is decrypted once only."""
    file = encrypted(tmp_path, age_key, {"token": "first-value"})
    backend = SopsBackend(file, age_key_file=age_key[0])
    assert backend.get_secret("token") == "first-value"
    backend._program = "/no/such/program"
    assert backend.get_secret("token") == "first-value"
    backend._program = SOPS
    encrypted(tmp_path, age_key, {"token": "second-value"})
    assert backend.get_secret("token") == "second-value"
    with pytest.raises(SecretUnavailableError):
        file.rename(file.with_suffix(".old"))
        backend.get_secret("token")


def test_a_wrong_key_is_denied_and_says_so(
    tmp_path: Path, age_key: Key, other_age_key: Key
) -> None:
    file = encrypted(tmp_path, age_key, {"token": "value-of-token"})
    for key_file in (other_age_key[0], None):
        with pytest.raises(SecretDeniedError, match="age_key_file") as caught:
            SopsBackend(file, age_key_file=key_file).get_secret("token")
        assert not caught.value.retryable


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path: Path, age_key: Key) -> None:
    file = encrypted(tmp_path, age_key, {"first": "value-of-first", "second": "value-of-second"})
    content = json.loads(file.read_text())
    del content["second"]
    file.write_text(json.dumps(content))
    with pytest.raises(SecretError, match="changed without sops"):
        SopsBackend(file, age_key_file=age_key[0]).get_secret("first")


def test_what_is_no_file_of_sops(tmp_path: Path, age_key: Key) -> None:
    """Its content isn't shown: it may be the secrets, which somebody forgot to encrypt."""
    file = tmp_path / "secrets.yaml"
    file.write_text("token: canary-canary\n")
    with pytest.raises(SecretError, match="can't decrypt") as caught:
        SopsBackend(file).get_secret("token")
    assert not isinstance(caught.value, SecretNotFoundError)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="not there"):
        SopsBackend(file, program="no-such-sops")
