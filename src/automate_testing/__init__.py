"""
Contract suites for authors of plugins and outbox stores, a kit for tests of workflows, and a clock.

Subclass a contract in a test module, give it the fixtures that its docstring names, and pytest
runs all its tests against your implementation::

    from automate_testing import SecretsBackendContract

    class TestVault(SecretsBackendContract):
        @pytest.fixture
        def backend(self, known_key, known_value):
            return VaultBackend({known_key: known_value})

The contracts need pytest: `pip install 'automate-kernel[testing]'`. `FakeClock` and
`WorkflowTest` don't.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_testing.clock import FakeClock
    from automate_testing.contracts.connectors import ConnectorContract
    from automate_testing.contracts.filters import FilterContract
    from automate_testing.contracts.hostile_answers import HostileAnswersContract
    from automate_testing.contracts.hostile_values import HOSTILE_VALUES, HostileValuesContract
    from automate_testing.contracts.outbox import OutboxControlsContract, OutboxStoreContract
    from automate_testing.contracts.output_store import OutputStoreContract
    from automate_testing.contracts.polls import PollContract
    from automate_testing.contracts.providers import ProviderContract
    from automate_testing.contracts.secrets import (
        SecretsBackendContract,
        SecretsServiceContract,
        WritableSecretsBackendContract,
        WritableSecretsServiceContract,
    )
    from automate_testing.workflows.workflow_test import WorkflowTest

__all__ = [
    "HOSTILE_VALUES",
    "ConnectorContract",
    "FakeClock",
    "FilterContract",
    "HostileAnswersContract",
    "HostileValuesContract",
    "OutboxControlsContract",
    "OutboxStoreContract",
    "OutputStoreContract",
    "PollContract",
    "ProviderContract",
    "SecretsBackendContract",
    "SecretsServiceContract",
    "WorkflowTest",
    "WritableSecretsBackendContract",
    "WritableSecretsServiceContract",
]

_HOME = {
    "ConnectorContract": "contracts.connectors",
    "FakeClock": "clock",
    "FilterContract": "contracts.filters",
    "HOSTILE_VALUES": "contracts.hostile_values",
    "HostileAnswersContract": "contracts.hostile_answers",
    "HostileValuesContract": "contracts.hostile_values",
    "OutboxControlsContract": "contracts.outbox",
    "OutboxStoreContract": "contracts.outbox",
    "OutputStoreContract": "contracts.output_store",
    "PollContract": "contracts.polls",
    "ProviderContract": "contracts.providers",
    "SecretsBackendContract": "contracts.secrets",
    "SecretsServiceContract": "contracts.secrets",
    "WorkflowTest": "workflows.workflow_test",
    "WritableSecretsBackendContract": "contracts.secrets",
    "WritableSecretsServiceContract": "contracts.secrets",
}


try:
    import pytest
except ModuleNotFoundError:
    pass
else:
    # Before a contract is imported: a failing test then shows the values that it compared. Not this
    # package itself, which is being imported already: pytest would warn of it in each author's run.
    _rewritten = {*_HOME.values(), "contracts.plugin_contract", "contracts.connection_tests"}
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in sorted(_rewritten)))


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        module = _HOME.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            home = import_module(f"{__name__}.{module}")
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            message = f"{name} needs pytest: pip install 'automate-kernel[testing]'"
            raise ImportError(message, name="pytest") from None
        value = globals()[name] = getattr(home, name)
        return value
