"""The operators' part of an outbox: pages, commands by filter, limits. A store may leave it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.bulk_actions import BulkAction, Progress
from automate_kernel.outbox.failed_attempts import ErrorGroup
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.queries import ItemFilter, ItemPage
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.storage.paging import LOOK

if TYPE_CHECKING:
    from typing_extensions import Unpack


class OutboxControls(ABC):
    """
    The part of an outbox that operators need beside `OutboxStore`, of which it is a second base.

    Pages, commands by filter and limits ask for it by `controls_of`. `RowsOutboxStore` has it.
    `automate_testing.contracts.outbox.OutboxControlsContract` tests it.
    """

    @abstractmethod
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
        """
        Return a page of items that match, however many there are in all.

        `ItemPage.after` leads to the next page. Items come in the order of the index that serves
        the filter. RUNNING items come as their leases end, items that wait for their time by due
        time, and due items by kind in claim order. All others come the newest first.

        Indexes lead to *ids*, labels, idempotency keys, and ordering keys of waiting items. They
        also lead to items that are FAILED, RUNNING or due, and to items that wait for their time.
        Other conditions are checked on *look* of these items. If none matches, it looks on for so
        many *seconds*. Without *payloads* the items have neither payload nor headers.
        """

    @abstractmethod
    def count(self, *, most: int | None = None, **matching: Unpack[ItemFilter]) -> int:
        """Return how many items match; with *most* it stops counting there."""

    @abstractmethod
    def error_groups(
        self, *, kind: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """
        Return the FAILED items in groups: by kind and by where their last error came from.

        The largest groups come first. What it costs grows with the number of failed items.
        """

    # -- commands ----------------------------------------------------------------------------
    #
    # By filter they go in small transactions, one after the other, so that workers never wait for
    # a hundred thousand items.

    def cancel_matching(
        self,
        *,
        limit: int | None = None,
        progress: Progress | None = None,
        **matching: Unpack[ItemFilter],
    ) -> int:
        """
        Cancel items that wait, or with *status* RUNNING ask those that run to stop; see `cancel`.

        The oldest come first, and *limit* of them at most. *progress* is called after each batch.
        If it is cut short, what was changed stays changed. Returns how many there were.
        """
        action = BulkAction("cancel", matching)
        return self.run_bulk(action, limit=limit, progress=progress).done

    def requeue_matching(
        self,
        *,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Progress | None = None,
        **matching: Unpack[ItemFilter],
    ) -> int:
        """
        Make FAILED (or, if *status* says so, CANCELLED) items wait again; see `requeue`.

        *per_second* limits how many become due each second, so that the service which failed is
        not overrun. The rest is as in `cancel_matching`. Returns the number of items.
        """
        action = BulkAction("requeue", matching, per_second=per_second)
        return self.run_bulk(action, limit=limit, progress=progress).done

    @abstractmethod
    def discard(self, item_ids: Sequence[str]) -> int:
        """Delete items that are COMPLETED, FAILED or CANCELLED. Returns how many."""

    def discard_matching(
        self,
        *,
        limit: int | None = None,
        progress: Progress | None = None,
        **matching: Unpack[ItemFilter],
    ) -> int:
        """
        Delete items that are FAILED or CANCELLED, or COMPLETED if *status* says so.

        The rest is as in `cancel_matching`. Returns how many there were.
        """
        action = BulkAction("discard", matching)
        return self.run_bulk(action, limit=limit, progress=progress).done

    @abstractmethod
    def reschedule(
        self, item_ids: Sequence[str], *, delay: float = 0.0, run_at: datetime | None = None
    ) -> int:
        """
        Change when items that wait are due: *delay* seconds from now, or at *run_at*.

        Their priority stays, and so does their place among those with the same ordering key.
        Returns how many there were.
        """

    @abstractmethod
    def run_bulk(
        self,
        action: BulkAction,
        *,
        seconds: float | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> BulkAction:
        """
        Go on with *action* for so many *seconds* or to its end, and return its progress.

        Pass what is returned to go on, in another process too. ::

            action = BulkAction("requeue", {"status": "FAILED", "kind": "mail.send"})
            while not action.finished:
                action = store.run_bulk(action, seconds=1.0)
        """

    # -- limits ------------------------------------------------------------------------------

    @abstractmethod
    def limit(
        self,
        kind: str,
        *,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
        burst: int | None = None,
    ) -> None:
        """
        Let at most *concurrency* items of *kind* run at once, and *rate* start per *per_seconds*.

        It holds over all workers, whatever code they run, as soon as they have noticed (within a
        second). After a lull up to *burst* (by default *rate*) start at once; see `Limit`. It
        replaces the limit that the kind had. Raises ``INVALID_ARGUMENT``.
        """

    @abstractmethod
    def unlimit(self, kind: str) -> bool:
        """
        Lift the limit of *kind*; False if it had none.

        A limit that is declared with a handler comes back when a worker starts.
        """

    @abstractmethod
    def declare_limits(self, limits: Iterable[Limit], *, kinds: Iterable[str] = ()) -> None:
        """
        Set limits, as `limit` does, but not where an operator has set one.

        A limit that was declared before for one of *kinds*, and is not among these, is lifted. A
        store lifts it once.
        """


def controls_of(store: OutboxStore) -> OutboxControls:
    """Return the operators' part of *store*. Raises ``UNIMPLEMENTED`` if it has none."""
    if isinstance(store, OutboxControls):
        return store
    raise AutomateError(
        ErrorCodes.UNIMPLEMENTED,
        f"{type(store).__name__} is a queue alone: it has no pages, no commands by filter and no"
        " limits",
        hint="derive it from OutboxControls too, or keep items in a SQL database",
    )
