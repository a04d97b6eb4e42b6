"""Renewing the leases of what a worker holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.acknowledger import Held
from automate_kernel.worker.liveness import Vitals
from automate_kernel.worker.periodic import keep_trying

__all__ = ["Heartbeat"]

logger: logging.Logger = get_logger(__name__)


class Heartbeat:
    """Renews the leases of all *held* tasks at once, and stops those that were lost."""

    def __init__(
        self,
        store: OutboxStore,
        worker_id: str,
        held: Held,
        vitals: Vitals,
        finished: threading.Event,
    ) -> None:
        self._store, self._worker_id, self._held = store, worker_id, held
        self._vitals, self._finished = vitals, finished

    def beat(self) -> None:
        """Renew what is held now. It tries until the worker has finished."""
        held = self._held.ids()
        if held:
            extend = partial(self._extend, held)
            for item_id in keep_trying(extend, self._finished, "renewing") or ():
                self._lose(item_id)

    def _extend(self, held: Sequence[str]) -> set[str]:
        self._vitals.move("heartbeat")
        return self._store.extend(held, self._worker_id)

    def _lose(self, item_id: str) -> None:
        task = self._held.get(item_id)
        # One that has ended may have finished its item between the two looks at it.
        if task is not None and not task.lost and not task.ended:
            logger.warning("lease of item %s lost while it ran", item_id)
            task.lost = True
            if task.cancel is not None:
                task.cancel()
