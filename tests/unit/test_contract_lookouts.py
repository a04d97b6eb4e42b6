"""The contract suites see what their authors overlook: blocked loops, wrong types, weak checks."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
from automate_kernel.plugins.connectors import Connector, action, options
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import ConnectorContext, ProviderContext
from automate_kernel.plugins.providers import BaseProvider, capability
from automate_testing.contracts import blocking_calls
from automate_testing.contracts.blocking_calls import run_watched
from automate_testing.contracts.connectors import ConnectorContract
from automate_testing.contracts.filters import FilterContract
from automate_testing.contracts.providers import ProviderContract
from automate_testing.contracts.values import each_case
from pydantic import BaseModel, Field, computed_field
from waiting import until

HERE = Path(__file__)


class Receipt(BaseModel):
    ts: str
    count: int = Field(0, alias="n")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def link(self) -> str:
        return f"/{self.ts}"


class Other(BaseModel):
    ok: bool


async def asleep() -> None:
    time.sleep(0.001)


async def resolving() -> None:
    socket.getaddrinfo("localhost", 80)


async def connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


# Until they are noticed: on a busy machine the thread that looks may come late.
async def locked() -> None:
    found, tick = blocking_calls._watches[threading.get_ident()].found, threading.Event()
    for _ in range(2_000):
        if not found:
            tick.wait(0.01)


async def calculating() -> None:
    found, until = blocking_calls._watches[threading.get_ident()].found, time.monotonic() + 20.0
    while not found and time.monotonic() < until:
        pass


async def well_behaved() -> str:
    await asyncio.sleep(0.15)
    await asyncio.to_thread(time.sleep, 0.15)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("localhost", port)
    writer.close()
    server.close()
    time.sleep(0)
    return "done"


@pytest.mark.parametrize("work", [asleep, resolving, connecting, locked, calculating])
def test_what_blocks_the_loop_is_named_with_its_line(work: Callable[..., Any]) -> None:
    """A sleep, a look-up, a blocking socket, a lock and a calculation, each in its own line."""
    _, found = run_watched(work(), seconds=0.1)
    assert any(f"{HERE}:" in each and f"in {work.__name__}" in each for each in found), found


def test_what_waits_as_it_should_is_not_named() -> None:
    """Awaited sleeps, threads and sockets are fine, and the result comes through."""
    assert run_watched(well_behaved(), seconds=20.0) == ("done", [])


class _Ticks:
    """The end of a watch, which comes after some looks."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def wait(self, seconds: float) -> bool:
        self._looks -= 1
        return self._looks < 0


def test_a_loop_that_waits_is_not_held_by_anybody() -> None:
    """A machine may let its thread stand still there for longer than an operation may hold it."""
    near, far = socket.socketpair()
    with near, far, selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ)
        loop = threading.Thread(target=lambda: selector.select())
        loop.start()
        watch: Any = blocking_calls._Watch(0.1)
        watch._thread, watch._done = loop.ident, _Ticks(50)
        until(lambda: sys._current_frames()[loop.ident].f_code.co_name == "select")  # type: ignore[index]
        watch._look()
        far.send(b"x")
        loop.join()
    assert watch.found == []


def test_other_threads_and_other_times_are_not_watched() -> None:
    """After the run, and beside the loop, code may sleep as it likes."""
    real = time.sleep
    run_watched(well_behaved(), seconds=20.0)
    assert time.sleep is real


class Fine(Connector):
    key = "fine"
    display_name = "Fine"

    @action
    def model(self, how: str) -> Receipt:
        if how == "dict":
            return {"ts": "1"}  # type: ignore[return-value]
        if how == "other":
            return Other(ok=True)  # type: ignore[return-value]
        return Receipt(ts="1", n=3)

    @action
    async def plain(self, how: str) -> dict[str, int]:
        return {"text": {"a": "x"}, "list": [1], "right": {"a": 1}}[how]  # type: ignore[return-value]

    @action
    def nothing(self, how: str) -> None:
        return {"none": None, "something": 5}[how]  # type: ignore[return-value]

    @action
    def maybe(self, how: str) -> Optional[list[Receipt]]:
        return {"none": None, "some": [Receipt(ts="1", n=1)], "wrong": [5]}[how]  # type: ignore[return-value]

    @action(output_schema={"type": "object", "required": ["id"]})
    def described(self, how: str) -> Any:
        return {"right": {"id": 1}, "wrong": {}}[how]

    @action
    async def blocks(self) -> str:
        time.sleep(0.001)
        return "x"

    @action
    def unsaid(self):  # type: ignore[no-untyped-def]
        return {"anything": [1]}


