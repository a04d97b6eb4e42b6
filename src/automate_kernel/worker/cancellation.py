"""Stopping items that an operator has cancelled while they run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from automate_kernel.outbox.item import ItemStatus, Result
from automate_kernel.outbox.store import Outcome
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.periodic import Chore
from automate_kernel.worker.pools import Task

__all__ = ["as_asked", "cancellations"]

logger: logging.Logger = get_logger(__name__)

_LOOK_SECONDS = 1.0


def cancellations(held: Mapping[str, Task], requests: Callable[[], Mapping[str, str]]) -> Chore:
    """
    The chore that stops those of the *held* tasks which are asked to.

    *requests* gives ids and the tokens of their claims: one look for all of them, and none while
    nothing is held.
    """

    def look() -> None:
        if not held:
            return
        for item_id, token in requests().items():
            task = held.get(item_id)
            if task is not None and task.item.lease_token == token:
                _stop(task)

    return Chore("cancellations", _LOOK_SECONDS, look)


def _stop(task: Task) -> None:
    if task.asked or task.lost or task.ended:
        return
    logger.info("%s is cancelled while it runs", task.item)
    task.asked = True
    if task.cancel is not None:
        task.cancel()


def as_asked(task: Task, result: Result) -> Result:
    """What to record for a task that was asked to stop: CANCELLED, unless it had succeeded."""
    if result is None and not task.lost:
        return Outcome(task.item.id, ItemStatus.CANCELLED, token=task.item.lease_token)
    if isinstance(result, Outcome) and result.status is not ItemStatus.COMPLETED:
        return replace(result, status=ItemStatus.CANCELLED)
    return result
