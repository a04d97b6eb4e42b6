"""The outbox over `Rows`: everything that a SQL database, or memory, needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from automate_kernel.errors import StorageError
from automate_kernel.outbox import concurrency_keys as slots
from automate_kernel.outbox import ordering_keys as lanes
from automate_kernel.outbox.concurrency_keys import Entrance
from automate_kernel.outbox.failed_attempts import Insight
from automate_kernel.outbox.fair_share import Sharing
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import Backoff, ItemStatus, NewItem, OutboxItem
from automate_kernel.outbox.labels import add_labels, checked_labels, label_rows
from automate_kernel.outbox.leases import FREE, Lease
from automate_kernel.outbox.limits import Limiting
from automate_kernel.outbox.operator_commands import Steering
from automate_kernel.outbox.queries import Control, next_due
from automate_kernel.outbox.recovering import Recovering
from automate_kernel.outbox.retention import Retaining
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.outbox.worker_reports import Registry
from automate_kernel.storage.rows import Now, Plus, Row, Rows, Storage, Wakeup, Where
from automate_kernel.storage.tables import OUTBOX, PAUSE
from automate_kernel.storage.values import Redaction

__all__ = [
    "CHANNEL",
    "OptimisticClaimOutboxStore",
    "RowsOutboxStore",
    "SkipLockedClaimOutboxStore",
]

CHANNEL = "automate_outbox"
# What a claim reads; the rest of an item is what the claim itself has written.
CLAIMED = (
    "id", "kind", "payload", "headers", "priority", "attempt_count", "max_attempts",
    "next_attempt_at", "sort_at", "lease_expires_at", "idempotency_key", "tenant_id",
    "ordering_key", "concurrency_key", "concurrency_limit", "last_error_code", "last_error",
    "created_at", "updated_at",
)  # fmt: skip
KEYLESS = (Where("ordering_key", "eq", None), Where("concurrency_key", "eq", None))
# How many items that have become due one claim moves to the ready ones.
_PROMOTE = 1000
# For how long after one with a key was seen claims expect more of them.
_KEYED_SECONDS = 60.0
# How often a claim takes more in place of what has to wait for its key. A busy worker that has
# room for one item puts one aside each time.
_ROUNDS = 30
_TRIES = 3


class RowsOutboxStore(
    Steering, Limiting, Retaining, Control, Insight, Recovering, Registry, OutboxStore
):
    """
    The outbox in a host's database.

    *backoff* delays items whose worker died. *on_failed* and *on_cancelled* are called with the
    rows and the item, in the same transaction, when an item is given up or cancelled, and
    *on_requeued* when it is to wait again; if that returns False, the item stays as it is.
    What is COMPLETED is deleted *retention_seconds* later: 0 is at once, in the statement that
    would record it, and None never. What is FAILED or CANCELLED goes after
    *failed_retention_seconds*, by default never. *control_seconds* is for how long a worker may not
    notice that a kind was paused elsewhere; while it is busy, what has become due and the first
    items with a key are looked for twenty times in that.
    """

    skip_locked = True

    def __init__(
        self,
        storage: Storage,
        *,
        lease_seconds: float = 300.0,
        backoff: Backoff | None = None,
        on_failed: Callable[[Rows, OutboxItem], None] | None = None,
        on_cancelled: Callable[[Rows, OutboxItem], None] | None = None,
        on_requeued: Callable[[Rows, OutboxItem], bool] | None = None,
        control_seconds: float = 1.0,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> None:
        if lease_seconds <= 0:
            raise StorageError("lease_seconds must be above 0")
        self.storage = storage
        self.lease_seconds = lease_seconds
        self.backoff: Backoff = backoff or Backoff()
        self.on_failed = on_failed
        self.on_cancelled = on_cancelled
        self.on_requeued = on_requeued
        self.retention_seconds = retention_seconds
        self.failed_retention_seconds = failed_retention_seconds
        self._walked: dict[tuple[str, ...], str | None] = {}
        self._control_seconds = control_seconds
        self._leases: dict[str, Lease] = {}
        self._paused: frozenset[str] = frozenset()
        self._paused_until = 0.0
        self._sharing = Sharing(control_seconds / 20)
        # Per choice of kinds, since a worker has several pools: whether the next claim looks at
        # all, and from when on one that finds something makes the next do so.
        self._looks: dict[tuple[str, ...] | None, tuple[bool, float]] = {}
        self._keyed_until = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self.storage.describe()}>"

    # -- entering ----------------------------------------------------------------------------

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        """Accept items in the host's transaction; see `OutboxStore.enqueue_many`."""
        # Before a transaction is opened: what can't be stored must not leave a lock behind.
        new, fresh, labels = _new_rows(self.announced(items), self.redact)
        atomic = len(new) > 1 or not fresh or bool(labels)
        with self.storage.begin(transaction, atomic=atomic) as rows:
            return self.add(rows, new, fresh=fresh, labels=labels)

    async def aenqueue_many(self, items: Iterable[NewItem], transaction: Any = None) -> list[str]:
        """`enqueue_many` in an asynchronous host transaction."""
        new, fresh, labels = _new_rows(self.announced(items), self.redact)
        return await self.storage.arun_in(
            transaction, lambda rows: self.add(rows, new, fresh=fresh, labels=labels)
        )

    def add(
        self, rows: Rows, new: list[Row], *, fresh: bool = False, labels: Sequence[Row] = ()
    ) -> list[str]:
        """
        Insert rows made by `NewItem.to_row`, and return the ids, of the first with a key.

        *fresh* ones have ids that were made just now, and no idempotency key. *labels* are the
        rows of their labels.
        """
        ids = self._add(rows, new, fresh)
        if labels:
            # Of one that was there already nothing is added.
            added = {
                row["id"] for row, item_id in zip(new, ids, strict=True) if row["id"] == item_id
            }
            add_labels(rows, [row for row in labels if row["subject_id"] in added])
        return ids

    def _add(self, rows: Rows, new: list[Row], fresh: bool) -> list[str]:
        if any("concurrency_key" in row for row in new):
            new = [{"concurrency_key": None, "concurrency_limit": None, **row} for row in new]
        added = rows.insert(OUTBOX, new, notify=CHANNEL, fresh=fresh)
        if added == len(new):
            return [row["id"] for row in new]
        keys: set[str] = {
            row["idempotency_key"] for row in new if row["idempotency_key"] is not None
        }
        by_key = _holders(rows, sorted(keys))
        # A snapshot that the host's transaction took earlier may not show the winner of a race; a
        # read that locks does.
        by_key |= _holders(rows, sorted(keys - set(by_key)), lock=True)
        ids = [str(by_key.get(row["idempotency_key"], row["id"])) for row in new]
        found = rows.select(OUTBOX, [Where("id", "in", sorted(set(ids)))], columns=("id",))
        if missing := set(ids) - {row["id"] for row in found} - set(by_key.values()):
            raise StorageError(
                f"the database did not store {len(missing)} of {len(new)} items",
                hint="look for a trigger or rule of the database's own on automate_outbox",
            )
        return ids

    # -- working -----------------------------------------------------------------------------

    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """Lease due items to *worker_id*; see `OutboxStore.claim_batch`."""
        if limit < 1:
            return []
        token = new_id()
        claimed: list[Row] = []
        # Again only if all there was had to do with slots that others were changing.
        for _ in range(_TRIES):
            entrance = Entrance(token)
            claimed = self._claim(worker_id, entrance, limit, kinds)
            if claimed or not entrance.busy:
                break
        for row in claimed:
            self._leases[row["id"]] = Lease.of(row, worker_id, token)
        return [OutboxItem.claimed(row, worker_id, token) for row in claimed]

    def _claim(
        self, worker_id: str, entrance: Entrance, limit: int, kinds: Sequence[str] | None
    ) -> list[Row]:
        key = None if kinds is None else tuple(kinds)
        looks_at_all, until = self._looks.get(key, (True, 0.0))
        if not (looks_at_all or self._expects_keys()):
            # Nearly always: one statement, which needs no transaction around it.
            plain = self._claim_plain(worker_id, entrance.token, limit, kinds)
            if plain:
                self._looks[key] = time.monotonic() >= until, until
                return plain
        # Who leaves a lane or a slot must see who wants it: an item with a key is claimed, and let
        # in or put to wait, in one transaction. So is what has to be made ready first. Where there
        # seem to be no keys, such a claim follows when there is nothing else, and once in a while.
        self._looks[key] = False, time.monotonic() + self._control_seconds / 20
        with self.storage.begin() as rows:
            gather = partial(self._gather, rows, worker_id, entrance, self._paused_kinds(rows))
            self._promote(rows)
            if limited := self._limited_kinds(rows, kinds):
                return self._claim_apart(rows, limited, kinds, limit, gather)
            return gather(kinds, limit, self._sharing)

    def _claim_plain(
        self, worker_id: str, token: str, limit: int, kinds: Sequence[str] | None
    ) -> list[Row]:
        """Claim items without keys; none where a kind is paused or limited."""
        with self.storage.begin(atomic=False) as rows:
            if self._paused_kinds(rows) or self._limited_kinds(rows, kinds):
                return []
            return self._take(rows, worker_id, token, limit, kinds, self._sharing, only=KEYLESS)

    def _expects_keys(self) -> bool:
        return not self._control_seconds or time.monotonic() < self._keyed_until

    def _gather(
        self,
        rows: Rows,
        worker_id: str,
        entrance: Entrance,
        paused: frozenset[str],
        kinds: Sequence[str] | None,
        limit: int,
        sharing: Sharing,
    ) -> list[Row]:
        claimed: list[Row] = []
        # What can't run yet is put aside and more is taken, a bounded number of times.
        for _ in range(_ROUNDS):
            left = limit - len(claimed)
            taken = self._take(rows, worker_id, entrance.token, left, kinds, sharing)
            admitted = self._admit(rows, taken, entrance, paused)
            claimed += admitted
            if len(admitted) == len(taken) or len(claimed) >= limit or entrance.busy:
                break
        return claimed

    def _promote(self, rows: Rows) -> None:
        """Make ready what has become due."""
        rows.take(
            OUTBOX,
            [Where("waiting_for", "eq", "time"), Where("next_attempt_at", "le", Now())],
            order_by=("next_attempt_at",),
            limit=_PROMOTE,
            changes={"waiting_for": "worker"},
            skip_locked=self.skip_locked,
            columns=("next_attempt_at",),
        )

    def _paused_kinds(self, rows: Rows) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._paused_until:
            self._paused = frozenset(row["kind"] for row in rows.select(PAUSE))
            self._paused_until = now + self._control_seconds
        return self._paused

    def _take(
        self,
        rows: Rows,
        worker_id: str,
        token: str,
        limit: int,
        kinds: Sequence[str] | None,
        sharing: Sharing,
        *,
        only: Sequence[Where] = (),
    ) -> list[Row]:
        return sharing.take(
            rows,
            kinds,
            limit,
            only=only,
            changes={
                "status": ItemStatus.RUNNING.value,
                "waiting_for": None,
                # At the claim, so that an item which kills its worker spends an attempt too.
                "attempt_count": Plus(1),
                "lease_owner": worker_id,
                "lease_token": token,
                "lease_expires_at": Now(self.lease_seconds),
                "updated_at": Now(),
            },
            skip_locked=self.skip_locked,
            columns=CLAIMED,
        )

    def _admit(
        self, rows: Rows, taken: list[Row], entrance: Entrance, paused: frozenset[str]
    ) -> list[Row]:
        """Those of *taken* that may run now; the others go back to wait for their reason."""
        if suspects := sorted({row["kind"] for row in taken} & paused):
            # What is remembered may be old, and nobody would wake what is parked after a resume:
            # locked, the pause can't end before the parked items can be seen.
            found = rows.select(
                PAUSE, [Where("kind", "in", suspects)], order_by=("kind",), lock=True
            )
            paused = frozenset(row["kind"] for row in found)
        parked = {row["id"] for row in taken if row["kind"] in paused}
        self._put_back(rows, [row for row in taken if row["id"] in parked], "resume")
        # In the place of those that can't use their turn.
        turns = (r["concurrency_key"] for r in taken if r["id"] in parked and r["concurrency_key"])
        slots.wake(rows, turns)
        if any(row["ordering_key"] or row["concurrency_key"] for row in taken):
            self._keyed_until = time.monotonic() + _KEYED_SECONDS
        keyed = [row for row in taken if row["ordering_key"] and row["id"] not in parked]
        held = lanes.enter(rows, keyed, entrance.token) if keyed else set()
        slotted = [row for row in taken if row["concurrency_key"] and row["id"] not in parked]
        full, ready = entrance.enter(rows, slotted) if slotted else (set(), set())
        held |= full
        self._put_back(rows, [row for row in taken if row["id"] in held], "key")
        self._put_back(rows, [row for row in taken if row["id"] in ready], "worker")
        away = parked | held | ready
        return [row for row in taken if row["id"] not in away]

    def _put_back(self, rows: Rows, taken: list[Row], waiting_for: str) -> None:
        for status, group in (
            (ItemStatus.PENDING, [row["id"] for row in taken if row["attempt_count"] <= 1]),
            (ItemStatus.RETRY, [row["id"] for row in taken if row["attempt_count"] > 1]),
        ):
            changes = {"status": status.value, "waiting_for": waiting_for, **FREE}
            rows.update(OUTBOX, [Where("id", "in", group)], {**changes, "attempt_count": Plus(-1)})

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction of the host's database, as the host's framework knows it."""
        with self.storage.begin() as rows:
            yield rows.native

    def next_due_seconds(self) -> float | None:
        """Seconds until the next waiting item is due; see `OutboxStore.next_due_seconds`."""
        with self.storage.begin(atomic=False) as rows:
            return self._due_by_limits(next_due(rows))

    def wakeup(self) -> Wakeup | None:
        """What the storage has to wait with."""
        return self.storage.wakeup(CHANNEL)


class SkipLockedClaimOutboxStore(RowsOutboxStore):
    """Claims with ``FOR UPDATE SKIP LOCKED``: workers never wait for each other."""

    skip_locked = True


class OptimisticClaimOutboxStore(RowsOutboxStore):
    """Claims without row locks: of two workers that want an item, the second finds it gone."""

    skip_locked = False


def _new_rows(
    items: Iterable[NewItem], redact: Redaction | None
) -> tuple[list[Row], bool, list[Row]]:
    """The rows of *items*, whether none of them can be there already, and the rows of labels."""
    items = list(items)
    fresh = all(not item.id and item.idempotency_key is None for item in items)
    new = [item.to_row(redact) for item in items]
    labels: list[Row] = []
    for item, row in zip(items, new, strict=True):
        if item.labels:
            checked = checked_labels(item.labels)
            labels += label_rows(row["id"], "item", checked, item.tenant_id)
    return new, fresh, labels


def _holders(rows: Rows, keys: list[str], *, lock: bool = False) -> dict[str, str]:
    """Which item has each of these idempotency keys."""
    where = [Where("idempotency_key", "in", keys)]
    found = rows.select(OUTBOX, where, lock=lock, columns=("id", "idempotency_key"))
    return {row["idempotency_key"]: row["id"] for row in found}
