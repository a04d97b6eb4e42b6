"""
What an outbox item is, and which state leads to which.

::

    PENDING ─claim─▶ RUNNING ─success─▶ COMPLETED
                      │  ▲ └─failure, attempts spent─▶ FAILED ─requeue─▶ PENDING
               retry  ▼  │ claim, once due
                     RETRY             PENDING or RETRY ─cancel─▶ CANCELLED ─requeue─▶ PENDING
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from automate_kernel.errors import PayloadError
from automate_kernel.storage.rows import Now, Row
from automate_kernel.storage.sql import JsonText
from automate_kernel.storage.tables import OUTBOX, TABLES

__all__ = [
    "DEFAULT_MAX_ATTEMPTS",
    "FINISHED",
    "WAITING",
    "ItemStatus",
    "NewItem",
    "OutboxItem",
    "new_id",
]

DEFAULT_MAX_ATTEMPTS = 5
MAX_PAYLOAD_BYTES = 1_000_000
SECONDS_PER_PRIORITY = 3600
# A priority moves the claim order by an hour per point, and a timestamp has to bear it.
MAX_PRIORITY = 32_767
MAX_DEPTH = 100
MAX_ATTEMPTS = 2_147_483_647
MAX_DELAY_SECONDS = 100 * 365.25 * 86_400
# What every database's timestamps can hold, and some years less for the priority.
MIN_YEAR, MAX_YEAR = 1100, 9900


class ItemStatus(str, Enum):
    """Where an item stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRY = "RETRY"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    __str__ = str.__str__


WAITING = (ItemStatus.PENDING.value, ItemStatus.RETRY.value)
FINISHED = (ItemStatus.COMPLETED.value, ItemStatus.FAILED.value, ItemStatus.CANCELLED.value)


@dataclass(slots=True)
class OutboxItem:
    """
    One unit of work, as it stood when it was read.

    `attempt_count` counts the attempts begun, the current one included. `waiting_for` says what a
    waiting item waits for: ``worker``, ``time``, ``key`` (its ordering key) or ``resume``.
    """

    id: str
    kind: str
    payload: Any
    headers: dict[str, Any]
    status: ItemStatus
    waiting_for: str | None
    priority: int
    attempt_count: int
    max_attempts: int
    next_attempt_at: datetime
    sort_at: datetime
    lease_owner: str | None
    lease_token: str | None
    lease_expires_at: datetime | None
    idempotency_key: str | None
    tenant_id: str | None
    ordering_key: str | None
    last_error_code: str | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None

    @classmethod
    def from_row(cls, row: Row) -> OutboxItem:
        """The item that a row of the outbox table holds."""
        item = cls(**row)
        item.status = ItemStatus(item.status)
        if item.tenant_id is not None:
            prefix = len(_scoped("", item.tenant_id) or "")
            item.idempotency_key = item.idempotency_key and item.idempotency_key[prefix:]
            item.ordering_key = item.ordering_key and item.ordering_key[prefix:]
        return item

    def __repr__(self) -> str:
        # Without payload and error text: a repr ends in logs.
        return (
            f"<OutboxItem {self.id} {self.kind} {self.status.value} attempt {self.attempt_count}>"
        )


@dataclass(slots=True)
class NewItem:
    """
    What is to be enqueued.

    *delay* (seconds, or a timedelta) counts on the database's clock; *run_at* is an instant.
    A higher *priority* goes first; a point is worth an hour of waiting, so that nothing starves.
    Of items with one *ordering_key* only one runs at a time, in the order of enqueueing. A second
    item with the same *idempotency_key* is not added.
    """

    kind: str
    payload: Any = None
    delay: float | timedelta = 0.0
    run_at: datetime | None = None
    priority: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    idempotency_key: str | None = None
    tenant_id: str | None = None
    ordering_key: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def to_row(self) -> Row:
        """The new row of the outbox table; raises `PayloadError` for what can't be stored."""
        self._check()
        due, sort = self._times()
        later = self.run_at is not None or due.offset > 0
        return {
            "id": self.id or new_id(),
            "kind": self.kind,
            "payload": encode_json(self.payload, "payload"),
            "headers": encode_json(dict(self.headers), "headers"),
            "status": ItemStatus.PENDING.value,
            "waiting_for": "time" if later else "worker",
            "priority": self.priority,
            "attempt_count": 0,
            "max_attempts": self.max_attempts,
            "next_attempt_at": self.run_at or due,
            "sort_at": sort,
            "idempotency_key": _scoped(self.idempotency_key, self.tenant_id),
            "tenant_id": self.tenant_id,
            "ordering_key": _scoped(self.ordering_key, self.tenant_id),
            "created_at": Now(),
            "updated_at": Now(),
        }

    def _times(self) -> tuple[Now, Now | datetime]:
        due = Now(seconds(self.delay))
        ahead = self.priority * SECONDS_PER_PRIORITY
        if self.run_at is not None:
            return due, self.run_at - timedelta(seconds=ahead)
        return due, Now(due.offset - ahead)

    def _check(self) -> None:
        if not self.kind:
            raise PayloadError("an item needs a kind", hint="name what handles it")
        for name in ("kind", "tenant_id"):
            check_text(getattr(self, name), name)
        for name in ("idempotency_key", "ordering_key"):
            check_text(_scoped(getattr(self, name), self.tenant_id), name)
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise PayloadError("run_at has no time zone", hint="pass an aware datetime")
        if self.run_at is not None and not MIN_YEAR <= self.run_at.year <= MAX_YEAR:
            raise PayloadError(f"run_at is not in the years {MIN_YEAR} to {MAX_YEAR}")
        if not abs(seconds(self.delay)) <= MAX_DELAY_SECONDS:  # so that NaN is refused too
            raise PayloadError(f"the delay {self.delay} is beyond a hundred years")
        if abs(self.priority) > MAX_PRIORITY:
            raise PayloadError(f"priority {self.priority} is beyond ±{MAX_PRIORITY}")
        if not 1 <= self.max_attempts <= MAX_ATTEMPTS:
            raise PayloadError(f"max_attempts must be from 1 to {MAX_ATTEMPTS}")


