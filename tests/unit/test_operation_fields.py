"""The fields of an input are read from any JSON Schema, and texts become values of their types."""

from __future__ import annotations

import enum
from datetime import date
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from automate_kernel.operations.schemas.fields import (
    bound_text,
    field_description,
    FieldTextError,
    InputField,
    assembled,
    input_fields,
    takes_more_fields,
    written,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    zip_code: int = Field(0, title="Postal code")


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Order(BaseModel):
    customer: str = Field(description="Who pays.\nAlways one.")
    amount: float
    count: int = 1
    gift: bool = False
    tags: list[str] = []
    colour: Optional[Colour] = None
    colours: list[Colour] = []
    speed: Literal["slow", "fast", 3] = "slow"
    day: Optional[date] = None
    address: Address
    second: Optional[Address] = None
    value: Union[str, int] = ""
    extra: dict[str, Any] = {}
    lines: list[Address] = []
    tree: Optional[Tree] = None
    api_key: str = "x"
    password: Annotated[str, Field(json_schema_extra={"format": "password"})] = ""


FIELDS = {each.name: each for each in input_fields(Order.model_json_schema())}


@pytest.mark.parametrize(
    ("name", "kind", "many", "required"),
    [
        ("customer", "text", False, True),
        ("amount", "number", False, True),
        ("count", "integer", False, False),
        ("gift", "boolean", False, False),
        ("tags", "text", True, False),
        ("colour", "choice", False, False),
        ("colours", "choice", True, False),
        ("speed", "choice", False, False),
        ("day", "text", False, False),
        ("address.street", "text", False, True),
        ("address.zip_code", "integer", False, False),
        ("second.street", "text", False, False),
        ("value", "json", False, False),
        ("extra", "json", False, False),
        ("lines", "json", False, False),
        ("tree.name", "text", False, False),
        ("tree.children", "json", False, False),
    ],
)
def test_each_type_has_its_kind(name: str, kind: str, many: bool, required: bool) -> None:
    """A field's kind, repetition and need follow from the schema, through references and null."""
    field = FIELDS[name]
    assert (field.kind, field.many, field.required) == (kind, many, required)


def test_words_for_people() -> None:
    """Descriptions come in a line; pydantic's own titles, which say the name again, are left out."""
    assert FIELDS["customer"].description == "Who pays. Always one."
    assert FIELDS["customer"].label == "Customer"
    assert FIELDS["address.zip_code"].label == "Postal code"
    assert FIELDS["speed"].type_words == "one of slow, fast, 3"
    assert FIELDS["tags"].type_words == "list of text"
    assert FIELDS["day"].type_words == "text (date)"


def test_a_field_that_may_be_null_is_described_by_its_value() -> None:
    described = Annotated[str, Field(description="The page  that follows.")]

    class Model(BaseModel):
        plain: described  # type: ignore[valid-type]
        optional: Optional[described] = None  # type: ignore[valid-type]
        own: Annotated[Optional[described], Field(description="Its own.")] = None  # type: ignore[valid-type]
        either: Union[described, int, None] = None  # type: ignore[valid-type]

    found = {
        name: field_description(each)
        for name, each in Model.model_json_schema()["properties"].items()
    }
    value = "The page that follows."
    assert found == {"plain": value, "optional": value, "own": "Its own.", "either": ""}


def test_secrets_are_known_by_format_and_name() -> None:
    """A password's format and a name such as api_key make a field secret."""
    assert {name for name, field in FIELDS.items() if field.secret} == {"api_key", "password"}


def test_a_circle_of_references_ends() -> None:
    """A model that holds itself is read to a depth, and a reference to nowhere is any JSON."""
    schema = {
        "properties": {
            "loop": {"$ref": "#/$defs/Loop"},
            "lost": {"$ref": "#/$defs/Nowhere"},
            "far": {"$ref": "https://example.com/x"},
        },
        "$defs": {"Loop": {"properties": {"loop": {"$ref": "#/$defs/Loop"}}}},
    }
    names = [each.name for each in input_fields(schema)]
    assert names == ["loop.loop.loop.loop", "lost", "far"]
    circle = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert [each.kind for each in input_fields(circle)] == ["json"]


def test_a_schema_of_thousands_of_fields_is_cut() -> None:
    """A page or a help text has an end."""
    wide = {"properties": {f"f{n}": {"type": "string"} for n in range(5000)}}
    assert len(input_fields(wide)) == 500


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("customer", " as it is ", " as it is "),
        ("count", " -3 ", -3),
        ("amount", "3", 3),
        ("amount", "2.5e3", 2500.0),
        ("gift", "Yes", True),
        ("gift", "off", False),
        ("speed", "3", 3),
        ("colour", "red", "red"),
        ("value", "5", 5),
        ("value", "words", "words"),
        ("extra", '{"a": [1]}', {"a": [1]}),
    ],
)
def test_a_text_becomes_a_value(name: str, text: str, value: Any) -> None:
    """The text of an option or a form is read by the field's type."""
    found = FIELDS[name].read(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "3.0"),
        ("count", "9" * 500),
        ("count", "٣"),
        ("amount", "inf"),
        ("amount", "1e999"),
        ("amount", "hunter2"),
        ("gift", "maybe"),
        ("speed", "hunter2"),
        ("extra", "hunter2"),
        ("extra", "[" * 100_000),
        ("extra", "NaN"),
    ],
)
def test_a_wrong_text_is_refused_without_being_shown(name: str, text: str) -> None:
    """The message has what is right, and nothing of what was given."""
    with pytest.raises(FieldTextError) as caught:
        FIELDS[name].read(text)
    assert "must be" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_list_comes_repeated_or_as_json() -> None:
    """A list is an option that is repeated, or one text of JSON."""
    assert FIELDS["tags"].read_many(["a", "b"]) == ["a", "b"]
    assert FIELDS["tags"].read_many(['["a", "b"]']) == ["a", "b"]
    assert FIELDS["tags"].read_many(["[draft]"]) == ["[draft]"]


