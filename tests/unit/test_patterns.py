"""Patterns of strangers cost little, and those that go to others mean the same there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from automate_kernel.base.errors import PluginError
from automate_kernel.operations.schemas import patterns
from automate_kernel.operations.schemas.patterns import (
    PatternBudget,
    find_pattern,
    is_pattern,
    weigh,
)
from automate_kernel.operations.schemas.portable import (
    is_portable,
    portable,
    without_patterns,
)
from automate_kernel.operations.schemas.checks import compile_schema

ATOMS = [
    r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[^a]", "[a-z]", "a", "é", "[é-ü]", r"[\w-]",
    r"[\s\S]", r"[\w\W]", r"[^\w]", r"\p{L}", r"\pN", "(?:ab)", "(a|b)", "(?i:k)", "x?", "(?:y*)",
    r"[\x{80}-\x{10ffff}]", "[]a]", "[[:alpha:]]", r"(?:\w-)", r"[\w&&a]", r"(?:\d|\w)",
]  # fmt: skip
TIMES = [1, 20, 150, 200, 220, 250, 400, 2_000, 12_000, 30_000, 150_000]
PARTS = st.lists(
    st.builds(
        str.format,
        st.sampled_from(["{0}{{{1}}}", "{0}{{1,{1}}}", "(?:{0}x{{{1}}}){{30}}", "{0}+"]),
        st.sampled_from(ATOMS),
        st.sampled_from(TIMES),
    ),
    min_size=1,
    max_size=3,
)


def is_too_large(pattern: str) -> bool:
    """Ask the engine itself."""
    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        return "size limit" in str(error)
    return False


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The patterns of which an automaton is built."""
    real, seen = patterns._built, list[str]()

    def build(pattern: str) -> Callable[[str], bool] | None:
        seen.append(pattern)
        return real(pattern)

    monkeypatch.setattr(patterns, "_built", build)
    return seen


@settings(max_examples=40)
@example(["[^a]{2000}", "[^a]{2000}"], "")
@example([r"(?:\wx{2000}){30}"] * 2, "")
@example(["[[:alpha:]]{1,30000}"] * 3, "")
@given(PARTS, st.sampled_from(["", "|"]))
def test_what_the_engine_takes_is_between_the_weights(parts: list[str], joined: str) -> None:
    """A pattern whose least weight is too much is refused unseen."""
    pattern = joined.join(parts)
    least, most = weigh(pattern)
    if is_too_large(pattern):
        assert most > 9 * 2**20
    else:
        assert least < 11 * 2**20


@pytest.mark.parametrize("pattern", [r"\w{1000}", r"^[\w-]{1,255}$", r"(\w{1000}){1000}"])
def test_a_pattern_that_is_too_large_is_refused_unseen(pattern: str, built: list[str]) -> None:
    """The engine builds ten megabytes of it before it gives up."""
    for number in range(20):
        assert not is_pattern(f"{pattern}{number}")
    assert built == []


def test_a_pattern_that_is_refused_is_not_built_again(built: list[str]) -> None:
    """A document may have it in each of its thousand schemas."""
    pattern = r"\p{L}{1000}x"
    assert not any(is_pattern(pattern) for _ in range(100))
    assert built == [pattern]


def test_many_large_patterns_are_too_much_for_one_schema() -> None:
    """Each alone is fine. Their matchers would take the memory of the machine."""
    large = [rf"\w{{200}}{number}" for number in range(10)]
    budget = PatternBudget()
    assert [budget.takes(each) for each in large] == [True] * 4 + [False] * 6
    assert budget.takes(large[0])  # what it has costs nothing more
    with pytest.raises(PluginError, match="is wrong at") as caught:
        compile_schema({"anyOf": [{"pattern": each} for each in large]}, "input")
    assert "all of a schema's patterns" in str(caught.value.hint)


def test_many_small_patterns_are_no_matter() -> None:
    names = {f"^[a-z_]{{1,64}}-{number}$": {"type": "null"} for number in range(500)}
    check = compile_schema({"patternProperties": names, "additionalProperties": False}, "input")
    assert check({"abc-499": None}) == []
    assert len(check({"abc-499": 1, "abc-500": None})) == 2


