import json
from pathlib import Path

import pytest
from automate_kernel import SecretsBackend
from automate_testing import SecretsBackendContract

from automate_acme.backend import AcmeBackend


class TestAcmeBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path, known_key: str, known_value: str) -> SecretsBackend:
        file = tmp_path / "secrets.json"
        file.write_text(json.dumps({known_key: known_value}))
        return AcmeBackend(str(file))

    @pytest.fixture
    def broken(self, tmp_path: Path) -> dict[str, SecretsBackend]:
        damaged, other = tmp_path / "damaged.json", tmp_path / "other.json"
        damaged.write_text('{"KEY": ')
        other.write_text("[]")
        return {
            "no file": AcmeBackend(str(tmp_path / "away.json")),
            "damaged": AcmeBackend(str(damaged)),
            "no object": AcmeBackend(str(other)),
        }
