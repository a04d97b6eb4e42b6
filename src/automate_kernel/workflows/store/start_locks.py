"""
Start locks: rows that starts of one key lock, so that they decide one after another.

They are locked in the order of their ids. A row names the last execution that was started under it.
Its time is that of a debounce's first event, or the one at which a rate's bucket is full again.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from automate_kernel import signals
from automate_kernel.outbox import concurrency_keys
from automate_kernel.outbox.item import WAITING, waiting_changes
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import DEBOUNCE, EXECUTION, OUTBOX, STEP
from automate_kernel.workflows.decide.admission import Admission, SkippedError
from automate_kernel.workflows.decide.waits import RESUMED
from automate_kernel.workflows.definition.admission import Debounce
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import Event, ExecutionStatus

logger: logging.Logger = get_logger(__name__)

_UNBEGUN = (ExecutionStatus.PENDING.value, ExecutionStatus.PAUSED.value)
_NOBODY = "00000000-0000-0000-0000-000000000000"
# A start lock that nobody has come to for so long is forgotten: it would be made anew as it is.
_FORGOTTEN_SECONDS = 86_400.0
_PAGE = 1000
# Clocks are corrected by less all the time, and that holds up nobody for long.
_CLOCK_SLACK = timedelta(seconds=1)


def announce_skipped(
    sender: Any,
    workflow: Workflow,
    event: Event,
    error: SkippedError,
    *,
    send: Callable[..., Any] = signals.emit,
) -> None:
    """Log a start that was skipped, and send `workflow_skipped` once that is committed."""
    logger.info("event %s: %s", event.id, error.message)
    send(
        signals.workflow_skipped, sender, workflow=workflow, event=event,
        execution_id=error.running,
    )  # fmt: skip


def acquire_start_locks(rows: Rows, ids: Iterable[str]) -> dict[str, Row]:
    """Lock the rows *ids* until the transaction of *rows* ends; return them by id."""
    wanted = sorted(set(ids))
    found: dict[str, Row] = {}
    # On SQLite the insert comes first: a transaction that has only read can't go on to write.
    known = rows.dialect.row_locks
    while len(found) < len(wanted):
        if not known:
            missing = [each for each in wanted if each not in found]
            new = {"execution_id": _NOBODY, "created_at": Now()}
            rows.ensure(DEBOUNCE, [{"id": each, **new} for each in missing])
        its = [Where("id", "in", wanted)]
        found = {row["id"]: row for row in rows.select(DEBOUNCE, its, order_by=("id",), lock=True)}
        known = False
    return found


def mark_start_locks(rows: Rows, admission: Admission, execution_id: str) -> None:
    """Note in the start locks of *admission* that *execution_id* has started."""
    for lock in sorted(admission.locks):
        # A change of the row itself: where the database compares snapshots, it must see one.
        changes: dict[str, Any] = {"execution_id": execution_id}
        if lock != admission.rate_lock:
            changes["created_at"] = Now()
        rows.update(DEBOUNCE, [Where("id", "eq", lock)], changes)


def purge_start_locks(rows: Rows, after: str) -> tuple[int, str | None]:
    """
    Delete start locks that nobody needs any more, among the next thousand old ones after *after*.

    Returns the number of deleted start locks, and the id to go on after; None at the end.
    """
    old = [Where("created_at", "lt", Now(-_FORGOTTEN_SECONDS)), Where("id", "gt", after)]
    found = rows.select(
        DEBOUNCE, old, order_by=("id",), limit=_PAGE, lock=True, skip_locked=True,
        columns=("id", "execution_id"),
    )  # fmt: skip
    its = [
        Where("id", "in", sorted({row["execution_id"] for row in found})),
        Where("status", "in", _UNBEGUN),
    ]
    # An event may still take the place of the one that they wait with.
    pending = {row["id"] for row in rows.select(EXECUTION, its, columns=("id",))}
    ids = [row["id"] for row in found if row["execution_id"] not in pending]
    deleted = rows.delete(DEBOUNCE, [Where("id", "in", ids)])
    return deleted, found[-1]["id"] if len(found) == _PAGE else None


def live_executions(rows: Rows, key: str, *, most: int | None = None) -> list[Row]:
    """Return ids and items of the executions with this key that have not ended, oldest first."""
    return rows.select(
        EXECUTION, [Where("concurrency_key", "eq", key), Where("status", "in", LIVE)],
        # Those of one moment in the order of their starts: items have ids that ascend.
        order_by=("created_at", "item_id"), limit=most, columns=("id", "item_id"),
    )  # fmt: skip


def items_in_the_way(rows: Rows, given: Sequence[Admission]) -> set[str]:
    """Return the items of the executions that starts with these conditions may have to cancel."""
    ids = set[str]()
    room = Counter[tuple[str, int]]()
    for each in given:
        if each.concurrency is not None and each.concurrency.when_full == "cancel_older":
            room[each.concurrency_key or "", each.concurrency.limit] += 1
    for (key, limit), count in room.items():
        live = live_executions(rows, key)
        ids |= {row["item_id"] for row in live[: max(0, len(live) - limit + count)]}
    return ids


def begin_time(rows: Rows, admission: Admission, locks: Mapping[str, Row]) -> datetime | None:
    """Take a place in the rate of *admission*; return its time, or None if that is now."""
    limit = admission.rate_limit
    if limit is None:
        return None
    now = rows.now()
    # Rounded up: a timestamp holds microseconds, and no start may come too early.
    apart = timedelta(microseconds=math.ceil(limit.per / limit.limit * 1_000_000))
    full_at = max(_full_at(rows, locks[admission.rate_lock], now), now)
    begins = full_at - ((limit.burst or limit.limit) - 1) * apart
    full_at += apart
    rows.update(DEBOUNCE, [Where("id", "eq", admission.rate_lock)], {"created_at": full_at})
    return begins if begins > now else None


def _full_at(rows: Rows, lock: Row, now: datetime) -> datetime:
    """Return the time of a rate's *lock*, by the clock as it is if that was put back since."""
    full_at: datetime = lock["created_at"]
    if full_at - now > _CLOCK_SLACK:
        last = [Where("id", "eq", lock["execution_id"]), Where("created_at", "gt", Now())]
        for came in rows.select(EXECUTION, last, columns=("created_at",)):
            full_at -= came["created_at"] - now
    return full_at


