"""
Ordering keys: strictly one item of a key at a time, in the order of enqueueing.

A row of `automate_kernel.storage.tables.LANE` exists while an item with the key runs; the primary
key makes it exclusive. An item that is claimed while its key is taken, or before its turn, goes
back to wait (``waiting_for = "key"``), out of the index that is claimed from, so each one costs
that detour once. Whoever leaves a key wakes the next in line.

Concurrency keys have the same four functions, and a mechanism of their own: the wake-ups differ.
Here exactly one item is next, known by its id, and who finds it too early waits for it. There any
of those that wait may go, of each kind one, since nobody may work on a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from automate_kernel.outbox.concurrency_keys import delete_abandoned, is_free
from automate_kernel.storage.rows import Row, Rows, Where
from automate_kernel.storage.tables import LANE, OUTBOX


def enter(rows: Rows, claimed: Sequence[Row], token: str) -> tuple[set[str], set[str]]:
    """
    Take the keys of *claimed* rows.

    Returns the ids that must wait for theirs, and the keys that this transaction has locked.
    """
    first: dict[str, Row] = {}
    for row in sorted(claimed, key=_place):
        first.setdefault(row["ordering_key"], row)
    # In the order of their keys, so that two claims never wait for each other in a circle.
    wanted = [
        {"ordering_key": key, "item_id": first[key]["id"], "lease_token": token}
        for key in sorted(first)
    ]
    rows.insert(LANE, wanted)
    mine = [
        Where("item_id", "in", sorted(lane["item_id"] for lane in wanted)),
        Where("lease_token", "eq", token),
    ]
    entered = {lane["ordering_key"]: lane["item_id"] for lane in rows.select(LANE, mine)}
    # Only now: whoever left a key a moment ago may have put its item back to wait, before ours.
    late = {key for key in entered if _overtaken(rows, key, first[key])}
    if late:
        rows.delete(LANE, [Where("ordering_key", "in", sorted(late)), *mine])
    running = {item_id for key, item_id in entered.items() if key not in late}
    return {row["id"] for row in claimed} - running, set(entered)


def _place(row: Row) -> tuple[datetime, str]:
    """Return an item's place in the line: by the database's clock, and not that of its id."""
    return row["created_at"], row["id"]


def _overtaken(rows: Rows, key: str, row: Row) -> bool:
    """Return True if an earlier item waits; it is woken, being next in line."""
    head = _head(rows, key)
    if head is None or _place(head) > _place(row):
        return False
    # Two workers that each claimed the head of the other's key would wait in a circle.
    _wake_if_free(rows, head["id"])
    return True


def _wake_if_free(rows: Rows, item_id: str) -> None:
    # Whoever holds its row now finishes, cancels or wakes it, and so sees to it.
    if is_free(rows, item_id):
        rows.update(OUTBOX, [Where("id", "eq", item_id)], {"waiting_for": "worker"})


def _head(rows: Rows, key: str) -> Row | None:
    where = [Where("ordering_key", "eq", key), Where("waiting_for", "ne", None)]
    order = ("created_at", "id")
    found = rows.select(OUTBOX, where, order_by=order, limit=1, columns=order)
    return found[0] if found else None


def leave(rows: Rows, finished: Iterable[tuple[str, str]]) -> None:
    """Free the keys of (ordering key, item id) pairs and wake the next item of each."""
    pairs = sorted(finished)
    for key in dict.fromkeys(key for key, _ in pairs):
        wake(rows, key)
    # Last, not first: another worker that now finds the key taken puts its item to wait and
    # commits, and the waking above waits for that row; the other way round they would deadlock.
    rows.delete(LANE, [Where("item_id", "in", [item_id for _, item_id in pairs])])


def wake(rows: Rows, key: str) -> None:
    """Let the next item of *key* be claimed."""
    head = _head(rows, key)
    if head is not None:
        # "worker" too, although that changes nothing: it may be on its way to "key" in another
        # transaction, and matching it makes this one wait for the outcome.
        where = [Where("id", "eq", head["id"]), Where("waiting_for", "in", ["key", "worker"])]
        rows.update(OUTBOX, where, {"waiting_for": "worker"})


def mend(rows: Rows) -> None:
    """Free keys of items that don't run, and wake keys with waiting items and no running one."""
    delete_abandoned(rows, LANE, "ordering_key")
    # Both conditions, so that the index of waiting items with a key serves.
    asleep = [Where("waiting_for", "eq", "key"), Where("ordering_key", "ne", None)]
    waiting = rows.count(OUTBOX, ("ordering_key",), asleep)
    keys = sorted(row["ordering_key"] for row in waiting)
    busy = {lane["ordering_key"] for lane in rows.select(LANE, [Where("ordering_key", "in", keys)])}
    for key in keys:
        head = None if key in busy else _head(rows, key)
        # Without waiting: a worker that froze in a transaction must not stop all recovery.
        if head is not None:
            _wake_if_free(rows, head["id"])
