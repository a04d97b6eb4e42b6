"""Operations: what input they take, how a function is read, and what errors tell."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from automate_kernel.operations.context import Call, calling
from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError, PluginError
from automate_kernel.operations.spec import OperationSpec, operation_from_function
from automate_kernel.storage.values import is_plain
from automate_testing.contracts.values import REFUSED

SECRET = "hunter2-hunter2"


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    price: float
    count: int = 1


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lines: list[Line]
    colour: Colour = Colour.RED
    placed_at: datetime | None = None


class Total(BaseModel):
    amount: float


def refused(spec: OperationSpec, data: Any) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        spec.validate(data)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


class TestModels:
    """Input that a pydantic model describes."""

    def test_json_becomes_typed_values(self) -> None:
        """Dates and enum members are written as text, as JSON has it, and come back typed."""
        spec = OperationSpec("total", Order)
        order = spec.validate(
            {"lines": [{"price": 2}], "colour": "red", "placed_at": "2026-01-02T03:04:05Z"}
        )
        assert order.lines == [Line(price=2.0, count=1)]
        assert order.colour is Colour.RED
        assert order.placed_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    def test_python_values_and_instances_are_taken(self) -> None:
        """A caller in Python may pass a date, a member, or the model itself."""
        spec = OperationSpec("total", Order)
        now = datetime(2026, 1, 2, tzinfo=timezone.utc)
        order = spec.validate({"lines": [], "colour": Colour.RED, "placed_at": now})
        assert order.placed_at == now
        assert spec.validate(order) is order

    @pytest.mark.parametrize("count", ["3", True, 1.5])
    def test_it_is_as_strict_as_its_json_schema(self, count: object) -> None:
        """Text and booleans are no numbers, as the published schema says."""
        error = refused(OperationSpec("total", Order), {"lines": [{"price": 1, "count": count}]})
        assert "lines.0.count: " in str(error)

    def test_every_wrong_field_is_named(self) -> None:
        """The error lists all fields that are wrong, for people and for programs."""
        error = refused(OperationSpec("total", Order), {"lines": [{}], "colur": "red"})
        assert str(error).startswith("input of 'total' is not valid: ")
        assert {p["field"] for p in error.details["problems"]} == {"lines.0.price", "colur"}

    def test_values_are_not_shown(self) -> None:
        """Neither pydantic nor the author's own validator can put a value into the error."""

        class Login(BaseModel):
            password: str
            pin: int = 0
            kind: Annotated[Cat | Dog | None, Field(discriminator="pet")] = None

            @field_validator("password")
            @classmethod
            def strong(cls, value: str) -> str:
                raise ValueError(f"{value!r} is too weak")

        data = {"password": SECRET, "pin": SECRET, "kind": {"pet": SECRET}}
        error = refused(OperationSpec("login", Login), data)
        assert "password: Value error, '[input]' is too weak" in str(error)
        assert SECRET not in repr(error) + str(error) + str(error.details)

    @pytest.mark.parametrize("data", [None, [], "text", 3])
    def test_only_an_object_is_input(self, data: object) -> None:
        """Input always has named fields."""
        refused(OperationSpec("total", Order), data)
        refused(OperationSpec("anything"), data)

    def test_what_json_can_not_hold_is_refused(self) -> None:
        """An object of some class is no input."""
        assert "JSON" in str(refused(OperationSpec("total", Order), {"lines": object()}))


class Cat(BaseModel):
    pet: Literal["cat"]


class Dog(BaseModel):
    pet: Literal["dog"]


POST_MESSAGE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "channel": {"type": "string"},
        "text": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["channel"],
    "additionalProperties": False,
}


class TestPlainSchemas:
    """Input that a JSON Schema describes."""

    def test_valid_input_is_a_dict(self) -> None:
        """What fits comes back as it was."""
        data = {"channel": "C1", "text": "hi", "tags": ["a"]}
        assert OperationSpec("post", POST_MESSAGE).validate(data) == data

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            ({}, "'channel' is required"),
            ({"channel": 3}, "channel: must be string"),
            ({"channel": "C", "txt": "x"}, "'txt' is unknown (did you mean 'text'?)"),
            ({"channel": "C", "tags": ["a", "c"]}, "tags.1: must be one of 'a', 'b'"),
            ({"channel": "C", "tags": "a"}, "tags: must be array"),
        ],
    )
    def test_problems_are_worded_by_the_schema(self, data: Any, problem: str) -> None:
        """The error names the field, and what the schema wants of it."""
        assert str(refused(OperationSpec("post", POST_MESSAGE), data)).endswith(problem)

    def test_values_are_not_shown(self) -> None:
        """jsonschema's own messages quote the value; ours don't."""
        schema = {"properties": {"pin": {"type": "integer"}, "kind": {"const": "x"}}}
        error = refused(OperationSpec("login", schema), {"pin": SECRET, "kind": SECRET})
        assert SECRET not in str(error) + repr(error.details)

    def test_booleans_are_no_numbers(self) -> None:
        """JSON has them apart, though Python says True == 1."""
        spec = OperationSpec("n", {"properties": {"n": {"type": "integer"}, "m": {"enum": [1]}}})
        assert spec.validate({"n": 1, "m": 1})
        refused(spec, {"n": True})
        refused(spec, {"m": True})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=8,
)


