"""An OpenAPI document: parsed, and with its references resolved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import yaml

from automate_kernel.base.errors import ConfigError
from automate_kernel.storage.values import read_json
from automate_openapi.pointers import value_at

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_DEEPEST, _LONGEST_CHAIN, _MOST_NODES = 200, 50, 5_000_000


class BrokenReferenceError(Exception):
    """A reference that leads nowhere, in a circle, or to where it may not."""


class ApiDocument:
    """
    The *content* of a document that was read from *place*, a file or URL.

    *others* are the documents that it refers to, by their places. Raises `ConfigError` for content
    that is no OpenAPI 3 document.
    """

    def __init__(self, content: Any, place: str, others: Mapping[str, Any] | None = None) -> None:
        self.content: Mapping[str, Any] = _checked(content, place)
        self.place = place
        self._roots: dict[str, Any] = {**(others or {}), place: self.content}
        self.old = str(self.content["openapi"]).startswith("3.0")
        """True for version 3.0, whose schemas are a dialect of their own."""

    @property
    def title(self) -> str:
        """The service's name and version, for people."""
        info = mapping(self.content.get("info"))
        return f"{info.get('title', 'a service')} {info.get('version', '')}".strip()[:200]

    def absolute(self, reference: Any, base: str) -> str:
        """Return *reference* with the document that it is in. Raises `BrokenReferenceError`."""
        if not isinstance(reference, str) or len(reference) > 1_000:
            raise BrokenReferenceError("a $ref is no text")
        place, _, pointer = reference.partition("#")
        try:
            found = urljoin(base, place) if place else base
        except ValueError:
            raise BrokenReferenceError(f"$ref {reference[:100]!r} is no address") from None
        if found not in self._roots:
            raise BrokenReferenceError(
                f"$ref {reference[:100]!r} leads to another document: bundle them into one, or "
                "set external_refs"
            )
        return f"{found}#{pointer}"

    def at(self, absolute: str) -> Any:
        """Return what an `absolute` reference leads to. Raises `BrokenReferenceError`."""
        place, _, pointer = absolute.rpartition("#")
        try:
            return value_at(self._roots[place], pointer)
        except LookupError:
            raise BrokenReferenceError(f"$ref {'#' + pointer[:100]!r} leads nowhere") from None

    def resolved(self, node: Any, base: str) -> tuple[Mapping[str, Any], str]:
        """
        Follow the references of a parameter, a response and the like.

        Returns the object and the document that it is in, by its place. Raises
        `BrokenReferenceError`.
        """
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(node, Mapping):
                raise BrokenReferenceError("something is no object")
            if "$ref" not in node:
                return node, base
            absolute = self.absolute(node["$ref"], base)
            node, base = self.at(absolute), absolute.rpartition("#")[0]
        raise BrokenReferenceError("a $ref leads in a circle")

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any], str]]:
        """Yield the path, the method, the operation, its path's item and the item's document."""
        for path, given in mapping(self.content.get("paths")).items():
            if not path.startswith("/"):
                continue
            try:
                item, base = self.resolved(given, self.place)
            except BrokenReferenceError:
                continue
            for method in METHODS:
                if isinstance(item.get(method), Mapping):
                    yield path, method, item[method], item, base


def mapping(value: Any) -> Mapping[str, Any]:
    """Return *value* if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def shown(place: str) -> str:
    """Return *place* for messages: of a URL without its query, which may hold a token."""
    return repr(place.partition("?")[0] if is_url(place) else place)


def is_url(place: str) -> bool:
    """Return True if a document's *place* is a URL, and no file."""
    return urlsplit(place).scheme in ("http", "https")


def parse(text: bytes, place: str) -> Any:
    """Parse JSON or YAML, within bounds. Raises `ConfigError`."""
    try:
        words = text.decode("utf-8-sig")
        if words.lstrip()[:1] == "{":
            return read_json(words)
        found = yaml.load(words, Loader=_loader())  # noqa: S506 - a safe loader
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        line = error.lineno if isinstance(error, json.JSONDecodeError) else line and line + 1
        where = f", line {line}" if line else ""
        raise ConfigError(f"the document {shown(place)} is no valid JSON or YAML{where}") from None
    _check_size(found, place)
    return found


def references(content: Any) -> Iterator[str]:
    """Yield the references of a document that lead to others."""
    waiting, seen = [content], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (Mapping, list)) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            reference = node.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                yield reference
        waiting.extend(node.values() if isinstance(node, Mapping) else node)


def _checked(content: Any, place: str) -> Mapping[str, Any]:
    version = str(mapping(content).get("openapi", ""))
    if version.startswith(("3.0", "3.1")):
        return mapping(content)
    if "swagger" in mapping(content):
        problem, hint = "is of Swagger 2.0", "convert it to OpenAPI 3, with swagger2openapi, say"
    else:
        problem, hint = "is no OpenAPI document of version 3.0 or 3.1", "see its field 'openapi'"
    raise ConfigError(f"the document {shown(place)} {problem}", hint=hint)


def _check_size(content: Any, place: str) -> None:
    """Refuse YAML whose aliases unfold to far more than was read, and nesting without end."""
    waiting, nodes = [(content, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if depth > _DEEPEST or nodes > _MOST_NODES:
            raise ConfigError(
                f"the document {shown(place)} is too deep or, with its aliases, too large"
            )
        if isinstance(node, (dict, list)):
            children = node.values() if isinstance(node, dict) else node
            waiting.extend((child, depth + 1) for child in children)


# Plain scalars are read as JSON has them: no dates, no sexagesimal numbers, and "no" is a country.
_SCALARS = (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]{0,4000})$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?$", list("-0123456789")),
)


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Return PyYAML's safe loader, which reads what JSON has, with text for keys."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class JsonInYaml(base):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def construct(loader: Any, node: Any) -> Iterator[dict[str, Any]]:
        found: dict[str, Any] = {}
        yield found
        for key, value in node.value:
            # As it is written: 200 among responses. A merge of merges could grow without bounds.
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is no text, or <<", key.start_mark
                )
            found[key.value] = loader.construct_object(value)

    JsonInYaml.add_constructor("tag:yaml.org,2002:map", construct)
    for name, pattern, first in _SCALARS:
        JsonInYaml.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(pattern), first)
    return JsonInYaml
