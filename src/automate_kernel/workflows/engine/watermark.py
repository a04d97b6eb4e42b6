"""
The watermark: the time up to which whatever was sent to a tenant has been brought.

A wait's time is over once the watermark has passed its end, not once the clock has: an event that
was sent in time may stand in the outbox still, behind others or after a time without workers. The
term is that of stream processing (T. Akidau et al., "The Dataflow Model", VLDB 2015).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from automate_kernel.outbox import OutboxStore, RowsOutboxStore
from automate_kernel.storage.rows import Now, Row, Rows, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.engine.waits import EVENT, SIGNAL

# Nobody brings what has been there for so long since it was met: its kind is paused, say, or it
# fails again and again. What is leased has its lease in addition: then another worker may have it.
_STUCK_SECONDS = 60.0
# What is tried again within that time is about to be brought.
_SOON_SECONDS = 60.0
# So many of the oldest are looked at. Once nobody brings these, those behind them don't count.
_MOST = 100
# Looks take at most this share of the time.
_SHARE = 0.1
_LEAST_PAUSE = 0.25
_MOST_TENANTS = 10_000

_COLUMNS = ("id", "created_at", "next_attempt_at", "attempt_count", "lease_token")
_RETRIED = (Where("waiting_for", "eq", "time"), Where("next_attempt_at", "le", Now(_SOON_SECONDS)))
_READY = (Where("waiting_for", "eq", "worker"),)
_LEASED = (Where("lease_expires_at", "ne", None),)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of a look: the watermark, when to look again, and what was met since when."""

    mark: datetime
    again: datetime
    met: Mapping[str, datetime] = field(default_factory=dict)


class Watermarks:
    """
    The watermarks of tenants, whose events and signals are in *outbox*.

    An outbox that isn't in the tables of executions can't be asked: there the clock decides.
    """

    def __init__(self, outbox: OutboxStore) -> None:
        self._outbox = outbox
        self._looks: dict[str | None, _Look] = {}

    def passed(self, rows: Rows, tenant_id: str | None, end: datetime, now: datetime) -> bool:
        """
        Return True if nothing is on its way that was sent to a tenant until *end*.

        *now* is the database's time. What has come is to be read after this.
        """
        if not isinstance(self._outbox, RowsOutboxStore):
            return True
        look = self._looks.get(tenant_id)
        if look is None or (end > look.mark and now >= look.again):
            look = self._look(rows, tenant_id, now, look.met if look else {})
            if len(self._looks) >= _MOST_TENANTS:
                # Of those that have nothing on its way, nothing is lost.
                self._looks = {key: one for key, one in self._looks.items() if one.met}
            self._looks[tenant_id] = look
        return end <= look.mark

    def _look(
        self, rows: Rows, tenant_id: str | None, now: datetime, before: Mapping[str, datetime]
    ) -> _Look:
        began, mark = time.monotonic(), now
        met: dict[str, datetime] = {}
        for row, patience in self._on_the_way(rows, tenant_id):
            met[row["id"]] = first = before.get(row["id"], now)
            if (now - first).total_seconds() < patience:
                mark = min(mark, _sent_at(row) - _TICK)
        took = time.monotonic() - began
        return _Look(mark, now + timedelta(seconds=max(_LEAST_PAUSE, took / _SHARE)), met)

    def _on_the_way(self, rows: Rows, tenant_id: str | None) -> Iterator[tuple[Row, float]]:
        """Yield the oldest items that bring something, and for how long they hold the mark."""
        its = (Where("kind", "in", (EVENT, SIGNAL)), Where("tenant_id", "eq", tenant_id))
        leased = _STUCK_SECONDS + self._outbox.lease_seconds
        # In the order in which they come on, so that none slips through between two looks.
        for place, patience in (
            (_RETRIED, _STUCK_SECONDS), (_READY, _STUCK_SECONDS), (_LEASED, leased),
        ):  # fmt: skip
            for row in rows.select(
                OUTBOX, [*its, *place], order_by=("created_at",), limit=_MOST, columns=_COLUMNS
            ):
                yield row, patience


def _sent_at(row: Row) -> datetime:
    """Return when an item was sent: one with a delay when that is over."""
    created: datetime = row["created_at"]
    due: datetime = row["next_attempt_at"]
    # One that was claimed before waits to be tried again.
    return created if row["attempt_count"] or row["lease_token"] else max(created, due)
