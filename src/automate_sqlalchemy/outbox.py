"""
The claim stores and the reaper under the names that the specification gives them.

Where an item ends, so does the execution that it wakes, though no kernel is at hand.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from automate_kernel import outbox, worker
from automate_kernel.outbox.item import LEASE_SECONDS
from automate_kernel.workflows.steer.listener import ExecutionListener
from automate_sqlalchemy.storage import SqlAlchemyStorage


class _OnEngine(outbox.RowsOutboxStore):
    """An outbox in the database of *engine*; other options are its base class's."""

    def __init__(
        self, engine: Engine, *, lease_seconds: float = LEASE_SECONDS, **options: Any
    ) -> None:
        super().__init__(SqlAlchemyStorage(engine), lease_seconds=lease_seconds, **options)
        self.listen(ExecutionListener())


class SkipLockedClaimOutboxStore(_OnEngine, outbox.SkipLockedClaimOutboxStore):
    """An outbox that claims with ``FOR UPDATE SKIP LOCKED``; other options are its base class's."""


class OptimisticClaimOutboxStore(_OnEngine, outbox.OptimisticClaimOutboxStore):
    """An outbox that claims without row locks; other options are its base class's."""


class OutboxReaper(worker.OutboxReaper):
    """Recovers items whose worker died, in the outbox of *engine*."""

    def __init__(self, engine: Engine, *, stale_threshold_seconds: float = 600) -> None:
        store = SkipLockedClaimOutboxStore(engine)
        super().__init__(store, stale_threshold_seconds=stale_threshold_seconds)
