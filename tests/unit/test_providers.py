"""Providers: the specification's sample, capabilities from methods, config, errors."""

from __future__ import annotations

import traceback
import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from automate_kernel.operations.context import Call, NoSecrets, ProviderContext, calling
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, SecretNotFoundError
from automate_kernel.plugins import ProviderRegistry
from automate_kernel.plugins.providers import (
    BaseProvider,
    CapabilitySpec,
    capability,
)


class MyProviderConfig(BaseModel):
    token: str
    url: str = "https://example.org"


class MyProvider(BaseProvider):
    """The specification's sample, word for word but for the import."""

    key = "my_provider"
    display_name = "My Custom Provider"

    def __init__(self, config: dict, *, ctx: ProviderContext):  # type: ignore[type-arg]
        self.config = config
        self.ctx = ctx

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return MyProviderConfig

    def normalize_error(self, exc: Exception) -> Exception:
        return AutomateError(ErrorCodes.INTERNAL, str(exc))


class Greeter(BaseProvider):
    key = "greeter"
    display_name = "Greeter"

    @capability(idempotent=True)
    def greet(self, name: str, call: Call) -> dict[str, Any]:
        """Greet someone."""
        return {"text": f"Hello {name}", "attempt": call.attempt}

    @capability("later")
    async def greet_later(self, name: str) -> str:
        await asyncio.sleep(0)
        return f"Later, {name}"

    @capability
    def fail(self) -> None:
        raise ConnectionError("no line")


@pytest.fixture
def greeter() -> Greeter:
    return Greeter({}, ctx=ProviderContext(key="greeter"))


def test_marked_methods_are_capabilities(greeter: Greeter) -> None:
    """Their names, descriptions and schemas come from the methods."""
    specs = {spec.name: spec for spec in greeter.capabilities()}
    assert list(specs) == ["greet", "later", "fail"]
    assert all(type(spec) is CapabilitySpec for spec in specs.values())
    assert (specs["greet"].idempotent, specs["greet"].description) == (True, "Greet someone.")
    assert specs["greet"].json_schema()["required"] == ["name"]


def test_a_capability_is_called_with_checked_input(greeter: Greeter) -> None:
    """Sync or async, by the name it was given, and with the call if it asks for that."""
    with calling(Call("greeter.greet", attempt=3)):
        assert greeter.call_capability("greet", {"name": "Ada"}) == {
            "text": "Hello Ada",
            "attempt": 3,
        }
    assert asyncio.run(greeter.call_capability("later", {"name": "Ada"})) == "Later, Ada"
    with pytest.raises(AutomateError, match="input of 'greeter.greet' is not valid: nme"):
        greeter.call_capability("greet", {"name": "Ada", "nme": "x"})


def test_an_unknown_capability_is_refused_with_what_there_is(greeter: Greeter) -> None:
    """A misspelling gets a suggestion."""
    with pytest.raises(AutomateError, match="did you mean 'greet'") as caught:
        greeter.call_capability("gret", {})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert "fail, greet, later" in str(caught.value)


def test_errors_are_normalized(greeter: Greeter) -> None:
    """What a capability raises comes out with a code, its cause kept for the log."""
    with pytest.raises(AutomateError, match="provider 'greeter': ConnectionError: no line") as e:
        greeter.call_capability("fail", {})
    assert e.value.code is ErrorCodes.UNAVAILABLE
    assert isinstance(e.value.__cause__, ConnectionError)


def test_a_provider_without_marks_may_do_it_all_itself() -> None:
    """Overriding the two methods is enough, and the input comes as a plain dict."""

    class Plain(BaseProvider):
        key = "plain"

        @classmethod
        def capabilities(cls) -> list[CapabilitySpec]:
            return [CapabilitySpec("double", MyProviderConfig)]

        async def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
            return [name, input_data]

    plain = Plain({}, ctx=ProviderContext(key="plain"))
    assert asyncio.run(plain.call_capability("double", {"token": "t"})) == [
        "double",
        {"token": "t"},
    ]
    with pytest.raises(AutomateError, match="token"):
        plain.call_capability("double", {})


def test_subclasses_inherit_override_and_drop_capabilities(greeter: Greeter) -> None:
    """An overriding method stays a capability without a mark; None takes one away."""

    class Loud(Greeter):
        def greet(self, name: str) -> dict[str, Any]:  # type: ignore[override]
            return {"text": f"HELLO {name}"}

        fail = None  # type: ignore[assignment]

        @capability
        def whisper(self, name: str) -> str:
            return name

    loud = Loud({}, ctx=ProviderContext(key="greeter"))
    assert [spec.name for spec in Loud.capabilities()] == ["greet", "later", "whisper"]
    assert loud.call_capability("greet", {"name": "Ada"}) == {"text": "HELLO Ada"}
    assert [spec.name for spec in Greeter.capabilities()] == ["greet", "later", "fail"]
    with pytest.raises(AutomateError):
        greeter.call_capability("whisper", {"name": "x"})


