"""
At most so many items at once per concurrency key, whatever their kinds.

A *slot* is a row that exists while an item with the key runs: the number of the slot and the key
are its primary key, so that no two items ever have the same one. Who finds all slots taken goes
back to wait (``waiting_for = "key"``), and whoever leaves a slot wakes one that waits.

Who looks for a slot locks those that are taken. So it knows them to be taken when it puts an item
to wait, and who leaves one of them meanwhile waits for its end, and then finds that item and wakes
it: none is put to wait for a slot that was just left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from automate_kernel.storage.rows import Row, Rows, Where
from automate_kernel.storage.tables import OUTBOX, SLOT

__all__ = ["enter", "leave", "mend", "wake"]

_MENDED = 1000


def enter(rows: Rows, claimed: Sequence[Row], token: str) -> set[str]:
    """Take slots for *claimed* rows, in the order of their ids; returns the ids without one."""
    held: set[str] = set()
    left = sorted(claimed, key=lambda row: str(row["id"]))
    while left:
        wanted = _free(rows, left, token, held)
        rows.insert(SLOT, wanted)
        # Another may have been faster; with its slot counted as well, this ends.
        ids = [slot["item_id"] for slot in wanted]
        mine = rows.select(
            SLOT, [Where("item_id", "in", ids), Where("lease_token", "eq", token)],
            columns=("item_id",),
        )  # fmt: skip
        entered = {slot["item_id"] for slot in mine}
        left = [row for row in left if row["id"] not in entered and row["id"] not in held]
    return held


def _free(rows: Rows, claimed: Sequence[Row], token: str, held: set[str]) -> list[Row]:
    """A free slot for each of *claimed* for which there is one; the others' ids go to *held*."""
    keys = sorted({row["concurrency_key"] for row in claimed})
    # In order, as in `leave`, so that the two never wait for each other in a circle.
    found = rows.select(
        SLOT, [Where("concurrency_key", "in", keys)], order_by=("id",), lock=True,
        columns=("id", "concurrency_key"),
    )  # fmt: skip
    taken: dict[str, set[int]] = {key: set() for key in keys}
    for slot in found:
        taken[slot["concurrency_key"]].add(int(slot["id"].partition(":")[0]))
    wanted = []
    for row in claimed:
        key, numbers = row["concurrency_key"], taken[row["concurrency_key"]]
        if len(numbers) >= row["concurrency_limit"]:
            held.add(row["id"])
            continue
        number = next(n for n in range(len(numbers) + 1) if n not in numbers)
        numbers.add(number)
        wanted.append(
            {
                "id": f"{number}:{key}",
                "concurrency_key": key,
                "item_id": row["id"],
                "lease_token": token,
            }
        )
    return sorted(wanted, key=lambda slot: slot["id"])


def leave(rows: Rows, finished: Iterable[tuple[str, str]]) -> None:
    """Free the slots of (concurrency key, item id) pairs and wake who waits for them."""
    pairs = sorted(finished)
    mine = [Where("item_id", "in", [item_id for _, item_id in pairs])]
    rows.select(SLOT, mine, order_by=("id",), lock=True, columns=("id",))
    rows.delete(SLOT, mine)
    for key in dict.fromkeys(key for key, _ in pairs):
        wake(rows, key)


def wake(rows: Rows, key: str) -> None:
    """
    Let the next item of *key* be claimed: of each kind, since nobody may be there for the first.

    One that then finds no slot goes back to wait.
    """
    asleep = [Where("concurrency_key", "eq", key), Where("waiting_for", "eq", "key")]
    woken: list[str] = []
    for kind in rows.distinct(OUTBOX, "kind", asleep):
        # Who holds the row of one that waits cancels it, or wakes it too.
        woken += [
            row["id"]
            for row in rows.select(
                OUTBOX, [*asleep, Where("kind", "eq", kind)], order_by=("id",), limit=1,
                lock=True, skip_locked=True, columns=("id",),
            )
        ]  # fmt: skip
    rows.update(OUTBOX, [Where("id", "in", sorted(woken)), *asleep], {"waiting_for": "worker"})


def mend(rows: Rows) -> None:
    """Free slots of items that are gone, and wake keys that nobody will wake."""
    slots = rows.select(SLOT, [], order_by=("id",), limit=_MENDED)
    running = rows.select(
        OUTBOX, [Where("id", "in", [slot["item_id"] for slot in slots])],
        columns=("id", "lease_token", "lease_expires_at"),
    )  # fmt: skip
    tokens = {row["id"]: row["lease_token"] for row in running if row["lease_expires_at"]}
    for slot in slots:
        if tokens.get(slot["item_id"]) != slot["lease_token"]:
            its = [Where("id", "eq", slot["id"]), Where("lease_token", "eq", slot["lease_token"])]
            rows.delete(SLOT, its)
    asleep = [Where("concurrency_key", "ne", None), Where("waiting_for", "eq", "key")]
    waiting = rows.count(OUTBOX, ("concurrency_key", "concurrency_limit"), asleep)
    keys = sorted({row["concurrency_key"] for row in waiting})
    count = {
        row["concurrency_key"]: row["n"]
        for row in rows.count(SLOT, ("concurrency_key",), [Where("concurrency_key", "in", keys)])
    }
    for key in keys:
        limits = [row["concurrency_limit"] for row in waiting if row["concurrency_key"] == key]
        if count.get(key, 0) < max(limits):
            wake(rows, key)
