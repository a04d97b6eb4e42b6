"""Which fields hold what must not be shown, exported, searched or remembered."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from django.db import models

__all__ = ["HIDDEN", "is_secret", "is_secret_name", "secret_names", "without_secrets"]

HIDDEN = "[hidden]"
"""Stands where a secret's value would."""

# Each of these means a secret wherever it stands in a name.
_STRONG = {
    "apikey", "bearer", "credential", "credentials", "cvc", "cvv", "jwt", "otp", "passcode",
    "passphrase", "passwd", "password", "passwords", "pin", "pwd", "salt", "secret", "secrets",
    "ssn", "token", "tokens", "totp",
}  # fmt: skip
# These mean one beside a word of the next set: a key may be a business key, a hash a picture's.
_WEAK = {"auth", "hash", "key", "keys", "pass", "seed", "session", "signature"}
_WITH = {
    "access", "account", "admin", "api", "auth", "client", "db", "encryption", "hmac", "license",
    "master", "private", "recovery", "service", "session", "shared", "signing", "ssh", "user",
    "webhook",
}  # fmt: skip
# A number with another of the words counts something: tokens_used.
_NUMBERS = {"cvc", "cvv", "otp", "pin", "ssn"}
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_CLASS = re.compile(r"encrypt|password|secret|fernet", re.IGNORECASE)
_NUMERIC = (models.IntegerField, models.FloatField, models.DecimalField)
_HARMLESS = (models.BooleanField, models.DateField)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _SPLIT.split(name) if word}


def is_secret_name(name: str) -> bool:
    """Whether *name* (``api_key``, ``apiKey``, ``stripe_token``) is what secrets are called."""
    words = _words(name)
    return bool(words & _STRONG) or bool(words & _WEAK and words & _WITH and len(words) > 1)


def is_secret(field: Any, allowed: Collection[str] = ()) -> bool:
    """
    Whether the model field *field* holds a secret, by its name or by its class.

    *allowed* names fields that only look like it. A flag, a date (``password_changed_at``) and a
    number that counts (``tokens_used``) are none.
    """
    if field.name in allowed or isinstance(field, _HARMLESS):
        return False
    if any(_CLASS.search(each.__name__) for each in type(field).__mro__):
        return True
    if isinstance(field, _NUMERIC):
        return bool(_words(field.name) & _NUMBERS)
    return is_secret_name(field.name)


@lru_cache(maxsize=512)
def secret_names(model: Any, allowed: tuple[str, ...] = ()) -> frozenset[str]:
    """The names of *model*'s columns that hold secrets."""
    fields = model._meta.concrete_fields
    return frozenset(field.name for field in fields if is_secret(field, allowed))


def without_secrets(value: Any) -> Any:
    """*value* with `HIDDEN` under every key of a mapping in it that is called like a secret."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret_name(str(key)) else without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(each) for each in value]
    return value
