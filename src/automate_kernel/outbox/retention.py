"""Retention: what is finished is deleted at once, after a time, or never."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_age, check_choice, check_limit, several
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import FAILURE, LABEL, OUTBOX

# Kept for somebody to look at, whatever becomes of what went well.
_FOR_PEOPLE = (ItemStatus.FAILED.value, ItemStatus.CANCELLED.value)
# Rows that one transaction looks at.
_WINDOW = 2000
# Rounds that are made again if all was locked, and the time between two.
_TRIES = 5
_MOMENT_SECONDS = 0.05
# The clocks of those who make ids may differ by so much.
_SLACK = timedelta(hours=1)


def forget(rows: Rows, subject_ids: Sequence[str]) -> None:
    """Delete the failed attempts and labels of items or executions that are deleted."""
    for table in (FAILURE, LABEL):
        # By their keys, which lock nothing beside them; mostly there are none.
        its = [Where("subject_id", "in", list(subject_ids))]
        ids = sorted(row["id"] for row in rows.select(table, its, columns=("id",)))
        rows.delete(table, [Where("id", "in", ids)])


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

    def sweep(self, seconds: float, *, completed: float | None, failed: float | None) -> int:
        """Delete what was *completed*, or *failed* or was cancelled, longer ago than that."""
        until, deleted = runtime.monotonic() + seconds, 0
        for statuses, age in (((ItemStatus.COMPLETED,), completed), (_FOR_PEOPLE, failed)):
            if age is not None:
                deleted += self.purge(age, None, statuses, until)
        return deleted

    def purge(
        self, age: float, limit: int | None, statuses: Sequence[str], until: float | None = None
    ) -> int:
        """
        Delete items in *statuses* that finished *age* seconds ago, from where the last walk ended.

        It goes around once at most, and ends at *limit* items, or when the monotonic clock shows
        *until*. Without *until*, a round in which all that it found was locked is made again, some
        times: where claims read whole indexes they hold what is finished for a moment, and who
        calls this until nothing is left would end too early.
        """
        age = check_age(age, "the time for which items are kept")
        limit = None if limit is None else check_limit(limit, least=0)
        each_one = (check_choice(each, ItemStatus, "status") for each in several(statuses))
        chosen = tuple(sorted(status.value for status in each_one))
        deleted, locked, start = 0, 0, self._walked.get(chosen)
        place, around = start, start is None
        tries = _TRIES if until is None else 0
        while limit is None or deleted < limit:
            left = None if limit is None else limit - deleted
            work = partial(_pass_window, place=place, statuses=chosen, age=age, limit=left)
            found, missed, place = write(self._storage, None, work)
            deleted, locked = deleted + found, locked + missed
            if place is None and not around:
                around = True
            elif around and (place is None or (start is not None and place >= start)):
                if deleted or not locked or not tries:
                    break
                tries, locked = tries - 1, 0
                start, around = place, place is None
                runtime.sleep(_MOMENT_SECONDS)
            if until is not None and runtime.monotonic() >= until:
                break
        self._walked[chosen] = place
        return deleted


def _pass_window(
    rows: Rows, place: str | None, statuses: Sequence[str], age: float, limit: int | None
) -> tuple[int, int, str | None]:
    """Delete from the rows after *place*: how many, how many were locked, and where to go on."""
    deleted, locked, passed = _delete_window(rows, place, statuses, age, limit)
    further = _beyond(passed, rows.now() - timedelta(seconds=age)) if passed else None
    return deleted, locked, further


def _delete_window(
    rows: Rows, place: str | None, statuses: Sequence[str], age: float, limit: int | None
) -> tuple[int, int, list[Row]]:
    """Delete from the rows after *place*: how many, how many were locked, and the rows passed."""
    beyond = [] if place is None else [Where("id", "gt", place)]
    passed = rows.select(
        OUTBOX, beyond, order_by=("id",), limit=_WINDOW, columns=("id", "created_at")
    )
    if not passed:
        return 0, 0, []
    over = [Where("status", "in", statuses), Where("completed_at", "le", Now(-age))]
    which = [*beyond, Where("id", "le", passed[-1]["id"]), *over]
    # Mostly there are none, and then nothing is locked.
    due = rows.select(OUTBOX, which, order_by=("id",), limit=limit, columns=("id",))
    if not due:
        return 0, 0, passed
    found = rows.select(
        OUTBOX, which, order_by=("id",), limit=limit, lock=True, skip_locked=True, columns=("id",),
    )  # fmt: skip
    ids = [row["id"] for row in found]
    deleted = rows.delete(OUTBOX, [Where("id", "in", ids), *over])
    forget(rows, ids)
    if len(ids) == limit:
        passed = [row for row in passed if row["id"] <= ids[-1]]
    return deleted, max(0, len(due) - len(ids)), passed


def _beyond(passed: Sequence[Row], over: datetime) -> str:
    """Return the place to go on from, if what finished before *over* is looked for."""
    last: str = passed[-1]["id"]
    if all(row["created_at"] > over + _SLACK for row in passed):
        # What follows is younger still, but for ids that are not ours, which tell no time.
        ours = f"{int((runtime.time() + 86_400) * 1000):012x}"
        return max(last, f"{ours[:8]}-{ours[8:]}-7000-8000-000000000000")
    return last
