"""Dynamic options: a plugin's method gives the choices of a field."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from automate_kernel import BaseProvider, capability
from automate_kernel.plugins.connectors import Connector, FieldOption, action, options
from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.field_choices import OptionsCache

ROOMS = {"acme": ["General", "Random"], "other": ["Cats"]}


class Chat(Connector):
    key = "chat"
    display_name = "Chat"
    asked = 0

    @action
    def post(
        self,
        workspace: str,
        channel: str,
        level: Literal["low", "high"] = "low",
        loud: bool = False,
        user: str = "",
        slow: str = "",
        bad: str = "",
    ) -> None:
        """Post."""

    @action
    def read(self, channel: str) -> None:
        """Read."""

    @options("workspace")
    def workspaces(self) -> Iterator[str]:
        yield from ROOMS

    @options("channel", of="post")
    async def channels(self, workspace: str, search: str = "", limit: int = 10) -> Any:
        type(self).asked += 1
        return [(f"C{n}", name) for n, name in enumerate(ROOMS[workspace]) if search in name][
            :limit
        ]

    @options("channel")
    def all_channels(self) -> dict[str, str]:
        return {"C9": "Everything"}

    @options("user")
    async def users(self) -> Any:
        for number in range(10**9):
            yield FieldOption(number, f"user {number}, whose token is {self.config['token']}")

    @options("slow")
    def waits(self) -> list[str]:
        time.sleep(5)
        return []

    @options("bad")
    def wrong(self, search: str) -> Any:
        if search == "exit":
            raise SystemExit("gone")
        if search == "down":
            raise ConnectionError(f"no answer for {self.config['token']}")
        return {"text": "no list", "object": [object()], "": 5}[search]


class Quieter(Chat):
    key = "quieter"
    workspaces = None  # type: ignore[assignment]


class Oracle(BaseProvider):
    key = "oracle"
    display_name = "Oracle"

    @capability
    def answer(self, model: str) -> str:
        return model

    @options("model")
    def models(self) -> list[str]:
        return ["small", "large"]


TOKEN = "token-5b0f8a1c9d"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    Chat.asked = 0
    config = {"chat": {"token": "$secret:CHAT"}}
    plugins = [Chat, Quieter, Oracle]
    with Kernel(discover=False, plugins=plugins, secrets={"CHAT": TOKEN}, config=config) as kernel:
        yield kernel


def test_a_method_gives_the_choices(kernel: Kernel) -> None:
    """Texts become choices, of a provider's capability too; the kernel looks for a text itself."""
    found = kernel.options("chat.post", "workspace")
    assert found == [FieldOption("acme"), FieldOption("other")]
    assert kernel.options("chat.post", "workspace", search="OTH") == [FieldOption("other")]
    assert [each.value for each in kernel.options("oracle.answer", "model")] == ["small", "large"]


def test_values_of_other_fields_and_search_reach_the_method(kernel: Kernel) -> None:
    """The method gets what it names; without a field that it needs, that is said."""
    given = {"workspace": "acme", "level": "low"}
    found = kernel.options("chat.post", "channel", values=given)
    assert [each.to_json() for each in found] == [
        {"value": "C0", "label": "General"},
        {"value": "C1", "label": "Random"},
    ]
    (one,) = kernel.options("chat.post", "channel", values=given, search="Ran")
    assert one.label == "Random"
    with pytest.raises(AutomateError, match="fill in 'workspace' first") as caught:
        kernel.options("chat.post", "channel", values={"workspace": ""})
    assert caught.value.code is ErrorCodes.FAILED_PRECONDITION


def test_one_method_is_for_one_operation(kernel: Kernel) -> None:
    """With `of` a method counts for that operation, before those for all."""
    assert kernel.options("chat.read", "channel") == [FieldOption("C9", "Everything")]
    assert kernel.choices.dynamic_fields("chat.read") == ["channel"]


def test_an_answer_is_kept_for_a_moment_by_what_was_asked(kernel: Kernel) -> None:
    """The same question is not asked twice; another tenant, text or value is another question."""
    for _ in range(3):
        kernel.options("chat.post", "channel", values={"workspace": "acme", "text": "x" * 9})
    assert Chat.asked == 1
    kernel.options("chat.post", "channel", values={"workspace": "acme"}, tenant_id="t")
    kernel.options("chat.post", "channel", values={"workspace": "other"})
    kernel.options("chat.post", "channel", values={"workspace": "acme"}, search="R")
    assert Chat.asked == 4
    kernel.choices.cache.clear()
    kernel.options("chat.post", "channel", values={"workspace": "acme"})
    assert Chat.asked == 5


