"""Checks by JSON Schemas end in time: whatever the schema, and whatever the data."""

from __future__ import annotations

from typing import Any

import pytest

from automate_kernel.base.errors import PluginError
from automate_kernel.operations.schemas.checks import compile_schema

BAD = "^(a+)+$"
TEXT = "a" * 100_000 + "b"
DRAFT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "data", "problems"),
    [
        ({"properties": {"x": {"pattern": BAD}}}, {"x": TEXT}, ["x: does not satisfy pattern"]),
        ({"patternProperties": {BAD: False}}, {TEXT: 1}, []),
        (
            {"patternProperties": {BAD: True}, "additionalProperties": False},
            {TEXT: 1},
            [f"'{TEXT}' is unknown"],
        ),
        (
            {"patternProperties": {BAD: True}, "additionalProperties": {"type": "null"}},
            {TEXT: 1},
            [f"{TEXT}: must be null"],
        ),
        ({"propertyNames": {"pattern": BAD}}, {TEXT: 1}, ["does not satisfy pattern"]),
        (
            {"properties": {"x": {"$schema": DRAFT, "items": {"pattern": BAD}}}},
            {"x": [TEXT]},
            ["x.0: does not satisfy pattern"],
        ),
        (
            {"$schema": DRAFT, "properties": {"x": {"$ref": "#"}}, "pattern": BAD},
            {"x": TEXT},
            ["x: does not satisfy pattern"],
        ),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "contains": {"pattern": BAD}},
            [TEXT],
            ["does not satisfy contains"],
        ),
    ],
    ids=[
        "property", "names", "unknown names", "other names", "propertyNames", "draft within",
        "draft again", "older draft",
    ],
)  # fmt: skip
def test_a_pattern_takes_no_longer_than_its_text(
    schema: dict[str, Any], data: Any, problems: list[str]
) -> None:
    """Python's own engine would be at it for longer than the world is old."""
    found = [str(each) for each in compile_schema(schema, "input")(data)]
    assert len(found) == len(problems)
    assert all(text.startswith(start) for text, start in zip(found, problems, strict=True))


@pytest.mark.parametrize("pattern", ["^(?!x)", "(a)\\1", "(?<=a)b", "(", "a" * 2_001, "\\w{9999}"])
def test_a_pattern_that_is_not_linear_is_refused_where_it_stands(pattern: str) -> None:
    """When the schema is compiled, and not when some text comes."""
    for schema in (
        {"properties": {"x": {"pattern": pattern}}},
        {"properties": {"x": {"patternProperties": {pattern: True}}}},
    ):
        with pytest.raises(PluginError, match=r"is wrong at properties\.x") as caught:
            compile_schema(schema, "input")
        assert "linear time" in str(caught.value.hint)


@pytest.mark.parametrize("draft", ["03", "04", "06", "07"])
def test_a_pattern_of_names_is_refused_in_old_drafts_too(draft: str) -> None:
    """Some of them say nothing of the form of those."""
    schema = {
        "$schema": f"http://json-schema.org/draft-{draft}/schema#",
        "properties": {"x": {"patternProperties": {"(a)\\1": {}}}},
    }
    with pytest.raises(PluginError, match=r"is wrong at .*patternProperties") as caught:
        compile_schema(schema, "input")
    assert "linear time" in str(caught.value.hint)


def test_patterns_mean_what_they_do_in_json_schema() -> None:
    """They are found anywhere in a text; the end is the end, and no line break before it."""
    check = compile_schema({"pattern": "b$"}, "input")
    assert check("ab") == [] and check(7) == []
    assert check("ab\n") and check("bc") and check("\ud800")


def test_names_that_no_pattern_can_account_for_in_time_are_refused() -> None:
    """The library would match them itself."""
    schema = {"patternProperties": {"^x": True}, "unevaluatedProperties": False}
    with pytest.raises(PluginError, match="unevaluatedProperties beside patternProperties"):
        compile_schema(schema, "input")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "schema",
    [
        {
            "$ref": "#/$defs/a0",
            "$defs": {
                **{f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)},
                "a60": {"type": "null"},
            },
        },
        {"$ref": "#"},
    ],
    ids=["doubling", "circle"],
)
def test_references_that_never_end_are_an_error(schema: dict[str, Any]) -> None:
    """Sixty of them, of which each refers twice to the next one, are as good as endless."""
    with pytest.raises(PluginError, match="takes too many steps"):
        compile_schema(schema, "input")(1)


@pytest.mark.timeout(60)
def test_whether_many_elements_are_unique_is_found_in_linear_time() -> None:
    """Objects can't be sorted; comparing each with each other takes minutes for some thousands."""
    check = compile_schema({"uniqueItems": True}, "input")
    many = [{"number": number, "tags": [number]} for number in range(20_000)]
    assert check(many) == []
    assert [str(each) for each in check([*many, dict(many[7])])] == [
        "does not satisfy uniqueItems True"
    ]


@pytest.mark.parametrize(
    ("data", "unique"),
    [
        ([1, True], True), ([0, False], True), ([1, 1.0], False), (["1", 1], True),
        ([[1], [True]], True), ([{"a": 1}, {"a": 1.0}], False), ([{"a": 1}, {"b": 1}], True),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False), ([[], {}], True), ([None, None], False),
        ([2**64, float(2**64)], False), ("aa", True),
    ],
)  # fmt: skip
def test_elements_are_unique_as_json_has_it(data: Any, unique: bool) -> None:
    """A number is one however it is written, and true is none."""
    assert (compile_schema({"uniqueItems": True}, "input")(data) == []) is unique


def test_large_data_has_the_steps_that_it_needs() -> None:
    """They grow with it."""
    lines = {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "integer"}] * 4}}
    assert compile_schema(lines, "input")(list(range(40_000))) == []
