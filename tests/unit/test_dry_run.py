"""A dry run renders every call and makes none; what it can't know is marked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from automate_kernel import Connector, Kernel, action
from automate_kernel.base.errors import AutomateError, WorkflowError
from automate_kernel.operations.context import Call
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.storage.tables import TABLES
from automate_kernel.workflows.decide.dry_run import DryOutcome, DryOutput
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.store.events import triggering_event
from defined import define


class Price(BaseModel):
    """The output of an action that says what it gives."""

    total: int
    currency: str = Field(examples=["EUR"])
    note: str


class Shop(Connector):
    """A service that is never reached."""

    key = "shop"
    display_name = "Shop"

    def __init__(self, *args: Any, **options: Any) -> None:
        raise AssertionError("it was made")

    @action
    def price(self, lines: list[int]) -> Price:
        raise AssertionError("it was called")

    @action
    async def stock(self, sku: str) -> dict[str, Any]:
        raise AssertionError("it was called")

    @action
    def say(self, text: str, token: str = "") -> dict[str, Any]:
        raise AssertionError("it was called")


ORDER: dict[str, Any] = {
    "name": "order",
    "trigger": {"type": "event", "event": "order.created", "if": "event.payload.total > 100"},
    "steps": [
        {"id": "price", "action": "shop.price", "input": {"lines": "{{ event.payload.lines }}"}},
        {"id": "stock", "action": "shop.stock", "input": {"sku": "tea"}},
        {
            "id": "tell",
            "action": "shop.say",
            "input": {
                "text": "{{ steps.price.output.total }} {{ steps.price.output.note }}",
                "token": "Bearer $secret:CHAT",
            },
        },
        {
            "id": "low",
            "action": "shop.say",
            "if": "steps.stock.output.left < 3",
            "input": {"text": "only {{ steps.stock.output.left }} left"},
        },
        {
            "id": "huge",
            "action": "shop.say",
            "if": "event.payload.total > 1000",
            "input": {"text": "huge"},
        },
        {"id": "after", "action": "shop.say", "needs": ["huge"], "input": {"text": "skipped"}},
        {
            "id": "each",
            "action": "shop.say",
            "needs": ["tell"],
            "for_each": "{{ event.payload.lines }}",
            "input": {"text": "{{ item }} at {{ index }}"},
        },
        {
            "id": "rest",
            "action": "shop.say",
            "for_each": "{{ steps.stock.output.rest }}",
            "input": {"text": "{{ item }} of {{ event.payload.total }}"},
        },
    ],
    "on_failure": [{"id": "alert", "action": "shop.say", "input": {"text": "{{ error.message }}"}}],
    "output": {"left": "{{ steps.stock.output.left }}", "total": "{{ event.payload.total }}"},
}
PAYLOAD = {"total": 120, "lines": [1, 2]}


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(plugins=[Shop], discover=False, secrets={})
    kernel.add_workflow(ORDER)
    return kernel


def test_every_call_is_rendered_and_none_made(kernel: Kernel) -> None:
    """With outputs that are made up from the schema, or marked."""
    dry = kernel.dry_run("order", PAYLOAD)
    assert dry.starts is True
    told = {step.id: (str(step.outcome), [call.input for call in step.calls]) for step in dry.steps}
    unknown = "[depends on steps.stock.output]"
    assert told == {
        "price": ("called", [{"lines": [1, 2]}]),
        "stock": ("called", [{"sku": "tea"}]),
        "tell": (
            "called",
            [{"text": "1 [steps.price.output.note]", "token": "Bearer [secret CHAT]"}],
        ),
        "low": ("unclear", [{"text": unknown}]),
        "huge": ("skipped", []),
        "after": ("skipped", []),
        "each": ("called", [{"text": "1 at 0"}, {"text": "2 at 1"}]),
        "rest": ("called", [{"text": "[depends on item]"}]),
    }
    price = dry.step("price")
    assert price is not None
    assert price.output_is is DryOutput.EXAMPLE
    assert price.output == {
        "total": 1, "currency": "EUR", "note": "[steps.price.output.note]",
    }  # fmt: skip
    depends = {step.id: step.depends_on for step in dry.steps if step.depends_on}
    assert depends == {
        "tell": ["steps.price.output"],
        "low": ["steps.stock.output"],
        "rest": ["steps.stock.output", "item"],
    }
    assert [call.input for call in dry.recovery[0].calls] == [{"text": "[error.message]"}]
    assert dry.output == {"left": unknown, "total": 120}
    assert dry.problems == []
    json.dumps(dry.to_json())


def test_nothing_is_written(kernel: Kernel) -> None:
    """No row in any table."""
    kernel.dry_run("order", PAYLOAD)
    with kernel.storage.begin() as rows:
        assert [name for name in TABLES if rows.select(name)] == []


def test_outputs_that_are_given_decide(kernel: Kernel) -> None:
    """Conditions, lists and inputs take them for real."""
    outputs = {"stock": {"left": 2, "rest": ["a", "b"]}, "price": {"total": 7, "note": "n"}}
    dry = kernel.dry_run("order", PAYLOAD, outputs=outputs)
    low, rest, tell = (dry.step(step_id) for step_id in ("low", "rest", "tell"))
    assert low is not None
    assert rest is not None
    assert tell is not None
    assert (low.outcome, low.calls[0].input) == (DryOutcome.CALLED, {"text": "only 2 left"})
    assert (rest.elements, [call.position for call in rest.calls]) == (2, [0, 1])
    assert tell.calls[0].input["text"] == "7 n"
    assert not any(step.depends_on for step in dry.steps)
    enough = kernel.dry_run("order", PAYLOAD, outputs={"stock": {"left": 9, "rest": []}})
    low = enough.step("low")
    assert low is not None
    assert low.outcome is DryOutcome.SKIPPED
    assert enough.output == {"left": 9, "total": 120}


def test_an_event_that_starts_nothing(kernel: Kernel) -> None:
    """It is told, and the steps are shown all the same."""
    dry = kernel.dry_run("order", {"total": 1, "lines": []})
    assert dry.starts is False
    assert len(dry.steps) == len(ORDER["steps"])
    assert kernel.dry_run("order", None).starts is None


def test_what_would_fail_is_told(kernel: Kernel) -> None:
    """A field that the action lacks, a value that isn't there, an action that isn't."""
    define(
        kernel,
        {"id": "a", "action": "shop.say", "input": {"txt": "x"}},
        {"id": "b", "action": "shop.say", "input": {"text": "{{ event.payload.nope }}"}},
        {"id": "c", "action": "shop.sya", "input": {"text": "x"}},
        {"id": "d", "action": "shop.say", "for_each": "{{ event.payload.n }}"},
        name="wrong",
        output="{{ event.payload.nope }}",
    )
    dry = kernel.dry_run("wrong", {"n": 5})
    assert [step.outcome for step in dry.steps] == [DryOutcome.FAILS] * 4
    found = dry.problems
    assert [line.split(":")[0] for line in found] == ["a", "b", "c", "d", "output"]
    assert "txt" in found[0]
    assert "there is no 'nope'" in found[1]
    assert "did you mean 'say'" in found[2]
    assert "not a list" in found[3]


@pytest.mark.parametrize(
    "condition", [{"concurrency": {}}, {"rate_limit": {"limit": 1}}, {"debounce": {"for": "1s"}}]
)
def test_a_key_that_fails_the_start_is_told(
    kernel: Kernel, condition: dict[str, dict[str, Any]]
) -> None:
    """It says what the start says; beside what is wrong with the output."""
    ((field, rest),) = condition.items()
    kernel.add_workflow(
        {
            "name": "keyed",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "shop.say", "input": {"text": "x"}}],
            "output": "{{ event.payload.more }}",
            field: {"key": "{{ event.payload.customer }}", **rest},
        }
    )
    with pytest.raises(AutomateError) as raised:
        kernel.start("keyed", {})
    (problem,) = kernel.dry_run("keyed", {}).problems
    assert problem.startswith(str(raised.value)) and "output: there is no 'more'" in problem
    assert kernel.dry_run("keyed", {"customer": 1, "more": 2}).problems == []


def test_outputs_of_unknown_steps_are_refused(kernel: Kernel) -> None:
    """A slip would show wrong calls."""
    with pytest.raises(WorkflowError, match="no step 'stok'.*did you mean 'stock'"):
        kernel.dry_run("order", PAYLOAD, outputs={"stok": {}})
    with pytest.raises(WorkflowError, match="is a list, since it has for_each"):
        kernel.dry_run("order", PAYLOAD, outputs={"each": {"a": 1}})
    with pytest.raises(AutomateError, match="did you mean 'order'"):
        kernel.dry_run("ordr")


def test_secrets_that_are_known_are_not_shown(kernel: Kernel) -> None:
    """In the event, and in outputs that are given."""
    kernel.redactor.add("tok-19d3e5f7a2")
    event = triggering_event(kernel.workflows["order"], {**PAYLOAD, "note": "tok-19d3e5f7a2"})
    outputs = {"stock": {"left": "tok-19d3e5f7a2", "rest": []}}
    dry = kernel.dry_run("order", event=event, outputs=outputs)
    assert "tok-19d3e5f7a2" not in json.dumps(dry.to_json())


def test_whole_inputs_and_keys_that_depend_on_outputs(kernel: Kernel) -> None:
    """A mark stands for them."""
    define(
        kernel,
        {"id": "a", "action": "shop.stock", "input": {"sku": "x"}},
        {"id": "b", "action": "shop.say", "input": "{{ steps.a.output }}"},
        {"id": "c", "action": "shop.say", "input": {"{{ steps.a.output.k }}": "x"}},
        {"id": "d", "action": "shop.say", "input": {"text": "{{ steps.a.status }}"}},
        {
            "id": "e",
            "action": "shop.say",
            "needs": ["b"],
            "if": "steps.a.output.x",
            "input": {"text": "x"},
        },
        {"id": "f", "action": "shop.say", "needs": ["e"], "input": {"text": "x"}},
        name="whole",
    )
    dry = kernel.dry_run("whole")
    mark = "[depends on steps.a.output]"
    assert [step.calls[0].input for step in dry.steps[1:4]] == [
        mark, {mark: "x"}, {"text": "COMPLETED"},
    ]  # fmt: skip
    assert [str(step.outcome) for step in dry.steps[4:]] == ["unclear", "unclear"]


class Node(BaseModel):
    """A type that holds itself."""

    name: str
    children: list[Node] = []


class Inner(BaseModel):
    """A part of another."""

    kind: str = Field(json_schema_extra={"enum": ["a", "b"]})
    maybe: int | None
    many: list[Node]


def test_examples_fit_their_schema() -> None:
    """References, alternatives, lists and types that hold themselves."""
    example = example_of(Inner.model_json_schema(), "out")
    assert Inner.model_validate(example).kind == "a"
    assert example["many"][0]["name"] == "[out.many[0].name]"
    assert example_of({"type": ["null", "string"], "format": "date"}, "x") == "2026-01-01"
    assert example_of({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "x") == "[x]"
    assert example_of({}, "x") == "[x]"
    assert example_of({"type": "null"}, "x") is None
    assert example_of({"const": 3}, "x") == 3


IDS = ("a", "b", "c", "d")
TEXTS = ("{{ event.payload.n }}", "{{ event.payload.n + 1 }} in all", "plain")


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A workflow whose steps read earlier ones, and an output for each of its steps."""
    steps, outputs = [], {}
    for place, step_id in enumerate(IDS[: draw(st.integers(1, 4))]):
        before = IDS[:place]
        step: dict[str, Any] = {"id": step_id, "action": "echo", "needs": list(before)}
        readable = [*TEXTS, *(f"{{{{ steps.{one}.output or 'none' }}}}" for one in before)]
        step["input"] = {"text": draw(st.sampled_from(readable))}
        conditions = ["true", "event.payload.n > 2", *(f"steps.{one}.output" for one in before)]
        conditions += [f"steps.{one}.status == 'SKIPPED'" for one in before]
        if draw(st.booleans()):
            step["if"] = draw(st.sampled_from(conditions))
        if draw(st.booleans()):
            count = draw(st.integers(0, 3))
            step["for_each"] = draw(st.sampled_from([[7] * count, "{{ event.payload.list }}"]))
            step["input"]["item"] = "{{ item }} at {{ index }}"
        steps.append(step)
        value = draw(st.sampled_from([0, 1, "x", None]))
        outputs[step_id] = value
    return {"name": "w", "trigger": {"type": "manual"}, "steps": steps}, outputs


