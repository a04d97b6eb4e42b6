"""
Outbox items: their fields, states and outcomes.

::

    PENDING ─claim─▶ RUNNING ─success─▶ COMPLETED
                      │  ▲ └─failure, attempts spent─▶ FAILED ─requeue─▶ PENDING
               retry  ▼  │ claim, once due
                     RETRY             PENDING or RETRY ─cancel─▶ CANCELLED ─requeue─▶ PENDING
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.concurrency_keys import HEADER as KEEPS_SLOT
from automate_kernel.outbox.handover import Handover
from automate_kernel.outbox.labels import HEADER, Labels, checked_labels
from automate_kernel.secrets.tracebacks import MAX_GROUP
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.query import Now, Plus
from automate_kernel.storage.rows import Row
from automate_kernel.storage.statuses import DUE, LATER, ItemWait, words
from automate_kernel.storage.statuses import ItemStatus as ItemStatus  # noqa: PLC0414  (given on)
from automate_kernel.storage.tables import OUTBOX, TABLES
from automate_kernel.storage.values import (
    MAX_PAYLOAD_BYTES,
    Redaction,
    encode_json,
    storable,
    text_problem,
)

LENGTHS = {column.name: column.length for column in TABLES[OUTBOX].columns if column.length}
"""The number of characters that each text of an item may have."""


def check_text(
    value: Any, what: str, *, column: str = "", beside: int = 0, hint: str | None = None
) -> None:
    """
    Raise `PayloadError` if *value* is no text that the outbox's *column* keeps as it is.

    Empty and blank ones are refused, and those with spaces around: MariaDB takes ``"a"`` and
    ``"a "`` for the same. *beside* so many characters stand in the column already.
    """
    if not isinstance(value, str):
        raise PayloadError(f"{what} must be text, not {type(value).__name__}", hint=hint)
    most = LENGTHS[column or what] - beside
    if len(value) > most:
        room = " beside the tenant's id" if beside else ""
        raise PayloadError(
            f"{what} is too long: {len(value)} characters of at most {most}{room}",
            hint="shorten it, or pass a hash of it",
        )
    if not value or value.isspace():
        blank = "blank" if value else "empty"
        raise PayloadError(f"{what} is {blank}", hint=hint or "give it characters, or leave it out")
    if value[0].isspace() or value[-1].isspace():
        raise PayloadError(f"{what} has spaces around it", hint="take them out")
    problem = text_problem(value)
    if problem:
        raise PayloadError(f"{what} {problem[0]}", hint=problem[1])


def check_number(value: Any, what: str, least: float, most: float, *, whole: bool = True) -> None:
    """Raise `PayloadError` if *value* is no number from *least* to *most*, a *whole* one if so."""
    number: Any = value.total_seconds() if isinstance(value, timedelta) and not whole else value
    if not isinstance(number, int if whole else (int, float)) or isinstance(number, bool):
        raise PayloadError(
            f"{what} must be a {'whole ' if whole else ''}number, not {type(value).__name__}"
        )
    # So that NaN is refused too.
    if not least <= number <= most:
        raise PayloadError(f"{what} must be from {least:,.0f} to {most:,.0f}")


def redacted_json(value: Any, name: str, redact: Redaction, limit: int = MAX_PAYLOAD_BYTES) -> Any:
    """
    Return *value* itself, or a copy if *redact* finds secrets in it.

    Raises `PayloadError` for what can't be stored; see `encode_json`.
    """
    text = encode_json(value, name, limit)
    return redact(json.loads(text)) if redact.finds(text) else value


LEASE_SECONDS = 15.0
"""The length of a lease, where nothing else is said; a worker renews it four times in that."""
DEFAULT_MAX_ATTEMPTS = 5
ACCEPTED_MAX_ATTEMPTS = 50
"""
The attempts of an item that begins or wakes executions.

