"""Names and shapes that secrets have, so that they are hidden though nobody knows the values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = ["HIDDEN", "hide_named", "hide_shapes", "is_secret_name", "without_secrets", "words_of"]

HIDDEN = "[hidden]"
"""Stands where a secret's value would."""

# Each of these means a secret wherever it stands in a name.
_STRONG = {
    "apikey", "authorization", "bearer", "cookie", "credential", "credentials", "cvc", "cvv", "jwt",
    "otp", "passcode", "passphrase", "passwd", "password", "passwords", "pin", "pwd", "salt",
    "secret", "secrets", "ssn", "token", "tokens", "totp",
}  # fmt: skip
# These mean one beside a word of the next set: a key may be a business key, a hash a picture's.
_WEAK = {"auth", "hash", "key", "keys", "pass", "seed", "session", "signature"}
_WITH = {
    "access", "account", "admin", "api", "auth", "client", "db", "encryption", "hmac", "license",
    "master", "private", "recovery", "service", "session", "shared", "signing", "ssh", "user",
    "webhook",
}  # fmt: skip
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

# Deeper than anything that can be stored, and shallow enough for a recursion.
_DEEPEST, _MOST_VALUES = 200, 10_000_000

# Greedy: a password may hold what ought to be escaped, another @ too. A long name alone is a token.
_IN_URL = re.compile(r"(\b[A-Za-z][\w+.-]*://)(?:([^\s:/@]*):\S*|[^\s:/@]{16,})@")
_IN_HEADER = re.compile(
    r"\b(bearer|basic|token)(\s+)(?:(?=[\w.~+/-]*\d)[\w.~+/-]{8,}|[\w.~+/-]{20,})=*", re.IGNORECASE
)
_ASSIGNED = re.compile(
    r"""\b(password|passwd|pwd|secret|token|api[_-]?key|access[_-]?(?:key|token)"""
    r"""|client[_-]?secret|authorization)(["']\s*:\s*["']|=["']?)([^\s"'&;,]+)""",
    re.IGNORECASE,
)


def words_of(name: str) -> set[str]:
    """The words that *name* is made of, however they are joined, in lower case."""
    return {word.lower() for word in _SPLIT.split(name) if word}


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Whether *name* (``api_key``, ``apiKey``, ``stripe_token``) is what secrets are called."""
    words = words_of(name)
    return bool(words & _STRONG) or bool(words & _WEAK and words & _WITH and len(words) > 1)


def without_secrets(value: Any) -> Any:
    """*value* with `HIDDEN` under every key of a mapping in it that is called like a secret."""
    return hide_named(value)


def hide_named(value: Any, *, deepest: int = _DEEPEST, most: int = _MOST_VALUES) -> Any:
    """
    *value* itself, or a copy with `HIDDEN` for what stands under a key that means a secret.

    What is below *deepest* levels, beyond *most* values or inside itself is cut off, and a text
    says so.
    """
    return _hidden(value, deepest, [most], frozenset())


def _hidden(value: Any, deepest: int, left: list[int], above: frozenset[int]) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if id(value) in above:
        return "[circular]"
    left[0] -= len(value) + 1
    if len(above) >= deepest or left[0] < 0:
        return "[too large]"
    above = above | {id(value)}
    if isinstance(value, Mapping):
        shown = {
            key: HIDDEN if _tells(key, each) else _hidden(each, deepest, left, above)
            for key, each in value.items()
        }
        changed = any(shown[key] is not each for key, each in value.items())
        return shown if changed else value
    elements = [_hidden(each, deepest, left, above) for each in value]
    changed = any(new is not old for new, old in zip(elements, value, strict=True))
    return elements if changed else value


def _tells(key: Any, value: Any) -> bool:
    # Yes and no are no secrets, and nothing is none.
    return not (value is None or value == "" or isinstance(value, bool)) and is_secret_name(
        str(key)
    )


def hide_shapes(text: str) -> str:
    """*text* without what is a credential by its shape: in a URL, a header, ``password=…``."""
    if "://" in text and "@" in text:
        text = _IN_URL.sub(rf"\1\2:{HIDDEN}@", text)
    if " " in text:
        text = _IN_HEADER.sub(rf"\1\2{HIDDEN}", text)
    if "=" in text or ":" in text:
        text = _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
    return text