@settings(max_examples=examples(100))
@given(cases(), st.integers(0, 4))
def test_a_dry_run_shows_what_a_run_calls(case: tuple[Any, Any], number: int) -> None:
    """With the outputs of all steps: the same calls with the same inputs, and the same steps."""
    definition, outputs = case
    payload = {"n": number, "list": list(range(number))}
    kernel = Kernel(discover=False)

    @kernel.action("echo")
    def echo(text: Any, call: Call, item: Any = None) -> Any:
        return outputs[str(call.step_id)]

    kernel.add_workflow(definition)
    execution = kernel.run("w", payload)
    assert execution.status == "COMPLETED", execution.error
    ran: dict[str, list[Any]] = {step["id"]: [] for step in definition["steps"]}
    given_outputs: dict[str, Any] = {}
    for step in definition["steps"]:
        runs = [run for run in execution.runs_of(step["id"]) if run.position >= 0]
        given_outputs[step["id"]] = outputs[step["id"]] if "for_each" not in step else [
            outputs[step["id"]] for _ in runs
        ]  # fmt: skip
        positions = [run.position for run in runs] if "for_each" in step else [-1]
        whole = execution.step(step["id"])
        assert whole is not None
        if whole.status == "SKIPPED":
            continue
        program = kernel.workflows.program(execution.definition_id)
        for position in positions:
            ran[step["id"]].append(step_input(program, execution, step["id"], position))
    dry = kernel.dry_run("w", payload, outputs=given_outputs)
    assert {step.id: [call.input for call in step.calls] for step in dry.steps} == ran
    assert dry.problems == []


