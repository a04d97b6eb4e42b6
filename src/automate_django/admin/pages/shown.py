"""Stored values as a page may show them: without secrets, and no longer than a page bears."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from automate_django.kernel import get_kernel
from automate_kernel.secrets.masking import without_secrets

__all__ = ["Shown", "shown_json", "shown_text"]

MOST = 20_000
"""How many characters of one value a page shows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Text for a page; if it was *cut*, *length* is how long the whole is."""

    text: str
    length: int
    cut: bool = False

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


def shown_json(value: Any, most: int = MOST) -> Shown:
    """
    A JSON value, indented.

    What the redactor knows is taken out first, and so is whatever stands under a name like
    ``password`` or ``api_key``: the redactor of this process knows only the secrets that this
    process has used.
    """
    clean = without_secrets(get_kernel().redactor.redact_value(value))
    return _cut(json.dumps(clean, indent=2, ensure_ascii=False), most)


def shown_text(text: str | None, most: int = MOST) -> Shown:
    """An error or a traceback, without what the redactor knows."""
    return _cut(get_kernel().redactor.redact(text or ""), most)


def _cut(text: str, most: int) -> Shown:
    return Shown(text[:most], len(text), len(text) > most)