@given(st.recursive(st.text() | st.integers() | st.booleans(), st.lists, max_leaves=5))
def test_what_is_written_is_read_again(value: Any) -> None:
    """A default in a form comes back as it was."""
    if isinstance(value, str):
        field = InputField(("x",), "text")
    elif isinstance(value, bool):
        field = InputField(("x",), "boolean")
    else:
        field = InputField(("x",), "json", schema={"type": "array"})
    assert field.read(written(value)) == value


def test_paths_become_an_object() -> None:
    """Values at paths make an object; a whole and a part of it contradict each other."""
    assert assembled({("a", "b"): 1, ("a", "c"): 2, ("d",): 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(FieldTextError, match="a is given as a whole"):
        assembled({("a",): 1, ("a", "c"): 2})


def test_an_open_object_takes_more_fields() -> None:
    """An object without properties is open; one with some only if it says so."""
    assert takes_more_fields({"type": "object"})
    assert takes_more_fields({"properties": {"a": {}}, "additionalProperties": True})
    assert not takes_more_fields({"properties": {"a": {}}})
    assert not takes_more_fields({"additionalProperties": False})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12345678901234567890.12", "12345678901234567890.12"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("1e999", "1e999"),
        ("1e99999999999999999999", "1e99999999999999999999"),
        ("0.1", 0.1),
        ("1.50", 1.5),
        ("-3e2", -300.0),
        ("7", 7),
    ],
)
def test_a_decimal_keeps_the_digits_that_a_float_has_not(text: str, value: Any) -> None:
    """As text: an amount would else be another one, in silence."""
    schema = {"anyOf": [{"type": "number"}, {"type": "string"}]}
    (field,) = input_fields({"properties": {"amount": schema}})
    assert field.read(text) == value
    (number,) = input_fields(
        {"properties": {"amount": {"anyOf": [{"type": "number"}, {"type": "boolean"}]}}}
    )
    assert not isinstance(number.read(text), str)


def test_each_choice_has_a_text_of_its_own() -> None:
    """Empty text is what a field that was left out sends, and 1 is written as its text is."""
    schema = {"properties": {"mark": {"enum": ["", 1, "1", True, "true", "a", '""']}}}
    (field,) = input_fields(schema)
    texts = [field.choice_text(each) for each in field.choices]
    assert len(set(texts)) == len(texts)
    assert field.type_words == 'one of "", 1, "1", true, "true", a, "\\"\\""'
    read = [field.read(text) for text in texts]
    assert [(type(each), each) for each in read] == [(type(each), each) for each in field.choices]
    assert (field.read(""), field.read("a")) == ("", "a")


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("text", ["9" * 400, "-" + "9" * 400])
def test_a_number_that_readers_make_infinite_is_refused(kind: str, text: str) -> None:
    (field,) = input_fields({"properties": {"n": {"type": kind}}})
    with pytest.raises(FieldTextError, match="that JSON's readers take"):
        field.read(text)


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (9007199254740993, "9007199254740993"), (0, "0"), (0.0, "0"), (-2.5, "-2.5"), (0.1, "0.1"),
        (1e22, "1e+22"), (10**400, ""), (float("inf"), ""), (None, ""), ("3", ""),
    ],
)  # fmt: skip
def test_a_bound_is_written_exactly(bound: object, text: str) -> None:
    """A browser refuses what is beyond it, and takes no infinite one."""
    assert bound_text(bound) == text