def test_without_jsonschema_a_plain_schema_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel works without the package; a plain schema names it."""
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    assert OperationSpec("post").validate({"n": 1}) == {"n": 1}
    with pytest.raises(PluginError, match="pip install jsonschema") as caught:
        OperationSpec("post", {"properties": {"n": {"minimum": 3}}}).validate({"n": 1})
    assert "input of 'post'" in caught.value.message


def test_a_schema_fetches_nothing_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `$ref` to a URL is an error of the plugin, and not a request."""
    requests: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", requests.append)
    spec = OperationSpec("post", {"properties": {"n": {"$ref": "http://127.0.0.1:1/schema"}}})
    with pytest.raises(PluginError, match=r"reference to 'http://127\.0\.0\.1:1/schema'"):
        spec.validate({"n": 1})
    assert not requests


def test_a_schema_that_is_none_is_the_plugins_fault() -> None:
    """A JSON Schema that is wrong itself is told as such, and where."""
    with pytest.raises(PluginError, match=r"wrong at properties\.n\.type"):
        OperationSpec("post", {"properties": {"n": {"type": "strin"}}}).validate({})


@pytest.mark.parametrize("name", ["", "two words", "a" * 201, "ä", 3, None])
def test_an_operation_needs_a_name(name: Any) -> None:
    """A name is something that a workflow can write after `connector.`."""
    with pytest.raises(PluginError):
        OperationSpec(name)


def test_a_schema_is_a_model_or_a_dict() -> None:
    """An instance, or a string, in place of a schema is found when the spec is made."""
    with pytest.raises(PluginError, match="input_schema of 'x' is a str"):
        OperationSpec("x", "Order")  # type: ignore[arg-type]


def test_json_schema_is_published() -> None:
    """Every operation has a JSON Schema of its input, whatever describes it."""
    assert OperationSpec("a").json_schema() == {"type": "object"}
    assert OperationSpec("a", POST_MESSAGE).json_schema() == POST_MESSAGE
    assert OperationSpec("a", Order).json_schema()["required"] == ["lines"]
    assert OperationSpec("a", output_schema=Total).output_json_schema()["required"] == ["amount"]  # type: ignore[index]
    assert OperationSpec("a").output_json_schema() is None


def test_a_list_of_models_and_none_have_a_schema() -> None:
    """What the annotation says is published, without an output_schema beside it."""

    def totals(order: Order) -> list[Total]:
        return []

    def names() -> list[str]:
        return []

    def nothing() -> None:
        """Do something."""

    def untold():  # type: ignore[no-untyped-def]
        """Do something else."""

    listed = operation_from_function(totals).output_json_schema()
    assert (listed["type"], listed["items"]) == ("array", {"$ref": "#/$defs/Total"})
    assert listed["$defs"]["Total"]["required"] == ["amount"]
    assert operation_from_function(nothing).output_json_schema() == {"type": "null"}
    for function in (names, untold):
        assert operation_from_function(function).output_json_schema() is None


def whole(order: Order) -> Total:
    """
    Add up
    an order.

    More of it.
    """
    return Total(amount=sum(line.price * line.count for line in order.lines))


