"""
Concurrency keys: at most so many items of a key at once, whatever their kinds.

A *slot* is a row of `automate_kernel.storage.tables.SLOT` that exists while an item with the key
runs: its number and the key are the primary key, so that no two items ever have the same one. Who
finds all of them taken goes back to wait (``waiting_for = "key"``), and whoever leaves a slot wakes
one that waits.

An item that says so keeps its slot while it waits to run again, and leaves it when it ends. The
``lease_token`` of such a slot is the item's own id, since no claim ends it.

Before a claim puts an item to wait it locks the slots that are in its way, without waiting for
locks itself. Who leaves one of them then waits for the claim's end, and so finds the item and wakes
it: none is put to wait for a slot that was just left. Where a lock can't be had, a slot is being
left this moment, and the item stays ready.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from automate_kernel.base import runtime
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import OUTBOX, SLOT

HEADER = "automate-keeps-slot"
"""The header of an item that keeps its slot until it ends."""

_MENDED = 1000
# Who leave slots of one key at the same time each wake another item.
_LEAVERS = 10


def enter(
    rows: Rows, claimed: Sequence[Row], token: str, may_take: bool
) -> tuple[set[str], set[str], bool]:
    """
    Take slots for *claimed* rows, in the order of their ids; none unless the claim *may take* any.

    Returns the ids that must wait for their key, the ids that are to stay ready, and True if it
    has asked for any slot.
    """
    kept = _kept(rows, [row["id"] for row in claimed if HEADER in row["headers"]])
    in_turn = sorted(
        (row for row in claimed if row["id"] not in kept), key=lambda row: str(row["id"])
    )
    free, full = _chosen(rows, in_turn)
    asked = may_take and bool(free)
    ready = _take(rows, free, token) if asked else {slot["item_id"] for slot in free}
    must_wait = _locked(rows, full)
    ready |= {row["id"] for row in full} - must_wait
    return must_wait, ready, asked


def _take(rows: Rows, wanted: list[Row], token: str) -> set[str]:
    """Insert slots; returns the ids of the items that did not get theirs."""
    ids = {slot["item_id"] for slot in wanted}
    rows.insert(SLOT, [{**slot, "lease_token": slot["lease_token"] or token} for slot in wanted])
    its = [Where("item_id", "in", sorted(ids))]
    found = rows.select(SLOT, its, columns=("item_id", "lease_token"))
    tokens = {slot["item_id"] for slot in wanted if slot["lease_token"]} | {token}
    return ids - {slot["item_id"] for slot in found if slot["lease_token"] in tokens}


def _kept(rows: Rows, ids: Sequence[str]) -> set[str]:
    """Return those of these items that have kept a slot since they ran before."""
    mine = [Where("item_id", "in", sorted(ids)), Where("lease_token", "in", sorted(ids))]
    return {slot["item_id"] for slot in rows.select(SLOT, mine, columns=("item_id",))}


def _chosen(rows: Rows, claimed: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Choose a free slot for each row for which there is one; returns the other rows too."""
    taken = _numbers(rows, sorted({row["concurrency_key"] for row in claimed}))
    wanted, full = [], []
    for row in claimed:
        key, limit = row["concurrency_key"], row["concurrency_limit"]
        numbers = taken.setdefault(key, set())
        if len(numbers) >= limit:
            full.append(row)
            continue
        # Any that is free: others who look at the same time are likely to take another.
        number = runtime.numbers.choice([n for n in range(limit) if n not in numbers])
        numbers.add(number)
        wanted.append(
            {
                "id": f"{number}:{key}", "concurrency_key": key, "item_id": row["id"],
                "lease_token": row["id"] if HEADER in row["headers"] else None,
            }
        )  # fmt: skip
    return sorted(wanted, key=lambda slot: str(slot["id"])), full


def _numbers(rows: Rows, keys: Sequence[str], *, lock: bool = False) -> dict[str, set[int]]:
    """Return the taken slots of these keys, or with *lock* those of them that nobody leaves."""
    found = rows.select(
        SLOT, [Where("concurrency_key", "in", keys)], order_by=("id",), lock=lock,
        skip_locked=lock, share=True, columns=("id", "concurrency_key"),
    )  # fmt: skip
    taken: dict[str, set[int]] = {}
    for slot in found:
        number = int(slot["id"].partition(":")[0])
        taken.setdefault(slot["concurrency_key"], set()).add(number)
    return taken


def _locked(rows: Rows, full: Sequence[Row]) -> set[str]:
    """Return the ids of rows whose key is full, and stays so until this transaction ends."""
    taken = _numbers(rows, sorted({row["concurrency_key"] for row in full}), lock=True)
    return {
        row["id"]
        for row in full
        if len(taken.get(row["concurrency_key"], ())) >= row["concurrency_limit"]
    }


