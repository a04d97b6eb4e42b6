"""
JSON Schemas without the patterns that can't be used, and never stricter for that.

Schemas go from one program to another: a server's tools to us, our operations to models and MCP
clients. Most clients match patterns as ECMAScript does, pydantic by an engine of its own, others by
Python's. A pattern that one of them can't compile makes a tool unusable there. So those alone stay
that mean the same in all three; text beyond ASCII may differ by what its letters and digits are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from automate_kernel.operations.schemas.patterns import is_pattern

Takes = Callable[[str], bool]
T = TypeVar("T")

# Escapes that mean one character, and the classes that mean the same for ASCII. Python's and
# pydantic's digits and letters are more than ECMAScript's, so their opposites are less: a value
# that the schema allows would be refused. Spaces differ by some control characters alone.
_UNICODE = r"u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4}"
_CHARACTER = rf"""\\(?:[\^\$\\.*+?()\[\]{{}}|/tnrfv] | x[0-9A-Fa-f]{{2}} | {_UNICODE})"""
_PLAIN = r"[^\^$\\.*+?()\[\]{}|\U00010000-\U0010FFFF]"
_IN_CLASS = rf"(?: {_CHARACTER} | \\- | (?!&&|~~|(?<=\[)\^) [^\\\]\[\-\U00010000-\U0010FFFF] )"
_RANGE = rf"{_IN_CLASS} (?: - {_IN_CLASS} )?"
_CLASS = rf"""
    \[ (?: -? (?: {_RANGE} | \\[dwsS] (?!-[^\]]) )+ -?
         | \^ -? (?: {_RANGE} | \\[sS] (?!-[^\]]) )+ -? ) \]
"""
_PORTABLE = re.compile(
    rf"""
    (?: (?: {_CLASS} | {_CHARACTER} | \\[dwsS] | {_PLAIN} | \. | \) )
            (?: (?: [*+?] | \{{ [0-9]{{1,9}} (?: , (?:[0-9]{{1,9}})? )? \}} ) \?? )?
      | \( (?: \?: )? (?! [?*+{{] )
      | [\^$|] (?! [?*+{{] )
    )*
    """,
    re.VERBOSE,
)
# The words of JSON Schema whose values are schemas by names of the author's, and those with data.
_NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
_DATA = frozenset({"const", "enum", "default", "examples"})
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


def is_portable(pattern: str, takes: Takes = is_pattern) -> bool:
    """
    Return True if *pattern* means the same to ECMAScript, Python and pydantic's engine.

    *takes* is asked last: is it a pattern at all, in linear time?
    """
    return _PORTABLE.fullmatch(pattern) is not None and takes(pattern)


def portable(schema: T) -> T:
    """Return *schema* with the patterns alone that mean the same everywhere."""
    return without_patterns(schema, is_portable)


def without_patterns(schema: T, takes: Takes) -> T:
    """
    Return *schema* with the patterns alone that *takes* returns True for.

    It allows all that *schema* allows. So a word that turns its schema round, such as ``not``, goes
    with a pattern in it; so do the words for fields that no pattern fits, when a pattern of names
    has gone.
    """
    leaving = _Leaving(takes)
    if not leaving.concerns(schema, references=False):
        return schema
    less: T = leaving.without(schema)
    return less


class _Leaving:
    """The patterns that leave one schema."""

    def __init__(self, takes: Takes) -> None:
        self._takes = takes

    def concerns(self, schema: Any, *, references: bool = True) -> bool:
        """Return True if a pattern in *schema* leaves, or may do so where it refers to."""
        if isinstance(schema, list):
            return any(self.concerns(each, references=references) for each in schema)
        if not isinstance(schema, Mapping):
            return False
        if references and not _REFERENCES.isdisjoint(schema):
            return True
        if self._leaves(schema):
            return True
        return any(
            self.concerns(inner, references=references)
            for word, value in schema.items()
            if word not in _DATA
            for inner in (value.values() if _is_named(word, value) else [value])
        )

    def _leaves(self, schema: Mapping[str, Any]) -> bool:
        pattern, names = schema.get("pattern"), schema.get("patternProperties")
        return (isinstance(pattern, str) and not self._takes(pattern)) or (
            isinstance(names, Mapping) and not all(map(self._takes, names))
        )

    def without(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.without(each) for each in schema]
        if not isinstance(schema, Mapping):
            return schema
        left_out, more = self._left_out(schema), {}
        if "oneOf" in left_out:
            # Two that differed by their patterns would now both fit.
            more = {"anyOf": [self.without(each) for each in schema["oneOf"]]}
            if "anyOf" in schema:
                more = {"allOf": [*self.without(schema.get("allOf", [])), more]}
                left_out.add("allOf")
        kept: dict[str, Any] = {}
        for word, value in schema.items():
            if word in left_out:
                continue
            if _is_named(word, value):
                kept[word] = {
                    name: self.without(inner)
                    for name, inner in value.items()
                    if word != "patternProperties" or self._takes(name)
                }
            else:
                kept[word] = value if word in _DATA else self.without(value)
        return {**kept, **more}

    def _left_out(self, schema: Mapping[str, Any]) -> set[str]:
        """Return the words of *schema* that go."""
        # What it is about is what the patterns anywhere leave over.
        left_out = {"unevaluatedProperties", "unevaluatedItems"}
        if isinstance(schema.get("pattern"), str) and not self._takes(schema["pattern"]):
            left_out.add("pattern")
        names = schema.get("patternProperties")
        if isinstance(names, Mapping) and not all(map(self._takes, names)):
            left_out.add("additionalProperties")
        if self.concerns(schema.get("not")):
            left_out.add("not")
        if self.concerns(schema.get("if")):
            left_out |= {"if", "then", "else"}
        if self.concerns(schema.get("contains")):
            left_out.add("maxContains")
        if isinstance(schema.get("oneOf"), list) and self.concerns(schema["oneOf"]):
            left_out.add("oneOf")
        return left_out


def _is_named(word: str, value: Any) -> bool:
    return word in _NAMED_SCHEMAS and isinstance(value, Mapping)