class TestFunctions:
    """Functions read as operations."""

    def test_one_model_parameter_takes_all_input(self) -> None:
        """The model is the input, the annotation the output, the docstring the description."""
        spec = operation_from_function(whole, idempotent=True)
        assert (spec.name, spec.idempotent, spec.description) == ("whole", True, "Add up an order.")
        assert (spec.input_schema, spec.output_schema) == (Order, Total)
        assert spec.dump(spec.call({"lines": [{"price": 2.5, "count": 2}]})) == {"amount": 5.0}

    def test_typed_parameters_are_fields(self) -> None:
        """Each parameter is a field with its type and default; unknown fields are refused."""

        def send(to: str, urgent: bool = False, *, copies: int = 1) -> str:
            return f"{to} {urgent} {copies}"

        spec = operation_from_function(send, name="mail.send")
        assert spec.call({"to": "Ada", "copies": 2}) == "Ada False 2"
        assert spec.json_schema()["required"] == ["to"]
        assert "urgnt" in str(refused(spec, {"to": "Ada", "urgnt": True}))
        refused(spec, {"to": 3})

    def test_a_parameter_may_be_called_like_a_method_of_the_model(self) -> None:
        """`json`, `copy`, `model_config` and `_x` are names of fields like any other."""

        def request(json: dict[str, int], copy: int, model_config: str, _x: int = 0) -> list[Any]:
            return [json, copy, model_config, _x]

        spec = operation_from_function(request)
        data = {"json": {"a": 1}, "copy": 2, "model_config": "m", "_x": 4}
        assert spec.call(data) == [{"a": 1}, 2, "m", 4]
        assert set(spec.json_schema()["properties"]) == set(data)
        assert "json: " in str(refused(spec, {**data, "json": 3}))

    def test_the_call_is_passed_where_it_is_asked_for(self) -> None:
        """A parameter annotated `Call` is no input."""

        def where(x: int, call: Call) -> tuple[int, str | None]:
            return x, call.idempotency_key

        spec = operation_from_function(where)
        with calling(Call("where", idempotency_key="k1")):
            assert spec.call({"x": 1}) == (1, "k1")
        assert spec.call({"x": 1}) == (1, None)
        assert list(spec.json_schema()["properties"]) == ["x"]

    def test_async_functions_give_awaitables(self) -> None:
        """An async function is read in the same way."""

        async def later(x: int) -> int:
            return x + 1

        assert asyncio.run(operation_from_function(later).call({"x": 1})) == 2

    def test_a_schema_of_ones_own(self) -> None:
        """With an explicit schema the one parameter takes the input as a dict."""

        def raw(data: Mapping[str, Any]) -> int:
            return len(data)

        spec = operation_from_function(raw, input_schema=POST_MESSAGE)
        assert spec.call({"channel": "C"}) == 1
        refused(spec, {})

    def test_keyword_arguments_take_the_rest(self) -> None:
        """`**fields` opens the input."""

        def open_(x: int, **fields: Any) -> dict[str, Any]:
            return {"x": x, **fields}

        assert operation_from_function(open_).call({"x": 1, "y": [2]}) == {"x": 1, "y": [2]}

    def test_no_parameters_take_no_input(self) -> None:
        """A function without parameters refuses fields."""
        spec = operation_from_function(lambda: 7, name="seven")
        assert spec.call({}) == 7
        refused(spec, {"x": 1})

    def test_annotated_constraints_hold(self) -> None:
        """`Annotated[…, Field(…)]` is checked and published."""

        def roll(sides: Annotated[int, Field(ge=2, description="how many")]) -> int:
            return sides

        spec = operation_from_function(roll)
        refused(spec, {"sides": 1})
        assert spec.json_schema()["properties"]["sides"]["description"] == "how many"

    def test_a_default_of_none_leaves_the_words_of_a_field(self) -> None:
        """The schema is the same on each Python: what `Annotated` says stands at the field itself."""

        def roll(sides: Annotated[int | None, Field(description="how many")] = None) -> None:
            pass

        sides = operation_from_function(roll).json_schema()["properties"]["sides"]
        assert sides["description"] == "how many"
        assert sides["anyOf"] == [{"type": "integer"}, {"type": "null"}]

    @pytest.mark.parametrize(
        ("function", "problem"),
        [
            (lambda x: x, "does not say the type of its parameter 'x'"),
            (lambda *args: args, "by position"),
        ],
    )
    def test_a_signature_that_says_too_little_is_refused(self, function: Any, problem: str) -> None:
        """A parameter without a type would take anything, so its author is told."""
        with pytest.raises(PluginError, match=problem):
            operation_from_function(function, name="f")

    def test_a_spec_without_a_function_can_not_be_called(self) -> None:
        """A declaration alone does nothing."""
        with pytest.raises(AutomateError) as caught:
            OperationSpec("declared").call({})
        assert caught.value.code is ErrorCodes.UNIMPLEMENTED


def test_output_becomes_json() -> None:
    """Models, dates, UUIDs and tuples are written as JSON has it."""
    spec = OperationSpec("x")
    output = spec.dump({"t": Total(amount=1), "id": UUID(int=1), "pair": (1, date(2026, 1, 2))})
    assert output == {
        "t": {"amount": 1.0},
        "id": "00000000-0000-0000-0000-000000000001",
        "pair": [1, "2026-01-02"],
    }


@pytest.mark.parametrize("name", [name for name in REFUSED if not is_plain(REFUSED[name])])
def test_output_that_is_no_json_is_refused(name: str) -> None:
    """What an event could not hold no action can return: no key or set becomes something else."""
    for output in (REFUSED[name], {"in": [REFUSED[name]]}, {"x": object()}):
        with pytest.raises(PayloadError, match="the output of 'x'") as caught:
            OperationSpec("x").dump(output)
        assert caught.value.hint


@given(JSON)
def test_json_output_is_left_as_it_is(value: Any) -> None:
    """What is JSON already is not changed."""
    assert OperationSpec("x").dump(value) == value


# -- what an operation does to the world -----------------------------------------------------------


def test_an_operation_that_only_reads_may_be_called_again() -> None:
    def look() -> None: ...

    assert operation_from_function(look, read_only=True).idempotent


@pytest.mark.parametrize("other", ["destructive", "transactional"])
def test_an_operation_that_only_reads_does_nothing_else(other: str) -> None:
    with pytest.raises(PluginError, match=f"read_only and {other}"):
        OperationSpec("look", read_only=True, **{other: True})  # type: ignore[arg-type]
