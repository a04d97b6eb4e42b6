"""
References in the author's text: ``$secret:KEY`` or ``$secret:{KEY}``, and ``$env:NAME``.

Only the author's own text is read for them. The result of a template is never read again, so
``$secret:KEY`` in an event's payload stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from automate_kernel.base.errors import TemplateError
from automate_kernel.secrets.handles import SecretRef

_REFERENCE = re.compile(
    r"""\$\$(?P<escaped>(?:secret|env):)
    | \$secret:(?:\{(?P<braced>[^{}]+)\}|(?P<key>[A-Za-z0-9_]+(?:[-./\#][A-Za-z0-9_]+)*))?
    | \$env:(?:\{(?P<variable>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<name>[A-Za-z_][A-Za-z0-9_]*))?
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class EnvReference:
    """``$env:NAME`` or ``$env:{NAME}``."""

    name: str


Piece = str | SecretRef | EnvReference


def has_reference(text: str) -> bool:
    """Return True if *text* refers to a secret or an environment variable."""
    return any(not match["escaped"] for match in _REFERENCE.finditer(text))


def split(text: str) -> list[Piece]:
    """
    Split *text* into plain text and references.

    A bare key has letters, digits and underscores, with single ``-``, ``.``, ``/`` or ``#`` between
    them, as in ``app/database#password``. ``$$secret:`` and ``$$env:`` stand for the text with
    one ``$``.
    """
    pieces: list[Piece] = []
    position = 0
    for match in _REFERENCE.finditer(text):
        plain = text[position : match.start()]
        position = match.end()
        if match["escaped"]:
            _add(pieces, f"{plain}${match['escaped']}")
            continue
        _add(pieces, plain)
        pieces.append(_reference(match))
    _add(pieces, text[position:])
    return pieces


def _add(pieces: list[Piece], plain: str) -> None:
    if pieces and isinstance(pieces[-1], str):
        pieces[-1] += plain
    elif plain:
        pieces.append(plain)


def _reference(match: re.Match[str]) -> SecretRef | EnvReference:
    if key := match["braced"] or match["key"]:
        return SecretRef(key)
    if name := match["variable"] or match["name"]:
        return EnvReference(name)
    start = match.group()
    hint = f"write {start}NAME, or ${start} for the text itself"
    raise TemplateError(f"{start} has no literal name after it", hint=hint)