It runs for milliseconds beside whatever else its worker runs. So only an item that kills each of
its workers spends so many, over hours.
"""
SECONDS_PER_PRIORITY = 3600
# A priority moves the claim order by an hour per point, and a timestamp has to bear it.
MAX_PRIORITY = 32_767
MAX_ATTEMPTS = 2_147_483_647
MAX_CONCURRENCY = 10_000
MAX_DELAY_SECONDS = 100 * 365.25 * 86_400
# What every database's timestamps can hold, and some years less for the priority.
MIN_YEAR, MAX_YEAR = 1100, 9900


_NOW = Now()
_NO_HEADERS = JsonText("{}")


def new_id() -> str:
    """
    Return a new UUID of version 7 (RFC 9562), which sorts by its time to the millisecond.

    Ids made in one process within a millisecond are in order too.
    """
    now, numbers = runtime.time_ns(), runtime.numbers
    # RFC 9562, method 3: sub-millisecond time in the 12 bits of rand_a, and never backwards.
    stamp = max(
        (now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000), numbers.last_stamp + 1
    )
    numbers.last_stamp = stamp
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | numbers.getrandbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_PENDING = ItemStatus.PENDING.value
WAITING = (_PENDING, ItemStatus.RETRY.value)
WAITING_FOR = words(ItemWait.WORKER, ItemWait.TIME, ItemWait.KEY, ItemWait.RESUME)
FINISHED = words(ItemStatus.COMPLETED, ItemStatus.FAILED, ItemStatus.CANCELLED)


@dataclass(slots=True)
class OutboxItem:
    """
    One unit of work, in the state in which it was read.

    `attempt_count` counts the attempts begun, the current one included. A waiting item
    `waiting_for`: ``worker``, ``time``, ``key`` (its ordering or concurrency key) or ``resume``.
    On a running item ``cancel`` means that it is asked to stop, and ``release`` that it is to
    be put back and taken up again. `last_error_group` is shared by errors of
    one type and place; a claimed item, as its handler has it, lacks it.
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
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    last_error_group: str | None = None
    lane: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which it is found."""
        found = self.headers.get(HEADER)
        return dict(found) if isinstance(found, dict) else {}

    @property
    def handover(self) -> Handover | None:
        """The note of the last worker that handed it over, while it waits for another worker."""
        note = Handover.of(self.headers)
        waits = self.status.value in WAITING
        return note if waits and note is not None and note.code == self.last_error_code else None

    @classmethod
    def from_row(cls, row: Row) -> OutboxItem:
        """Return the item of a row of the outbox table."""
        item = cls(**row)
        item.status = ItemStatus(item.status)
        if item.lease_owner is not None:
            item.lease_owner = item.lease_owner.removesuffix(BEGUN)
        return item._unscoped()

    @classmethod
    def claimed(cls, row: Row, worker_id: str, token: str) -> OutboxItem:
        """Return the item of a row as a claim reads it, with what the claim has written."""
        item = cls(
            status=ItemStatus.RUNNING, waiting_for=None, lease_owner=worker_id,
            lease_token=token, completed_at=None, **row,
        )  # fmt: skip
        return item if item.tenant_id is None else item._unscoped()

    def _unscoped(self) -> OutboxItem:
        """Return itself, with its keys as they were given."""
        if self.tenant_id is not None:
            prefix = len(scoped_key("", self.tenant_id) or "")
            self.idempotency_key = self.idempotency_key and self.idempotency_key[prefix:]
            self.ordering_key = self.ordering_key and self.ordering_key[prefix:]
            self.concurrency_key = self.concurrency_key and self.concurrency_key[prefix:]
        return self

    def __repr__(self) -> str:
        # Without payload and error text: a repr ends in logs.
        return (
            f"<OutboxItem {self.id} {self.kind} {self.status.value} attempt {self.attempt_count}>"
        )


@dataclass(slots=True)
class NewItem:
    """
    An item to be enqueued.

    It waits for *delay* (seconds, or a timedelta, by the database's clock), or until *run_at*.
    A higher *priority* goes first; a point is worth an hour of waiting, so that nothing starves.
    Of items with one *ordering_key* only one runs at a time, in the order of enqueueing. Of those
    with one *concurrency_key*, whatever their kinds, at most *concurrency_limit* run at once. With
    *keeps_slot* it counts from its first run to its end, while it waits to run again too. A second
    item with the same *idempotency_key* is not added. Queries by *labels* (``{"order": 4711}``)
    find it. Among queued items of a kind and tenant, each *lane* gets an equal share of the claims:
    give all items of a kind a lane, or none.
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
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    labels: Labels | None = None
    keeps_slot: bool = False
    lane: str | None = None

    def redacted(self, redact: Redaction) -> NewItem:
        """Return a copy without the secrets that *redact* finds in its payload or headers."""
        text = self._encoded(None)
        payload = redact(json.loads(text)) if redact.finds(text) else self.payload
        headers = redacted_json(dict(self.headers), "headers", redact)
        return replace(self, payload=payload, headers=headers)

    def to_row(self, redact: Redaction | None = None) -> Row:
        """
        Return the new row of the outbox table, without the secrets that *redact* finds.

        Raises `PayloadError` for what can't be stored.
        """
        self._check()
        due, sort = self._times()
        later = self.run_at is not None or due.offset > 0
        row = {
            "id": self.id or new_id(),
            "kind": self.kind,
            "payload": self._encoded(redact),
            "headers": self._headers(redact) if self._has_headers else _NO_HEADERS,
            "status": _PENDING,
            "waiting_for": LATER if later else DUE,
            "priority": self.priority,
            "attempt_count": 0,
            "max_attempts": self.max_attempts,
            "next_attempt_at": self.run_at or due,
            "sort_at": sort,
            "idempotency_key": scoped_key(self.idempotency_key, self.tenant_id),
            "tenant_id": self.tenant_id,
            "ordering_key": scoped_key(self.ordering_key, self.tenant_id),
            "lane": self.lane,
            "created_at": _NOW,
            "updated_at": _NOW,
        }
        if self.concurrency_key is not None:
            row.update(self.key_row())
        return row

    def key_row(self) -> Row:
        """Return the columns of its concurrency key; nearly all items have none."""
        if self.concurrency_key is None:
            return {}
        key = scoped_key(self.concurrency_key, self.tenant_id)
        return {"concurrency_key": key, "concurrency_limit": self.concurrency_limit}

    def _encoded(self, redact: Redaction | None) -> JsonText:
        return encode_json(self.payload, "payload", redact=redact)

    @property
    def _has_headers(self) -> bool:
        return bool(self.headers or self.labels or self.keeps_slot)

    def _headers(self, redact: Redaction | None) -> JsonText:
        own: dict[str, Any] = {HEADER: checked_labels(self.labels)} if self.labels else {}
        if self.keeps_slot:
            own[KEEPS_SLOT] = True
        return encode_json({**self.headers, **own}, "headers", redact=redact)

    def _times(self) -> tuple[Now, Now | datetime]:
        if not self.delay and not self.priority and self.run_at is None:
            return _NOW, _NOW
        due = Now(seconds(self.delay))
        ahead = self.priority * SECONDS_PER_PRIORITY
        if self.run_at is not None:
            return due, self.run_at - timedelta(seconds=ahead)
        return due, Now(due.offset - ahead)

    def _check(self) -> None:
        if type(self.kind) is str:
            _check_kind(self.kind)
        else:
            check_text(self.kind, "kind")
        if self.tenant_id is not None:
            check_text(self.tenant_id, "tenant_id")
        if self.lane is not None:
            _check_lane(self.lane)
        # One by one, since nearly all items have none of them, and this is asked of every item.
        if self.idempotency_key is not None:
            self._check_key(self.idempotency_key, "idempotency_key")
        if self.ordering_key is not None:
            self._check_key(self.ordering_key, "ordering_key")
        if self.concurrency_key is not None or self.concurrency_limit is not None:
            self._check_concurrency()
        if self.headers and not isinstance(self.headers, Mapping):
            raise PayloadError("headers must be a mapping", hint="for example {'source': 'shop'}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.run_at is not None:
            _check_instant(self.run_at)
            if self.delay:
                raise PayloadError(
                    "an item has a delay or a run_at, not both", hint="add the delay to run_at"
                )
        if type(self.delay) is not float or self.delay:
            check_number(self.delay, "delay", 0, MAX_DELAY_SECONDS, whole=False)
        if type(self.priority) is not int or self.priority:
            check_number(self.priority, "priority", -MAX_PRIORITY, MAX_PRIORITY)
        if self.max_attempts is not DEFAULT_MAX_ATTEMPTS:
            check_number(self.max_attempts, "max_attempts", 1, MAX_ATTEMPTS)

    def _check_key(self, key: str, what: str) -> None:
        beside = len(scoped_key("", self.tenant_id) or "")
        check_text(key, what, beside=beside, hint="pass None for no key")

    def _check_concurrency(self) -> None:
        key, limit = self.concurrency_key, self.concurrency_limit
        if (key is None) != (limit is None):
            raise PayloadError("concurrency_key and concurrency_limit go together")
        if key is not None:
            self._check_key(key, "concurrency_key")
            check_number(limit, "concurrency_limit", 1, MAX_CONCURRENCY)
        if key is not None and self.ordering_key is not None:
            raise PayloadError(
                "an item has an ordering_key or a concurrency_key, not both",
                hint="an ordering_key lets one run at a time already",
            )


# Kinds are few, and asked about with every item.
@lru_cache(1024)
def _check_kind(kind: str) -> None:
    check_text(kind, "kind", hint="name what handles it")


@lru_cache(1024)
def _check_lane(lane: str) -> None:
    check_text(lane, "lane", hint="pass None for no lane")


def _check_instant(run_at: datetime) -> None:
    if not isinstance(run_at, datetime):
        raise PayloadError(f"run_at must be a datetime, not {type(run_at).__name__}")
    if run_at.tzinfo is None:
        raise PayloadError("run_at has no time zone", hint="pass an aware datetime")
    if not MIN_YEAR <= run_at.year <= MAX_YEAR:
        raise PayloadError(f"run_at is not in the years {MIN_YEAR} to {MAX_YEAR}")


def seconds(delay: float | timedelta) -> float:
    """Return a delay in seconds."""
    return delay.total_seconds() if isinstance(delay, timedelta) else float(delay)


def bounded_seconds(delay: float) -> float:
    """Return *delay*, as far as a database can add it to the time."""
    if not delay > 0:  # so that NaN is none either
        return 0.0
    return min(delay, MAX_DELAY_SECONDS)


def scoped_key(key: str | None, tenant_id: str | None) -> str | None:
    """
    Return a key as it is stored: one tenant's never meets another's.

    The length in front keeps the parts apart whatever characters they hold.
    """
    if key is None or tenant_id is None:
        return key
    return f"{len(tenant_id)}:{tenant_id}:{key}"


# Not frozen: every item has an outcome, and freezing triples what it costs.
@dataclass(slots=True)
class Outcome:
    """
    The outcome of a claimed item.

    *status* is COMPLETED, FAILED, CANCELLED, RETRY (FAILED if its attempts are spent) or PENDING
    (back to waiting, and the attempt counts as not begun). One that was asked to stop is CANCELLED
    where it would wait again. *next_attempt* is a delay in seconds, an instant, or None for one
    that has not begun: it keeps its place in the line. *token* is the claim's; left out, the store
    uses the one that it remembers. *group* is shared by errors of one type and place, *trace* is
    where the error was raised; see `automate_kernel.secrets.tracebacks`.
    """

    item_id: str
    status: ItemStatus = ItemStatus.COMPLETED
    next_attempt: float | datetime | None = 0.0
    error_code: str | None = None
    error: str | None = None
    token: str | None = None
    group: str | None = None
    trace: str | None = None


TRACE_HEADERS = ("traceparent", "tracestate")
"""The headers of an item that say which trace it belongs to, as W3C's Trace Context has them."""

EXPIRED = "LEASE_EXPIRED"
"""The error code of an item whose worker died, or lost it."""

BEGUN = " +"
"""The end of the owner's name on an item for which `OutboxStore.begin` was called."""

_OWNER_LENGTH = 200
# The place of a UUID's version. That of the token says how an item was claimed. It isn't version 8:
# MariaDB's type UUID refuses one in 64 of those.
_VERSION, _CLAIMED_AHEAD = 14, "6"


def ahead_token(token: str) -> str:
    """Return *token* as that of a claim that takes more than is begun at once."""
    return token[:_VERSION] + _CLAIMED_AHEAD + token[_VERSION + 1 :]


def claimed_ahead(token: str) -> bool:
    """Return True if *token* is that of such a claim."""
    return token[_VERSION : _VERSION + 1] == _CLAIMED_AHEAD


def owner_begun(worker_id: str) -> str:
    """Return the owner that is written on an item of *worker_id* for which `begin` is called."""
    return worker_id[: _OWNER_LENGTH - len(BEGUN)] + BEGUN


def last_worker_died(attempt_count: int, last_error_code: str | None) -> bool:
    """Return True if the worker of the attempt before died, perhaps because of the item."""
    return attempt_count > 1 and last_error_code == EXPIRED


def begins_noted(attempt_count: int, max_attempts: int, last_error_code: str | None) -> bool:
    """
    Return True if it is written down when this attempt of an item that was claimed ahead begins.

    That is so for a last attempt, and for an attempt after the death of a worker.
    """
    return last_worker_died(attempt_count, last_error_code) or attempt_count >= max_attempts


def begin_is_noted(item: OutboxItem) -> bool:
    """Return True if it is written down when *item*, which was claimed ahead, begins."""
    return begins_noted(item.attempt_count, item.max_attempts, item.last_error_code)


# -- what each arrow of the picture writes --------------------------------------------------------

FREE: Mapping[str, Any] = {"lease_owner": None, "lease_token": None, "lease_expires_at": None}
"""The changes that give a lease back."""


def claim_changes(worker_id: str, token: str, lease_seconds: float) -> dict[str, Any]:
    """Return what a claim changes of an item."""
    return {
        "status": ItemStatus.RUNNING.value,
        "waiting_for": None,
        # At the claim, so that an item which kills its worker spends an attempt too.
        "attempt_count": Plus(1),
        "lease_owner": worker_id,
        "lease_token": token,
        "lease_expires_at": Now(lease_seconds),
        "updated_at": _NOW,
    }


def waiting_changes(next_attempt: float | datetime | None, priority: int) -> dict[str, Any]:
    """Return the changes that make an item wait until then; None keeps its place in the line."""
    if next_attempt is None:
        return {"waiting_for": DUE}
    ahead = priority * SECONDS_PER_PRIORITY
    if isinstance(next_attempt, datetime):
        return {
            "waiting_for": LATER,
            "next_attempt_at": next_attempt,
            "sort_at": next_attempt - timedelta(seconds=ahead),
        }
    # One absurd delay must not fail the transaction that finishes many items.
    delay = bounded_seconds(next_attempt)
    return {
        "waiting_for": LATER if delay > 0 else DUE,
        "next_attempt_at": Now(delay),
        "sort_at": Now(delay - ahead),
    }


def end_changes(status: ItemStatus) -> dict[str, Any]:
    """Return the changes that end an item; its token stays, and fences what comes late."""
    return {
        "status": status.value,
        "waiting_for": None,  # it may have been asked to stop
        "lease_expires_at": None,
        "completed_at": _NOW,
        "updated_at": _NOW,
    }


def error_changes(code: str | None, error: str | None, group: str | None) -> dict[str, Any]:
    """Return the changes that note an attempt's error; none without a *code*."""
    if code is None:
        return {}
    return {
        "last_error_code": storable(code, 64),
        "last_error": storable(error or ""),
        "last_error_group": storable(group or code, MAX_GROUP),
    }


@dataclass(slots=True)
class ReapResult:
    """Items that a reaping put back to wait, gave up, or cancelled as they were asked to stop."""

    retried: list[OutboxItem] = field(default_factory=list)
    failed: list[OutboxItem] = field(default_factory=list)
    cancelled: list[OutboxItem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.retried) + len(self.failed) + len(self.cancelled)

    def add(self, item: OutboxItem) -> None:
        """Put a recovered item on the list of its status."""
        lists = {ItemStatus.FAILED: self.failed, ItemStatus.CANCELLED: self.cancelled}
        lists.get(item.status, self.retried).append(item)


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Exponential backoff with full jitter.

    The delay before attempt *n* + 1 is uniform between 0 and
    ``min(maximum_seconds, base_seconds * 2 ** (n - 1))`` (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015), so that a crowd of failures comes back spread out.
    """

    base_seconds: float = 2.0
    maximum_seconds: float = 900.0

    def delay(self, attempt: int, random: Callable[[], float] = runtime.chance) -> float:
        """Return the seconds to wait after attempt number *attempt* failed (the first is 1)."""
        # 2 ** 40 seconds is beyond any maximum, and a float can't hold 2 ** 2000.
        ceiling = min(self.maximum_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 40))
        return float(ceiling * random())


@dataclass(frozen=True, slots=True)
class OutcomeRecorded:
    """
    Returned by a handler that has recorded the item's outcome itself, in its own transaction.

    *outcome* is what it recorded; None for success.
    """

    outcome: Outcome | None = None


Result = Outcome | OutcomeRecorded | None
"""The result of a handler's run; None if its lease was lost, so that nothing may be recorded."""
