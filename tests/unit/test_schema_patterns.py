"""Regular expressions in JSON Schemas: no text makes one take long, wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest

from automate_kernel.errors import PluginError
from automate_kernel.operations.schemas import compile_schema

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
