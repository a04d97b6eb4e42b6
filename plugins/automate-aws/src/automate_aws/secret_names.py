"""Keys of secrets in AWS: ``name``, ``name#field``, ``name?stage=AWSPREVIOUS#field``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from automate_aws.failures import aws_code
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)

_KEY = re.compile(
    r"(?P<name>[^?#]+)(?:\?(?P<selector>[a-z]+)=(?P<value>[A-Za-z0-9_.+=/@-]{1,256}))?"
    r"(?:\#(?P<field>.+))?"
)
_NOT_THERE = frozenset(
    {"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"}
)


@dataclass(frozen=True, slots=True)
class SecretName:
    """A key's parts: the *name* in AWS, a *selector* of a version with its *value*, a *field*."""

    name: str
    selector: str | None = None
    value: str | None = None
    field: str | None = None


def parse_key(key: str, allowed: re.Pattern[str], *selectors: str) -> SecretName:
    """Return the parts of *key*; raise `SecretNotFoundError` if no secret can have that key."""
    found = _KEY.fullmatch(key)
    if (
        found is None
        or not allowed.fullmatch(found["name"])
        or found["selector"] not in {None, *selectors}
    ):
        raise SecretNotFoundError(key)
    return SecretName(**found.groupdict())


def check_writable(key: str, name: SecretName) -> None:
    """Raise `SecretError` if *key* is a part or a version of a secret, which can't be written."""
    if name.field is not None or name.selector is not None:
        raise SecretError(
            f"secret {key!r} is a part of another, and can't be written by itself",
            hint="use a secret of its own",
        )


def field_of(key: str, field: str | None, text: str) -> str:
    """Return the *field* of the JSON object *text*, or all of it without a field."""
    if field is None:
        return text
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        # Outside the handler: that error holds the text.
        raise SecretError(
            f"secret {key!r} names a field, and the secret is no JSON object",
            hint="leave #field out, or store a JSON object",
        )
    value = found.get(field)
    if value is None:
        raise SecretNotFoundError(key)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def secret_failure(key: str, error: AutomateError) -> SecretError:
    """Return what *error* means for the look-up of *key*: only "not there" lets it go on."""
    code, name = error.code, aws_code(error)
    # A 404 of some other server at that address says nothing of the secret.
    if name.rpartition("#")[2] in _NOT_THERE:
        return SecretNotFoundError(key)
    if name == "InvalidRequestException" and "delet" in error.message:
        return SecretError(
            f"secret {key!r} is marked for deletion",
            hint="restore it (aws secretsmanager restore-secret), or use another",
        )
    if code in {ErrorCodes.PERMISSION_DENIED, ErrorCodes.UNAUTHENTICATED}:
        return SecretDeniedError(f"AWS refused secret {key!r}: {error.message}", hint=error.hint)
    if error.retryable:
        return SecretUnavailableError(
            f"AWS failed on secret {key!r}: {error.message}",
            hint=error.hint,
            retry_after=error.retry_after,
        )
    return SecretError(
        f"AWS can't give secret {key!r}: {error.message}",
        hint=error.hint,
        code=ErrorCodes.FAILED_PRECONDITION if code is ErrorCodes.NOT_FOUND else code,
    )