SAME = [
    "", "^a", r"^\d{4}-\d{2}$", "^[a-z][a-z0-9_]*$", "^(?:a|b)+?$", r"^[^\s@]+@[^\s@]+$", r"\S",
    r"^[\w-]+$", "[!-~]", r"\u00e9", r"[a\-z]", "[-a]", "[a-]", "^.{1,5}$", "a{2,}?", "(a)(b)|",
    "[a&]", r"[\]a]", "[a^]", r"\/\.\}",
]  # fmt: skip
OTHERS = [
    "(?i)a", "(?P<n>a)", r"\Aa", r"a\Z", r"a\z", r"\p{L}", r"\bx", r"\W", r"[^\w]", r"\D", "(?=a)",
    r"(a)\1", "[[]", "[a&&b]", "[a~~b]", "[a--b]", "[[:alpha:]]", "[]", "[]a]", "[^]", r"a\-b",
    r"\ud83d\ude00", "😀", r"\u{41}", r"\x{41}", "a++", "a**", "^*", "a{,3}", "{", "}", "]", r"\0",
    r"\cA", r"\a", r"[\b]", r"[\w-z]", r"[a-\d]", "[z-a]", "(", "(?#x)", "a{1}{2}", r"\w{1000}",
]  # fmt: skip


def test_a_pattern_stays_if_all_engines_read_it_alike() -> None:
    """Found by 4,000 patterns of these parts, in V8 with and without its flag ``u``."""
    assert [each for each in SAME if not is_portable(each)] == []
    assert [each for each in OTHERS if is_portable(each)] == []


BITS = [
    "a", "b", "-", "!", "~", "&", "[", "]", "{", "}", "(", ")", "(?:", "|", "^", "$", ".", "*", "+",
    "?", "{2}", "{,2}", "{2,}", r"\d", r"\w", r"\s", r"\S", r"\W", r"\b", r"\.", r"\-", r"\x41",
    "a-c", "[a", "[^", "0", "_", "#", " ", r"\\", "(?", "<", "=", r"\1", r"\a", "\\",
]  # fmt: skip


@given(st.lists(st.sampled_from(BITS), max_size=7), st.text("ab-!~&A0_# \\9.[]{}()^$", max_size=6))
def test_what_stays_means_the_same_to_python(bits: list[str], text: str) -> None:
    pattern = "".join(bits)
    if is_portable(pattern):
        assert find_pattern(pattern, text) == (re.search(pattern, text) is not None)


def test_a_schema_keeps_the_patterns_that_mean_the_same() -> None:
    """A field may be called so, and data may look so."""
    schema = {
        "properties": {
            "pattern": {"type": "string", "pattern": r"(?i)^a"},
            "kind": {"enum": [{"pattern": r"\Ax"}], "default": {"pattern": r"\Ax"}},
            "code": {"pattern": r"^\d{4}$"},
        },
        "required": ["pattern"],
        "additionalProperties": {
            "patternProperties": {r"\Aa": {}, "^b": {"pattern": "b$"}},
            "additionalProperties": False,
        },
        "$defs": {"patternProperties": {"items": {"pattern": r"\Ax"}}},
    }
    assert portable(schema) == {
        "properties": {
            "pattern": {"type": "string"},
            "kind": {"enum": [{"pattern": r"\Ax"}], "default": {"pattern": r"\Ax"}},
            "code": {"pattern": r"^\d{4}$"},
        },
        "required": ["pattern"],
        "additionalProperties": {"patternProperties": {"^b": {"pattern": "b$"}}},
        "$defs": {"patternProperties": {"items": {}}},
    }


X, Y = {"pattern": "(?:x)"}, {"pattern": "(?:y)"}
DEFS = {"$defs": {"x": X}}


@pytest.mark.parametrize(
    "schema",
    [
        {"not": X},
        {"not": {"$ref": "#/$defs/x"}, **DEFS},
        {"oneOf": [X, Y]},
        {"oneOf": [X, Y], "anyOf": [{"type": "string"}], "allOf": [{"minLength": 1}]},
        {"if": X, "then": {"maxLength": 1}},
        {"if": X, "else": {"maxLength": 1}},
        {"contains": X, "maxContains": 1},
        {"allOf": [{"patternProperties": {"(?:x)": {}}}], "unevaluatedProperties": False},
        {"patternProperties": {"(?:x)": {"type": "null"}}, "additionalProperties": False},
        {"dependentSchemas": {"x": {"not": {"required": ["y"]}, "propertyNames": X}}},
    ],
)
@pytest.mark.parametrize(
    "value",
    ["x", "y", "xx", "yy", "yx", "", ["x"], ["y", "x"], {"x": None}, {"y": 1}, {"z": 1}, {}],
)
def test_a_schema_is_never_stricter_without_a_pattern(schema: dict[str, Any], value: Any) -> None:
    """What its own program takes must not be refused before it gets there."""
    less = without_patterns(schema, lambda pattern: False)
    assert "(?:" not in str(less)
    if Draft202012Validator(schema).is_valid(value):
        assert Draft202012Validator(less).is_valid(value)


def test_a_schema_whose_patterns_all_stay_is_as_it_was() -> None:
    schema = {"oneOf": [{"pattern": "^a"}, {"not": {"pattern": "^b"}}], "unevaluatedItems": False}
    assert portable(schema) == schema
