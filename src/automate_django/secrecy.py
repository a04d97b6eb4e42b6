"""The fields of a model that must not be shown, exported, searched or recorded."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.constants import LOOKUP_SEP

from automate_kernel.secrets.masking import is_secret_name, words_of

# A number with another of the words that mean a secret counts something: tokens_used.
_NUMBERS = {"cvc", "cvv", "otp", "pin", "ssn"}
_CLASS = re.compile(r"encrypt|password|secret|fernet", re.IGNORECASE)
_NUMERIC = (models.IntegerField, models.FloatField, models.DecimalField)
_HARMLESS = (models.BooleanField, models.DateField)


def is_secret(field: Any, allowed: Collection[str] = ()) -> bool:
    """
    Return True if the model field *field* holds a secret, by its name or by its class.

    *allowed* names fields that only look like it. A flag, a date (``password_changed_at``) and a
    number that counts (``tokens_used``) are none.
    """
    if field.name in allowed or isinstance(field, _HARMLESS):
        return False
    if any(_CLASS.search(each.__name__) for each in type(field).__mro__):
        return True
    if isinstance(field, _NUMERIC):
        return bool(words_of(field.name) & _NUMBERS)
    return is_secret_name(field.name)


def fields_along(model: Any, lookup: str) -> list[Any]:
    """Return the fields along *lookup* (``customer__name``), up to a part that is no field."""
    found: list[Any] = []
    for part in lookup.split(LOOKUP_SEP):
        try:
            field: Any = model._meta.pk if part == "pk" else model._meta.get_field(part)
        except FieldDoesNotExist:
            break
        found.append(field)
        model = field.related_model or model
    return found


def leads_to_secret(model: Any, lookup: str, allowed: Collection[str] = ()) -> bool:
    """Return True if a field along *lookup* holds a secret."""
    return any(is_secret(field, allowed) for field in fields_along(model, lookup))


@lru_cache(maxsize=512)
def secret_names(model: Any, allowed: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the names of *model*'s columns that hold secrets."""
    fields = model._meta.concrete_fields
    return frozenset(field.name for field in fields if is_secret(field, allowed))
