"""
The contract of a provider, as tests that its author inherits.

::

    class TestGreeter(ProviderContract):
        @pytest.fixture
        def provider(self):
            return Greeter({}, ctx=ProviderContext(key="greeter"))

        example_inputs = {"greet": {"name": "Ada"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.plugins.kinds import PROVIDER
from automate_kernel.providers import BaseProvider, CapabilitySpec
from automate_kernel.testing.plugin_contract import (
    PluginContract,
    finished,
    require_json_schema,
    require_unique,
)

__all__ = ["ProviderContract"]


class ProviderContract(PluginContract):
    """
    Subclass it and give it a fixture ``provider``.

    *example_inputs* has an input for each capability that may be called in a test (against a
    double of the service); the specs of the others are checked. Set *supports_capabilities* to
    False for a provider that defines none.
    """

    kind = PROVIDER
    supports_capabilities: ClassVar[bool] = True
    example_inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pytest.fixture
    def provider(self) -> BaseProvider:
        """Make the provider under test."""
        raise NotImplementedError("override the fixture `provider`")

    @pytest.fixture
    def plugin(self, provider: BaseProvider) -> BaseProvider:
        """Return the provider, for the tests that connectors have too."""
        return provider

    def test_capabilities_have_unique_names_and_valid_schemas(self, provider: BaseProvider) -> None:
        """Each capability has its own name, and schemas that are JSON Schema."""
        specs = provider.capabilities()
        assert bool(specs) == self.supports_capabilities
        assert all(isinstance(spec, CapabilitySpec) for spec in specs)
        require_unique([spec.name for spec in specs])
        for spec in specs:
            require_json_schema(spec.json_schema())
            if (output := spec.output_json_schema()) is not None:
                require_json_schema(output)

    def test_an_unknown_capability_is_an_invalid_argument(self, provider: BaseProvider) -> None:
        """A capability that does not exist is refused, and not tried again."""
        with pytest.raises(AutomateError) as caught:
            finished(provider.execute_capability("no_such_capability", {}))
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        assert not caught.value.retryable

    def test_input_that_is_no_object_is_refused(self, provider: BaseProvider) -> None:
        """No capability is called with something that is not an object."""
        for spec in provider.capabilities():
            with pytest.raises(AutomateError) as caught:
                provider.call_capability(spec.name, ["no", "object"])  # type: ignore[arg-type]
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT

    def test_examples_give_json(self, provider: BaseProvider) -> None:
        """The capability's output for each example input is a JSON value."""
        for name, example in self.example_inputs.items():
            self.require_json(finished(provider.call_capability(name, example)))
