"""What must hold when all is over, whatever went wrong before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from automate_kernel.outbox import ItemStatus, OutboxStore
from automate_kernel.outbox.item import FINISHED
from automate_kernel.storage.tables import ORDERING_LOCK, OUTBOX, SLOT

_COLUMNS = (
    "id, kind, status, attempt_count, max_attempts, lease_token, lease_expires_at, ordering_key"
)
_RUNNING, _COMPLETED = ItemStatus.RUNNING.value, ItemStatus.COMPLETED.value


def plain(item_id: Any) -> str:
    """An id as both databases can write it."""
    return str(item_id).replace("-", "")


class Invariants:
    """The part of `Scene` that looks at the database, its history, and the ledger."""

    outbox: OutboxStore
    requeued: set[str]

    def rows(self, sql: str) -> list[Any]:
        """What the database says."""
        raise NotImplementedError

    def words(self, first: str) -> list[list[str]]:
        """What the ledger says."""
        raise NotImplementedError

    def stood_still(self) -> set[int]:
        """The processes that may have lost leases because the machine was busy."""
        raise NotImplementedError

    def check(self, accepted: Iterable[str], *, failed: Collection[str] = ()) -> None:
        """
        Every accepted item is COMPLETED, or FAILED if it may be, by its last holder alone.

        What transactional handlers wrote is there once, no step was saved twice, items with one
        ordering key were done in their order, and nothing is left behind by anybody.
        """
        items = {plain(row.id): row for row in self.rows(f"SELECT {_COLUMNS} FROM {OUTBOX}")}
        given_up = set(map(plain, failed))
        for item_id in accepted:
            assert plain(item_id) in items, f"{item_id} was accepted and is gone"
        for item_id, row in items.items():
            if item_id in given_up:
                assert row.status == "FAILED", row
                assert row.attempt_count == row.max_attempts, row
            else:
                assert row.status in ("COMPLETED", "CANCELLED"), row
        self._check_effects(items)
        self._check_history(items)
        self._check_steps()
        self._check_counts(items)
        self.check_idle()

    def check_idle(self) -> None:
        """Nothing is leased, and no lane or slot is taken."""
        for table in (ORDERING_LOCK, SLOT):
            assert self.rows(f"SELECT * FROM {table}") == []
        held = f"SELECT id, status FROM {OUTBOX} WHERE lease_expires_at IS NOT NULL"
        assert self.rows(held) == []

    def _check_counts(self, items: dict[str, Any]) -> None:
        counted = self.outbox.stats().counts
        by_hand = Counter((row.kind, row.status) for row in items.values())
        assert by_hand == {
            (kind, status): n for kind, of_kind in counted.items() for status, n in of_kind.items()
        }

    def _check_steps(self) -> None:
        assert self.rows("SELECT step FROM saved_again") == []
        told = Counter(words[0] for words in self.words("saved"))
        assert set(told.values()) <= {1}
        # A thread that stood still on its way into an action can't know what others did meanwhile.
        again = [words for words in self.words("again") if int(words[1]) not in self.stood_still()]
        assert again == [], "a step ran again after it was saved"

    def _check_effects(self, items: dict[str, Any]) -> None:
        done = {
            item_id: plain(row.lease_token)
            for item_id, row in items.items()
            if row.kind == "effect" and row.status == _COMPLETED
        }
        written = self.rows("SELECT item, token FROM effects")
        assert Counter(plain(row.item) for row in written) == Counter(dict.fromkeys(done, 1))
        assert {plain(row.item): plain(row.token) for row in written} == done

    def _check_history(self, items: dict[str, Any]) -> None:
        requeued = set(map(plain, self.requeued))
        holders: dict[str, str] = {}
        tokens: defaultdict[str, dict[str, int]] = defaultdict(dict)
        done: defaultdict[str, list[str]] = defaultdict(list)
        for step in self.rows("SELECT * FROM history ORDER BY id"):
            item = plain(step.item)
            if step.before in FINISHED:
                assert item in requeued, f"finished, and changed: {step}"
            elif step.after == _RUNNING:
                assert step.before != _RUNNING, f"claimed while it ran: {step}"
                # One claim may give an item back and take it again, which spends no attempt.
                attempt = tokens[item].setdefault(step.token, step.attempts)
                assert attempt == step.attempts, f"an old token: {step}"
                assert step.attempts == step.attempts_before + 1
                holders[item] = step.token
            elif step.after == _COMPLETED:
                assert step.token == holders.get(item), f"finished by another: {step}"
                key = items[item].ordering_key if item in items else None
                if key is not None and item not in requeued:
                    done[key].append(item)
        for key, ids in done.items():
            assert ids == sorted(ids), f"out of order: {key}"
        self._check_told(items, requeued)

    def _check_told(self, items: dict[str, Any], requeued: set[str]) -> None:
        # What a holder was told is recorded must be so, and only the last holder is told that.
        for item, token, status in self.words("recorded"):
            row = items.get(plain(item))
            if status in FINISHED and row is not None and plain(item) not in requeued:
                assert plain(token) == plain(row.lease_token), f"{item}: a lost holder was believed"
                assert status == row.status


def most_at_once(lines: Iterable[list[str]], ids: Collection[str], kind: str = "job") -> int:
    """
    How many handlers of the items *ids* ran at the same moment, at most.

    *lines* are a ledger's: a handler ran from its begin to its end, or until its process was killed.
    """
    killed = {line[1]: float(line[2]) for line in lines if line[0] == "killed"}
    running: dict[tuple[str, str], tuple[float, str]] = {}
    moments: list[tuple[float, int]] = []
    for line in lines:
        if line[0] not in (kind, "end") or line[1] not in ids:
            continue
        word, item, attempt, pid, at = line[:5]
        if word == kind:
            running[item, attempt] = (float(at), pid)
        elif (item, attempt) in running:
            begun, _ = running.pop((item, attempt))
            moments += [(begun, 1), (float(at), -1)]
    for begun, pid in running.values():
        moments += [(begun, 1), (killed.get(pid, float("inf")), -1)]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most
