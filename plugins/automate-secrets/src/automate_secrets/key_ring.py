"""The keys that encrypt the table: the first encrypts, all decrypt."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from automate_kernel.base.errors import ErrorCodes, SecretDeniedError, SecretError

_KEY_BYTES, _NONCE_BYTES = 32, 12
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ENTRY = re.compile(rf"({_ID.pattern}):([A-Za-z0-9+/_=-]{{43,44}})")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """
    Keys of AES-256-GCM by their ids.

    The name of a secret is authenticated together with its value: a row that was copied to another
    name doesn't decrypt.
    """

    primary: str
    keys: Mapping[str, bytes] = field(repr=False)

    def encrypt(self, name: str, value: str) -> bytes:
        """Return the encrypted *value* of the secret *name*, under the primary key."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self.keys[self.primary]).encrypt(
            nonce, value.encode(), _context(self.primary, name)
        )
        return nonce + sealed

    def decrypt(self, name: str, key_id: str, sealed: bytes) -> str:
        """Return the value. Raises `SecretDeniedError` without its key, else `SecretError`."""
        key = self.keys.get(key_id)
        if key is None:
            raise SecretDeniedError(
                f"secret {name!r} is encrypted with the key {key_id!r}, which is not here",
                hint="add it behind the others to the table's keys",
            )
        try:
            text = AESGCM(key).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _context(key_id, name)
            )
            return text.decode()
        except (InvalidTag, ValueError):
            pass
        raise SecretError(
            f"secret {name!r} was changed outside, or the key {key_id!r} is another one now",
            hint="set the secret again",
        )


def parse_key_ring(text: str) -> KeyRing:
    """Return the ring of *text*: ``ID:BASE64`` for each key, with spaces or lines between."""
    keys: dict[str, bytes] = {}
    for entry in text.split():
        match = _ENTRY.fullmatch(entry)
        key = _decoded(match[2]) if match else b""
        if match is None or len(key) != _KEY_BYTES or match[1] in keys:
            raise SecretError(
                f"the table's key number {len(keys) + 1} can't be read, or its id is there twice",
                hint="automate secret-table new-key makes one; spaces stand between keys",
            )
        keys[match[1]] = key
    if not keys:
        raise SecretError("the table has no key", hint="automate secret-table new-key makes one")
    return KeyRing(next(iter(keys)), keys)


def new_key(key_id: str) -> str:
    """Return a new key as `parse_key_ring` reads it. Raises `SecretError` for another id."""
    if not _ID.fullmatch(key_id):
        raise SecretError(
            "this can't be the id of a key",
            code=ErrorCodes.INVALID_ARGUMENT,
            hint="an id has 1 to 64 letters, digits, points, underscores and hyphens, as 2027",
        )
    return f"{key_id}:{base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode()}"


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_").rstrip("=") + "=")
    except ValueError:
        return b""


def _context(key_id: str, name: str) -> bytes:
    return f"automate_secret\n{key_id}\n{name}".encode()