CAREFUL: dict[str, Any] = {
    "name": "careful",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "stock",
            "action": "shop.stock",
            "input": {"sku": "tea"},
            "compensate": {"action": "shop.say", "input": {"text": "back: {{ output.place }}"}},
        },
        {
            "id": "each",
            "action": "shop.price",
            "for_each": "{{ event.payload.lines }}",
            "input": {"lines": ["{{ item }}"]},
            "compensate": {
                "action": "shop.say",
                "input": {"text": "line {{ item }}: {{ output.total }} {{ error.code }}"},
            },
        },
        {
            "id": "never",
            "action": "shop.stock",
            "if": "{{ event.payload.lines | length > 9 }}",
            "input": {"sku": "x"},
            "compensate": {"action": "shop.say", "input": {"text": "not called"}},
        },
        {
            "id": "wrong",
            "action": "shop.stock",
            "input": {"sku": "y"},
            "compensate": {"action": "shop.say", "input": {"txt": "misspelt"}},
        },
    ],
    "on_failure": [{"id": "f", "action": "shop.say", "input": {"text": "{{ error.message }}"}}],
    "on_cancel": [{"id": "c", "action": "shop.say", "input": {"text": "{{ error.code }}"}}],
    "finally": [
        {"id": "e", "action": "shop.say", "input": {"text": "{{ 'bad' if error else 'good' }}"}},
        {"id": "e2", "action": "shop.say", "input": {"text": "{{ event.payload.missing }}"}},
    ],
}