def seconds(delay: float | timedelta) -> float:
    """A delay in seconds."""
    return delay.total_seconds() if isinstance(delay, timedelta) else float(delay)


def bounded_seconds(delay: float) -> float:
    """*delay*, as far as a database can add it to the time: a failure's own wish may be absurd."""
    if not delay > 0:  # so that NaN is none either
        return 0.0
    return min(delay, MAX_DELAY_SECONDS)


def _scoped(key: str | None, tenant_id: str | None) -> str | None:
    """
    A key as it is stored: one tenant's never meets another's.

    The length in front keeps the parts apart whatever characters they hold.
    """
    if key is None or tenant_id is None:
        return key
    return f"{len(tenant_id)}:{tenant_id}:{key}"


def new_id() -> str:
    """
    A new UUID of version 7 (RFC 9562): it sorts by its time of making, to the millisecond.

    Ids made in one process within a millisecond are in order too.
    """
    global _last  # noqa: PLW0603  (ids of one process are in order)
    now = time.time_ns()
    # RFC 9562, method 3: sub-millisecond time in the 12 bits of rand_a, and never backwards.
    stamp = max((now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000), _last + 1)
    _last = stamp
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8), "big") >> 2
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_last = 0

# What PostgreSQL can't hold in text or jsonb, though Python can: NUL, and half a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def encode_json(value: Any, name: str, limit: int = MAX_PAYLOAD_BYTES) -> JsonText:
    """*value* as JSON that every database here can store; raises `PayloadError` naming *name*."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        # json's own text may show the value, so only the known reasons are passed on.
        reason = "circular reference" if "ircular" in str(error) else "NaN or infinity"
        raise PayloadError(f"the {name} can't be stored: {reason}") from None
    except (TypeError, RecursionError) as error:
        raise PayloadError(
            f"the {name} can't be stored as JSON: {error}",
            hint="pass dicts, lists, strings, numbers, booleans and None",
        ) from None
    # What can be written at the bottom of one stack must be readable at the bottom of any other.
    if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(value):
        raise PayloadError(
            f"the {name} is nested deeper than {MAX_DEPTH} levels",
            hint="flatten it, or pass it as a string of JSON",
        )
    if _UNSTORABLE.search(text) or _UNSTORABLE_ESCAPE.search(text):
        raise PayloadError(
            f"the {name} can't be stored: it holds a NUL character or half a surrogate pair",
            hint="remove or encode it, as base64 say",
        )
    if len(text) > limit or len(text.encode()) > limit:
        raise PayloadError(
            f"the {name} is too long: over {limit:,} bytes of JSON",
            hint="store the data elsewhere and pass a reference",
        )
    return JsonText(text)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def check_text(value: str | None, column: str) -> None:
    """Raise `PayloadError` if *value* doesn't fit the outbox's text column."""
    if value is None:
        return
    length = TABLES[OUTBOX].column(column).length
    if len(value) > length:
        raise PayloadError(f"{column} is too long: {len(value)} characters of at most {length}")
    if _UNSTORABLE.search(value):
        raise PayloadError(f"{column} holds a NUL character or half a surrogate pair")


def storable(text: str, limit: int = 10_000) -> str:
    """*text* with what can't be stored replaced, so that a finishing write never fails on it."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:limit]
