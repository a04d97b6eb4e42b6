"""The contracts that plugin authors inherit pass for good plugins, and fail for bad ones."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from automate_kernel.plugins.connectors import ActionSpec, Connector, TriggerSpec, action
from automate_kernel.base.errors import ConfigError
from automate_kernel.operations.context import ConnectorContext, ProviderContext
from automate_kernel.operations.plugin import create
from automate_kernel.plugins.providers import BaseProvider, capability
from automate_kernel.templates import FilterRegistry, TemplateContext, TemplateEngine
from automate_testing.contracts.connectors import ConnectorContract
from automate_testing.contracts.filters import FilterContract
from suites.executions import ExecutionStoreContract
from automate_testing.contracts.outbox import OutboxStoreContract
from automate_testing.contracts.plugin_contract import AnySecret
from automate_testing.contracts.providers import ProviderContract
from automate_kernel.triggers.webhooks import (
    GitHubSignature,
    HmacSignature,
    SlackSignature,
    StandardWebhooksSignature,
    StripeSignature,
)
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


class Signed(Chat):
    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec("hmac", "hmac", GreeterConfig, signature=HmacSignature("A", header="X-S")),
            TriggerSpec("github", signature=GitHubSignature("B")),
            TriggerSpec("slack", signature=SlackSignature("C")),
            TriggerSpec("stripe", signature=StripeSignature("D")),
            TriggerSpec("standard", signature=StandardWebhooksSignature("E")),
        ]


class TestConnectorByItsClass(ConnectorContract):
    """No fixture is needed, and each scheme signs with a made-up secret."""

    plugin_class = Signed
    config: ClassVar = {"token": "hunter2"}
    example_inputs: ClassVar = {"post": {"channel": "C1", "text": "hello"}}


class TestProviderByItsClass(ProviderContract):
    plugin_class = Greeter
    example_inputs: ClassVar = {"greet": {"name": "Ada"}}


def test_a_connector_that_accepts_anything_fails() -> None:
    """A body that was changed on its way has a signature that is no more its own."""

    class Open(Signed):
        def accepts_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> bool:
            return True

    connector = create(Open, {}, ConnectorContext(key="chat", secrets=AnySecret()))
    with pytest.raises(AssertionError):
        CONTRACT.test_a_signed_webhook_is_accepted_and_a_changed_one_refused(connector)


def test_a_contract_without_its_plugin_says_what_to_write() -> None:
    """And where: a fixture of the module's doesn't replace the contract's own."""
    where = "say plugin_class = …, or override the fixture `connector` in class ConnectorContract"
    with pytest.raises(pytest.fail.Exception, match=where):
        CONTRACT._make()


def test_a_plugin_that_is_not_made_says_why_once() -> None:
    """The advice to give a config stands only where the config is the reason."""

    class Needy(Greeter):
        def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
            raise ConfigError("it needs a library")

    class NeedyContract(ProviderContract):
        plugin_class = Needy

    with pytest.raises(pytest.fail.Exception) as caught:
        NeedyContract()._make()
    assert str(caught.value) == "it needs a library"
    assert caught.value.__context__ is None

    class WrongContract(ProviderContract):
        plugin_class = Greeter
        config: ClassVar = {"greeting": 1}

    with pytest.raises(pytest.fail.Exception, match="say config = {…} in class WrongContract"):
        WrongContract()._make()


def test_an_example_of_what_is_not_there_is_named() -> None:
    """The action of a scaffold was replaced, and its example stayed."""

    class StaleContract(ProviderContract):
        example_inputs: ClassVar = {"send": {}}

    with pytest.raises(pytest.fail.Exception, match="has 'send', and the operations are: greet, l"):
        StaleContract().test_examples_give_json(create(Greeter, {}, ProviderContext(key="greeter")))


def shout(value: str, mark: str = "!") -> str:
    """Return a text in capitals."""
    return f"{value}{mark}".upper()


class TestFilter(FilterContract):
    filter = staticmethod(shout)
    examples: ClassVar = {"{{ 'a' | shout }}": "A!", "{{ 'a' | shout('?') }}": "A?"}


class TestFilterByAnotherName(FilterContract):
    filter = staticmethod(shout)
    name = "louder"
    examples: ClassVar = {"{{ ['a', 'b'] | map('louder') | list }}": ["A!", "B!"]}


def _bad_filter(code: Callable[..., Any], **more: Any) -> FilterContract:
    made = type("Bad", (FilterContract,), {"filter": staticmethod(code), "name": "bad", **more})
    return made()


async def _later(value: Any) -> Any:
    """Return it later."""


@pytest.mark.parametrize(
    ("contract", "test"),
    [
        (_bad_filter(shout), "test_examples_give_what_they_should"),
        (
            _bad_filter(shout, examples={"{{ 'a' | bad }}": "B"}),
            "test_examples_give_what_they_should",
        ),
        (_bad_filter(lambda value: value.sort() or value), "test_it_leaves_its_value_as_it_was"),
        (_bad_filter(lambda value: value), "test_it_says_what_it_gives"),
        (_bad_filter(_later), "test_templates_can_call_it"),
        (_bad_filter(shout, name="no-name"), "test_templates_can_call_it"),
    ],
    ids=["no example", "wrong", "changes", "no words", "async", "name"],
)
def test_a_careless_filter_fails(contract: FilterContract, test: str) -> None:
    """Each rule has a test that notices when it is broken."""
    filters = FilterRegistry()
    filters.register("bad", shout)
    engine = TemplateEngine(filters)
    render = lambda text: engine.compile(text).render(TemplateContext())
    fixtures = {"plugin": contract.filter, "render": render}
    call = getattr(contract, test)
    wanted = {name: fixtures[name] for name in inspect.signature(call).parameters}
    with pytest.raises((AssertionError, TypeError, ConfigError)):
        call(**wanted)


@pytest.mark.parametrize("contract", [OutboxStoreContract, StorageContract, ExecutionStoreContract])
def test_no_part_of_a_contract_hides_a_test_of_another(contract: type) -> None:
    """Two parts with a test of the same name would be one test that runs, and one that doesn't."""
    names = Counter(
        name for part in contract.__mro__ for name in vars(part) if name.startswith("test_")
    )
    assert names and set(names.values()) == {1}
