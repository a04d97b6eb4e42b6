"""Slips of a new author: each message says what is wrong, and how to mend it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from automate_kernel.connectors import Connector, TriggerSpec, action
from automate_kernel.errors import AutomateError, PluginError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.exposure import check_tools
from automate_kernel.providers import BaseProvider, capability


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
    for call in ("forgetful.check", "forgetful.gone", "forgetful.__init__"):
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
