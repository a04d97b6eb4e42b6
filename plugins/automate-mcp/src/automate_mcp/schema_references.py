"""The references in a schema of a stranger: each must lead somewhere, and in no circle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

# What is checked at the same value: a circle of these has no end.
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
# What holds values and no schemas, where "$ref" is a word like any other.
_VALUES = frozenset({"const", "enum", "default", "examples"})
# Schemas by names of their own, where "enum" is a name like any other.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def check_references(schema: Mapping[str, Any]) -> None:
    """
    Raise `ValueError` if a reference in *schema* leads nowhere, out of it, or back to itself.

    It would be met only by the call whose input gets there. References by ``$id`` and anchors are
    left to that call: few write them.
    """
    nodes = list(_schemas(schema))
    if any("$id" in node or "$anchor" in node or "$dynamicAnchor" in node for node in nodes):
        return
    targets = {id(node): _target(schema, node["$ref"]) for node in nodes if "$ref" in node}
    ended: set[int] = set()
    for node in nodes:
        _descend(node, targets, set(), ended)


def _target(root: Mapping[str, Any], reference: Any) -> Any:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise ValueError("a reference leads out of it")
    found: Any = root
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name) if isinstance(found, list) else name]
        except (LookupError, TypeError, ValueError):
            raise ValueError("a reference leads nowhere") from None
    return found


def _descend(node: Any, targets: Mapping[int, Any], above: set[int], ended: set[int]) -> None:
    if not isinstance(node, Mapping) or id(node) in ended:
        return
    if id(node) in above:
        raise ValueError("a reference leads in a circle")
    above.add(id(node))
    for each in _in_place(node, targets):
        _descend(each, targets, above, ended)
    above.discard(id(node))
    ended.add(id(node))


def _in_place(node: Mapping[str, Any], targets: Mapping[int, Any]) -> Iterator[Any]:
    if id(node) in targets:
        yield targets[id(node)]
    for name in _IN_PLACE_LISTS:
        found = node.get(name)
        yield from found if isinstance(found, list) else ()
    for name in _IN_PLACE:
        yield node.get(name)


def _schemas(value: Any, *, named: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in *value* that are schemas; *named* holds them by names of their own."""
    if isinstance(value, list):
        for each in value:
            yield from _schemas(each)
    elif isinstance(value, Mapping):
        if not named:
            yield value
        for name, each in value.items():
            if named or name not in _VALUES:
                yield from _schemas(each, named=not named and name in _NAMED)
