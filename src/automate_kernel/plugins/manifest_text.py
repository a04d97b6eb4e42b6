"""
The text of a manifest, of which only the beginnings are read until somebody asks for more.

An application that has many plugins lists them by their titles. Nine tenths of a manifest are
schemas, which it needs for the one plugin that it shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

_PLUGINS, _END = b'\n  "plugins": [\n', b"\n    }\n  ]\n}"
_FIRST_LONG = re.compile(rb',\n      "[a-z_]+": [\[{]')
_KIND = b'\n      "kind": "'
_BETWEEN = b"\n    },\n    {"


class PluginDescription(Mapping[str, Any]):
    """The description of one plugin in a manifest. What is long is parsed at its first use."""

    __slots__ = ("_known", "_rest")

    def __init__(self, known: Mapping[str, Any], rest: bytes | None = None) -> None:
        """*known* are the parts that are read, *rest* the text of all of them."""
        self._known = known
        self._rest = rest

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._read()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._read()
        return iter(self._known)

    def __len__(self) -> int:
        self._read()
        return len(self._known)

    def __repr__(self) -> str:
        return f"<PluginDescription {self._known.get('kind')}:{self._known.get('key')}>"

    def _read(self) -> None:
        text = self._rest
        if text is not None:
            self._known = parsed(text)
            self._rest = None


def to_text(manifest: Mapping[str, Any]) -> str:
    """Return the text of a *manifest*. Its layout is what `outlined` goes by."""
    return json.dumps(manifest, indent=2, ensure_ascii=False, default=dict) + "\n"


def parsed(text: bytes) -> Any:
    """Return the value of a JSON *text*."""
    # By pydantic's reader, which takes three quarters of the standard library's time.
    return from_json(text, allow_inf_nan=False)


def outlined(text: bytes) -> dict[str, Any]:
    """
    Return a manifest whose plugins are `PluginDescription`; raises `ValueError` and its like.

    A text that isn't laid out as `to_text` does it, after a change by hand for example, is parsed
    as a whole.
    """
    head, _, plugins = text.rstrip().partition(_PLUGINS + b"    {" + _KIND)
    *others, last = plugins.removesuffix(_END).split(_KIND)
    # In JSON a string has no line break, so that an indentation says where a line belongs.
    if not plugins.endswith(_END) or not all(each.endswith(_BETWEEN) for each in others):
        whole: dict[str, Any] = parsed(text)
        return whole
    entries = [each.removesuffix(_BETWEEN) for each in others] + [last]
    return {**parsed(head.rstrip(b",") + b"}"), "plugins": list(map(_outline, entries))}


def _outline(entry: bytes) -> PluginDescription:
    text = b"{" + _KIND + entry + b"}"
    long = _FIRST_LONG.search(text)
    if long is None:
        return PluginDescription(parsed(text))
    return PluginDescription(parsed(text[: long.start()] + b"}"), text)
