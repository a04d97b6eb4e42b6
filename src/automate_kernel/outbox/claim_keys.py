"""The keys of one claim: its items that may run, those that wait, and those that stay ready."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from automate_kernel.outbox import concurrency_keys, ordering_keys
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import PAUSE


class ClaimKeys:
    """
    The pauses that the transaction of one claim holds, and the keys that it takes.

    Each such transaction takes them in one order, so that two never wait for each other in a
    circle: pauses all at once, then ordering keys by their names, then concurrency keys, and those
    once. What comes too late for that stays ready for the next claim.

    `busy` is True once an item was left ready: it is worth another claim.
    """

    def __init__(self, token: str) -> None:
        self.busy: bool = False
        self._token = token
        self._paused: AbstractSet[str] | None = None
        self._ordering = set[str]()
        self._slots_taken = False

    def deferred(
        self, rows: Rows, claimed: Sequence[Row], paused: AbstractSet[str]
    ) -> tuple[set[str], set[str]]:
        """
        Return the ids of *claimed* rows whose kind is paused, and those that are to stay ready.

        *paused* are the kinds that seem to be.
        """
        suspects = [row for row in claimed if row["kind"] in paused]
        if suspects and self._paused is None:
            if self._ordering or self._slots_taken:
                self.busy = True
                return set(), {row["id"] for row in suspects}
            # What is remembered may be old, and nobody would wake what is deferred after a resume:
            # locked, the pause can't end before the deferred items can be seen.
            which = [Where("kind", "in", sorted(paused))]
            found = rows.select(PAUSE, which, order_by=("kind",), lock=True, columns=("kind",))
            self._paused = {row["kind"] for row in found}
        return {row["id"] for row in suspects if row["kind"] in (self._paused or ())}, set()

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
