"""Remedies are commands that people paste: a key in them is a word, whatever it holds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from automate_kernel.secrets.handles import check_key
from automate_testing import HostileValuesContract
from automate_secrets.keyring_backend import KeyringBackend
from automate_secrets.sops import SopsBackend
from automate_secrets.table import SecretTableBackend


class TestRemedies(HostileValuesContract):
    places = ("table", "keyring", "sops", "file of sops")
    accepts = dict.fromkeys(
        places[:3], {"shell", "sql_apostrophe", "quote", "home", "wildcards", "latin"}
    )
    mixtures = 30

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "empty"
        self.folder.mkdir()

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        key = check_key(value)
        match place:
            case "table":
                command = SecretTableBackend("sqlite://").remedy(key)
            case "keyring":
                command = KeyringBackend().remedy(key)
            case "sops":
                command = SopsBackend("secrets.yaml", program="sh").remedy(key)
            case _:
                command = SopsBackend(key, program="sh").remedy("a")
        # The shell itself says what the words of the command are, and calls none of it.
        script = f"set -- {command}\nprintf '%s\\0' \"$@\""
        ran = subprocess.run(["sh", "-c", script], cwd=self.folder, capture_output=True, check=True)
        words = ran.stdout.decode().split("\0")[:-1]
        found = words.pop(2 if place == "file of sops" else 3)
        if place == "sops":
            found = "/".join(json.loads(found.replace("][", ",")))
        return found, (words, list(self.folder.iterdir()))

    def same(self, place: str, value: str, arrived: Any) -> bool:
        return bool(arrived == (str(Path(value)) if place == "file of sops" else value))
