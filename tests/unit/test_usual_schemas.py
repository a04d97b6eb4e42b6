"""Schemas that are valid at a glance: what is taken for one is valid for the library too."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from automate_kernel.base.errors import PluginError
from automate_kernel.operations.schemas.checks import compile_schema
from automate_kernel.operations.schemas.usual import is_surely_valid
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

DRAFTS = (
    jsonschema.Draft7Validator,
    jsonschema.Draft201909Validator,
    jsonschema.Draft202012Validator,
)
KEYWORDS = [
    "type", "required", "default", "const", "enum", "examples", "$ref", "$schema", "title",
    "description", "format", "minLength", "maxItems", "minimum", "exclusiveMaximum", "uniqueItems",
    "readOnly", "items", "additionalProperties", "not", "contains", "propertyNames", "properties",
    "$defs", "definitions", "allOf", "anyOf", "oneOf", "pattern", "$id", "multipleOf", "x-own",
    "dependentRequired", "if", "minProperties",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.floats(allow_nan=False),
    st.sampled_from(["string", "object", "a", "", "null"]),
    st.lists(st.sampled_from(["string", "null", "a"]), max_size=3),
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4), st.lists(inner, max_size=2)
    ),
    max_leaves=12,
)


@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), SCHEMAS, max_size=5))
@settings(max_examples=examples(400, 100), deadline=None)
def test_none_is_taken_that_the_library_refuses(schema: dict[str, Any]) -> None:
    for draft in DRAFTS:
        if is_surely_valid(draft.__name__, schema):
            draft.check_schema(schema)


USUAL = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "Order",
    "properties": {
        "sku": {"type": "string", "minLength": 1, "description": "The article."},
        "count": {"type": ["integer", "null"], "minimum": 1, "default": 1},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "uniqueItems": True},
        "how": {"anyOf": [{"enum": ["fast", "slow"]}, {"type": "null"}], "x-own": {"a": 1}},
    },
    "required": ["sku"],
    "additionalProperties": False,
    "$defs": {"Tag": {"type": "string", "maxLength": 9}},
}


def test_a_usual_schema_is_valid_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of thousands of tools it took a millisecond and more."""

    def refused(*given: Any, **options: Any) -> None:
        raise AssertionError("the schema was looked at by the library")

    monkeypatch.setattr(jsonschema.Draft202012Validator, "check_schema", refused)
    check = compile_schema(USUAL, "x")
    assert check({"sku": "A", "count": None, "tags": ["a"]}) == []
    assert [each.message for each in check({"count": 0, "more": 1})] != []


@pytest.mark.parametrize(
    "wrong", [{"type": "text"}, {"required": "sku"}, {"properties": []}, {"anyOf": []}]
)
def test_a_wrong_one_is_still_told(wrong: dict[str, Any]) -> None:
    schema = copy.deepcopy(USUAL)
    schema["properties"]["sku"] = wrong  # type: ignore[index]
    with pytest.raises(PluginError, match="the JSON Schema for x is wrong at properties"):
        compile_schema(schema, "x")