def run(cls: type[Connector], **examples: Any) -> None:
    class Suite(ConnectorContract):
        example_inputs: ClassVar = examples

    Suite().test_examples_give_json(cls({}, ctx=ConnectorContext(key=cls.key)))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("model", "right"),
        ("plain", "right"),
        ("nothing", "none"),
        ("maybe", "none"),
        ("described", "right"),
        ("unsaid", None),
    ],
)
def test_promises_that_are_kept_pass(name: str, how: str | None) -> None:
    """Models with aliases and computed fields, JSON types, None, and no promise at all."""
    run(Fine, **{name: {"how": how} if how else {}})


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("model", "other", "something else than Receipt: ts: Field required"),
        ("model", "dict", "n"),
        ("plain", "text", "dict"),
        ("plain", "list", "dict"),
        ("nothing", "something", "something else than None"),
        ("maybe", "wrong", "Receipt"),
        ("described", "wrong", "'id' is required"),
    ],
)
def test_broken_promises_fail(name: str, how: str, said: str) -> None:
    """An action annotated ``-> Receipt`` that returns something else is named, with the field."""
    if (name, how) == ("model", "dict"):
        run(Fine, model={"how": how})  # it has what a Receipt has
        return
    with pytest.raises(pytest.fail.Exception) as caught:
        run(Fine, **{name: {"how": how}})
    assert said in str(caught.value)
    assert repr(name) in str(caught.value)


def test_a_blocking_action_fails_its_suite() -> None:
    """The failure has the file, the line and its source."""
    with pytest.raises(pytest.fail.Exception) as caught:
        run(Fine, blocks={})
    assert f"{HERE}:" in str(caught.value)
    assert "in blocks: time.sleep(0.001)" in str(caught.value)


def test_an_annotation_that_contradicts_the_schema_fails() -> None:
    """Of two models only one can be right."""

    class Contradicting(Connector):
        key = "contradicting"

        @action(output_schema=Other)
        def act(self) -> Receipt:
            raise NotImplementedError

    with pytest.raises(AssertionError, match="annotated -> Receipt"):
        ConnectorContract().test_annotations_agree_with_output_schemas(Contradicting())
    ConnectorContract().test_annotations_agree_with_output_schemas(Fine())


def test_options_for_what_is_not_there_fail() -> None:
    """A misspelt field, operation or parameter is found without a call."""

    class Misspelt(Connector):
        key = "misspelt"

        @action
        def act(self, channel: str) -> None: ...

        @options("chanel")
        def one(self) -> list[str]: ...  # type: ignore[empty-body]

    class Elsewhere(Connector):
        key = "elsewhere"

        @action
        def act(self, channel: str) -> None: ...

        @options("channel", of="acts")
        def one(self) -> list[str]: ...  # type: ignore[empty-body]

    class Asking(Connector):
        key = "asking"

        @action
        def act(self, channel: str) -> None: ...

        @options("channel")
        def one(self, workspace: str, search: str) -> list[str]: ...  # type: ignore[empty-body]

    suite = ConnectorContract()
    for cls, said in ((Misspelt, "chanel"), (Elsewhere, "acts"), (Asking, "workspace")):
        with pytest.raises(AssertionError, match=said):
            suite.test_options_are_those_of_fields(cls())


class Config(BaseModel):
    url: str = "https://chat.example"
    api_token: str = ""
    way: str = "raise"


class Checked(Connector):
    key = "checked"
    display_name = "Checked"
    hold = threading.Event()

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return Config

    async def check(self) -> str:
        way = self.config["way"]
        if way == "pass":
            return "fine"
        if way == "hang":
            await asyncio.to_thread(type(self).hold.wait, 30)
        if way == "bug":
            raise KeyError("x")
        if way == "leak":
            raise AutomateError("UNAUTHENTICATED", f"{self.config['api_token']} is wrong")
        _, writer = await asyncio.open_connection("127.0.0.1", 9)
        writer.close()
        return "connected"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"way": "raise"}, None),
        ({"url": 5}, None),
        ({"way": "pass"}, "raised nothing"),
        ({"way": "hang"}, "still runs after 0.2 s"),
        ({"way": "bug"}, "without a code"),
        ({"way": "leak", "api_token": "tok-81aa02bb93"}, "shows a secret"),
    ],
)
def test_the_connection_test_is_tried_with_a_bad_config(
    bad: dict[str, Any], said: str | None
) -> None:
    """It must raise in time, with a code, and without the config's secrets."""

    class Suite(ConnectorContract):
        bad_configs: ClassVar = [bad]
        check_seconds = 0.2 if said and "runs" in said else 10.0

    good = Checked({"way": "raise"}, ctx=ConnectorContext(key="checked"))
    Checked.hold.clear()
    try:
        if said is None:
            Suite().test_its_connection_test_refuses_a_bad_config(good)
            return
        with pytest.raises((pytest.fail.Exception, AssertionError)) as caught:
            Suite().test_its_connection_test_refuses_a_bad_config(good)
        assert said in str(caught.value)
    finally:
        Checked.hold.set()


