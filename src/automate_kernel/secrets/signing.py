"""Signed tokens: JSON that comes back through strangers' hands and is known to be ours."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from automate_kernel.base.errors import ConfigError

LEAST_KEY = 32
"""The number of characters that a signing key has at least."""

_MOST_TOKEN = 4_000
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})", re.ASCII)
_HINT = (
    "give the kernel signing_keys=[…], each a text of 32 random characters or $secret:KEY;"
    ' python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'
)


class Signer:
    """
    Makes tokens and reads them again, with HMAC-SHA256 under *keys*.

    The first key signs, and all of them verify. Put a new key in front, and take the old key out
    once its tokens are used up. *resolve* reads the keys that are references to secrets. A token of
    one *purpose* is none of another's.
    """

    def __init__(
        self,
        keys: Iterable[str],
        purpose: str,
        resolve: Callable[[Sequence[str]], Sequence[str]] = list,
    ) -> None:
        if isinstance(keys, str):
            raise ConfigError("signing_keys must be a list of texts", hint="write [key]")
        self._keys = list(keys)
        self._purpose = purpose.encode()
        self._resolve = resolve
        _check_keys([key for key in self._keys if not str(key).startswith("$")])

    @property
    def able(self) -> bool:
        """True if there is a key."""
        return bool(self._keys)

    @property
    def references(self) -> list[str]:
        """The keys that are references to secrets: ``$secret:KEY``."""
        return [key for key in self._keys if key.startswith("$")]

    def sign(self, payload: Mapping[str, Any]) -> str:
        """Return the token of *payload*; raises `ConfigError` without a key."""
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
        body = _encoded(text.encode())
        return f"{body}.{self._signature(self._resolved()[0], body)}"

    def read(self, token: object) -> dict[str, Any] | None:
        """Return the payload of a *token*, or None if it is not ours."""
        if not isinstance(token, str) or len(token) > _MOST_TOKEN:
            return None
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        body, given = parts.groups()
        # All keys are tried in any case, so that the time shows nothing.
        right = [hmac.compare_digest(self._signature(key, body), given) for key in self._resolved()]
        if not any(right):
            return None
        try:
            payload = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        return payload if isinstance(payload, dict) else None

    def _resolved(self) -> Sequence[str]:
        if not self._keys:
            raise ConfigError("there is no key to sign links with", hint=_HINT)
        keys = self._resolve(self._keys)
        _check_keys(keys)
        return keys

    def _signature(self, key: str, body: str) -> str:
        signed = self._purpose + b"\n" + body.encode()
        return _encoded(hmac.digest(key.encode(), signed, hashlib.sha256))


def _check_keys(keys: Sequence[object]) -> None:
    # Nothing of a key is shown, its length neither.
    if not all(isinstance(key, str) and len(key) >= LEAST_KEY for key in keys):
        raise ConfigError(f"a signing key is shorter than {LEAST_KEY} characters", hint=_HINT)


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
