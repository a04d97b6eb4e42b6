"""Schemas of documents as JSON Schema, whatever their authors wrote."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from automate_kernel.operations.schemas.checks import compile_schema
from automate_openapi.document import ApiDocument
from automate_openapi.schemas import Schemas
from hypothesis import given
from hypothesis import strategies as st
from openapi_support import document


KEYWORDS = [
    "type", "properties", "items", "required", "enum", "pattern", "minimum", "maximum", "nullable",
    "exclusiveMinimum", "exclusiveMaximum", "allOf", "anyOf", "oneOf", "not", "$ref", "format",
    "additionalProperties", "patternProperties", "minLength", "uniqueItems", "multipleOf", "const",
    "readOnly", "writeOnly", "default", "description", "$id", "$anchor", "$schema", "example",
    "dependentRequired", "discriminator", "prefixItems", "if", "contains", "$defs",
]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["string", "object", "array", "int", "[", "(?i)a", "\\p{L}", "",
                       "#/components/schemas/A", "#/components/schemas/B", "#/nowhere", "x.json"])
)  # fmt: skip
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=5)
    ),
    max_leaves=20,
)


def closed(
    schema: Any, *, version: str = "3.0.3", direction: Any = "input", **components: Any
) -> Any:
    content = document({}, version=version, components={"schemas": components})
    return Schemas(ApiDocument(content, "x")).closed(schema, "x", direction)


@given(first=SCHEMAS, second=SCHEMAS, version=st.sampled_from(["3.0.0", "3.1.0"]), value=SCALARS)
def test_every_schema_compiles(first: Any, second: Any, version: str, value: Any) -> None:
    """And checks a value without an error of its own."""
    for direction in ("input", "output"):
        found = closed(first, version=version, direction=direction, A=first, B=second).schema
        json.dumps(found)
        jsonschema.Draft202012Validator.check_schema(found)
        compile_schema(found, "x")  # a circle of references can't be checked, only compiled


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        (
            {"nullable": True, "allOf": [{"type": "string"}]},
            {"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]},
        ),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            {"type": "integer", "exclusiveMinimum": 0},
        ),
        (
            {"type": "integer", "maximum": 9, "exclusiveMaximum": False},
            {"type": "integer", "maximum": 9},
        ),
        ({"type": "string", "example": "x", "xml": {}, "x-more": 1}, {"type": "string"}),
        ({"pattern": "^\\p{L}+$"}, {"pattern": "^\\p{L}+$"}),
        ({"type": "string", "pattern": "^(?!x)"}, {"type": "string"}),
        ({"oneOf": [{"pattern": "^(?!x)"}, {"pattern": "x"}]}, {"anyOf": [{}, {"pattern": "x"}]}),
        ({"not": {"pattern": "^(?!x)"}}, {}),
        ({"type": "string", "pattern": "^(a+)+$"}, {"type": "string", "pattern": "^(a+)+$"}),
        (
            {"patternProperties": {"^(?=x)": {}, "^y": {}}, "additionalProperties": False},
            {"patternProperties": {"^y": {}}},
        ),
        (
            {"patternProperties": {"^y": {}}, "additionalProperties": False},
            {"patternProperties": {"^y": {}}, "additionalProperties": False},
        ),
        ({"type": "file"}, {}),
    ],
    ids=[
        "type",
        "enum",
        "allOf",
        "exclusive",
        "inclusive",
        "extras",
        "pattern",
        "look-ahead",
        "one of two",
        "not",
        "hungry",
        "names",
        "all_names",
        "unknown_type",
    ],
)
def test_dialect_of_3_0(given: Any, wanted: Any) -> None:
    """Becomes that of 2020-12."""
    assert closed(given).schema == wanted


def test_only_the_definitions_that_are_needed_come_along() -> None:
    """A circle among them ends."""
    found = closed(
        {"$ref": "#/components/schemas/A"},
        A={"properties": {"b": {"$ref": "#/components/schemas/B"}}},
        B={"properties": {"a": {"$ref": "#/components/schemas/A"}}},
        C={"type": "string"},
    )
    assert found.schema == {
        "$ref": "#/$defs/A",
        "$defs": {
            "A": {"properties": {"b": {"$ref": "#/$defs/B"}}},
            "B": {"properties": {"a": {"$ref": "#/$defs/A"}}},
        },
    }


def test_read_only_properties_are_not_asked_for() -> None:
    """And write-only ones are not expected."""
    schema = {
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "name": {"type": "string"},
            "password": {"type": "string", "writeOnly": True},
        },
        "required": ["id", "name", "password"],
    }
    asked, told = closed(schema).schema, closed(schema, direction="output").schema
    assert set(asked["properties"]) == {"name", "password"}
    assert asked["required"] == ["name", "password"]
    assert told["required"] == ["id", "name"]


def test_siblings_of_a_reference_count_in_3_1_alone() -> None:
    schema = {"$ref": "#/components/schemas/A", "minLength": 3, "description": "d"}
    new = closed(schema, version="3.1.0", A={"type": "string"}).schema
    old = closed(schema, version="3.0.0", A={"type": "string"}).schema
    assert new["minLength"] == 3
    assert "minLength" not in old


def test_what_is_left_out_is_named() -> None:
    found = closed({"properties": {"a": {"pattern": "["}, "b": {"$ref": "#/nowhere"}}})
    assert found.schema == {"properties": {"a": {}, "b": {}}}
    assert len(found.problems) == 2
    assert "leads nowhere" in found.problems[0]
    assert "'['" in found.problems[1]


def test_patterns_are_left_out_in_definitions_too() -> None:
    """With what refers to them and would refuse more without them."""
    found = closed(
        {"not": {"$ref": "#/components/schemas/Name"}, "items": {"pattern": "a"}},
        Name={"pattern": "(a)\\1"},
    )
    assert found.schema == {"items": {"pattern": "a"}, "$defs": {"Name": {}}}
    assert len(found.problems) == 1 and "linear time" in found.problems[0]


def test_patterns_that_are_too_much_together_are_left_out() -> None:
    """So that the schema still compiles."""
    found = closed({"anyOf": [{"pattern": f"\\w{{200}}{number}"} for number in range(9)]})
    compile_schema(found.schema, "input")
    assert len(found.problems) == 5


def test_a_schema_without_end_is_cut() -> None:
    """Depth and size are bounded, and each definition is rewritten once."""
    deep: Any = {}
    for _ in range(5_000):
        deep = {"not": deep}
    found = closed(deep)
    jsonschema.Draft202012Validator.check_schema(found.schema)
    assert "too deep" in found.problems[0]
    wide = {"anyOf": [{"type": "string"}] * 50_000}
    assert "too large" in closed(wide).problems[0]


def test_too_many_definitions_are_no_schema() -> None:
    many = {f"S{n}": {"not": {"$ref": f"#/components/schemas/S{n + 1}"}} for n in range(4_000)}
    found = closed({"$ref": "#/components/schemas/S0"}, **many)
    assert found.schema == {}
    assert "more than 3,000 definitions" in found.problems[0]
