"""Slips of authors of plugins: each is told with its remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from automate_kernel import AutomateError, ConfigError, Connector, ErrorCodes, Kernel, action
from automate_kernel.webhooks import HmacSignature


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
        ("of_the_class", "its of_the_class() is none: write a method with self"),
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
