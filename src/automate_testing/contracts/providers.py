"""
The contract of a provider, as tests that its author inherits.

::

    class TestGreeter(ProviderContract):
        plugin_class = Greeter
        example_inputs = {"greet": {"name": "Ada"}}
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from automate_kernel.plugins.kinds import PROVIDER
from automate_kernel.plugins.providers import BaseProvider, CapabilitySpec
from automate_testing.contracts.plugin_contract import PluginContract, specs_of

__all__ = ["ProviderContract"]


class ProviderContract(PluginContract):
    """
    Subclass it and say *plugin_class*, and *config* where the provider needs some. Or override
    the fixture ``provider``.

    *example_inputs* has an input for each capability that may be called in a test, against a double
    of the service. Only the specs of the others are checked. Set *supports_capabilities* to False
    for a provider without capabilities.
    """

    kind = PROVIDER
    _spec_class = CapabilitySpec
    supports_capabilities: ClassVar[bool] = True

    @pytest.fixture
    def provider(self) -> BaseProvider:
        """Make the provider under test."""
        provider: BaseProvider = self._make()
        return provider

    def _execute(self, plugin: BaseProvider, name: str) -> Any:
        return plugin.execute_capability(name, {})

    def test_it_has_capabilities(self, provider: BaseProvider) -> None:
        """It defines some, or says that it supports none."""
        assert bool(specs_of(provider)) == self.supports_capabilities
