"""The keys of one claim: which of its items may run, which wait for a key, which stay ready."""

from __future__ import annotations

from collections.abc import Sequence

from automate_kernel.outbox import concurrency_keys, ordering_keys
from automate_kernel.storage.rows import Row, Rows


class ClaimKeys:
    """
    The ordering and concurrency keys that the transaction of one claim takes.

    Each such transaction takes them in one order, so that two never wait for each other in a
    circle: ordering keys by their names, then concurrency keys, and those once. What comes too
    late for that stays ready for the next claim.

    `busy` is True once an item was left ready: it is worth another claim.
    """

    def __init__(self, token: str) -> None:
        self.busy: bool = False
        self._token = token
        self._ordering = set[str]()
        self._slots_taken = False

    def enter(self, rows: Rows, claimed: Sequence[Row]) -> tuple[set[str], set[str]]:
        """
        Take the keys of *claimed* rows.

        Returns the ids that must wait for their key, and the ids that are to stay ready.
        """
        waiting, ready = set[str](), set[str]()
        if ordered := [row for row in claimed if row["ordering_key"]]:
            in_time = [row for row in ordered if self._is_in_time(row["ordering_key"])]
            waiting, ready, taken = ordering_keys.enter(rows, in_time, self._token)
            ready |= {row["id"] for row in ordered} - {row["id"] for row in in_time}
            self._ordering |= taken
        if bounded := [row for row in claimed if row["concurrency_key"]]:
            may_take = not self._slots_taken
            full, left, asked = concurrency_keys.enter(rows, bounded, self._token, may_take)
            waiting, ready = waiting | full, ready | left
            self._slots_taken = self._slots_taken or asked
        self.busy = self.busy or bool(ready)
        return waiting, ready

    def _is_in_time(self, key: str) -> bool:
        """Return True if nobody who takes keys in the same order can wait for this claim."""
        if key in self._ordering:
            return True
        return not self._slots_taken and all(key > taken for taken in self._ordering)