def has_begun(rows: Rows, execution_id: str) -> bool:
    """Return True if a step of an execution has a row: without one nothing of it has begun."""
    its = [Where("execution_id", "eq", execution_id)]
    return bool(rows.select(STEP, its, limit=1, columns=("id",)))


def which_have_begun(rows: Rows, execution_ids: Collection[str]) -> set[str]:
    """Return those of these executions of which a step has a row."""
    its = [Where("execution_id", "in", sorted(execution_ids))]
    return {row["execution_id"] for row in rows.count(STEP, ("execution_id",), its)}


def postpone(
    rows: Rows, debounce: Debounce, lock: Row, changes: Row, item_changes: Row
) -> Row | None:
    """
    Make *changes* to the execution that waits behind *lock*, and to its item, which waits anew.

    *item_changes* give the item's concurrency key. Returns its id and the definition that it had;
    None if there is none, or it has begun. If it waits with an event that was sent later,
    it stays as it is, and is ``kept``: workers take events side by side, and the last one counts.
    """
    its = [Where("id", "eq", lock["execution_id"]), Where("status", "in", _UNBEGUN)]
    read = ("id", "item_id", "definition_id", "events_since")
    for execution in rows.select(EXECUTION, its, columns=read):
        # Locked, so that no worker claims it now. One that was claimed may have begun.
        unclaimed = [
            Where("id", "eq", execution["item_id"]),
            Where("status", "in", WAITING),
            Where("attempt_count", "eq", 0),
        ]
        its_columns = (
            "id", "priority", "concurrency_key", "headers", "lease_token", "waiting_for",
        )  # fmt: skip
        for item in rows.select(OUTBOX, unclaimed, lock=True, columns=its_columns):
            # One that is paused was claimed, and put back as it was. One that goes on after its end
            # keeps its own event.
            untouched = item["lease_token"] is None or item["waiting_for"] == ItemWait.RESUME
            if not untouched or RESUMED in item["headers"]:
                return None
            if has_begun(rows, execution["id"]):
                return None
            if _is_older(changes["events_since"], execution["events_since"]):
                return {**execution, "kept": True}
            if not rows.update(EXECUTION, its, {**changes, "updated_at": Now()}):
                return None
            waits = waiting_changes(_quiet_at(rows, debounce, lock), item["priority"])
            headers = {k: v for k, v in item["headers"].items() if k != concurrency_keys.HEADER}
            if item_changes["concurrency_key"] is not None:
                headers[concurrency_keys.HEADER] = True
            # Nobody has claimed it by now, so that the next event finds it too.
            own: Row = {"headers": headers, "lease_token": None}
            its_own = [Where("id", "eq", item["id"])]
            rows.update(OUTBOX, its_own, {**item_changes, **waits, **own})
            if item["concurrency_key"] is not None:
                # It may have taken a slot before it was put back, or been woken to take one.
                concurrency_keys.release(rows, [(item["concurrency_key"], item["id"])])
            return execution
    return None


def _is_older(sent_at: datetime | None, than: datetime | None) -> bool:
    return sent_at is not None and than is not None and sent_at < than


def _quiet_at(rows: Rows, debounce: Debounce, lock: Row) -> datetime | float:
    if debounce.at_most is None:
        return debounce.for_
    first, now = lock["created_at"], rows.now()
    if first > now:
        # The clock was put back: the first event is as far away as it can be.
        first = now
        rows.update(DEBOUNCE, [Where("id", "eq", lock["id"])], {"created_at": now})
    latest: datetime = first + timedelta(seconds=debounce.at_most)
    return min(latest, now + timedelta(seconds=debounce.for_))


def start_locks_of(admissions: Sequence[Admission]) -> list[str]:
    """Return the ids of all start locks of *admissions*."""
    return [lock for each in admissions for lock in each.locks]
