"""
Ordering keys: strictly one item of a key at a time, in the order of enqueueing.

A row of the table `ORDERING_LOCK` exists while an item with the key runs; the primary key makes it
exclusive. An item that is claimed while its key is taken, or before its turn, goes
back to wait (``waiting_for = "key"``), out of the index that is claimed from, so each one costs
that detour once. Whoever leaves a key wakes the next in line.

Before a claim puts an item to wait it locks what is in its way, the row of the key or the item
before it, without waiting for locks itself. Who takes that away then waits for the claim's end, and
so finds the item and wakes it: none is put to wait for a key that was just left. Where the lock
can't be had, the key is being left this moment, and the item stays ready.

Concurrency keys have the same four functions, and a mechanism of their own: the wake-ups differ.
Here exactly one item is next, known by its id, and who finds it too early waits for it. There any
of those that wait may go, of each kind one, since nobody may work on a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from automate_kernel.outbox.concurrency_keys import delete_abandoned, is_free
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX

# The next in line may be cancelled between a look at it and its wake-up, and the one after it too.
_TRIES = 10


def enter(rows: Rows, claimed: Sequence[Row], token: str) -> tuple[set[str], set[str], set[str]]:
    """
    Take the keys of *claimed* rows.

    Returns the ids that must wait for theirs, the ids that are to stay ready, and the keys for
    which other claims wait until this transaction ends.
    """
    first: dict[str, Row] = {}
    for row in sorted(claimed, key=_place):
        first.setdefault(row["ordering_key"], row)
    free = first.keys() - _busy(rows, first)
    # In the order of their keys, so that two claims never wait for each other in a circle.
    rows.insert(ORDERING_LOCK, [
        {"ordering_key": key, "item_id": first[key]["id"], "lease_token": token}
        for key in sorted(free)
    ])  # fmt: skip
    mine = [
        Where("item_id", "in", sorted(first[key]["id"] for key in free)),
        Where("lease_token", "eq", token),
    ]
    entered = {held["ordering_key"] for held in rows.select(ORDERING_LOCK, mine)}
    # Only now: whoever left a key a moment ago may have put its item back to wait, before ours.
    earlier = {key: head for key in sorted(entered) if (head := _earlier(rows, first[key]))}
    if earlier:
        rows.delete(ORDERING_LOCK, [Where("ordering_key", "in", sorted(earlier)), *mine])
    held = {key for key, head in earlier.items() if _hold(rows, head)}
    held |= _busy(rows, first.keys() - entered, lock=True)
    running = {first[key]["id"] for key in entered - earlier.keys()}
    ready = {
        row["id"] for row in claimed
        if row["ordering_key"] not in held and first[row["ordering_key"]]["id"] not in running
    }  # fmt: skip
    return {row["id"] for row in claimed} - running - ready, ready, set(free)


def _busy(rows: Rows, keys: Iterable[str], *, lock: bool = False) -> set[str]:
    """Return those of *keys* that are taken, or with *lock* those of them that nobody leaves."""
    found = rows.select(
        ORDERING_LOCK, [Where("ordering_key", "in", sorted(keys))],
        order_by=("ordering_key",), lock=lock, skip_locked=lock, share=True,
        columns=("ordering_key",),
    )  # fmt: skip
    return {row["ordering_key"] for row in found}


def _place(row: Row) -> tuple[datetime, str]:
    """Return an item's place in the line: by the database's clock, and not that of its id."""
    return row["created_at"], row["id"]


def _earlier(rows: Rows, row: Row) -> str | None:
    """Return the item that is next in line, if that comes before the one of *row*."""
    head = _head(rows, row["ordering_key"])
    return None if head is None or _place(head) > _place(row) else str(head["id"])


def _hold(rows: Rows, item_id: str) -> bool:
    """Keep the next item in its line until this transaction ends; False if somebody has it."""
    # Without waiting: two claims that each have the head of the other's key would wait in a circle.
    its = [Where("id", "eq", item_id), Where("waiting_for", "ne", None)]
    found = rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id", "waiting_for"))
    if found and found[0]["waiting_for"] == ItemWait.KEY:
        rows.update(OUTBOX, its, {"waiting_for": ItemWait.WORKER.value})
    return bool(found)


def _head(rows: Rows, key: str) -> Row | None:
    where = [Where("ordering_key", "eq", key), Where("waiting_for", "ne", None)]
    order = ("created_at", "id")
    found = rows.select(OUTBOX, where, order_by=order, limit=1, columns=(*order, "waiting_for"))
    return found[0] if found else None


def release(
    rows: Rows, finished: Iterable[tuple[str, str]], tokens: Iterable[str], *, wait: bool = True
) -> None:
    """
    Free the keys of (ordering key, item id) pairs and wake the next item of each.

    *tokens* are those of the claims that end: an item may have been claimed anew. Without *wait*
    those that are locked are left to `mend`.
    """
    pairs = sorted(finished)
    its = [
        Where("item_id", "in", [item_id for _, item_id in pairs]),
        Where("lease_token", "in", sorted(set(tokens))),
    ]
    # First, and not as they are deleted: whoever has found a key taken has put its item to wait by
    # then, and whoever comes later finds the key locked, and puts none to wait.
    found = rows.select(
        ORDERING_LOCK, its, lock=True, skip_locked=not wait, columns=("ordering_key",)
    )
    left = sorted(row["ordering_key"] for row in found)
    wake(rows, (key for key, _ in pairs) if wait else left, wait=wait)
    rows.delete(ORDERING_LOCK, [Where("ordering_key", "in", left), *its])


def wake(rows: Rows, keys: Iterable[str], *, wait: bool = True) -> None:
    """
    Let the next item of each key be claimed, if it waits for that.

    Without *wait* those that are locked are left.
    """
    left = sorted(set(keys))
    for _ in range(_TRIES):
        found = [(key, _head(rows, key)) for key in left]
        asleep = [
            (head["id"], key) for key, head in found if head and head["waiting_for"] == ItemWait.KEY
        ]
        left = []
        # In the order of their ids, as an operator's command locks many.
        for item_id, key in sorted(asleep):
            its = [Where("id", "eq", item_id), Where("waiting_for", "eq", ItemWait.KEY.value)]
            if (wait or is_free(rows, item_id)) and not rows.update(
                OUTBOX, its, {"waiting_for": ItemWait.WORKER.value}
            ):
                left.append(key)
        if not left:
            break


def mend(rows: Rows) -> None:
    """Free keys of items that don't run, and wake keys with waiting items and no running one."""
    delete_abandoned(rows, ORDERING_LOCK, "ordering_key")
    # Both conditions, so that the index of waiting items with a key serves.
    asleep = [Where("waiting_for", "eq", ItemWait.KEY.value), Where("ordering_key", "ne", None)]
    waiting = rows.count(OUTBOX, ("ordering_key",), asleep)
    keys = sorted(row["ordering_key"] for row in waiting)
    busy = _busy(rows, keys)
    # A worker that froze in a transaction must not stop all recovery.
    wake(rows, (key for key in keys if key not in busy), wait=False)
