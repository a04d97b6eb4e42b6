"""Retention: what is finished is deleted at once, after a time, or never."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from automate_kernel.outbox.failed_attempts import forget_attempts
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.labels import forget_labels
from automate_kernel.storage.rows import Now, Row, Rows, Storage, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["Retention", "forget"]

# Kept for somebody to look at, whatever becomes of what went well.
_FOR_PEOPLE = (ItemStatus.FAILED.value, ItemStatus.CANCELLED.value)
# Rows that one transaction looks at.
_WINDOW = 2000
# The clocks of those who make ids may differ by so much.
_SLACK = timedelta(hours=1)


def forget(rows: Rows, item_ids: Sequence[str]) -> None:
    """Delete what belongs to items that are deleted: their failed attempts and labels."""
    forget_attempts(rows, item_ids)
    forget_labels(rows, item_ids)


class Retention:
    """
    Deletes what is finished, for one store.

    Finished rows stand in no index but the primary key, so that keeping them costs nothing. Ids
    are in order of time, though: a purge walks along them, a window at a time, and remembers where
    it was. What it can't delete it passes once in a round, not each time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._walked: dict[tuple[str, ...], str | None] = {}

    def purge(
        self, older_than_seconds: float, limit: int | None, statuses: Sequence[ItemStatus | str]
    ) -> int:
        """Delete up to *limit* items in *statuses* that finished that long ago."""
        return self._walk(statuses, older_than_seconds).go(limit)

    def sweep(self, seconds: float, *, completed: float | None, failed: float | None) -> int:
        """Delete what was *completed*, or *failed* or was cancelled, longer ago than that."""
        until, deleted = time.monotonic() + seconds, 0
        for statuses, age in (((ItemStatus.COMPLETED,), completed), (_FOR_PEOPLE, failed)):
            if age is not None:
                deleted += self._walk(statuses, age).go(None, until)
        return deleted

    def _walk(self, statuses: Sequence[ItemStatus | str], age: float) -> _Walk:
        chosen = tuple(sorted(ItemStatus(status).value for status in statuses))
        return _Walk(self._storage, chosen, age, self._walked)


class _Walk:
    """One purge: from where the last one ended, once around at most."""

    def __init__(
        self,
        storage: Storage,
        statuses: tuple[str, ...],
        older_than_seconds: float,
        walked: dict[tuple[str, ...], str | None],
    ) -> None:
        self._storage, self._statuses, self._walked = storage, statuses, walked
        self._age = older_than_seconds

    def go(self, limit: int | None, until: float | None = None) -> int:
        """Delete up to *limit* items, until the monotonic clock shows *until*; returns how many."""
        deleted, start = 0, self._walked.get(self._statuses)
        place, around = start, start is None
        while limit is None or deleted < limit:
            found, rest, now = self._window(place, None if limit is None else limit - deleted)
            deleted += found
            place = self._beyond(rest, now)
            if place is None:
                if around:
                    break
                around = True
            elif start is not None and around and place >= start:
                break
            if until is not None and time.monotonic() >= until:
                break
        self._walked[self._statuses] = place
        return deleted

    def _window(self, place: str | None, limit: int | None) -> tuple[int, list[Row], datetime]:
        """Delete from the rows after *place*; returns how many, the rows passed, and the time."""
        beyond = [] if place is None else [Where("id", "gt", place)]
        with self._storage.begin() as rows:
            passed = rows.select(
                OUTBOX, beyond, order_by=("id",), limit=_WINDOW, columns=("id", "created_at")
            )
            now = rows.now()
            if not passed:
                return 0, [], now
            over = [
                Where("status", "in", self._statuses),
                Where("completed_at", "le", Now(-self._age)),
            ]
            found = rows.select(
                OUTBOX, [*beyond, Where("id", "le", passed[-1]["id"]), *over],
                order_by=("id",), limit=limit, lock=True, skip_locked=True, columns=("id",),
            )  # fmt: skip
            ids = [row["id"] for row in found]
            deleted = rows.delete(OUTBOX, [Where("id", "in", ids), *over])
            forget(rows, ids)
        if len(ids) == limit:
            passed = [row for row in passed if row["id"] <= ids[-1]]
        return deleted, passed, now

    def _beyond(self, passed: Sequence[Row], now: datetime) -> str | None:
        """Return the place to go on from, or None at the end of the round."""
        if not passed:
            return None
        last: str = passed[-1]["id"]
        recent = now - timedelta(seconds=self._age) + _SLACK
        if all(row["created_at"] > recent for row in passed):
            # What follows is younger still, but for ids that are not ours, which tell no time.
            ours = f"{int((time.time() + 86_400) * 1000):012x}"
            return max(last, f"{ours[:8]}-{ours[8:]}-7000-8000-000000000000")
        return last
