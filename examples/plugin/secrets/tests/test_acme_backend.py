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
