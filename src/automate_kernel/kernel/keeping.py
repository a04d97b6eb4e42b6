"""How long what is finished is kept."""

from __future__ import annotations

import time

from automate_kernel.kernel.assembly import Assembly
from automate_kernel.webhooks import ReplayLedger
from automate_kernel.workflows.execution import ExecutionStatus

__all__ = ["Keeping"]

_REMEMBERED_SECONDS = 30 * 86_400.0
_SWEEP_SECONDS = 5.0


class Keeping(Assembly):
    """The part of `Kernel` that deletes what has been kept for its time."""

    _ledger: ReplayLedger

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> int:
        """
        Delete items and executions that have been kept for their time; returns how many.

        What was COMPLETED *retention_seconds* ago goes, and what FAILED or was CANCELLED
        *failed_retention_seconds* ago, by default the outbox's own times: None is for ever. It
        takes some seconds at most, and the next time goes on there. A worker does so every minute.
        """
        return self._sweep(*self._kept(retention_seconds, failed_retention_seconds))

    def _kept(
        self, seconds: float | None, failed_seconds: float | None
    ) -> tuple[float | None, float | None]:
        own = self.outbox
        return (
            own.retention_seconds if seconds is None else seconds,
            own.failed_retention_seconds if failed_seconds is None else failed_seconds,
        )

    def _sweep(self, kept: float | None, failed_kept: float | None) -> int:
        swept = self.outbox.sweep(retention_seconds=kept, failed_retention_seconds=failed_kept)
        until = time.monotonic() + _SWEEP_SECONDS
        for age, statuses in (
            (kept, [ExecutionStatus.COMPLETED]),
            (failed_kept, [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]),
        ):
            while age is not None and time.monotonic() < until:
                purged = self.executions.purge(older_than_seconds=age, statuses=statuses)
                swept += purged
                if not purged:
                    break
        ages = [age for age in (kept, failed_kept) if age is not None]
        for purge in self.purges if ages else ():
            while time.monotonic() < until and (
                purged := purge(older_than_seconds=min(ages), limit=1000)
            ):
                swept += purged
        if kept is not None:
            self._ledger.forget(max(kept, _REMEMBERED_SECONDS))
        return swept

    def purge(self, *, older_than_seconds: float, batch: int = 1000) -> int:
        """
        Delete items and executions that finished that long ago; returns how many there were.

        *batch* rows go in a transaction, so that nothing waits for it. Webhook deliveries are
        remembered for 30 days at least, because services send them again.
        """
        age, total = older_than_seconds, 0
        for purge in (self.outbox.purge, self.executions.purge, *self.purges):
            while purged := purge(older_than_seconds=age, limit=batch):
                total += purged
        self._ledger.forget(max(age, _REMEMBERED_SECONDS))
        return total
