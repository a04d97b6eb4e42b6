"""The contracts of the five, as their author runs them."""

from __future__ import annotations

from typing import Any

import pytest
from automate_frozen.backend import FrozenDrawer
from automate_frozen.connector import FrozenConnector
from automate_frozen.filters import shout
from automate_frozen.provider import FrozenMath
from automate_kernel import ConnectorContext, ProviderContext
from automate_testing.contracts.connectors import ConnectorContract
from automate_testing.contracts.providers import ProviderContract
from automate_testing.contracts.secrets import SecretsBackendContract


class TestFrozenConnector(ConnectorContract):
    example_inputs = {
        "post_message": {"channel": "C1", "text": "hi"},
        "count": {},
    }

    @pytest.fixture
    def connector(self) -> FrozenConnector:
        return FrozenConnector({"token": "t"}, ctx=ConnectorContext(key="frozen"))


class TestFrozenMath(ProviderContract):
    example_inputs = {"add": {"numbers": [1, 2.5]}, "double": {"x": 2}}

    @pytest.fixture
    def provider(self) -> FrozenMath:
        return FrozenMath({"precision": 1}, ctx=ProviderContext(key="frozen-math"))


class TestFrozenDrawer(SecretsBackendContract):
    @pytest.fixture
    def backend(self, known_key: str, known_value: str) -> FrozenDrawer:
        return FrozenDrawer({known_key: known_value})


def test_shout() -> None:
    made: Any = shout("hi", "?")
    assert made == "HI?"
