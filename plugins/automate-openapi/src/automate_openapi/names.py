"""The names of actions: from a document's operation ids, or methods and paths."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.operations.spec import NAME_PATTERN
from automate_openapi.config import OpenApiConfig
from automate_openapi.document import ApiDocument

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_MARKS = re.compile(r"[-_.]+")
_LONGEST = 120


@dataclass(frozen=True, slots=True)
class OperationPlace:
    """An operation's place in the document."""

    path: str
    method: str
    operation: Mapping[str, Any] = field(repr=False)
    item: Mapping[str, Any] = field(repr=False)
    base: str
    """The document that it is in."""


def places(document: ApiDocument, config: OpenApiConfig) -> dict[str, OperationPlace]:
    """
    Return the places of the wanted actions by their names.

    Names that two operations would have end with a digest of method and path, each of them:
    so none takes over another's name when operations come, go or move.
    """
    found = [OperationPlace(*each) for each in document.operations()]
    names = [action_name(place) for place in found]
    claims = Counter(names)
    named = {
        name if claims[name] == 1 else f"{name}_{_digest(place)}": place
        for name, place in zip(names, found, strict=True)
    }
    return {name: place for name, place in named.items() if _is_wanted(name, place, config)}


def action_name(place: OperationPlace) -> str:
    """Return the name for an operation: its id, made fit."""
    given = place.operation.get("operationId")
    if not isinstance(given, str) or not given.strip():
        words = re.sub(r"[{}]", "", place.path).replace("/", "_").strip("_")
        given = f"{place.method}_{words}" if words else place.method
    # GitHub's issues/create becomes issues.create: workflows have names between dots.
    name = _UNFIT.sub("_", given.strip().replace("/", "."))
    name = _MARKS.sub(lambda found: "." if "." in found[0] else found[0], name)
    name = name[:_LONGEST].strip(".-_") or place.method
    return name if NAME_PATTERN.fullmatch(name) else f"{place.method}_{_digest(place)}"


def _digest(place: OperationPlace) -> str:
    text = f"{place.method} {place.path}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _is_wanted(name: str, place: OperationPlace, config: OpenApiConfig) -> bool:
    tags = place.operation.get("tags")
    own = {each for each in tags if isinstance(each, str)} if isinstance(tags, list) else set()
    return (
        (config.tags is None or not own.isdisjoint(config.tags))
        and any(fnmatchcase(name, pattern) for pattern in config.actions)
        and not any(fnmatchcase(name, pattern) for pattern in config.exclude)
    )
