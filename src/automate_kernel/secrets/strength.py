"""The strength of a secret: a value that stands in every text can't be hidden."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Strength", "strength_of", "weakness_of"]

Strength = Literal["none", "weak", "strong"]

_SHORTEST_ANYWHERE = 4
_SHORTEST_PLAIN = 8
# What JSON, YAML and forms are made of.
_EVERYWHERE = {
    "false", "n", "nan", "nil", "no", "none", "null", "off", "ok", "on", "true", "undefined", "y",
    "yes",
}  # fmt: skip
_COMMON = {
    "administrator", "anonymous", "application", "authorization", "changeme", "database",
    "development", "localhost", "password", "postgres", "postgresql", "production", "username",
}  # fmt: skip
_NUMBER_OR_DATE = re.compile(r"[+-]?\d[\d.,:/ -]*")
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}")


def strength_of(value: str) -> Strength:
    """
    Return the places where *value* can be taken out of data without ruining it.

    ``strong`` means everywhere, in parts and encoded. ``weak``, for a word or number such as
    ``2024`` or ``admin``, means where it stands alone. ``none``, for ``true`` say, means nowhere.
    """
    text = value.strip()
    word = text.casefold()
    if len(text) < 2 or word in _EVERYWHERE:
        return "none"
    if len(text) < _SHORTEST_ANYWHERE or word in _COMMON or _DATE.fullmatch(text):
        return "weak"
    if len(text) < _SHORTEST_PLAIN and text.isalpha():
        return "weak"
    if _NUMBER_OR_DATE.fullmatch(text) and sum(map(str.isdigit, text)) < _SHORTEST_PLAIN:
        return "weak"
    return "strong"


def weakness_of(value: str) -> str:
    """Return a sentence on the weakness of *value*, without showing it; empty if strong."""
    return {
        "none": "stands in nearly every text, so it can't be hidden",
        "weak": "is so short or common that it is only hidden where it stands alone",
        "strong": "",
    }[strength_of(value)]
