"""
Contract suites for authors of plugins and adapters, and a clock that stands still.

Subclass a contract in a test module, give it the fixtures that its docstring names, and pytest
runs all its tests against your implementation::

    from automate_kernel.testing.secrets import SecretsBackendContract

    class TestVault(SecretsBackendContract):
        @pytest.fixture
        def backend(self, known_key, known_value):
            return VaultBackend({known_key: known_value})

They need pytest, which is why importing `automate_kernel` does not import them.
"""

import pytest

pytest.register_assert_rewrite(__name__)
