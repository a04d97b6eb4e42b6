"""How well a value can be hidden: one that stands in every text can't."""

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
    Where *value* can be taken out of data without ruining it.

    ``strong`` is everywhere, in parts and encoded. ``weak``, a word or number such as ``2024`` or
    ``admin``, is where it stands alone. ``none``, such as ``true``, is nowhere.
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
    """What is wrong with *value* as a secret, without showing it; nothing if it is strong."""
    return {
        "none": "stands in nearly every text, so it can't be hidden",
        "weak": "is so short or common that it is only hidden where it stands alone",
        "strong": "",
    }[strength_of(value)]