def test_addresses_are_tried_without_being_asked_for() -> None:
    """A config with an address is tried with one where nothing answers."""

    class Deaf(Checked):
        key = "deaf"

        async def check(self) -> str:
            return f"fine, at {self.config['url']}"

    deaf = Deaf({"url": "https://chat.example"}, ctx=ConnectorContext(key="deaf"))
    with pytest.raises(pytest.fail.Exception, match="raised nothing"):
        ConnectorContract().test_its_connection_test_refuses_a_bad_config(deaf)
    good = Checked({"url": "https://x", "way": "raise"}, ctx=ConnectorContext(key="checked"))
    ConnectorContract().test_its_connection_test_refuses_a_bad_config(good)


def test_bad_configs_without_a_check_are_a_mistake() -> None:
    """Nothing would try them."""

    class Suite(ConnectorContract):
        bad_configs: ClassVar = [{}]

    with pytest.raises(AssertionError, match="needs a check"):
        Suite().test_its_connection_test_refuses_a_bad_config(Fine())
    assert ErrorCodes.INTERNAL.retryable


def made_by(contract: type, **members: Any) -> Any:
    return type("Made", (contract,), members)()


class Adder(BaseProvider):
    key = "adder"
    display_name = "Adder"

    @capability
    def add(self, count: int = None, name: Optional[str] = None) -> int:  # type: ignore[assignment]  # noqa: RUF013
        return 1


def test_a_plugin_of_another_kind_fails_its_suite() -> None:
    """Its errors told of attributes that are not there."""
    for contract, given, says in (
        (ConnectorContract, Adder, "Adder is a provider, and Made has the contract of a connector"),
        (ProviderContract, Adder({}, ctx=ProviderContext(key="x")), "is an Adder, and no class"),
    ):
        with pytest.raises(pytest.fail.Exception, match=says):
            made_by(contract, plugin_class=given)._make()


def test_a_default_that_is_no_value_of_its_field_fails() -> None:
    """The published schema says that it is text, and the form shows it as left out."""
    suite = made_by(ProviderContract, plugin_class=Adder)
    with pytest.raises(
        pytest.fail.Exception, match=r"'add': the default of the field 'count'.*with \| None"
    ):
        suite.test_operations_have_unique_names_and_valid_schemas(suite._make())


def test_a_filter_may_stand_in_its_suite_as_it_is() -> None:
    """It would be a method there, and its value the suite."""

    def shout(value: str) -> str:
        return value.upper()

    for each in (shout, staticmethod(shout)):
        suite = made_by(FilterContract, filter=each)
        assert (suite._function, suite._name) == (shout, "shout")
    with pytest.raises(AssertionError, match="the function of 'shout' has no docstring"):
        suite.test_it_says_what_it_gives(shout)
    with pytest.raises(AssertionError, match="is no name for a filter: give it a def"):
        made_by(FilterContract, filter=lambda value: value).test_templates_can_call_it(str)


def test_cases_of_one_test_are_all_tried_and_those_that_fail_are_named() -> None:
    """The others would else be seen when the first is mended."""
    tried: list[int] = []

    def check(case: int) -> None:
        tried.append(case)
        if case == 3:
            pytest.fail("DID NOT RAISE")
        assert case != 2, "too large"

    with pytest.raises(AssertionError) as caught:
        each_case({"first": 1, "second": 2, "third": 3, "fourth": 4}, check)
    assert tried == [1, 2, 3, 4]
    assert "second: AssertionError('too large" in str(caught.value)
    assert "third: DID NOT RAISE" in str(caught.value)
    assert "first" not in str(caught.value) and "fourth" not in str(caught.value)
    each_case([1, 4], check)