def test_the_cache_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is kept for its time, and of many lists the newest."""
    now = [0.0]
    cache = OptionsCache(lambda: now[0])
    monkeypatch.setattr("automate_kernel.operations.field_choices._MOST_KEPT", 2)
    cache.keep("a", [FieldOption("1")])
    now[0] = 29.9
    assert cache.find("a") == [FieldOption("1")]
    now[0] = 30.0
    assert cache.find("a") is None
    for key in "bcd":
        cache.keep(key, [])
    assert [cache.find(key) for key in "bcd"] == [None, [], []]


def test_the_schema_has_choices_too(kernel: Kernel) -> None:
    """An enumeration and a boolean need no method."""
    assert [each.value for each in kernel.options("chat.post", "level")] == ["low", "high"]
    assert kernel.options("chat.post", "level", search="hi") == [FieldOption("high")]
    assert [each.value for each in kernel.options("chat.post", "loud")] == [True, False]


def test_what_has_no_choices_says_so(kernel: Kernel) -> None:
    """A field without choices, and one that is not there, are not found."""
    with pytest.raises(AutomateError, match='@options\\("workspace"\\)') as caught:
        kernel.options("quieter.post", "workspace")
    assert caught.value.code is ErrorCodes.NOT_FOUND
    with pytest.raises(AutomateError, match="did you mean 'channel'") as caught:
        kernel.options("chat.post", "chanel")
    assert caught.value.code is ErrorCodes.NOT_FOUND


def test_an_endless_answer_ends_and_hides_secrets(kernel: Kernel) -> None:
    """No more is taken than was asked for, and no label shows a secret."""
    found = kernel.options("chat.post", "user", limit=3)
    assert [each.value for each in found] == [0, 1, 2]
    assert TOKEN not in repr(found)
    assert len(kernel.options("chat.post", "user", limit=10**9)) == 1000


def test_time_is_bounded(kernel: Kernel) -> None:
    """A method that hangs ends with a time-out."""
    with pytest.raises(AutomateError) as caught:
        kernel.options("chat.post", "slow", timeout=0.05)
    assert caught.value.code is ErrorCodes.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("search", "code", "words"),
    [
        ("text", ErrorCodes.FAILED_PRECONDITION, "return a list"),
        ("object", ErrorCodes.FAILED_PRECONDITION, "a choice can't be"),
        ("", ErrorCodes.FAILED_PRECONDITION, "return a list"),
        ("down", ErrorCodes.UNAVAILABLE, "no answer for [secret]"),
        ("exit", ErrorCodes.INTERNAL, "SystemExit"),
    ],
)
def test_errors_are_normalised(kernel: Kernel, search: str, code: ErrorCodes, words: str) -> None:
    """Whatever the method does, the caller gets an `AutomateError` without a secret."""
    for ask in (kernel.options, lambda *a, **b: asyncio.run(kernel.aoptions(*a, **b))):
        with pytest.raises(AutomateError) as caught:
            ask("chat.post", "bad", search=search)
        assert caught.value.code is code
        assert words in str(caught.value)
        assert TOKEN not in str(caught.value)


def test_the_asynchronous_twin_does_the_same(kernel: Kernel) -> None:
    """`aoptions` gives what `options` gives."""

    async def both() -> list[Any]:
        return [
            await kernel.aoptions("chat.post", "channel", values={"workspace": "acme"}),
            await kernel.aoptions("chat.post", "user", limit=2),
            await kernel.aoptions("chat.post", "level"),
        ]

    channels, users, levels = asyncio.run(both())
    kernel.choices.cache.clear()
    assert channels == kernel.options("chat.post", "channel", values={"workspace": "acme"})
    assert [each.value for each in users] == [0, 1]
    assert len(levels) == 2


def test_parameters_that_name_no_field_are_left_empty() -> None:
    """A method with ``*`` and ``**`` needs nothing to be chosen first."""

    class Loose(Chat):
        key = "loose"

        @options("workspace")
        def workspaces(self, *words: str, **fields: str) -> Any:
            return [*words, *fields, "any"]

    with Kernel(plugins=[Loose], discover=False) as kernel:
        found = kernel.options("loose.post", "workspace", values={"channel": "C9"})
    assert found == [FieldOption("any")]


@pytest.mark.parametrize("ask", ["options", "aoptions"])
def test_a_misspelt_option_is_an_error(kernel: Kernel, ask: str) -> None:
    """As for any function."""
    with pytest.raises(TypeError, match="serch"):
        answer = getattr(kernel, ask)("chat.post", "workspace", serch="x")
        asyncio.run(answer)


def test_a_search_is_bounded(kernel: Kernel) -> None:
    """A text of any length isn't passed on."""
    with pytest.raises(AutomateError) as caught:
        kernel.options("chat.post", "workspace", search="x" * 201)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_the_decorator_is_checked() -> None:
    """A missing name and a wrong place are said at once."""
    with pytest.raises(TypeError, match="needs the name of a field"):
        options(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="innermost"):
        options("x")(property(lambda self: []))  # type: ignore[type-var]
    assert issubclass(PluginError, AutomateError)
