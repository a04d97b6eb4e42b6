"""
The watermark: the time up to which whatever was sent to a tenant has been brought.

A wait's time is over once the watermark has passed its end, not once the clock has: an event that
was sent in time may stand in the outbox still, behind others or after a time without workers. The
term is that of stream processing (T. Akidau et al., "The Dataflow Model", VLDB 2015).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from automate_kernel.base import runtime
from automate_kernel.base.forks import new_lock
from automate_kernel.outbox import OutboxStore
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.decide.waits import EVENT, SIGNAL

# What is tried again within that time is about to be brought.
_SOON_SECONDS = 60.0
# A worker that has died keeps what it was bringing for a lease; then others have so long, even if
# some of them die of something else.
_BRINGING_TIME = timedelta(minutes=5)
# Looks take at most this share of the time.
_SHARE = 0.1
_LEAST_PAUSE = timedelta(seconds=0.25)

_FORGOTTEN = timedelta(hours=1)
_NEVER = datetime.min.replace(tzinfo=timezone.utc)

_BRINGING = Where("kind", "in", (EVENT, SIGNAL))
_READY = (_BRINGING, Where("waiting_for", "eq", ItemWait.WORKER.value))
_DELAYED = (_BRINGING, Where("waiting_for", "eq", ItemWait.TIME.value))
_LEASED = (_BRINGING, Where("lease_expires_at", "ne", None))
# One with a delay is sent when that is over; what was tried before, or put off, was sent before.
_NEW, _TRIED = Where("attempt_count", "eq", 0), Where("attempt_count", "ge", 1)
_FIRST, _AGAIN = Where("attempt_count", "le", 1), Where("attempt_count", "gt", 1)
_PLAIN, _PUT_OFF = Where("last_error_code", "eq", None), Where("last_error_code", "ne", None)
_SOON = Where("next_attempt_at", "le", Now(_SOON_SECONDS))
# Each stands in an index of its own.
_TENANTS = (Where("tenant_id", "eq", None), Where("tenant_id", "ne", None))
_ON_THE_WAY: tuple[tuple[str, tuple[Where, ...]], ...] = (
    *(("next_attempt_at", (*_READY, _NEW, _PLAIN, tenants)) for tenants in _TENANTS),
    *(("created_at", (*_READY, _NEW, _PUT_OFF, tenants)) for tenants in _TENANTS),
    *(("created_at", (*_READY, _TRIED, tenants)) for tenants in _TENANTS),
    ("next_attempt_at", (*_LEASED, _FIRST, _PLAIN)),
    ("created_at", (*_LEASED, _FIRST, _PUT_OFF)),
    ("created_at", (*_LEASED, _AGAIN)),
    ("next_attempt_at", (*_DELAYED, _NEW, _PLAIN, Where("next_attempt_at", "le", Now()))),
    ("created_at", (*_DELAYED, _NEW, _PUT_OFF, _SOON)),
    ("created_at", (*_DELAYED, _TRIED, _SOON)),
)


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of a look *at* a time: when the oldest was sent of what is on its way."""

    at: datetime
    took: timedelta
    oldest: Mapping[str | None, datetime]

    def has_passed(self, tenant_id: str | None, end: datetime) -> bool:
        oldest = self.oldest.get(tenant_id)
        return end <= self.at and (oldest is None or end < oldest)

    def is_old(self, tenant_id: str | None, end: datetime, now: datetime) -> bool:
        """Return True if another look is to tell whether the mark has passed *end*."""
        if now < self.at:
            return True  # the clock was set back
        if self.has_passed(tenant_id, end):
            return False
        pause = self.took / _SHARE
        # What was on its way a moment ago is given a moment.
        return now - self.at >= (pause if end > self.at else max(pause, _LEAST_PAUSE))


@dataclass(slots=True)
class _Held:
    """An end that is held up: the times at which it was asked about *first* and *last*."""

    first: datetime
    last: datetime


class Watermarks:
    """
    The watermarks of tenants, whose events and signals are in *outbox*.

    An outbox that isn't in the tables of executions can't be asked: there the clock decides.
    """

    def __init__(self, outbox: OutboxStore) -> None:
        self._outbox = outbox
        self._shares_tables = outbox.tables is not None
        self._look = _Look(_NEVER, timedelta(0), {})
        self._held: dict[Hashable, _Held] = {}
        # By tenant the latest time that the mark was ever at, and since when it is.
        self._moved: dict[str | None, tuple[datetime, datetime]] = {}
        self._lock = new_lock()

    def has_passed(
        self, rows: Rows, wait: Hashable, tenant_id: str | None, end: datetime, now: datetime
    ) -> bool:
        """
        Return True if nothing is on its way that was sent to a tenant until the *end* of *wait*.

        Also once the end was held up for a lease and five minutes, and in that time the oldest was
        not brought: nobody does. *now* is the database's time. What has come is to be read after
        this.
        """
        if not self._shares_tables:
            return True
        with self._lock:
            if self._look.is_old(tenant_id, end, now):
                self._look = self._looked(rows, now)
            if self._look.has_passed(tenant_id, end):
                return True
            held = self._held.setdefault((wait, end), _Held(now, now))
            held.last = now
            _, since = self._moved.get(tenant_id, (now, now))
            return now - max(held.first, since) >= self._patience

    @property
    def _patience(self) -> timedelta:
        return timedelta(seconds=self._outbox.lease_seconds) + _BRINGING_TIME

    def _looked(self, rows: Rows, now: datetime) -> _Look:
        began = runtime.monotonic()
        # In one statement: what changes its place meanwhile would be missed by two.
        oldest = rows.least(OUTBOX, by="tenant_id", of=_ON_THE_WAY)
        took = timedelta(seconds=runtime.monotonic() - began)
        before, self._moved = self._moved, {}
        for tenant_id, sent_at in oldest.items():
            known = before.get(tenant_id, (_NEVER, now))
            # What comes back, to be tried again, is no progress.
            self._moved[tenant_id] = (sent_at, now) if sent_at > known[0] else known
        # Of waits that have ended otherwise nobody asks any more.
        # It may be another process that was asked meanwhile.
        asked = now - max(_FORGOTTEN, 2 * self._patience)
        self._held = {wait: held for wait, held in self._held.items() if held.last > asked}
        return _Look(now, took, oldest)
