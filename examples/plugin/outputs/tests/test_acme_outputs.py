from pathlib import Path

import pytest
from automate_testing import OutputStoreContract

from automate_acme.outputs import AcmeOutputStore


class TestAcmeOutputStore(OutputStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> AcmeOutputStore:
        return AcmeOutputStore(tmp_path / "outputs")
