"""The outbox as its users see it: enqueue, claim, finish and recover; queries and commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from automate_kernel.base import runtime
from automate_kernel.base.arguments import require_asyncio
from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.outbox.item import (
    FINISHED,
    LEASE_SECONDS,
    ItemStatus,
    NewItem,
    OutboxItem,
    Outcome,
    ReapResult,
)
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.queries import Due, ItemFilter, OutboxStats
from automate_kernel.outbox.statistics import Minutes
from automate_kernel.outbox.worker_reports import Activity, ActivityRow, WorkerInfo
from automate_kernel.storage.rows import Row, Rows, Wakeup
from automate_kernel.storage.values import Redaction

if TYPE_CHECKING:
    from typing_extensions import Unpack


class OutboxListener(Protocol):
    """
    A listener, which hears of items in the transaction that changes them.

    What it writes stands or falls with the change; if it raises, nothing is changed. A method
    ``committed`` is called, if there is one, after each transaction of an operator's command.
    """

    def ended(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        """Note that *items* are FAILED or CANCELLED now."""

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """Let *item*, which FAILED or was CANCELLED, wait again; False keeps it as it is."""


class OutboxTables(Protocol):
    """
    An outbox whose items stand in our tables, beside the executions of workflows.

    It takes part in transactions of executions by their `Rows`. Ask a store by its `tables`.
    """

    lease_seconds: float
    retention_seconds: float | None

    @property
    def listeners(self) -> list[OutboxListener]:
        """The objects that hear of items that end."""

    def listen(self, listener: OutboxListener) -> None:
        """Add a listener, unless the store has one of the same class."""

    def may_claim(self, rows: Rows, items: Iterable[NewItem], *, in_line: bool = True) -> bool:
        """Return True if new items without keys may be claimed from the start."""

    def insert_claimed(
        self,
        rows: Rows,
        items: Sequence[NewItem],
        worker_id: str,
        *,
        beside: Sequence[tuple[str, Sequence[Row]]] = (),
    ) -> list[OutboxItem]:
        """Accept new items that *worker_id* has claimed from the start."""

    def cancel_within(self, rows: Rows, item_ids: Sequence[str]) -> int:
        """Cancel items in the transaction of *rows*."""

    def progressed(self, item: OutboxItem) -> None:
        """Note that a checkpoint has made up for the earlier attempts of a claimed item."""


class OutboxStore(ABC):
    """
    The store of all items: accepted, claimed by workers, finished.

    An item that is claimed belongs to its worker until the lease ends. Each claim has a token of
    its own, and every finishing call is checked against it, so a worker that lost its lease can't
    finish the item: it gets `LeaseLostError`. The store remembers the tokens of what it claimed,
    so a caller that claims and finishes through one store needs to know none of them.

    Subclass this for a store that is not a SQL database. For a SQL database see
    `automate_kernel.storage.Storage`. `automate_testing.OutboxStoreContract` tests a store.
    What is not abstract has a default, with which a worker goes on. The operators' part is apart:
    see `OutboxControls`. `ItemFilter` lists the filters.
    """

    lease_seconds: float = LEASE_SECONDS
    retention_seconds: float | None = None
    """Seconds for which a COMPLETED item is kept: 0 is not at all, None is for ever."""
    failed_retention_seconds: float | None = None
    """Seconds for which a FAILED or CANCELLED item is kept; None is for ever."""
    before_enqueue: Callable[[Sequence[NewItem]], Any] | None = None
    """Called with items that are about to be accepted, whose headers it may add to."""
    renews_beside: bool = True
    """False if another thread can renew no lease while one is in a transaction."""
    redact: Redaction | None = None
    """Takes the secrets out of JSON and text before it is stored; a kernel sets it."""

    @property
    def tables(self) -> OutboxTables | None:
        """The store itself if its items stand in our tables, else None."""
        return None

    # -- entering ----------------------------------------------------------------------------

    def entering(self, items: Iterable[NewItem]) -> list[NewItem]:
        """
        Return the *items* without secrets, after `before_enqueue` had its say.

        An `enqueue_many` begins with it. Raises `PayloadError` for what can't be stored.
        """
        entering = self.announced(items)
        redact = self.redact
        return entering if redact is None else [item.redacted(redact) for item in entering]

    def announced(self, items: Iterable[NewItem]) -> list[NewItem]:
        """Return the *items*, after `before_enqueue` had its say; `entering` redacts them too."""
        entering = list(items)
        if self.before_enqueue is not None:
            self.before_enqueue(entering)
        return entering

    @abstractmethod
    def enqueue_many(self, items: Iterable[NewItem], *, transaction: Any = None) -> list[str]:
        """
        Accept *items*, all or none, and return their ids in order.

        They exist exactly if *transaction* commits (without one, when this returns). For an item
        whose idempotency key is taken, the id is that of the item which has it.
        """

    def enqueue(
        self,
        kind: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        delay: float | timedelta = 0.0,
        run_at: datetime | None = None,
        priority: int = 0,
        **options: Any,
    ) -> str:
        """
        Accept one item and return its id; see `enqueue_many`, and `NewItem` for the options.

        Raises `PayloadError` for a payload that can't be stored, in the caller's transaction.
        """
        item = NewItem(kind, payload, delay=delay, run_at=run_at, priority=priority, **options)
        return self.enqueue_many([item], transaction=transaction)[0]

    async def aenqueue(
        self,
        kind: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        delay: float | timedelta = 0.0,
        run_at: datetime | None = None,
        priority: int = 0,
        **options: Any,
    ) -> str:
        """Do as `enqueue` does, for asynchronous code and transactions."""
        item = NewItem(kind, payload, delay=delay, run_at=run_at, priority=priority, **options)
        return (await self.aenqueue_many([item], transaction=transaction))[0]

    async def aenqueue_many(
        self, items: Iterable[NewItem], *, transaction: Any = None
    ) -> list[str]:
        """Do as `enqueue_many` does, for asynchronous code."""
        from asyncio import to_thread

        require_asyncio("aenqueue_many", "enqueue_many")
        return await to_thread(self.enqueue_many, items, transaction=transaction)

    # -- working -----------------------------------------------------------------------------

    @abstractmethod
    def claim_batch(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """
        Lease up to *limit* due items to *worker_id*, the most urgent first.

        Other workers may be faster, so fewer can come back. Each item spends an attempt.
        """

    def claim_ahead(
        self, worker_id: str, limit: int = 10, *, kinds: Sequence[str] | None = None
    ) -> list[OutboxItem]:
        """
        Lease items as `claim_batch` does, for a worker that takes more than it begins at once.

        It calls `begin` before it runs those for which `begins_noted` holds. If it dies before,
        their attempts are not spent. A store may leave this out.
        """
        return self.claim_batch(worker_id, limit, kinds=kinds)

    def begin(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Note that items begin that were claimed ahead; return those whose lease is lost."""
        return set()

    @abstractmethod
    def acknowledge(
        self, worker_id: str, outcomes: Sequence[Outcome], *, transaction: Any = None
    ) -> set[str]:
        """
        Record the outcomes of claimed items, in one transaction.

        Returns the ids whose lease was lost: nothing was recorded for those. (Of outcomes of two
        claims of one item the older is lost, and gives its id; the other is recorded all the same.)
        The same outcome may come twice, from a caller who never heard of the first call's commit.
        Only where finished items are deleted at once is a repeated success reported as lost: there
        it looks like that of a worker whose item another worker has done since.
        """

    @abstractmethod
    def extend(self, item_ids: Sequence[str], worker_id: str) -> set[str]:
        """Renew leases for another `lease_seconds`; returns the ids whose lease is lost."""

    @abstractmethod
    def reap(self, limit: int = 500, *, grace_seconds: float = 0.0) -> ReapResult:
        """Put items whose lease ended over *grace_seconds* ago back, or fail them if spent."""

    def renew(
        self, item_id: str, worker_id: str, *, token: str | None = None, transaction: Any = None
    ) -> None:
        """
        Renew one lease, in *transaction* together with what else is written there.

        Raises `LeaseLostError`, after which the transaction must be rolled back: so whatever is
        saved beside this call is saved only by the worker that holds the item.
        """
        if transaction is not None:
            raise self._shares_no_transaction()
        if self.extend([item_id], worker_id):
            raise _lost(item_id, worker_id)

    def mark_success(
        self, item_id: str, worker_id: str, *, token: str | None = None, transaction: Any = None
    ) -> None:
        """
        Finish an item; in *transaction*, together with what its handler wrote there.

        Raises `LeaseLostError`, after which the caller's transaction must be rolled back.
        """
        self._finish(worker_id, Outcome(str(item_id), token=token), transaction)

    def mark_retry(
        self,
        item_id: str,
        worker_id: str,
        next_attempt: datetime | timedelta | float,
        error_code: str = "RETRY",
        error: str = "",
        *,
        token: str | None = None,
        transaction: Any = None,
    ) -> None:
        """
        Put an item back until *next_attempt*, or fail it if its attempts are spent.

        A delay counts on the database's clock, a datetime is taken as it is. Raises
        `LeaseLostError`.
        """
        if isinstance(next_attempt, timedelta):
            next_attempt = next_attempt.total_seconds()
        outcome = Outcome(
            str(item_id), ItemStatus.RETRY, next_attempt, str(error_code), error, token
        )
        self._finish(worker_id, outcome, transaction)

    def mark_failed(
        self,
        item_id: str,
        worker_id: str,
        error_code: str = "FAILED",
        error: str = "",
        *,
        token: str | None = None,
        transaction: Any = None,
    ) -> None:
        """Give an item up for good. Raises `LeaseLostError`."""
        outcome = Outcome(str(item_id), ItemStatus.FAILED, 0.0, str(error_code), error, token)
        self._finish(worker_id, outcome, transaction)

    def snooze(
        self, item_id: str, worker_id: str, delay: float, *, transaction: Any = None
    ) -> None:
        """Put an item back for *delay* seconds without spending its attempt."""
        self._finish(worker_id, Outcome(str(item_id), ItemStatus.PENDING, delay), transaction)

    def release(self, item_ids: Sequence[str], worker_id: str) -> int:
        """
        Hand leases back at once, as a graceful stop does.

        No attempt is spent, and the items keep their place in the line.
        """
        outcomes = [Outcome(str(item_id), ItemStatus.PENDING, None) for item_id in item_ids]
        return len(outcomes) - len(self.acknowledge(worker_id, outcomes))

    def _finish(self, worker_id: str, outcome: Outcome, transaction: Any) -> None:
        if self.acknowledge(worker_id, [outcome], transaction=transaction):
            raise _lost(outcome.item_id, worker_id)

    def transaction(self) -> AbstractContextManager[Any]:
        """Open a transaction of the host's database that a transactional handler may write in."""
        raise self._shares_no_transaction()

    def _shares_no_transaction(self) -> AutomateError:
        return AutomateError(
            ErrorCodes.UNIMPLEMENTED,
            f"{type(self).__name__} shares no transactions with the application",
            hint="give the store `transaction` and `renew`, or keep items in our tables",
        )

    def forget_claims(  # noqa: B027  (a store may leave it out)
        self, item_ids: Iterable[str], *, token: str | None = None
    ) -> None:
        """
        Drop what is remembered of claims that were finished in a caller's transaction.

        With *token*, only of the claim that has it: the item may have been claimed again.
        """

    def next_due_seconds(self) -> float | None:
        """Return the seconds until the next item is due (0 or less: now); None if none waits."""
        return None

    def look(self) -> Due:
        """Return when the next item is due, and whether `reap` has work; by default both may be."""
        return Due(self.next_due_seconds() or 0.0)

    def wakeup(self) -> Wakeup | None:
        """Return something that waits for new items; None where polling is all there is."""
        return None

    # -- queries -----------------------------------------------------------------------------

    def get(self, item_id: str) -> OutboxItem | None:
        """Return the item with this id, or None."""
        return next(iter(self.find(ids=[item_id], limit=1)), None)

    @abstractmethod
    def find(
        self, *, limit: int = 50, before_id: str | None = None, **matching: Unpack[ItemFilter]
    ) -> list[OutboxItem]:
        """
        Return items that match, the newest first; with *before_id* only older items.

        Without a filter that an index serves it looks through the whole outbox: see
        `OutboxControls.page`.
        """

    def labelled(
        self,
        label: str,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[OutboxItem]:
        """
        Return items with *label*, the newest first: ``order=4711``, or ``4711`` under any name.

        An index finds them, whatever else the outbox holds.
        """
        return self.find(label=label, status=status, kind=kind, tenant_id=tenant_id, limit=limit)

    def running(self, *, limit: int = 50) -> list[OutboxItem]:
        """
        Return items under lease, in the order in which they were claimed.

        `OutboxItem.lease_owner` is the worker that has the item, `OutboxItem.updated_at` the time
        of the claim.
        """
        return self.find(status=ItemStatus.RUNNING, limit=limit)

    def handed_over(self, *, limit: int = 50, tenant_id: str | None = None) -> list[OutboxItem]:
        """
        Return items that wait for another worker, since the last worker lacked something.

        `OutboxItem.handover` says what. None where a store can't know.
        """
        return []

    def count_handed_over(self) -> int:
        """Return the number of items that wait for another worker; of many it counts 1,000."""
        return len(self.handed_over(limit=1000))

    def failed_attempts(self, item_id: str) -> list[FailedAttempt]:
        """
        Return the errors of an item's attempts, the earliest first: the first, and the latest.

        By default the last error alone, as the item itself has it.
        """
        item = self.get(item_id)
        if item is None or item.last_error_code is None:
            return []
        code, group = item.last_error_code, item.last_error_group
        return [
            FailedAttempt(
                attempt=item.attempt_count,
                error_code=code,
                error_group=group or code,
                error=item.last_error or "",
                failed_at=item.updated_at,
            )
        ]

    @abstractmethod
    def stats(self) -> OutboxStats:
        """Count items by kind and state, and measure how late they are, for a dashboard."""

    def now(self) -> datetime:
        """Return the time by the clock of due times, leases and reports."""
        return runtime.utc_now()

    # -- operator commands -------------------------------------------------------------------

    @abstractmethod
    def cancel(self, item_ids: Sequence[str]) -> int:
        """
        Cancel items that wait, and ask those that run to stop; what is finished stays.

        Returns how many were cancelled or asked. One that was asked becomes CANCELLED once its
        handler has stopped or its worker is gone; if it succeeds first, its success stands.
        """

    @abstractmethod
    def requeue(self, item_ids: Sequence[str]) -> int:
        """Make failed or cancelled items wait again, with all their attempts. Returns how many."""

    def stop_requests(self, worker_id: str) -> dict[str, str]:
        """
        Return the items of *worker_id* that are asked to stop, with the tokens of their claims.

        A worker looks about once a second.
        """
        return {}

    def request_release(self, item_ids: Sequence[str], *, transaction: Any = None) -> int:
        """
        Ask for the release of items: waiting items are due now, running items are put back soon.

        An execution of a workflow saves the calls that it is in, and begins no other. No attempt is
        spent. Returns how many there were: none where a store can't do so.
        """
        return 0

    def release_requests(self, worker_id: str) -> dict[str, str]:
        """Return the items of *worker_id* that are to be put back, with their claims' tokens."""
        return {}

    @abstractmethod
    def pause(self, kind: str, reason: str = "") -> None:
        """Stop claiming items of *kind*, on every worker, until `resume`."""

    @abstractmethod
    def resume(self, kind: str) -> None:
        """Claim items of *kind* again."""

    # -- limits ------------------------------------------------------------------------------

    def limits(self) -> list[Limit]:
        """Return all limits, by kind."""
        return []

    # -- retention ---------------------------------------------------------------------------

    @abstractmethod
    def purge(
        self,
        *,
        older_than_seconds: float,
        limit: int = 1000,
        statuses: Sequence[ItemStatus | str] = FINISHED,
    ) -> int:
        """
        Delete up to *limit* items that finished that long ago. Returns how many.

        Only those that are in one of *statuses*, which are COMPLETED, FAILED or CANCELLED.
        """

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        seconds: float = 5.0,
    ) -> int:
        """
        Delete what has been kept for its time; returns how many items.

        The times are the store's own unless others are given. A worker calls it every minute. It
        ends after *seconds*, and the next call goes on there.
        """
        return 0

    # -- worker reports ----------------------------------------------------------------------

    def report(  # noqa: B027  (a store may leave it out)
        self, worker: WorkerInfo, activity: Minutes[ActivityRow]
    ) -> None:
        """
        Let `workers` and `activity` know of *worker*. A worker calls this every few seconds.

        A store that has a place for it writes `Minutes.unsaved`, and calls `Minutes.saved` once
        that is safe.
        """

    def remove_worker(self, worker_id: str) -> None:  # noqa: B027  (a store may leave it out)
        """Take a worker that has ended off the list of `workers`."""

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that reported, lost workers too; none where a store can't know."""
        return []

    def activity(self, *, seconds: float = 3600.0) -> list[Activity]:
        """Return the work of the last *seconds*, per minute and kind, the oldest first."""
        return []

    def purge_reports(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Delete `activity` that old, and `workers` that are lost for a day. Returns how many."""
        return 0


def _lost(item_id: str, worker_id: str) -> LeaseLostError:
    return LeaseLostError(
        f"the lease of item {item_id} is no longer held by {worker_id!r}",
        hint="another worker has it, or will; drop this result",
    )
