"""Outputs that can't be passed on: one error through every door, and the work is done once."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from automate_kernel import Connector, ErrorCodes, Kernel, OutputError, action
from automate_kernel.base.documents import shown_document
from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.outputs import answered_output
from automate_kernel.http.operations import ExposedOperations, answer_list
from defined import define

REFUSED = {
    "set": {1},
    "NaN": {"a": [math.nan]},
    "long": "x" * 1_000_001,
    "many": [[] for _ in range(500_001)],
}


class Odd(Connector):
    """A connector that takes every failure for one of its service."""

    key = "odd"
    display_name = "Odd"
    calls: list[str] = []

    @action
    def give(self, what: str) -> object:
        self.calls.append(what)
        return REFUSED[what]

    @action
    async def agive(self, what: str) -> object:
        return self.give(what)

    def normalize_error(self, exc: Exception) -> AutomateError:
        return AutomateError("UNAVAILABLE", "the service is away")


@pytest.fixture
def kernel() -> Kernel:
    Odd.calls.clear()
    return Kernel(plugins=[Odd], discover=False)


def raised(call: Any, *given: Any, **options: Any) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        call(*given, **options)
    return caught.value


@pytest.mark.parametrize("operation", ["odd.give", "odd.agive"])
@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("set", ErrorCodes.INVALID_ARGUMENT),
        ("NaN", ErrorCodes.INVALID_ARGUMENT),
        ("long", ErrorCodes.RESOURCE_EXHAUSTED),
        ("many", ErrorCodes.RESOURCE_EXHAUSTED),
    ],
)
def test_one_code_in_a_workflow_and_over_http(
    kernel: Kernel, operation: str, what: str, code: ErrorCodes
) -> None:
    define(
        kernel,
        {
            "id": "s",
            "action": operation,
            "input": {"what": what},
            "retry": {"attempts": 3, "backoff": "fixed", "delay": 0},
        },
    )
    done = kernel.run("w")
    assert (done.status, done.error_code) == ("FAILED", code)
    assert Odd.calls == [what]  # done once, whatever the code's usual way is
    exposed = ExposedOperations(kernel, ["odd.*"])
    error = raised(exposed.call, operation, {"what": what})
    assert isinstance(error, OutputError)
    assert (error.code, error.retryable) == (code, False)


def test_the_result_of_a_workflow_in_code_too(kernel: Kernel) -> None:
    @kernel.workflow(on="long")
    async def code(ctx: Any, payload: Any) -> str:
        return "x" * 1_000_001

    kernel.emit("long")
    kernel.run_until_idle()
    assert kernel.executions.find()[0].error_code == ErrorCodes.RESOURCE_EXHAUSTED


def test_the_output_of_a_call_within_is_not_that_of_the_call_around_it(kernel: Kernel) -> None:
    @kernel.action("outer")
    def outer() -> None:
        kernel.invoke("odd.give", {"what": "set"})

    inner = raised(kernel.invoke, "odd.give", {"what": "set"})
    assert isinstance(inner, OutputError) and inner.operation == "odd.give"
    around = raised(kernel.invoke, "outer")
    assert not isinstance(around, OutputError)
    assert (around.code, around.message) == (inner.code, inner.message)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def test_an_infinite_default_leaves_the_description_readable() -> None:
    """One such default, and no client could read the list of all operations."""
    kernel = Kernel(discover=False)

    @kernel.action("shop.find")
    def find(most: float = math.inf, least: float = 0.5) -> str:
        return f"{least} {most}"

    answer = answer_list(ExposedOperations(kernel, ["shop.*"]))
    _, body = answer.encoded()
    (shown,) = json.loads(body, parse_constant=no_constant)["operations"]
    fields = shown["input_schema"]["properties"]
    assert fields["least"]["default"] == 0.5
    assert "default" not in fields["most"]
    assert kernel.invoke("shop.find") == "0.5 inf"
    assert kernel.preview("shop.find") == {"most": "Infinity", "least": 0.5}


def test_what_is_only_shown_is_json_whatever_it_holds() -> None:
    class Told:
        def to_json(self) -> Any:
            return {"b": -math.inf}

    value = {"a": [math.nan, 1.5, 10**5000], "told": Told(), math.inf: "key"}
    read = json.loads(
        shown_document(value, default=lambda each: each.to_json()), parse_constant=no_constant
    )
    assert read["a"][:2] == ["NaN", 1.5] and isinstance(read["a"][2], str)
    assert read["told"] == {"b": "-Infinity"} and read["Infinity"] == "key"


def test_an_integer_that_readers_can_hold_is_written() -> None:
    value = [2**1023 - 1, "9" * 400]
    assert json.loads(answered_output(value, "x")) == value


def test_a_wrong_template_in_an_input_is_placed_there(kernel: Kernel) -> None:
    """It was said to be in the config."""
    error = raised(kernel.invoke, "odd.give", {"what": "{{ nothing }}"})
    assert error.message == "input.what: 'nothing' is not defined"
