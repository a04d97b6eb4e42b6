"""Notices of items that failed for good, sent once the failure is committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.item import ItemStatus, OutboxItem
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.storage.rows import Rows

_COMMIT_SECONDS = 60.0


class FailureNotices:
    """
    The failed items that hooks and signals have yet to hear of: a listener of the outbox.

    A failure is noted in the transaction that writes it, which may still be rolled back: only what
    *store* then holds as FAILED is sent to *notify*, with its error.
    """

    def __init__(
        self, store: OutboxStore, notify: Callable[[OutboxItem, AutomateError], Any]
    ) -> None:
        self._store = store
        self._notify = notify
        # With the time until which to wait for its transaction.
        self._waiting: deque[tuple[OutboxItem, float]] = deque()

    def ended(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        """Remember items that FAILED, in a transaction that is not committed yet."""
        until = runtime.monotonic() + _COMMIT_SECONDS
        self._waiting.extend((each, until) for each in items if each.status is ItemStatus.FAILED)

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """Let every item wait again."""
        return True

    def send(self, call: Callable[..., Any] = lambda notify, *given: notify(*given)) -> None:
        """
        Send the notices of committed failures; the others wait, for a minute at most.

        *call* calls what sends them, now or soon.
        """
        for _ in range(len(self._waiting)):
            try:
                item, until = self._waiting.popleft()
            except IndexError:  # another thread sends them too
                return
            found = self._store.get(item.id)
            if found is None or found.status is not ItemStatus.FAILED:
                # Not committed yet, or rolled back.
                if found is not None and runtime.monotonic() < until:
                    self._waiting.append((item, until))
                continue
            error = AutomateError(ErrorCodes.ABORTED, item.last_error or "given up")
            error.group = item.last_error_group
            call(self._notify, item, error)
