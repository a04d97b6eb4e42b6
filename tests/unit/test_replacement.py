"""A test replaces an action: the fake is called with its fields, and nothing else is."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from unittest.mock import Mock

import pytest
from defined import is_over, see
from waiting import until
from pydantic import BaseModel

from automate_kernel import (
    AutomateError,
    BaseProvider,
    Connector,
    ErrorCodes,
    Kernel,
    action,
    capability,
)
from automate_kernel.operations.context import Call


class Slack(Connector):
    """A service that no test must reach."""

    key = "slack"
    display_name = "Slack"

    def __init__(self, *args: Any, **options: Any) -> None:
        raise AssertionError("it was made though its action is replaced")

    @action
    async def post(self, channel: str, text: str = "hello") -> dict[str, str]:
        raise AssertionError("it was called")


class Sums(BaseProvider):
    """A provider that costs money."""

    key = "sums"
    display_name = "Sums"

    @capability
    def add(self, numbers: list[float]) -> dict[str, float]:
        raise AssertionError("it was called")


class Order(BaseModel):
    """The input of an action that takes it as a whole."""

    id: int
    note: str = "none"


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(plugins=[Slack, Sums], discover=False, secrets={"TOKEN": "tok-19d3e5f7"})

    @kernel.action("orders.save")
    def save(order: Order) -> dict[str, int]:
        return {"saved": order.id}

    return kernel


def test_actions_of_every_kind_are_replaced(kernel: Kernel) -> None:
    """A connector's, a provider's and the host's own; until the block ends."""
    with (
        kernel.replace("slack.post", {"ok": True}) as slack,
        kernel.replace("sums.add", lambda numbers: {"total": 7}),
        kernel.replace("orders.save", {"saved": 9}),
    ):
        assert kernel.invoke("slack.post", {"channel": "#a"}) == {"ok": True}
        assert kernel.invoke("sums.add", {"numbers": [1, 2]}) == {"total": 7}
        assert kernel.invoke("orders.save", {"id": 1}) == {"saved": 9}
    assert slack.calls == [{"channel": "#a"}]
    assert kernel.invoke("orders.save", {"id": 1}) == {"saved": 1}


def test_without_a_block_it_lasts_until_undo(kernel: Kernel) -> None:
    """The last replacement counts; each is undone by itself, in any order."""
    first = kernel.replace("orders.save", "first")
    second = kernel.replace("orders.save", "second")
    assert kernel.invoke("orders.save", {"id": 1}) == "second"
    first.undo()
    assert kernel.invoke("orders.save", {"id": 1}) == "second"
    second.undo()
    second.undo()
    assert kernel.invoke("orders.save", {"id": 1}) == {"saved": 1}
    assert (len(first.calls), len(second.calls)) == (0, 2)


def test_functions_take_what_they_name(kernel: Kernel) -> None:
    """All fields with their defaults, some of them, the whole, the call, or nothing."""
    seen: list[Any] = []

    def whole(order: Order) -> None:
        seen.append(order)

    def some(note: str, call: Call) -> None:
        seen.append((note, call.operation))

    async def of_a_loop(id: int) -> dict[str, int]:
        return {"async": id}

    given = {"id": 3}
    for fake in (whole, some, lambda data: seen.append(data), lambda: seen.append("nothing")):
        with kernel.replace("orders.save", fake):
            kernel.invoke("orders.save", given)
    assert seen == [Order(id=3), ("none", "orders.save"), {"id": 3, "note": "none"}, "nothing"]
    with kernel.replace("orders.save", of_a_loop):
        assert kernel.invoke("orders.save", given) == {"async": 3}
        assert asyncio.run(kernel.ainvoke("orders.save", given)) == {"async": 3}
    mock = Mock(return_value={"mocked": 1})
    with kernel.replace("orders.save", mock):
        assert asyncio.run(kernel.ainvoke("orders.save", given)) == {"mocked": 1}
    mock.assert_called_once_with(id=3, note="none")


def test_errors_and_results_in_order(kernel: Kernel) -> None:
    """An exception is raised; a list has one result for each call, and no more."""
    busy = AutomateError(ErrorCodes.UNAVAILABLE, "busy")
    with kernel.replace("slack.post", [busy, TimeoutError, {"ok": True}]) as slack:
        codes = []
        for _ in range(2):
            with pytest.raises(AutomateError) as caught:
                kernel.invoke("slack.post", {"channel": "#a"})
            codes.append(caught.value.code)
        assert kernel.invoke("slack.post", {"channel": "#a"}) == {"ok": True}
        with pytest.raises(AutomateError, match=r"4\. time.*has 3 results"):
            kernel.invoke("slack.post", {"channel": "#a"})
    assert codes == [ErrorCodes.UNAVAILABLE, ErrorCodes.DEADLINE_EXCEEDED]
    assert len(slack.calls) == 4


def test_the_input_is_still_checked(kernel: Kernel) -> None:
    """A workflow that calls an action wrongly fails in its test already."""
    with kernel.replace("slack.post", None) as slack:
        with pytest.raises(AutomateError, match="input of 'slack.post' is not valid: .*channle"):
            kernel.invoke("slack.post", {"channle": "#a"})
    assert slack.calls == [{"channle": "#a"}]


def test_unknown_names_are_refused_with_a_remedy(kernel: Kernel) -> None:
    """A slip in the test replaces nothing in silence."""
    with pytest.raises(AutomateError, match="no action 'pots'.*did you mean 'post'"):
        kernel.replace("slack.pots")
    with pytest.raises(AutomateError, match=r"did you mean 'orders\.save'"):
        kernel.replace("orders.sav")


def test_a_function_stands_for_its_action() -> None:
    """Where the test imports the function, it needs no name."""
    kernel = Kernel(discover=False)

    @kernel.action("long.name")
    def double(n: int) -> int:
        return 2 * n

    with kernel.replace(double, 7):
        assert kernel.invoke("long.name", {"n": 1}) == 7
    # A workflow in code may call any other function: it is replaced there.
    with kernel.replace(test_a_function_stands_for_its_action) as replaced:
        assert replaced.calls == []


def test_secrets_are_neither_needed_nor_noted(kernel: Kernel) -> None:
    """A missing secret fails no test; one that is there is seen by nobody."""
    with kernel.replace("slack.post", lambda text: {"text": text}) as slack:
        for text in ("$secret:MISSING", "Bearer $secret:TOKEN"):
            kernel.invoke("slack.post", {"channel": "#a", "text": text})
    assert [each["text"] for each in slack.calls] == ["[secret MISSING]", "Bearer [secret TOKEN]"]


def test_a_running_worker_calls_the_fake(kernel: Kernel) -> None:
    """Also where the worker has called the real one before."""
    kernel.add_workflow(
        {
            "name": "w",
            "trigger": {"type": "event", "event": "go"},
            "steps": [{"id": "a", "action": "orders.save", "input": {"id": 1}}],
            "output": "{{ steps.a.output }}",
        }
    )

    async def fake(id: int) -> str:
        return "faked"

    worker = kernel.worker(poll_seconds=0.01)
    thread = threading.Thread(target=worker.run)
    thread.start()

    def output() -> Any:
        execution_id = kernel.start("w")
        until(lambda: is_over(kernel, execution_id), 30)
        return see(kernel, execution_id).output

    try:
        assert output() == {"saved": 1}
        with kernel.replace("orders.save", fake) as orders:
            assert output() == "faked"
        assert output() == {"saved": 1}
    finally:
        worker.stop()
        thread.join(30)
    assert [one.call.step_id for one in orders.made] == ["a"]
