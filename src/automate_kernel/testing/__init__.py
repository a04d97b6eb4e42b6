"""
Contract suites for authors of plugins and outbox stores, a kit for tests of workflows, and a clock.

Subclass a contract in a test module, give it the fixtures that its docstring names, and pytest
runs all its tests against your implementation::

    from automate_kernel.testing import SecretsBackendContract

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
    from automate_kernel.testing.clock import FakeClock
    from automate_kernel.testing.connectors import ConnectorContract
    from automate_kernel.testing.filters import FilterContract
    from automate_kernel.testing.hostile_answers import HostileAnswersContract
    from automate_kernel.testing.hostile_values import HOSTILE_VALUES, HostileValuesContract
    from automate_kernel.testing.outbox import OutboxStoreContract
    from automate_kernel.testing.output_store import OutputStoreContract
    from automate_kernel.testing.polls import PollContract
    from automate_kernel.testing.providers import ProviderContract
    from automate_kernel.testing.secrets import (
        SecretsBackendContract,
        WritableSecretsBackendContract,
    )
    from automate_kernel.testing.workflows import WorkflowTest

__all__ = [
    "HOSTILE_VALUES",
    "ConnectorContract",
    "FakeClock",
    "FilterContract",
    "HostileAnswersContract",
    "HostileValuesContract",
    "OutboxStoreContract",
    "OutputStoreContract",
    "PollContract",
    "ProviderContract",
    "SecretsBackendContract",
    "WorkflowTest",
    "WritableSecretsBackendContract",
]

_HOME = {
    "ConnectorContract": "connectors",
    "FakeClock": "clock",
    "FilterContract": "filters",
    "HOSTILE_VALUES": "hostile_values",
    "HostileAnswersContract": "hostile_answers",
    "HostileValuesContract": "hostile_values",
    "OutboxStoreContract": "outbox",
    "OutputStoreContract": "output_store",
    "PollContract": "polls",
    "ProviderContract": "providers",
    "SecretsBackendContract": "secrets",
    "WorkflowTest": "workflows",
    "WritableSecretsBackendContract": "secrets",
}


try:
    import pytest
except ModuleNotFoundError:
    pass
else:
    # Before a contract is imported: a failing test then shows the values that it compared. Not this
    # package itself, which is being imported already: pytest would warn of it in each author's run.
    _rewritten = {*_HOME.values(), "plugin_contract", "connection_tests"}
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in sorted(_rewritten)))


if not TYPE_CHECKING:  # it would give every name, misspelt ones too

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