def test_what_cleans_up_is_shown_too() -> None:
    """With all its mistakes: nobody else looks there before the night when it runs."""
    kernel = Kernel(discover=False, plugins=[Shop])
    kernel.add_workflow(CAREFUL)
    dry = kernel.dry_run("careful", {"lines": [5, 6]})
    ending, wrong = dry.ending
    assert [call.input for call in ending.calls] == [{"text": "good"}]
    assert wrong.outcome is DryOutcome.FAILS
    assert [step.id for step in dry.undoing] == [
        "wrong.compensate", "each.compensate", "stock.compensate",
    ]  # fmt: skip
    each, stock = dry.undoing[1:]
    assert stock.calls[0].input == {"text": "[depends on steps.stock.output]"}
    assert (each.calls[0].position, each.depends_on) == (0, ["steps.each.output"])
    assert dry.recovery[0].calls[0].input == {"text": "[error.message]"}
    assert dry.cancelling[0].calls[0].input == {"text": "CANCELLED"}
    assert [line.partition(":")[0] for line in dry.problems] == ["e2", "wrong.compensate"]
    assert dry.step("each.compensate") is each

    price = {"total": 7, "currency": "EUR", "note": ""}
    known = kernel.dry_run(
        "careful",
        {"lines": [5, 6]},
        outputs={"stock": {"place": "shelf 3"}, "each": [price, price]},
    )
    texts = [step.calls[0].input["text"] for step in known.undoing[1:]]
    assert texts == ["line 5: 7 INTERNAL", "back: shelf 3"]


