"""The outbox in a host's database: here items are enqueued, claimed, leased and finished."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_age, require_asyncio
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    LeaseLostError,
    PayloadError,
    StorageError,
    type_name,
)
from automate_kernel.outbox import (
    concurrency_keys,
    failed_attempts,
    ordering_keys,
    queries,
    worker_reports,
)
from automate_kernel.outbox.bulk_actions import BulkAction, Progress
from automate_kernel.outbox.claim_keys import ClaimKeys
from automate_kernel.outbox.controls import OutboxControls
from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt
from automate_kernel.outbox.fair_share import FairShare, Group
from automate_kernel.outbox.item import (
    BEGUN,
    EXPIRED,
    FINISHED,
    FREE,
    LEASE_SECONDS,
    Backoff,
    ItemStatus,
    NewItem,
    OutboxItem,
    Outcome,
    ReapResult,
    ahead_token,
    begins_noted,
    bounded_seconds,
    check_text,
    claim_changes,
    claimed_ahead,
    end_changes,
    error_changes,
    new_id,
    owner_begun,
    waiting_changes,
)
from automate_kernel.outbox.labels import HEADER, add_labels, checked_labels, label_rows
from automate_kernel.outbox.limits import KindLimits, Limit, TimedCache, read_limits
from automate_kernel.outbox.operator_commands import OperatorCommands, request_release
from automate_kernel.outbox.queries import Due, ItemFilter, ItemPage, OutboxStats
from automate_kernel.outbox.retention import Retention, forget
from automate_kernel.outbox.statistics import Minutes
from automate_kernel.outbox.store import OutboxListener, OutboxStore, OutboxTables
from automate_kernel.outbox.worker_reports import Activity, ActivityRow, WorkerInfo
from automate_kernel.storage.checkpoint import RELEASE
from automate_kernel.storage.paging import LOOK
from automate_kernel.storage.query import Now, Plus, Where
from automate_kernel.storage.rows import Row, Rows, Storage, Wakeup, write, write_bounded
from automate_kernel.storage.statuses import DUE, LATER, ItemWait
from automate_kernel.storage.tables import LABEL, OUTBOX, PAUSE, WORKER, WORKFLOW_PAUSE
from automate_kernel.storage.values import Redaction, storable

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")

# What a claim reads; the rest of an item is what the claim itself has written.
_CLAIMED = (
    "id", "kind", "payload", "headers", "priority", "attempt_count", "max_attempts",
    "next_attempt_at", "sort_at", "lease_expires_at", "idempotency_key", "tenant_id",
    "ordering_key", "concurrency_key", "concurrency_limit", "last_error_code", "last_error",
    "created_at", "updated_at", "lane",
)  # fmt: skip
_NO_KEYS = dict.fromkeys(("concurrency_key", "last_error_code"))
_KEYLESS = (Where("ordering_key", "eq", None), Where("concurrency_key", "eq", None))
# How many items that have become due one claim moves to the ready ones.
_PROMOTE = 1000
# For how long claims expect more items with keys, after they have seen such an item.
_KEYED_SECONDS = 60.0
# How often a claim takes more in place of what has to wait for its key. A busy worker that has
# room for a single item puts one item aside each time.
_ROUNDS = 30
_TRIES = 3
_WAITS_AGAIN = (ItemStatus.RETRY, ItemStatus.PENDING)


@dataclass(slots=True)
class _Lease:
    """A claim as the store remembers it: the fence, and what finishing the item needs."""

    worker_id: str
    token: str
    ordering_key: str | None
    priority: int
    attempt_count: int
    max_attempts: int
    concurrency_key: str | None = None
    # Whether there are rows beside the item's own, which go with it.
    followed: bool = False
    # Whether it counts for its concurrency key until it ends.
    keeps_slot: bool = False

    @property
    def keyed(self) -> bool:
        """True if the item has a key, which others may wait for."""
        return self.ordering_key is not None or self.concurrency_key is not None

    @classmethod
    def of(cls, row: Row, worker_id: str, token: str) -> _Lease:
        """Return the lease of a claimed row."""
        return cls(
            worker_id,
            token,
            row["ordering_key"],
            row["priority"],
            row["attempt_count"],
            row["max_attempts"],
            row["concurrency_key"],
            row["last_error_code"] is not None or HEADER in row["headers"],
            row["concurrency_key"] is not None and concurrency_keys.HEADER in row["headers"],
        )


class RowsOutboxStore(OutboxStore, OutboxControls):
    """
    The outbox in an application's database.

    *backoff* delays items whose worker died. *listeners* hear, in the same transaction, of items
    that end as FAILED or CANCELLED or are to wait again.
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
        lease_seconds: float = LEASE_SECONDS,
        backoff: Backoff | None = None,
        listeners: Iterable[OutboxListener] = (),
        control_seconds: float = 1.0,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> None:
        if not 0 < lease_seconds < math.inf:
            raise ConfigError(f"lease_seconds is a number above 0, not {lease_seconds}")
        self.storage = storage
        self.lease_seconds = lease_seconds
        self.renews_beside = not getattr(storage, "has_one_connection", False)
        self.backoff: Backoff = backoff or Backoff()
        self.listeners: list[OutboxListener] = list(listeners)
        self.retention_seconds = retention_seconds
        self.failed_retention_seconds = failed_retention_seconds
        self._control_seconds = control_seconds
        self._commands = OperatorCommands(storage, self.listeners)
        self._retention = Retention(storage)
        self._limits = KindLimits(
            storage, control_seconds=control_seconds, skip_locked=self.skip_locked
        )
        self._share = FairShare(control_seconds / 20)
        self._leases: dict[str, _Lease] = {}
        self._paused: TimedCache[frozenset[str]] = TimedCache(control_seconds)
        # Per choice of kinds, since a worker has several pools: whether the next claim is a full
        # one, and from when on one that finds something makes the next a full one.
        self._next_full_claim: dict[tuple[str, ...] | None, tuple[bool, float]] = {}
        self._keyed_until = 0.0
        # The slot after which the next reaping looks for those to mend.
        self._mended = ""

    @property
    def tables(self) -> OutboxTables:
        """The store itself, whose items stand in our tables."""
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self.storage.describe()}>"

    def listen(self, listener: OutboxListener) -> None:
        """Add a listener, unless the store has one of the same class."""
        if not any(type(each) is type(listener) for each in self.listeners):
            self.listeners.append(listener)

    # -- enqueueing --------------------------------------------------------------------------

    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        """Accept items in the application's transaction; see `OutboxStore.enqueue_many`."""
        # Before a transaction is opened: what can't be stored must not leave a lock behind.
        new, fresh, labels = _new_rows(self.announced(items), self.redact)
        atomic = len(new) > 1 or not fresh or bool(labels)
        return write(
            self.storage, transaction, lambda rows: _insert(rows, new, fresh, labels), atomic=atomic
        )

    async def aenqueue_many(
        self, items: Iterable[NewItem], *, transaction: Any = None
    ) -> list[str]:
        """Accept items in an asynchronous host transaction; see `OutboxStore.enqueue_many`."""
        require_asyncio("aenqueue_many", "enqueue_many")
        new, fresh, labels = _new_rows(self.announced(items), self.redact)
        return await self.storage.arun_in(
            transaction, lambda rows: _insert(rows, new, fresh, labels)
        )

    def may_claim(self, rows: Rows, items: Iterable[NewItem], *, in_line: bool = True) -> bool:
        """
        Return True if new items without keys may be claimed from the start.

        They may not where their kinds are paused or limited, or with *in_line* where other
        tenants' items wait: enqueue them then.
        """
        groups = {Group(item.kind, item.tenant_id) for item in items}
        kinds = sorted({group.kind for group in groups})
        if self._paused_kinds(rows).intersection(kinds) or self._limits.limited(rows, kinds):
            return False
        return not (in_line and self._share.is_due_to_others(groups))

    def insert_claimed(
        self,
        rows: Rows,
        items: Sequence[NewItem],
        worker_id: str,
        *,
        beside: Sequence[tuple[str, Sequence[Row]]] = (),
    ) -> list[OutboxItem]:
        """
        Accept new items without keys that *worker_id* has claimed from the start.

        It must be one that `may_claim` them. Nobody else gets them, unless their lease ends. New
        rows of other tables go in with them, *beside*.
        """
        new, _, labels = _new_rows(self.announced(items), self.redact)
        token = new_id()
        claim = {**claim_changes(worker_id, token, self.lease_seconds), "attempt_count": 1}
        claimed = [{**row, **claim} for row in new]
        # Before they are there: if the reply is lost, they can be released all the same.
        for row in claimed:
            self._leases[row["id"]] = _Lease.of({**_NO_KEYS, **row}, worker_id, token)
        now = rows.insert_together([*beside, (OUTBOX, claimed), (LABEL, labels)])
        lease = timedelta(seconds=self.lease_seconds)
        return [_inserted_item(row, now, now + lease) for row in claimed]

    # -- claiming ----------------------------------------------------------------------------

    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """Lease due items to *worker_id*; see `OutboxStore.claim_batch`."""
        return self._claim(worker_id, new_id(), limit, kinds)

    def claim_ahead(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """Lease due items that need not begin at once; see `OutboxStore.claim_ahead`."""
        return self._claim(worker_id, ahead_token(new_id()), limit, kinds)

    def _claim(
        self, worker_id: str, token: str, limit: int, kinds: Sequence[str] | None
    ) -> list[OutboxItem]:
        if limit < 1:
            return []
        claim = {
            "columns": _CLAIMED,
            "skip_locked": self.skip_locked,
            "changes": claim_changes(worker_id, token, self.lease_seconds),
        }
        # In one order: a worker names the same kinds in several, as its pools take turns.
        kinds = None if kinds is None else sorted(kinds)
        of_kinds = None if kinds is None else tuple(kinds)
        full, full_at = self._next_full_claim.get(of_kinds, (True, 0.0))
        claimed: list[Row] = []
        if not full and self._control_seconds and runtime.monotonic() >= self._keyed_until:
            # Nearly always: one statement, which needs no transaction around it.
            claimed = self._claim_keyless(claim, limit, kinds)
            if claimed:
                self._next_full_claim[of_kinds] = runtime.monotonic() >= full_at, full_at
        # Again only if all there was had to do with slots that others were changing.
        for _ in range(_TRIES):
            if claimed:
                break
            next_full_at = runtime.monotonic() + self._control_seconds / 20
            self._next_full_claim[of_kinds] = False, next_full_at
            work = partial(self._claim_in_full, claim=claim, token=token, limit=limit, kinds=kinds)
            claimed, busy = write(self.storage, None, work)
            if not busy:
                break
        for row in claimed:
            self._leases[row["id"]] = _Lease.of(row, worker_id, token)
        return [OutboxItem.claimed(row, worker_id, token) for row in claimed]

    def _claim_keyless(
        self, claim: Mapping[str, Any], limit: int, kinds: Sequence[str] | None
    ) -> list[Row]:
        """Claim items without keys; none where a kind is paused or limited."""

        def work(rows: Rows) -> list[Row]:
            if self._paused_kinds(rows) or self._limits.limited(rows, kinds):
                return []
            return self._share.take(rows, kinds, limit, only=_KEYLESS, **claim)

        return write(self.storage, None, work, atomic=False)

    def _claim_in_full(
        self,
        rows: Rows,
        *,
        claim: Mapping[str, Any],
        token: str,
        limit: int,
        kinds: Sequence[str] | None,
    ) -> tuple[list[Row], bool]:
        """
        Claim items whatever keys they have, after making ready what has become due.

        Returns them, and True if another claim is worth while.

        In one transaction: who leaves a key must see who wants it, and an item with a key is
        claimed, and let in or put to wait. Where there seem to be no keys, such a claim follows
        when there is nothing else, and once in a while. So it is also the one that looks at pauses
        and limits, before their time: the next item to come, alone, waits for no such look.
        """
        keys = ClaimKeys(token)
        take = partial(self._take, rows, claim, keys, self._paused_kinds(rows, early=True))
        self._promote(rows)
        if limited := self._limits.limited(rows, kinds, early=True):
            claimed = self._limits.claim(rows, limited, kinds, limit, self._share, take)
        else:
            claimed = take(kinds, limit, self._share)
        return claimed, keys.busy

    def _take(
        self,
        rows: Rows,
        claim: Mapping[str, Any],
        keys: ClaimKeys,
        paused: frozenset[str],
        kinds: Sequence[str] | None,
        limit: int,
        share: FairShare,
    ) -> list[Row]:
        claimed: list[Row] = []
        # What can't run yet is put aside and more is taken, a bounded number of times.
        for _ in range(_ROUNDS):
            taken = share.take(rows, kinds, limit - len(claimed), **claim)
            admitted = self._admit(rows, taken, keys, paused)
            claimed += admitted
            if len(admitted) == len(taken) or len(claimed) >= limit or keys.busy:
                break
        return claimed

    def _promote(self, rows: Rows) -> None:
        """Make ready what has become due."""
        rows.take(
            OUTBOX,
            [
                Where("waiting_for", "eq", ItemWait.TIME.value),
                Where("next_attempt_at", "le", Now()),
            ],
            order_by=("next_attempt_at",),
            limit=_PROMOTE,
            changes={"waiting_for": ItemWait.WORKER.value},
            skip_locked=self.skip_locked,
            columns=("next_attempt_at",),
        )

    def _paused_kinds(self, rows: Rows, *, early: bool = False) -> frozenset[str]:
        """Return the kinds that are paused, as far as is known; look *early* at half the time."""
        return self._paused.get(partial(queries.paused_kinds, rows), early=early)

    def _admit(
        self, rows: Rows, taken: list[Row], keys: ClaimKeys, paused: frozenset[str]
    ) -> list[Row]:
        """Return those of *taken* that may run now; the others go back to wait for their reason."""
        deferred, late = keys.deferred(rows, taken, paused)
        _put_back(rows, [row for row in taken if row["id"] in deferred], ItemWait.RESUME)
        # In the place of those that can't use their turn.
        concurrency_keys.wake(rows, (r["concurrency_key"] for r in taken if r["id"] in deferred))
        if any(row["ordering_key"] or row["concurrency_key"] for row in taken):
            self._keyed_until = runtime.monotonic() + _KEYED_SECONDS
        held, ready = keys.enter(rows, [row for row in taken if row["id"] not in deferred | late])
        _put_back(rows, [row for row in taken if row["id"] in held], ItemWait.KEY)
        _put_back(rows, [row for row in taken if row["id"] in ready | late], ItemWait.WORKER)
        away = deferred | late | held | ready
        return [row for row in taken if row["id"] not in away]

    # -- leases ------------------------------------------------------------------------------

    def begin(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Note that items begin; see `OutboxStore.begin`."""
        held = self._tokens(item_ids, worker_id)
        lost = set(item_ids) - set(held)
        changes = {"lease_owner": owner_begun(worker_id), **self._renewal}
        with self.storage.begin(atomic=False) as rows:
            for token, ids in _by_token(held.items()):
                where = _fence(ids, token)
                if rows.update(OUTBOX, where, changes) < len(ids):
                    still = rows.select(OUTBOX, where, columns=("id",))
                    lost |= set(ids) - {row["id"] for row in still}
        return lost

    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Renew leases; see `OutboxStore.extend`."""
        held = self._tokens(item_ids, worker_id)
        lost, ids = set(item_ids) - set(held), sorted(held)
        # All at once, however many claims they are of. Each row has the token of its last claim.
        where = [
            Where("id", "in", ids),
            Where("lease_token", "in", sorted(set(held.values()))),
            Where("status", "eq", ItemStatus.RUNNING.value),
        ]

        def work(rows: Rows) -> set[str]:
            # A transaction that has locked one of them, and stands still, must not let all others
            # run out. Nobody reaps what is locked.
            renewed = rows.take(
                OUTBOX, where, order_by=("id",), limit=len(ids), changes=self._renewal,
                columns=("id",),
            )  # fmt: skip
            missing = set(ids).difference(row["id"] for row in renewed)
            if not missing:
                return missing
            still = rows.select(
                OUTBOX, [Where("id", "in", sorted(missing)), *where[1:]], columns=("id",)
            )
            return missing.difference(row["id"] for row in still)

        # Often, and one statement nearly always: no transaction around it.
        return lost | write(self.storage, None, work, atomic=False) if ids else lost

    @property
    def _renewal(self) -> dict[str, Any]:
        return {"lease_expires_at": Now(self.lease_seconds)}

    def _tokens(self, item_ids: Iterable[str], worker_id: str) -> dict[str, str]:
        """Return the tokens of those of these items that *worker_id* has claimed, by their ids."""
        return {i: lease.token for i in item_ids if (lease := self._lease(i, worker_id))}

    def renew(
        self, item_id: str, worker_id: str, *, token: str | None = None, transaction: Any = None
    ) -> None:
        """Renew one lease inside a transaction; see `OutboxStore.renew`."""
        lease = self._lease(item_id, worker_id)
        token = token or (lease.token if lease else None)
        with self.storage.begin(transaction) as rows:
            its = _fence([item_id], token or "")
            if token is None or not rows.update(OUTBOX, its, self._renewal):
                raise LeaseLostError(f"the lease of item {item_id} is lost")

    def forget_claims(self, item_ids: Iterable[str], *, token: str | None = None) -> None:
        """Drop what is remembered of claims that are over."""
        for item_id in item_ids:
            lease = self._leases.get(item_id)
            if lease is not None and token in (None, lease.token):
                self._leases.pop(item_id, None)

    def progressed(self, item: OutboxItem) -> None:
        """Note that a checkpoint has forgotten the earlier attempts of a claimed item."""
        item.attempt_count = 1
        lease = self._leases.get(item.id)
        if lease is not None and lease.token == item.lease_token:
            lease.attempt_count = 1

    def _lease(self, item_id: str, worker_id: str) -> _Lease | None:
        lease = self._leases.get(item_id)
        return lease if lease is not None and lease.worker_id == worker_id else None

    # -- finishing ---------------------------------------------------------------------------

    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        """Record outcomes in one transaction; see `OutboxStore.acknowledge`."""
        if not outcomes:
            return set()
        if transaction is None and (done := self._all_done(worker_id, outcomes)):
            token, ids = done
            with self.storage.begin(atomic=False) as rows:
                lost = self._complete(rows, token, ids)
            self.forget_claims(ids, token=token)
            return lost
        with self.storage.begin(transaction) as rows:
            lost = self._record(rows, worker_id, outcomes)
        if transaction is None:
            for outcome in outcomes:
                # Its own claims alone: a late outcome must not make the store forget who holds it
                # now.
                if (lease := self._lease(outcome.item_id, worker_id)) is not None:
                    self.forget_claims([outcome.item_id], token=outcome.token or lease.token)
        return lost

    def _all_done(
        self, worker_id: str, outcomes: Sequence[Outcome]
    ) -> tuple[str, list[str]] | None:
        """Return the claim's token and the ids, if all is success without keys; else None."""
        token, leases, completed = outcomes[0].token, self._leases, ItemStatus.COMPLETED
        ids: list[str] = []
        for outcome in outcomes:
            lease = leases.get(outcome.item_id)
            if (
                lease is None
                or outcome.status is not completed
                or not token == outcome.token == lease.token
                or lease.worker_id != worker_id
                or lease.keyed
                or (lease.followed and self.retention_seconds == 0)
            ):
                return None
            ids.append(outcome.item_id)
        # Sorted, so that two transactions lock their rows in the same order.
        return (token, sorted(ids)) if token is not None else None

    def _record(self, rows: Rows, worker_id: str, outcomes: Sequence[Outcome]) -> set[str]:
        # Ids with tokens: a worker may report an item twice at once, when it was taken from it
        # while the database was away, and claimed again. It has lost the first claim alone.
        lost: set[tuple[str, str | None]] = set()
        done: list[tuple[str, str]] = []
        keyed: list[tuple[str, _Lease]] = []
        attempts: list[Row] = []
        leases = [(self._lease_for(rows, worker_id, outcome), outcome) for outcome in outcomes]
        deferred = self._defer_alike(rows, leases)
        for lease, outcome in leases:
            if lease is None:
                lost.add((outcome.item_id, outcome.token))
                continue
            if (outcome.item_id, lease.token) in deferred:
                continue
            if outcome.status is ItemStatus.COMPLETED:
                done.append((outcome.item_id, lease.token))
                status: ItemStatus | None = outcome.status
            elif (status := self._record_one(rows, lease, self._redacted(outcome))) is None:
                lost.add((outcome.item_id, lease.token))
            elif outcome.error_code is not None and outcome.status is not ItemStatus.PENDING:
                attempts.append(_attempt(lease, outcome, outcome.error_code))
            if lease.keyed and not (lease.keeps_slot and status in _WAITS_AGAIN):
                keyed.append((outcome.item_id, lease))
        for token, ids in _by_token(done):
            lost |= {(item_id, token) for item_id in self._complete(rows, token, ids)}
        failed_attempts.keep_attempts(rows, attempts, failed_attempts.MOST_OF_ITEM)
        _release_keys(
            rows,
            [
                (item_id, lease.token, lease.ordering_key, lease.concurrency_key)
                for item_id, lease in keyed
                if (item_id, lease.token) not in lost
            ],
        )
        return {item_id for item_id, _ in lost}

    def _defer_alike(
        self, rows: Rows, leases: Sequence[tuple[_Lease | None, Outcome]]
    ) -> set[tuple[str, str]]:
        """Put items back, many with one statement; returns the ids and tokens of these."""
        alike: dict[Any, list[tuple[_Lease, Outcome]]] = {}
        for lease, outcome in leases:
            plain = outcome.status is ItemStatus.PENDING and outcome.error_code is None
            if lease is not None and plain and not lease.keyed:
                status = _next_status(lease, outcome)
                key = (lease.token, lease.priority, status, outcome.next_attempt)
                alike.setdefault(key, []).append((lease, outcome))
        deferred: set[tuple[str, str]] = set()
        for (token, _, status, _), group in alike.items():
            ids = sorted(outcome.item_id for _, outcome in group)
            # Those that were lost, or are asked to stop, are looked at one by one.
            held = [*_fence(ids, token), Where("waiting_for", "eq", None)]
            if len(ids) > 1 and rows.update(OUTBOX, held, _changes(*group[0], status)) == len(ids):
                deferred |= {(item_id, token) for item_id in ids}
        return deferred

    def _lease_for(self, rows: Rows, worker_id: str, outcome: Outcome) -> _Lease | None:
        lease = self._lease(outcome.item_id, worker_id)
        if lease is not None and outcome.token in (None, lease.token):
            return lease
        if outcome.token is None:
            return None
        where = [Where("id", "eq", outcome.item_id), Where("lease_token", "eq", outcome.token)]
        found = rows.select(OUTBOX, where)
        return _Lease.of(found[0], worker_id, outcome.token) if found else None

    def _complete(self, rows: Rows, token: str, ids: Sequence[str]) -> set[str]:
        """Complete items of one claim; returns those that were lost."""
        if self.retention_seconds == 0:
            removed = rows.remove(OUTBOX, _fence(ids, token))
            leases = self._leases
            followed = [i for i in removed if (lease := leases.get(i)) is None or lease.followed]
            if followed:
                forget(rows, followed)
            return set(ids).difference(removed)
        if rows.update(OUTBOX, _fence(ids, token), end_changes(ItemStatus.COMPLETED)) == len(ids):
            return set()
        return _not_finished(rows, ids, token, ItemStatus.COMPLETED)

    def _redacted(self, outcome: Outcome) -> Outcome:
        if not outcome.error or self.redact is None:
            return outcome
        return replace(outcome, error=self.redact(outcome.error))

    def _record_one(self, rows: Rows, lease: _Lease, outcome: Outcome) -> ItemStatus | None:
        """Record what is no success; return the item's status, or None if the lease was lost."""
        item_id, fenced = outcome.item_id, _fence([outcome.item_id], lease.token)
        again, status = outcome.status in _WAITS_AGAIN, _next_status(lease, outcome)
        # An item that is asked to stop does not wait again, nor does it fail for want of attempts.
        held = [*fenced, Where("waiting_for", "eq", None)] if again else fenced
        changes = _changes(lease, outcome, status)
        to_release = [*fenced, Where("waiting_for", "eq", RELEASE)]
        anew = {**changes, **waiting_changes(0.0, lease.priority)}
        if not rows.update(OUTBOX, held, changes) and not (
            again and rows.update(OUTBOX, to_release, anew)
        ):
            cancelled = _changes(lease, outcome, ItemStatus.CANCELLED)
            if not again or not rows.update(OUTBOX, fenced, cancelled):
                # Its attempts may be spent by what this store knows of the claim; one that was put
                # back since has them again.
                recorded = [status, *_WAITS_AGAIN, ItemStatus.CANCELLED] if again else [status]
                lost = _not_finished(rows, [item_id], lease.token, *recorded)
                return None if lost else status
            status = ItemStatus.CANCELLED
        if status not in _WAITS_AGAIN and self.listeners:
            self._ended(rows, _read_item(rows, item_id))
        return status

    def _ended(self, rows: Rows, item: OutboxItem) -> None:
        for listener in self.listeners:
            listener.ended(rows, [item])

    # -- recovering --------------------------------------------------------------------------

    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> ReapResult:
        """Recover items whose worker is gone; see `OutboxStore.reap`."""
        over = Where("lease_expires_at", "lt", Now(-grace_seconds))
        work = partial(self._reap, limit=limit, over=over)
        result, self._mended = write(self.storage, None, work)
        return result

    def _reap(self, rows: Rows, limit: int, over: Where) -> tuple[ReapResult, str]:
        result = ReapResult()
        stale = rows.select(
            OUTBOX, [over], order_by=("lease_expires_at",), limit=limit, lock=True,
            skip_locked=True,
        )  # fmt: skip
        # The keys as they are stored: those of items lack their tenant's part.
        reaped = [row for row in stale if self._reap_one(rows, row, over, result)]
        spent = [_expired_attempt(row) for row in reaped if not _never_began(row)]
        failed_attempts.keep_attempts(rows, spent, failed_attempts.MOST_OF_ITEM)
        kept = {item.id for item in result.retried}
        _release_keys(
            rows,
            [
                (row["id"], row["lease_token"], row["ordering_key"], row["concurrency_key"])
                for row in reaped
                if not (row["id"] in kept and concurrency_keys.HEADER in row["headers"])
            ],
            # A worker that froze in a claim must not stop all recovery.
            wait=False,
        )
        ordering_keys.mend(rows)
        if reaped:
            rows.notify()  # the others handle what this worker doesn't
        return result, concurrency_keys.mend(rows, self._mended)

    def _reap_one(self, rows: Rows, row: Row, over: Where, result: ReapResult) -> bool:
        ended, never_began = None, _never_began(row)
        if row["waiting_for"] == ItemWait.CANCEL:
            ended = ItemStatus.CANCELLED
        elif not never_began and row["attempt_count"] >= row["max_attempts"]:
            ended = ItemStatus.FAILED
        changes: dict[str, Any] = {"updated_at": Now()}
        if not never_began:
            changes |= error_changes(EXPIRED, _lost_text(row), None)
        if ended is not None:
            changes |= end_changes(ended)
        elif never_began:
            changes |= {
                "status": _waiting_status(row).value,
                "attempt_count": Plus(-1),
                "waiting_for": ItemWait.WORKER.value,
            }
        else:
            # After a pause it has its old place in the line: behind all that came meanwhile it
            # would wait for the death of a worker far longer than for its own errors.
            delay = bounded_seconds(self.backoff.delay(row["attempt_count"]))
            due = {"next_attempt_at": Now(delay), "waiting_for": LATER if delay else DUE}
            changes |= {"status": ItemStatus.RETRY.value, **due}
        # The token goes: what comes late from the lost worker must not pass for a repeat.
        changes |= FREE
        # Decided from the row alone, and again when it is written: without row locks its holder
        # may have renewed or finished it in between.
        where = [*_fence([row["id"]], row["lease_token"]), over]
        if not rows.update(OUTBOX, where, changes):
            return False
        item = _read_item(rows, row["id"])
        result.add(item)
        if ended is not None:
            self._ended(rows, item)
        return True

    # -- waiting -----------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Open a transaction of the host's database, as the host's framework knows it."""
        with self.storage.begin(bounded=False) as rows:
            yield rows.native

    def next_due_seconds(self) -> float | None:
        """Return the seconds until an item is due; see `OutboxStore.next_due_seconds`."""
        return self._due(recovery=False).seconds

    def look(self) -> Due:
        """Return what is due, with one statement; see `OutboxStore.look`."""
        return self._due(recovery=True)

    def _due(self, *, recovery: bool) -> Due:
        with self.storage.begin(atomic=False) as rows:
            if not recovery:
                # Before their time, as a claim does that finds nothing: see `_claim_in_full`.
                self._paused_kinds(rows, early=True)
                self._limits.limited(rows, (), early=True)
            due = queries.read_due(rows, recovery=recovery)
        return due._replace(seconds=self._limits.due_seconds(due.seconds))

    def wakeup(self) -> Wakeup | None:
        """Return what the storage has to wait with."""
        return self.storage.wakeup()

    # -- queries -----------------------------------------------------------------------------

    def _read(self, read: Callable[..., T], *arguments: Any, **options: Any) -> T:
        with self.storage.begin(atomic=False) as rows:
            return read(rows, *arguments, **options)

    def find(
        self, *, limit: int = 50, before_id: str | None = None, **matching: Unpack[ItemFilter]
    ) -> list[OutboxItem]:
        """Return items that match, the newest first; see `OutboxStore.find`."""
        return self._read(queries.find_items, matching, limit, before_id)

    def page(
        self,
        *,
        after: str = "",
        limit: int = 50,
        look: int = LOOK,
        seconds: float = 0.0,
        payloads: bool = True,
        **matching: Unpack[ItemFilter],
    ) -> ItemPage:
        """Return a page of items that match; see `OutboxStore.page`."""
        place = {"after": after, "limit": limit, "look": look, "seconds": seconds}
        return self._read(queries.read_item_page, matching, payloads=payloads, **place)

    def count(self, *, most: int | None = None, **matching: Unpack[ItemFilter]) -> int:
        """Count items that match; see `OutboxStore.count`."""
        return self._read(queries.count_items, matching, most)

    def running(self, *, limit: int = 50) -> list[OutboxItem]:
        """Return items under lease; see `OutboxStore.running`."""
        return self._read(queries.running_items, limit)

    def handed_over(self, *, limit: int = 50, tenant_id: str | None = None) -> list[OutboxItem]:
        """Return items that wait for another worker; see `OutboxStore.handed_over`."""
        return self._read(queries.handed_over_items, limit, tenant_id)

    def count_handed_over(self) -> int:
        """Return the number of items that wait for another worker, without reading them."""
        return self._read(queries.count_handed_over)

    def failed_attempts(self, item_id: str) -> list[FailedAttempt]:
        """Return the errors of an item's attempts; see `OutboxStore.failed_attempts`."""
        known = queries.item_ids_of([item_id])
        return self._read(failed_attempts.failed_attempts, known[0]) if known else []

    def error_groups(
        self, *, kind: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """Return the failed items in groups; see `OutboxStore.error_groups`."""
        matching = {"status": ItemStatus.FAILED, "kind": kind, "tenant_id": tenant_id}
        with self.storage.begin(atomic=False) as rows:
            where = queries.conditions(rows, matching)
            return failed_attempts.error_groups(
                rows, OUTBOX, where, everybody=tenant_id is None, limit=limit
            )

    def stats(self) -> OutboxStats:
        """Count items per kind and state; see `OutboxStore.stats`."""
        return self._read(queries.read_stats)

    def now(self) -> datetime:
        """Return the time by the database's clock."""
        with self.storage.begin(atomic=False) as rows:
            return rows.now()

    # -- operator commands -------------------------------------------------------------------

    def cancel(self, item_ids: Sequence[str]) -> int:
        """Cancel what waits, ask what runs to stop; see `OutboxStore.cancel`."""
        return self._commands.run("cancel", item_ids)

    def cancel_within(self, rows: Rows, item_ids: Sequence[str]) -> int:
        """Do as `cancel` does, in the transaction of *rows*; of few items, since all are locked."""
        return self._commands.run("cancel", item_ids, transaction=rows.native)

    def requeue(self, item_ids: Sequence[str]) -> int:
        """Make failed or cancelled items wait again; see `OutboxStore.requeue`."""
        return self._commands.run("requeue", item_ids)

    def discard(self, item_ids: Sequence[str]) -> int:
        """Delete finished items; see `OutboxStore.discard`."""
        return self._commands.run("discard", item_ids)

    def reschedule(
        self, item_ids: Sequence[str], *, delay: float = 0.0, run_at: datetime | None = None
    ) -> int:
        """Change due times; see `OutboxStore.reschedule`."""
        if run_at is not None and not isinstance(run_at, datetime):
            problem = f"run_at is a datetime, and can't be {type_name(run_at)}"
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, problem)
        if run_at is not None and run_at.tzinfo is None:
            hint = "pass an aware datetime"
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "run_at has no time zone", hint=hint)
        return self._commands.run("reschedule", item_ids, due=delay if run_at is None else run_at)

    def run_bulk(
        self,
        action: BulkAction,
        *,
        seconds: float | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> BulkAction:
        """Carry a bulk action on; see `OutboxStore.run_bulk`."""
        return self._commands.run_bulk(action, seconds, limit, progress)

    def stop_requests(self, worker_id: str) -> dict[str, str]:
        """Return the items that a worker must stop; see `OutboxStore.stop_requests`."""
        return self._read(queries.requests, worker_id, ItemWait.CANCEL.value)

    def request_release(self, item_ids: Sequence[str], *, transaction: Any = None) -> int:
        """Ask for the release of items; see `OutboxStore.request_release`."""
        return write_bounded(
            self.storage, transaction, lambda rows: request_release(rows, item_ids)
        )

    def release_requests(self, worker_id: str) -> dict[str, str]:
        """Return the items that a worker must put back; see `OutboxStore.release_requests`."""
        return self._read(queries.requests, worker_id, RELEASE)

    def pause(self, kind: str, reason: str = "") -> None:
        """Stop claiming items of *kind* until `resume`."""
        _check_no_workflow(kind)
        check_text(kind, "kind")
        if self.redact is not None:
            reason = self.redact(reason)
        row = {"kind": kind, "reason": storable(reason), "created_at": Now()}
        with self._paused.changing():
            write_bounded(self.storage, None, lambda rows: rows.insert(PAUSE, [row]))

    def resume(self, kind: str) -> None:
        """Claim items of *kind* again."""
        _check_no_workflow(kind)
        deferred = [Where("kind", "eq", kind), Where("waiting_for", "eq", ItemWait.RESUME.value)]

        def work(rows: Rows) -> None:
            rows.delete(PAUSE, [Where("kind", "eq", kind)])
            rows.update(OUTBOX, deferred, {"waiting_for": ItemWait.WORKER.value})
            rows.notify()

        with self._paused.changing():
            write_bounded(self.storage, None, work)

    # -- limits ------------------------------------------------------------------------------

    def limit(
        self,
        kind: str,
        *,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
        burst: int | None = None,
    ) -> None:
        """Set the limit of a kind; see `OutboxStore.limit`."""
        self._limits.set(Limit(kind, concurrency, rate, per_seconds, burst))

    def declare_limits(self, limits: Iterable[Limit], *, kinds: Iterable[str] = ()) -> None:
        """Set limits that the code declares; see `OutboxStore.declare_limits`."""
        self._limits.declare(limits, kinds)

    def unlimit(self, kind: str) -> bool:
        """Lift the limit of a kind; see `OutboxStore.unlimit`."""
        return self._limits.lift(kind)

    def limits(self) -> list[Limit]:
        """Return all limits; see `OutboxStore.limits`."""
        return self._read(read_limits)

    # -- retention ---------------------------------------------------------------------------

    def purge(
        self,
        *,
        older_than_seconds: float,
        limit: int = 1000,
        statuses: Sequence[ItemStatus | str] = FINISHED,
    ) -> int:
        """Delete what finished long ago; see `OutboxStore.purge`."""
        return self._retention.purge(older_than_seconds, limit, statuses)

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        seconds: float = 5.0,
    ) -> int:
        """Delete what has been kept for its time; see `OutboxStore.sweep`."""
        completed, failed = retention_seconds, failed_retention_seconds
        return self._retention.sweep(
            seconds,
            completed=self.retention_seconds if completed is None else completed,
            failed=self.failed_retention_seconds if failed is None else failed,
        )

    # -- worker reports ----------------------------------------------------------------------

    def report(self, worker: WorkerInfo, activity: Minutes[ActivityRow]) -> None:
        """Write that *worker* lives, and its statistics; see `OutboxStore.report`."""
        with self.storage.begin() as rows:
            worker_reports.write_report(rows, worker, activity)
        activity.saved()

    def remove_worker(self, worker_id: str) -> None:
        """Take a worker that has ended off the list."""
        self._read(lambda rows: rows.delete(WORKER, [Where("id", "eq", worker_id)]))

    def workers(self) -> list[WorkerInfo]:
        """Return all workers; see `OutboxStore.workers`."""
        return self._read(worker_reports.read_workers)

    def activity(self, *, seconds: float = 3600.0) -> list[Activity]:
        """Return the statistics of late; see `OutboxStore.activity`."""
        seconds = check_age(seconds, "seconds")
        return self._read(worker_reports.ITEM_STATISTICS.read, seconds, Activity)

    def purge_reports(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Delete old reports; see `OutboxStore.purge_reports`."""
        older_than_seconds = check_age(older_than_seconds, "older_than_seconds")
        with self.storage.begin() as rows:
            return worker_reports.purge_reports(rows, older_than_seconds)


class SkipLockedClaimOutboxStore(RowsOutboxStore):
    """Claims with ``FOR UPDATE SKIP LOCKED``: workers never wait for each other."""

    skip_locked = True


class OptimisticClaimOutboxStore(RowsOutboxStore):
    """Claims without row locks: of two workers that want an item, the second finds it gone."""

    skip_locked = False


def _new_rows(
    items: Iterable[NewItem], redact: Redaction | None
) -> tuple[list[Row], bool, list[Row]]:
    """Return the rows of *items*, True if none can be there already, and the rows of labels."""
    items = list(items)
    fresh = all(not item.id and item.idempotency_key is None for item in items)
    new = [item.to_row(redact) for item in items]
    labels: list[Row] = []
    for item, row in zip(items, new, strict=True):
        if item.labels:
            checked = checked_labels(item.labels)
            labels += label_rows(row["id"], "item", checked, item.tenant_id)
    return new, fresh, labels


def _insert(rows: Rows, new: list[Row], fresh: bool, labels: Sequence[Row]) -> list[str]:
    """Insert what `_new_rows` made; returns the ids, for a taken key that of the item with it."""
    if any("concurrency_key" in row for row in new):
        new = [{"concurrency_key": None, "concurrency_limit": None, **row} for row in new]
    added = rows.insert(OUTBOX, new, notify=True, fresh=fresh)
    ids = [row["id"] for row in new] if added == len(new) else _ids_of_keys(rows, new, added)
    if labels:
        # Nothing is added to an item that was there already.
        theirs = {row["id"] for row, item_id in zip(new, ids, strict=True) if row["id"] == item_id}
        add_labels(rows, [row for row in labels if row["subject_id"] in theirs])
    return ids


def _ids_of_keys(rows: Rows, new: list[Row], added: int) -> list[str]:
    keys: set[str] = {row["idempotency_key"] for row in new if row["idempotency_key"] is not None}
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


def _holders(rows: Rows, keys: list[str], *, lock: bool = False) -> dict[str, str]:
    """Return the id of the item that has each of these idempotency keys."""
    where = [Where("idempotency_key", "in", keys)]
    found = rows.select(OUTBOX, where, lock=lock, columns=("id", "idempotency_key"))
    return {row["idempotency_key"]: row["id"] for row in found}


def _inserted_item(row: Row, now: datetime, until: datetime) -> OutboxItem:
    """Return the item of a row that was inserted *now* and is leased *until* then."""
    times = dict.fromkeys(("next_attempt_at", "sort_at", "created_at", "updated_at"), now)
    nothing = dict.fromkeys(("last_error_code", "last_error", "completed_at"))
    content = {name: json.loads(row[name]) for name in ("payload", "headers")}
    return OutboxItem.from_row({**nothing, **row, **times, **content, "lease_expires_at": until})


def _check_no_workflow(kind: str) -> None:
    """Refuse as a kind what the table of pauses has for a workflow."""
    if isinstance(kind, str) and kind.startswith(WORKFLOW_PAUSE):
        name = kind.removeprefix(WORKFLOW_PAUSE)
        raise PayloadError(
            f"{kind!r} names a workflow, and no kind of items can be paused by such a name",
            hint=f"pause or resume the workflow: kernel.workflows.pause({name!r}), or"
            f" automate pause workflow {name}",
        )


def _put_back(rows: Rows, taken: list[Row], waiting_for: str) -> None:
    for status, group in (
        (ItemStatus.PENDING, [row["id"] for row in taken if row["attempt_count"] <= 1]),
        (ItemStatus.RETRY, [row["id"] for row in taken if row["attempt_count"] > 1]),
    ):
        changes = {"status": status.value, "waiting_for": waiting_for, **FREE}
        rows.update(OUTBOX, [Where("id", "in", group)], {**changes, "attempt_count": Plus(-1)})


def _fence(ids: Sequence[str], token: str) -> list[Where]:
    """Return what holds for these items only while the claim with *token* does."""
    return [
        Where("id", "in", list(ids)),
        Where("lease_token", "eq", token),
        Where("status", "eq", ItemStatus.RUNNING.value),
    ]


def _by_token(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Group item ids by the token of their claim, from (id, token) pairs."""
    groups: dict[str, list[str]] = {}
    for item_id, token in pairs:
        groups.setdefault(token, []).append(item_id)
    # Sorted, so that two transactions lock their rows in the same order.
    return [(token, sorted(ids)) for token, ids in groups.items()]


def _release_keys(
    rows: Rows, left: Sequence[tuple[str, str, str | None, str | None]], *, wait: bool = True
) -> None:
    """Free the ordering and concurrency keys of items: their ids, tokens and keys of both sorts."""
    tokens = {token for _, token, _, _ in left}
    if bounded := [(key, item_id) for item_id, _, _, key in left if key is not None]:
        concurrency_keys.release(rows, bounded, tokens, wait=wait)
    if ordered := [(key, item_id) for item_id, _, key, _ in left if key is not None]:
        ordering_keys.release(rows, ordered, tokens, wait=wait)


def _read_item(rows: Rows, item_id: str) -> OutboxItem:
    return OutboxItem.from_row(rows.select(OUTBOX, [Where("id", "eq", item_id)])[0])


def _not_finished(rows: Rows, ids: Sequence[str], token: str, *statuses: ItemStatus) -> set[str]:
    # The token stays on the row until the next claim: a repeated call (its reply was lost) has
    # it too, one by a worker whose lease was taken over has not.
    where = [
        Where("id", "in", ids),
        Where("lease_token", "eq", token),
        Where("status", "in", [status.value for status in statuses]),
    ]
    return set(ids) - {row["id"] for row in rows.select(OUTBOX, where, columns=("id",))}


def _next_status(lease: _Lease, outcome: Outcome) -> ItemStatus:
    if outcome.status is ItemStatus.RETRY and lease.attempt_count >= lease.max_attempts:
        return ItemStatus.FAILED
    if outcome.status is ItemStatus.PENDING and lease.attempt_count > 1:
        return ItemStatus.RETRY
    return outcome.status


def _changes(lease: _Lease, outcome: Outcome, status: ItemStatus) -> dict[str, Any]:
    error = error_changes(outcome.error_code, outcome.error, outcome.group)
    if status not in _WAITS_AGAIN:
        return {**end_changes(status), **error}
    changes = {
        "status": status.value,
        **error,
        "updated_at": Now(),
        "lease_owner": None,
        "lease_expires_at": None,
        **waiting_changes(outcome.next_attempt, lease.priority),
    }
    if outcome.status is ItemStatus.PENDING:
        changes["attempt_count"] = Plus(-1)
    return changes


def _attempt(lease: _Lease, outcome: Outcome, code: str) -> Row:
    failed = FailedAttempt(
        attempt=lease.attempt_count, error_code=code, error_group=outcome.group or code,
        error=outcome.error or "", trace=outcome.trace, worker_id=lease.worker_id,
    )  # fmt: skip
    return failed_attempts.new_attempt(outcome.item_id, lease.token, failed)


def _never_began(row: Row) -> bool:
    """Return True if an item was claimed ahead, and its worker would have said that it begins."""
    return (
        claimed_ahead(row["lease_token"] or "")
        and not (row["lease_owner"] or "").endswith(BEGUN)
        and begins_noted(row["attempt_count"], row["max_attempts"], row["last_error_code"])
    )


def _waiting_status(row: Row) -> ItemStatus:
    """Return the status of a claimed item that gets its attempt back."""
    return ItemStatus.RETRY if row["attempt_count"] > 1 else ItemStatus.PENDING


def _lost_text(row: Row) -> str:
    owner = (row["lease_owner"] or "").removesuffix(BEGUN)
    return f"worker {owner} did not finish in time, or died"


def _expired_attempt(row: Row) -> Row:
    failed = FailedAttempt(
        attempt=row["attempt_count"], error_code=EXPIRED, error_group=EXPIRED,
        error=_lost_text(row), worker_id=(row["lease_owner"] or "").removesuffix(BEGUN) or None,
    )  # fmt: skip
    return failed_attempts.new_attempt(row["id"], row["lease_token"], failed)
