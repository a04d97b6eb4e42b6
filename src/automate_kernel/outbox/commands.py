"""What an operator can tell an outbox to do, beside what every store must offer."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.limits import Limit

__all__ = ["OperatorCommands", "Progress"]

Progress = Callable[[int], Any]
"""Is told how many items have been changed so far, after each batch."""


class OperatorCommands(ABC):  # noqa: B024  (a store need not offer any of it)
    """
    The part of `OutboxStore` that a store may leave out.

    A filter is what items have in common: *status*, *kind*, *tenant_id*, *error_code* and
    *error_group* (of the last error: ``KeyError in shop.actions.charge``; see `error_groups`),
    *created_before* and *created_after*. All of what is given must hold. At most *limit* items are
    changed, the oldest first. They go in small transactions, one after the other, so that workers
    never wait for a hundred thousand; *progress* is told of each. If it is cut short, what was
    changed stays changed.
    """

    def requeue_matching(
        self,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        error_code: str | None = None,
        error_group: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """
        Make FAILED (or, if *status* says so, CANCELLED) items wait again; see `requeue`.

        With *per_second* so many become due in a second, so that whatever they failed of is not
        overrun. Returns how many there were.
        """
        raise self._unable("requeue by filter")

    def cancel_matching(
        self,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        error_code: str | None = None,
        error_group: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """
        Cancel items that wait, or with *status* RUNNING ask those that run to stop; see `cancel`.

        Returns how many there were.
        """
        raise self._unable("cancel by filter")

    def discard(self, item_ids: Sequence[str]) -> int:
        """Delete items that are COMPLETED, FAILED or CANCELLED. Returns how many."""
        raise self._unable("discard items")

    def discard_matching(
        self,
        *,
        status: ItemStatus | str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        error_code: str | None = None,
        error_group: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """
        Delete items that are FAILED or CANCELLED, or COMPLETED if *status* says so.

        Returns how many there were.
        """
        raise self._unable("discard by filter")

    def reschedule(
        self, item_ids: Sequence[str], *, delay: float = 0.0, run_at: datetime | None = None
    ) -> int:
        """
        Change when items that wait are due: *delay* seconds from now, or at *run_at*.

        Their priority stays, and so does their place among those with the same ordering key.
        Returns how many there were.
        """
        raise self._unable("reschedule items")

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        seconds: float = 5.0,
    ) -> int:
        """
        Delete what has been kept for its time; returns how many items.

        The times are the store's own unless others are given. A worker does so every minute. It
        ends after *seconds*, and the next time goes on there.
        """
        return 0

    def stop_requests(self, worker_id: str) -> dict[str, str]:
        """
        Which items of *worker_id* are asked to stop, with the tokens of their claims.

        A worker looks about once a second.
        """
        return {}

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
        second), and for the others right now. After a lull up to *burst* (by default *rate*) start
        at once; see `Limit`. It replaces the limit that the kind had. Raises ``INVALID_ARGUMENT``.
        """
        raise self._unable("limit a kind")

    def unlimit(self, kind: str) -> bool:
        """
        Lift the limit of *kind*; False if it had none.

        One that is declared with a handler comes back when a worker starts.
        """
        raise self._unable("limit a kind")

    def limits(self) -> list[Limit]:
        """The limits that there are, by kind."""
        return []

    def declare_limits(self, limits: Iterable[Limit], *, kinds: Iterable[str] = ()) -> None:
        """
        Set limits, as `limit` does, but not where an operator has set one.

        A limit that was declared before for one of *kinds*, and is not among these, is lifted.
        """
        for limit in limits:
            raise self._unable(f"limit {limit.kind!r}")

    def _unable(self, what: str) -> AutomateError:
        return AutomateError(ErrorCodes.UNIMPLEMENTED, f"{type(self).__name__} can't {what}")
