"""Slips of authors of plugins: each message says what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from automate_kernel import (
    AutomateError,
    BaseProvider,
    ConfigError,
    Connector,
    ErrorCodes,
    Kernel,
    PluginError,
    action,
    capability,
)
from automate_kernel.connectors import TriggerSpec
from automate_kernel.operations.exposure import check_tools
from automate_kernel.webhooks import HmacSignature
from pydantic import BaseModel


class Settings(BaseModel):
    """A config."""


def test_a_method_without_its_decorator_is_named() -> None:
    """It is there, and the list of actions alone doesn't say why it isn't one."""

    class Forgetful(Connector):
        key = "forgetful"

        def greet(self, name: str) -> str:
            return name

        @staticmethod
        @action
        def wrong_way_round(name: str) -> str:
            return name

    class Quiet(BaseProvider):
        key = "quiet"

        def say(self) -> None: ...

        @capability
        def hush(self) -> None: ...

    kernel = Kernel(plugins=[Forgetful, Quiet], discover=False)
    for call, words in (
        ("forgetful.greet", "its method greet() needs @action, right above its def"),
        ("forgetful.wrong_way_round", "wrong_way_round() needs @action, right above its def"),
        ("quiet.say", "it has: hush; its method say() needs @capability"),
    ):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(call, {})
        assert words in str(caught.value.hint)
    for call in ("forgetful.check", "forgetful.gone", "forgetful.__init__", "forgetful.triggers"):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(call, {})
        assert "needs @" not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["config_schema", "triggers", "polls"])
def test_a_class_method_without_its_decorator_is_named(name: str) -> None:
    """The call would fail for want of a self, deep in the kernel."""
    slip = type("Slip", (Connector,), {"key": "slip", name: lambda self: [TriggerSpec("x")]})
    with pytest.raises(PluginError, match=rf"{name}\(\) of .* must be a class method") as caught:
        Kernel(plugins=[slip], discover=False)
    assert caught.value.hint == f"write @classmethod above def {name}(cls)"

    class Right(Connector):
        key = "right"

        @classmethod
        def config_schema(cls) -> type[Settings]:
            return Settings

        @action
        def greet(self) -> str:
            return "hello"

    assert Kernel(plugins=[Right], discover=False).invoke("right.greet") == "hello"


def test_a_method_without_self_is_named() -> None:
    """Its first parameter would be the connector, and the input unknown."""

    def bare(name: str) -> str:
        return name

    def empty() -> None: ...

    def listed(names: list[str]) -> None: ...

    def modelled(settings: Settings) -> None: ...

    for function in (bare, empty, listed, modelled):
        with pytest.raises(PluginError, match="takes no self") as caught:
            _specs_with(function)
        assert caught.value.hint == "write self as its first parameter"

    def unusual(this: Any, name: str) -> str:
        return name

    _specs_with(unusual)


def _specs_with(function: Any) -> None:
    made = type("Made", (Connector,), {"key": "made", "act": action(function)})
    assert list(made.operation_specs())


def test_a_misspelt_tool_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client would see one tool less, and nobody would know why."""
    kernel = Kernel(discover=False)
    kernel.action("shop.price")(lambda: 1)
    check_tools(kernel.operations, ["shop.price", "shop.*", "shop.prise"])
    (record,) = caplog.records
    assert "'shop.prise' is on the list of tools, and isn't there yet" in record.getMessage()
    assert "shop.price" in record.getMessage()


@pytest.mark.parametrize(
    ("code", "named"),
    [("the city is unknown", "NOT_FOUND"), ("UNAUTHENTICATE", "UNAUTHENTICATED")],
)
def test_a_message_in_the_place_of_a_code(code: str, named: str) -> None:
    """Enum's own words told of a class that the author had not used."""
    with pytest.raises(ValueError, match="is no code of an error, which comes first") as caught:
        AutomateError(code)
    assert f"AutomateError(ErrorCodes.{named}, " in str(caught.value)


def test_a_signed_time_without_its_pattern() -> None:
    with pytest.raises(ConfigError) as caught:
        HmacSignature("$secret:HOOK", header="X-Signature", timestamp_header="X-Timestamp")
    assert "signed='{timestamp}.{body}'" in str(caught.value)


class Loose(Connector):
    """A connector with a mistake in each action."""

    key = "loose"
    display_name = "Loose"

    def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
        self.made = True

    @action
    def settings(self) -> Any:
        return [self.config["a"], self.ctx.key]

    @classmethod
    @action
    def of_the_class(cls) -> str:
        return "x"

    async def helper(self) -> int:
        return 1

    @action
    async def unawaited(self) -> dict[str, Any]:
        return {"x": self.helper()}

    @action
    def generated(self) -> Iterator[int]:
        yield 1

    @action
    async def agenerated(self) -> AsyncIterator[int]:
        yield 1


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(plugins=[Loose], config={"loose": {"a": 1}}, discover=False)


def test_an_init_that_calls_no_other_costs_no_config(kernel: Kernel) -> None:
    assert kernel.invoke("loose.settings") == [1, "loose"]


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "of_the_class",
            "of_the_class() needs @action, right above its def, with self and without @classmethod",
        ),
        ("unawaited", "x is a coroutine, which nobody has awaited (await it)"),
        ("generated", "which can be read once (return a list of what it gives)"),
        ("agenerated", "which can be read once (return a list of what it gives)"),
    ],
)
def test_what_is_no_action_or_no_output(kernel: Kernel, name: str, says: str) -> None:
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(f"loose.{name}")
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert says in str(caught.value)


def test_an_init_that_reads_the_config_before_it_is_there() -> None:
    class Early(Connector):
        key = "early"
        display_name = "Early"

        def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
            self.url = self.config["url"]

        @action
        def go(self) -> str:
            return str(self.url)

    with pytest.raises(ConfigError) as caught:
        Kernel(plugins=[Early], discover=False).invoke("early.go")
    assert "begin with super().__init__(config, ctx=ctx)" in str(caught.value)


def test_a_filter_that_is_registered_later_is_there(kernel: Kernel) -> None:
    """It was taken without a word, and no template found it."""

    @kernel.action("echo")
    def echo(text: str) -> str:
        return text

    def shout(text: str, times: int = 1) -> str:
        return text + "!" * times

    kernel.register(shout, "filter", key="shout")
    assert kernel.invoke("echo", {"text": "{{ 'a' | shout(2) }}"}) == "a!!"


def test_a_key_of_a_filter_is_told_by_its_own_rule(kernel: Kernel) -> None:
    with pytest.raises(AutomateError, match="use letters, digits and _, and no digit first"):
        kernel.register(str.upper, "filter", key="my-shout")
