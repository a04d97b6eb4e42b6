"""Names that secrets go by, so that what stands under one is shown to nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["HIDDEN", "is_secret_name", "without_secrets", "words_of"]

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


def words_of(name: str) -> set[str]:
    """The words that *name* is made of, however they are joined, in lower case."""
    return {word.lower() for word in _SPLIT.split(name) if word}


def is_secret_name(name: str) -> bool:
    """Whether *name* (``api_key``, ``apiKey``, ``stripe_token``) is what secrets are called."""
    words = words_of(name)
    return bool(words & _STRONG) or bool(words & _WEAK and words & _WITH and len(words) > 1)


def without_secrets(value: Any) -> Any:
    """*value* with `HIDDEN` under every key of a mapping in it that is called like a secret."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if is_secret_name(str(key)) and each not in (None, "")
            else without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(each) for each in value]
    return value
