"""
The watermark: the time up to which whatever was sent to a tenant has been brought.

A wait's time is over once the watermark has passed its end, not once the clock has: an event that
was sent in time may stand in the outbox still, behind others or after a time without workers. The
term is that of stream processing (T. Akidau et al., "The Dataflow Model", VLDB 2015).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Lock

from automate_kernel.outbox import OutboxStore, RowsOutboxStore
from automate_kernel.storage.rows import Now, Rows, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.engine.waits import EVENT, SIGNAL

# What is tried again within that time is about to be brought.
_SOON_SECONDS = 60.0
# A worker that has died keeps what it was bringing for a lease; then another one has so long.
_PATIENCE_SECONDS = 60.0
# Looks take at most this share of the time.
_SHARE = 0.1
_LEAST_PAUSE = 0.25

_NEVER = datetime.min.replace(tzinfo=timezone.utc)

_BRINGING = Where("kind", "in", (EVENT, SIGNAL))
_ON_THE_WAY = (
    (_BRINGING, Where("waiting_for", "eq", "worker")),
    (_BRINGING, Where("lease_expires_at", "ne", None)),
    # Only what was tried before: with a delay of its own it is sent when that is over.
    (
        _BRINGING,
        Where("waiting_for", "eq", "time"),
        Where("next_attempt_at", "le", Now(_SOON_SECONDS)),
        Where("attempt_count", "ge", 1),
    ),
)


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of a look *at* a time: when the oldest was sent of what is on its way."""

    at: datetime
    again: datetime
    oldest: Mapping[str | None, datetime]

    def has_passed(self, tenant_id: str | None, end: datetime) -> bool:
        oldest = self.oldest.get(tenant_id)
        return end <= self.at and (oldest is None or end < oldest)


class Watermarks:
    """
    The watermarks of tenants, whose events and signals are in *outbox*.

    An outbox that isn't in the tables of executions can't be asked: there the clock decides.
    """

    def __init__(self, outbox: OutboxStore) -> None:
        self._outbox = outbox
        self._look = _Look(_NEVER, _NEVER, {})
        # The ends that are held up, and since when.
        self._held: dict[Hashable, datetime] = {}
        self._lock = Lock()

    def has_passed(
        self, rows: Rows, wait: Hashable, tenant_id: str | None, end: datetime, now: datetime
    ) -> bool:
        """
        Return True if nothing is on its way that was sent to a tenant until the *end* of *wait*.

        Also once the end was held up for a lease and a minute: nobody brings it. *now* is the
        database's time. What has come is to be read after this.
        """
        if not isinstance(self._outbox, RowsOutboxStore):
            return True
        with self._lock:
            if not self._look.has_passed(tenant_id, end) and now >= self._look.again:
                self._look = self._looked(rows, now)
            if self._look.has_passed(tenant_id, end):
                return True
            patience = timedelta(seconds=self._outbox.lease_seconds + _PATIENCE_SECONDS)
            return now - self._held.setdefault((wait, end), now) >= patience

    def _looked(self, rows: Rows, now: datetime) -> _Look:
        began = time.monotonic()
        # In one statement: what changes its place meanwhile would be missed by two.
        found = rows.least(OUTBOX, "created_at", by="tenant_id", any_of=_ON_THE_WAY)
        took = time.monotonic() - began
        # Those that ended otherwise meanwhile; longer than any is held up, each is asked about.
        forgotten = now - timedelta(seconds=2 * (self._outbox.lease_seconds + _PATIENCE_SECONDS))
        self._held = {wait: since for wait, since in self._held.items() if since > forgotten}
        again = now + timedelta(seconds=max(_LEAST_PAUSE, took / _SHARE))
        return _Look(now, again, {row["tenant_id"]: row["created_at"] for row in found})