def test_two_capabilities_of_one_name_are_the_authors_mistake() -> None:
    """The second would never be called."""

    class Twice(BaseProvider):
        key = "twice"

        @capability("same")
        def one(self) -> None: ...

        @capability("same")
        def two(self) -> None: ...

    with pytest.raises(AutomateError, match="declares 'same' twice"):
        Twice({}, ctx=ProviderContext(key="twice")).call_capability("same", {})


def test_only_plain_methods_can_be_marked() -> None:
    """The decorator goes innermost; a name that is no text is a mistake."""
    with pytest.raises(TypeError):
        capability(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="innermost"):
        capability("x")(classmethod(lambda cls: None))  # type: ignore[type-var]


def test_a_wrong_config_is_refused_without_its_values() -> None:
    """The error names the fields; no value is in it, nor in what caused it."""
    registry = ProviderRegistry(discover=False)
    registry.register(MyProvider)
    with pytest.raises(ConfigError, match="provider 'my_provider' is not valid: url") as caught:
        registry.create("my_provider", {"token": "hunter2", "url": ["hunter2"]})
    assert "hunter2" not in str(caught.value) + repr(caught.value.details)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_config_is_read_leniently_and_keeps_its_secrets() -> None:
    """Text from the environment makes a number; a SecretStr stays one."""

    class Config(BaseModel):
        port: int
        token: SecretStr

    class Service(BaseProvider):
        key = "service"

        @classmethod
        def config_schema(cls) -> type[BaseModel]:
            return Config

    registry = ProviderRegistry(discover=False)
    registry.register(Service)
    service = registry.create("service", {"port": "8080", "token": "hunter2"})
    assert service.config["port"] == 8080
    assert service.config["token"].get_secret_value() == "hunter2"
    assert "hunter2" not in repr(service) + repr(service.ctx)


def test_without_a_schema_any_config_is_taken(greeter: Greeter) -> None:
    """The default takes every field, and says so in its JSON Schema."""
    assert greeter.parse_config({"a": 1}).model_dump() == {"a": 1}
    assert greeter.config_json_schema()["additionalProperties"] is True


def test_a_failing_init_is_a_config_error() -> None:
    """What the constructor raises may quote the config: neither message nor traceback shows it."""

    class Fragile(BaseProvider):
        key = "fragile"

        def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
            raise ValueError(f"bad token {config['token']}")

    registry = ProviderRegistry(discover=False)
    registry.register(Fragile)
    with pytest.raises(ConfigError, match="could not be created: ValueError") as caught:
        registry.create("fragile", {"token": "hunter2"})
    assert "hunter2" not in str(caught.value)
    printed = "".join(traceback.format_exception(caught.value))
    assert "ValueError: bad token" not in printed
    assert "hunter2" not in f"{caught.value.trace}"
    assert "in __init__" in f"{caught.value.trace}"


def test_what_an_init_tells_people_is_told() -> None:
    """It was hidden behind the name of its class."""

    class Picky(BaseProvider):
        key = "picky"

        def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the URL has no host", hint="add it")

    registry = ProviderRegistry(discover=False)
    registry.register(Picky)
    with pytest.raises(ConfigError, match=r"could not be created: the URL has no host \(add it\)"):
        registry.create("picky", {})


def test_a_context_is_enough_for_a_test() -> None:
    """With a key alone there is a logger, and there are no secrets and no settings."""
    ctx = ProviderContext(key="x")
    assert ctx.logger.name == "automate.plugins.x"
    assert dict(ctx.settings) == {}
    assert isinstance(ctx.secrets, NoSecrets)
    with pytest.raises(SecretNotFoundError, match="was given no secrets"):
        ctx.secrets.get("TOKEN")
    with pytest.raises(SecretNotFoundError):
        asyncio.run(ctx.secrets.aget("TOKEN"))


def test_specs_of_all_providers_are_listed() -> None:
    """One call gives what every provider can do."""
    registry = ProviderRegistry(discover=False)
    registry.register(Greeter)
    registry.register("no_such.Provider", key="broken")
    assert [spec.name for spec in registry.specs()["greeter"]] == ["greet", "later", "fail"]
    assert "broken" not in registry.specs()
