"""
``Idempotency-Key``: a request is carried out once, however often it is sent.

::

                 ┌─ another request ───────▶ 422
    key is known ┼─ being answered ────────▶ 409, try again
                 └─ answered ──────────────▶ the same answer again
    key is new ────▶ locked ─▶ carried out, and its answer kept

A request whose process dies leaves a lock, which ends by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base.errors import StorageError
from automate_kernel.http.api.exchange import ApiAnswer
from automate_kernel.http.api.problems import ApiError
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import IDEMPOTENCY

LOCK_SECONDS = 60.0
# Without a comma, by which servers join two such headers.
_KEY = re.compile(r'"?([!-+\--~]{1,255}?)"?')
_KEPT_HEADERS = ("Location",)
_SWEEP_EVERY = 64
_SWEPT_AT_ONCE = 500


def read_key(text: str) -> str:
    """Return the key in a header; raises a 400 for what is none."""
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise ApiError(
            400, "Give one Idempotency-Key of 1 to 255 visible ASCII characters, no comma."
        )
    return found[1]


def fingerprint_of(*parts: str, body: bytes) -> str:
    """Return a digest of a request: its method, address and type, and its body."""
    digest = hashlib.sha256("\n".join(parts).encode() + b"\n")
    digest.update(body)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """
    A request of *client* with *key*; *fingerprint* is its own.

    It has its key for *lock_seconds* at most. Its answer is kept for *hours*; *redact* takes the
    secrets out.
    """

    storage: Storage
    redact: Callable[[Any], Any]
    client: str
    key: str
    fingerprint: str
    hours: float = 24.0
    lock_seconds: float = LOCK_SECONDS
    lock: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def id(self) -> str:
        """The id of its row."""
        return hashlib.sha256(f"{self.client}\n{self.key}".encode()).hexdigest()

    def begin(self) -> ApiAnswer | None:
        """
        Take the key, and return None; or return the answer that the request had before.

        Raises a 409 while another request has the key, and a 422 for another request.
        """
        found = write(self.storage, None, self._claim)
        if found is None:
            return None
        if found["fingerprint"] != self.fingerprint:
            text = "This Idempotency-Key came before, with another request. Use a new key."
            raise ApiError(422, text, code="IDEMPOTENCY_KEY_REUSED")
        if found["lock"] is not None:
            raise _in_progress()
        headers = {**found["headers"], "Idempotency-Replayed": "true"}
        return ApiAnswer(found["status_code"], found["body"], headers)

    def hold(self) -> None:
        """Have the key for longer; raises a 409 if another request has it now."""
        self._update(locked_until=Now(self.lock_seconds))

    def keep(self, found: ApiAnswer) -> None:
        """Keep the answer; raises a 409 if another request has the key now."""
        headers = {name: found.headers[name] for name in _KEPT_HEADERS if name in found.headers}
        self._update(
            lock=None, locked_until=None, status_code=found.status, headers=headers,
            body=self.redact(found.body),
        )  # fmt: skip

    def release(self) -> None:
        """Free the key. If the database is gone, it gets free by itself."""
        with contextlib.suppress(StorageError):
            write(self.storage, None, lambda rows: rows.delete(IDEMPOTENCY, self._mine))

    @property
    def _this(self) -> Where:
        return Where("id", "eq", self.id)

    @property
    def _mine(self) -> list[Where]:
        return [self._this, Where("lock", "eq", self.lock)]

    def _update(self, **changes: Any) -> None:
        if not write(
            self.storage, None, lambda rows: rows.update(IDEMPOTENCY, self._mine, changes)
        ):
            raise _in_progress()

    def _claim(self, rows: Rows) -> Row | None:
        """Take the key; return None if it is now ours, else the other request's row."""
        if random.randrange(_SWEEP_EVERY) == 0:
            _sweep(rows)
        rows.delete(IDEMPOTENCY, [self._this, Where("expires_at", "le", Now())])
        rows.ensure(IDEMPOTENCY, [self._row])
        found = rows.select(IDEMPOTENCY, [self._this])
        if not found:
            raise _in_progress()  # let go just now
        row = found[0]
        if row["lock"] == self.lock:
            return None
        if row["fingerprint"] == self.fingerprint and row["lock"] is not None:
            # Its request is gone, or will find that the lock has been taken over.
            held = [Where("lock", "eq", row["lock"]), Where("locked_until", "le", Now())]
            ours: Row = {"lock": self.lock, "locked_until": Now(self.lock_seconds)}
            if rows.update(IDEMPOTENCY, [self._this, *held], ours):
                return None
        return row

    @property
    def _row(self) -> Row:
        return {
            "id": self.id, "fingerprint": self.fingerprint, "lock": self.lock,
            "locked_until": Now(self.lock_seconds), "status_code": None, "headers": {},
            "body": None, "created_at": Now(), "expires_at": Now(self.hours * 3600),
        }  # fmt: skip


def _in_progress() -> ApiError:
    text = "A request with this Idempotency-Key is being answered."
    return ApiError(409, text, code="IDEMPOTENCY_KEY_IN_USE", headers={"Retry-After": "1"})


def _sweep(rows: Rows) -> None:
    """Delete expired rows, whoever their clients are."""
    rows.delete_some(IDEMPOTENCY, [Where("expires_at", "le", Now())], _SWEPT_AT_ONCE)
