"""
``$secret:KEY`` and ``$env:NAME`` in the author's text.

Only the text that the author wrote is read for these. What a template renders to is never read
again, so an event's payload with ``$secret:KEY`` in it stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from automate_kernel.errors import TemplateError

__all__ = ["EnvMark", "SecretMark", "has_mark", "split"]

_MARK = re.compile(
    r"""\$\$(?P<escaped>(?:secret|env):)
    | \$secret:(?:\{(?P<braced>[^{}]+)\}|(?P<key>[A-Za-z0-9_]+(?:[-./][A-Za-z0-9_]+)*))?
    | \$env:(?:\{(?P<variable>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<name>[A-Za-z_][A-Za-z0-9_]*))?
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class SecretMark:
    """``$secret:KEY``, or ``$secret:{KEY}`` for a key with other characters."""

    key: str


@dataclass(frozen=True, slots=True)
class EnvMark:
    """``$env:NAME`` or ``$env:{NAME}``."""

    name: str


def has_mark(text: str) -> bool:
    """Whether *text* refers to a secret or an environment variable."""
    return any(not match["escaped"] for match in _MARK.finditer(text))


def split(text: str) -> list[str | SecretMark | EnvMark]:
    """
    *text* in pieces: plain text, and the marks between.

    A bare key has letters, digits and underscores, with single ``-``, ``.`` or ``/`` between
    them. ``$$secret:`` and ``$$env:`` stand for the text with one ``$``.
    """
    pieces: list[str | SecretMark | EnvMark] = []
    position = 0
    for match in _MARK.finditer(text):
        plain = text[position : match.start()]
        position = match.end()
        if match["escaped"]:
            _add(pieces, f"{plain}${match['escaped']}")
            continue
        _add(pieces, plain)
        pieces.append(_mark(match))
    _add(pieces, text[position:])
    return pieces


def _add(pieces: list[str | SecretMark | EnvMark], plain: str) -> None:
    if pieces and isinstance(pieces[-1], str):
        pieces[-1] += plain
    elif plain:
        pieces.append(plain)


def _mark(match: re.Match[str]) -> SecretMark | EnvMark:
    if key := match["braced"] or match["key"]:
        return SecretMark(key)
    if name := match["variable"] or match["name"]:
        return EnvMark(name)
    mark = match.group()
    hint = f"write {mark}NAME, or ${mark} for the text itself"
    raise TemplateError(f"{mark} has no literal name after it", hint=hint)