def release(
    rows: Rows,
    finished: Iterable[tuple[str, str]],
    tokens: Iterable[str] = (),
    *,
    wait: bool = True,
) -> None:
    """
    Free the slots of (concurrency key, item id) pairs and wake who waits for them.

    *tokens* are those of the claims that end: an item may have been claimed anew. Without *wait*
    those that are locked are left to `mend`.
    """
    pairs = sorted(finished)
    ids = [item_id for _, item_id in pairs]
    # Of what was kept the token is the item's id.
    its = [Where("item_id", "in", ids), Where("lease_token", "in", sorted({*tokens, *ids}))]
    held = rows.select(SLOT, its, columns=("id", "item_id"))
    # By their keys and in order, so that two who leave never wait for each other in a circle.
    mine = [Where("id", "in", sorted(slot["id"] for slot in held))]
    found = rows.select(
        SLOT, mine, order_by=("id",), lock=True, skip_locked=not wait, columns=("id", "item_id")
    )
    rows.delete(SLOT, [Where("id", "in", [slot["id"] for slot in found])])
    kept = set[str]()
    if not wait:
        kept = {slot["item_id"] for slot in held} - {slot["item_id"] for slot in found}
    wake(rows, (key for key, item_id in pairs if item_id not in kept), wait=wait)


def wake(rows: Rows, keys: Iterable[str | None], *, wait: bool = True) -> None:
    """
    Let as many waiting items of each key be claimed as it stands in *keys*; None is no key.

    Those that leave a slot have it called, and those that were woken to take one and now won't.
    """
    for key, count in sorted(Counter(key for key in keys if key is not None).items()):
        _wake(rows, key, count, wait=wait)


def _wake(rows: Rows, key: str, count: int, *, wait: bool) -> None:
    """
    Let the next *count* items of *key* be claimed: of each kind, since nobody may work on one.

    Those that then find no slot go back to wait. Without *wait* those that are locked are left.
    """
    asleep = [Where("concurrency_key", "eq", key), Where("waiting_for", "eq", ItemWait.KEY.value)]
    for kind in rows.distinct(OUTBOX, "kind", asleep):
        found = rows.select(
            OUTBOX, [*asleep, Where("kind", "eq", kind)], order_by=("id",),
            limit=count + _LEAVERS, columns=("id",),
        )  # fmt: skip
        free = (row["id"] for row in found if is_free(rows, row["id"]))
        chosen = list(islice(free, count))
        if not chosen and found and wait:
            # Who holds the first is about to let go: InnoDB frees a transaction's locks one by one.
            chosen = [found[0]["id"]]
        its = [Where("id", "in", chosen), Where("waiting_for", "eq", ItemWait.KEY.value)]
        rows.update(OUTBOX, its, {"waiting_for": ItemWait.WORKER.value})


def is_free(rows: Rows, item_id: str) -> bool:
    """Lock an item that waits for its key; False if somebody has it, or it does not wait."""
    # By its key alone, so that no other row is locked on the way. Who holds it cancels it, or
    # wakes it too, and then it is another's turn.
    its = [Where("id", "eq", item_id), Where("waiting_for", "eq", ItemWait.KEY.value)]
    return bool(rows.select(OUTBOX, its, lock=True, skip_locked=True, columns=("id",)))


def mend(rows: Rows, after: str = "") -> str:
    """
    Free slots of items that are gone, and wake keys that nobody will wake.

    It looks at a thousand slots after *after*, and returns what to pass the next time: items that
    wait may keep any number of them.
    """
    after = delete_abandoned(rows, SLOT, "id", after)
    asleep = [Where("concurrency_key", "ne", None), Where("waiting_for", "eq", ItemWait.KEY.value)]
    limits: dict[str, int] = {}
    for row in rows.count(OUTBOX, ("concurrency_key", "concurrency_limit"), asleep):
        key = row["concurrency_key"]
        limits[key] = max(limits.get(key, 0), row["concurrency_limit"])
    taken = _numbers(rows, sorted(limits))
    for key, limit in sorted(limits.items()):
        if (free := limit - len(taken.get(key, ()))) > 0:
            # A worker that froze in a transaction must not stop all recovery.
            _wake(rows, key, min(free, _MENDED), wait=False)
    return after


def delete_abandoned(rows: Rows, table: str, key: str, after: str = "") -> str:
    """
    Delete rows of *table*, whose primary key is *key*, if the claim that made them is over.

    It looks at a thousand after the key *after*, and returns the last one's; "" at the end.
    Every way out of a claim deletes them itself; what somebody did to the tables by hand doesn't. A
    slot that its item keeps stays until that ends.
    """
    beyond = [Where(key, "gt", after)] if after else []
    held = rows.select(table, beyond, order_by=(key,), limit=_MENDED)
    found = rows.select(
        OUTBOX, [Where("id", "in", [row["item_id"] for row in held])],
        columns=("id", "lease_token", "lease_expires_at", "completed_at"),
    )  # fmt: skip
    holders = {row["id"]: row["lease_token"] for row in found if row["lease_expires_at"]}
    kept = {row["id"] for row in found if row["completed_at"] is None}
    gone = {
        row[key]: row["lease_token"] for row in held
        if not (row["lease_token"] == row["item_id"] and row["item_id"] in kept)
        and holders.get(row["item_id"]) != row["lease_token"]
    }  # fmt: skip
    # Without waiting: a worker that froze in a transaction must not stop all recovery.
    for row in rows.select(
        table, [Where(key, "in", sorted(gone))], order_by=(key,), lock=True, skip_locked=True
    ):
        if row["lease_token"] == gone[row[key]]:
            rows.delete(table, [Where(key, "eq", row[key])])
    return str(held[-1][key]) if len(held) == _MENDED else ""