def test_the_engine_decides_what_is_undone() -> None:
    """Each element that was called, the last one first; nothing of an empty list."""
    kernel = Kernel(discover=False, plugins=[Shop])
    kernel.add_workflow(CAREFUL)
    dry = kernel.dry_run("careful", {"lines": [5, 6]})
    each = dry.step("each.compensate")
    assert each is not None
    texts = [(call.position, call.input["text"]) for call in each.calls]
    assert texts == [(0, "line 5: 1 INTERNAL"), (1, "line 6: 1 INTERNAL")]
    empty = kernel.dry_run("careful", {"lines": []})
    assert [step.id for step in empty.undoing] == ["wrong.compensate", "stock.compensate"]


def test_a_wait_over_what_is_no_list_is_told(kernel: Kernel) -> None:
    """As the engine says it, before it waits for anything."""
    define(
        kernel,
        {
            "id": "ask",
            "for_each": "{{ event.payload.people }}",
            "approval": {"title": "Go, {{ item }}?"},
        },
        {"id": "tell", "action": "shop.say", "input": {"text": "done"}},
        name="asking",
    )
    (problem,) = kernel.dry_run("asking", {"people": "ann"}).problems
    assert problem.startswith("ask: ") and "not a list" in problem
    ask, tell = kernel.dry_run("asking", {"people": ["ann", "bob"]}).steps
    assert (ask.outcome, ask.elements) == (DryOutcome.WAITS, 2)
    assert ask.waits_for == {"approval": {"title": "[depends on item]"}}
    assert tell.calls[0].input == {"text": "done"}


def test_what_needs_a_step_that_fails_is_shown_all_the_same(kernel: Kernel) -> None:
    """A switch that can't be decided skips nothing behind it."""
    define(
        kernel,
        {
            "id": "choose",
            "switch": "{{ event.payload }}",
            "cases": {
                "a": [{"id": "a", "action": "shop.say", "input": {"text": "a"}}],
            },
        },
        {
            "id": "tell",
            "needs": ["choose"],
            "action": "shop.say",
            "input": {"text": "told"},
        },
        name="behind",
    )
    dry = kernel.dry_run("behind", {"kind": "a"})
    choose, tell = dry.steps
    assert (choose.outcome, tell.outcome) == (DryOutcome.FAILS, DryOutcome.CALLED)
    assert "switch gave" in dry.problems[0]
