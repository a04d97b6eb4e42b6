"""The contracts that plugin authors inherit pass for good plugins, and fail for bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from automate_kernel.connectors import ActionSpec, Connector, TriggerSpec, action
from automate_kernel.operations.context import ConnectorContext
from automate_kernel.providers import BaseProvider, capability
from automate_kernel.operations.context import ProviderContext
from automate_kernel.testing.connectors import ConnectorContract
from suites.executions import ExecutionStoreContract
from automate_kernel.testing.outbox import OutboxStoreContract
from automate_kernel.testing.providers import ProviderContract
from suites.storage import StorageContract


class GreeterConfig(BaseModel):
    greeting: str = "Hello"


class Greeter(BaseProvider):
    key = "greeter"
    display_name = "Greeter"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return GreeterConfig

    @capability(idempotent=True)
    def greet(self, name: str) -> dict[str, str]:
        return {"text": f"{self.config.get('greeting')} {name}"}

    @capability
    async def later(self, name: str) -> str:
        return name


class TestProvider(ProviderContract):
    example_inputs: ClassVar = {"greet": {"name": "Ada"}, "later": {"name": "Ada"}}

    @pytest.fixture
    def provider(self) -> BaseProvider:
        return Greeter({"greeting": "Good evening"}, ctx=ProviderContext(key="greeter"))


class Bare(BaseProvider):
    key = "bare"
    display_name = "Bare"


class TestProviderWithoutCapabilities(ProviderContract):
    supports_capabilities = False

    @pytest.fixture
    def provider(self) -> BaseProvider:
        return Bare({}, ctx=ProviderContext(key="bare"))


class Chat(Connector):
    key = "chat"
    display_name = "Chat"

    @action(idempotent=True)
    def post(self, channel: str, text: str) -> dict[str, str]:
        return {"channel": channel, "text": text}

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("posted", delivery_id_header="X-Delivery")]


class TestConnector(ConnectorContract):
    example_inputs: ClassVar = {"post": {"channel": "C1", "text": "hello"}}

    @pytest.fixture
    def connector(self) -> Connector:
        return Chat({"token": "hunter2"}, ctx=ConnectorContext(key="chat"))


class Careless(Chat):
    key = "Care Less"
    display_name = ""

    @classmethod
    def actions(cls) -> list[ActionSpec]:
        broken = ActionSpec("same", {"type": "strin"})
        return [broken, broken]

    def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
        return {"done": action}

    def verify_webhook(self, headers: dict[str, str], raw_body: bytes) -> bool:
        return bool(headers["X-Signature"])

    def normalize_error(self, exc: Exception) -> Exception:
        return str(exc)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"Careless({self.config})"


CONTRACT = ConnectorContract()


@pytest.mark.parametrize(
    "check",
    [
        CONTRACT.test_it_has_a_key_and_a_name,
        CONTRACT.test_its_repr_shows_no_config,
        CONTRACT.test_it_leaves_automate_errors_their_code,
        CONTRACT.test_operations_have_unique_names_and_valid_schemas,
        CONTRACT.test_an_unknown_operation_is_an_invalid_argument,
        CONTRACT.test_garbage_is_no_webhook,
        lambda plugin: CONTRACT.test_it_normalizes_any_error(plugin, ValueError("x")),
    ],
)
def test_a_careless_connector_fails(check: Callable[[Any], None]) -> None:
    """Each rule has a test that notices when it is broken."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  (pytest.fail is no Exception)
        check(Careless({"token": "hunter2"}))
    assert not isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("contract", [OutboxStoreContract, StorageContract, ExecutionStoreContract])
def test_no_part_of_a_contract_hides_a_test_of_another(contract: type) -> None:
    """Two parts with a test of the same name would be one test that runs, and one that doesn't."""
    names = Counter(
        name for part in contract.__mro__ for name in vars(part) if name.startswith("test_")
    )
    assert names and set(names.values()) == {1}
