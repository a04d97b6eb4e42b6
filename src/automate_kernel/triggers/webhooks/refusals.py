"""Deliveries that started nothing, with their reasons: a bounded number, written now and then."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.forks import new_lock
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Now, Plus, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import REFUSED_DELIVERY
from automate_kernel.storage.values import storable

logger: logging.Logger = get_logger(__name__)

MOST_REASONS = 20
"""The number of reasons that are kept of one trigger: the latest."""
_LONGEST_REASON = 500
_BURST, _PER_SECOND = 10, 1.0
_MOST_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class RefusedDelivery:
    """
    Deliveries of one trigger that started nothing for one *reason*: so many *times*.

    *outcome* is ``refused`` (not proven), ``failed`` (proven, and could not be read or stored),
    ``ignored`` or ``repeated``. *received_at* is the time of the last. *connector* and *trigger*
    are empty where there is no such trigger.
    """

    id: str
    connector: str
    trigger: str
    outcome: str
    reason: str
    times: int
    first_at: datetime
    received_at: datetime


@dataclass(slots=True)
class _Allowance:
    """The writes that one trigger may make: ten at once, and then one a second."""

    left: float
    at: float
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, now: float) -> bool:
        self.left = min(_BURST, self.left + (now - self.at) * _PER_SECOND)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class RefusedDeliveries:
    """
    Writes down why deliveries started nothing, whoever sends them, and however many.

    Deliveries with the same reason share a row with a count. A trigger has at most `MOST_REASONS`
    rows. A process makes ten writes for a trigger at once, and then one write a second. It counts
    what comes meanwhile, and writes the count next time. So a count may lack the end of a flood.
    """

    def __init__(
        self,
        storage: Storage,
        redact: Callable[[str], str],
        *,
        clock: Callable[[], float] = runtime.clock,
    ) -> None:
        self._storage, self._redact, self._clock = storage, redact, clock
        self._lock = new_lock()
        self._allowances: dict[tuple[str, str], _Allowance] = {}

    def note(
        self, connector: str, trigger: str, outcome: str, reason: str, *, transaction: Any = None
    ) -> None:
        """
        Count a delivery; *connector* and *trigger* are names that there are, or empty.

        It is written with *transaction*, if there is one. What can't be written is logged.
        """
        alike = outcome, storable(self._redact(reason), _LONGEST_REASON)
        with self._lock:
            now = self._clock()
            allowance = self._allowances.setdefault((connector, trigger), _Allowance(_BURST, now))
            waiting = allowance.waiting
            if alike in waiting or len(waiting) < MOST_REASONS:
                waiting[alike] = waiting.get(alike, 0) + 1
            if not allowance.take(now):
                return
            allowance.waiting = {}

        def work(rows: Rows) -> None:
            _add(rows, connector, trigger, waiting)

        try:
            write(self._storage, transaction, work)
        except Exception as error:  # whatever it is, the webhook's answer is another matter
            logger.warning("why a webhook was refused can't be written down: %s", error)

    def all(
        self, *, connector: str | None = None, outcome: str | None = None
    ) -> list[RefusedDelivery]:
        """Return what is kept, of one connector or with one outcome; the latest first."""
        given = {"connector": connector, "outcome": outcome}
        where = [Where(name, "eq", value) for name, value in given.items() if value is not None]
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(
                REFUSED_DELIVERY, where, order_by=("-received_at", "id"), limit=_MOST_SHOWN
            )
        return [_refused(row) for row in found]


def _add(rows: Rows, connector: str, trigger: str, counts: Mapping[tuple[str, str], int]) -> None:
    its = [Where("connector", "eq", connector), Where("trigger_name", "eq", trigger)]
    ids = {_key(connector, trigger, *alike): alike for alike in counts}
    added = False
    for key in sorted(ids):  # of two processes both take the rows in this order
        times, this = counts[ids[key]], [Where("id", "eq", key)]
        changes: Row = {"times": Plus(times), "received_at": Now()}
        if rows.update(REFUSED_DELIVERY, this, changes):
            continue
        outcome, reason = ids[key]
        row: Row = {
            "id": key, "connector": connector, "trigger_name": trigger, "outcome": outcome,
            "reason": reason, "times": times, "first_at": Now(), "received_at": Now(),
        }  # fmt: skip
        # Another process may have added it since then.
        if not rows.insert(REFUSED_DELIVERY, [row]):
            rows.update(REFUSED_DELIVERY, this, changes)
        added = True
    if added:
        old = rows.select(
            REFUSED_DELIVERY, its, order_by=("-received_at", "id"), offset=MOST_REASONS,
            limit=_MOST_SHOWN, columns=["id"],
        )  # fmt: skip
        rows.delete(REFUSED_DELIVERY, [Where("id", "in", sorted(row["id"] for row in old))])


def _refused(row: Row) -> RefusedDelivery:
    names = (
        "id", "connector", "trigger_name", "outcome", "reason", "times", "first_at", "received_at",
    )  # fmt: skip
    return RefusedDelivery(*(row[name] for name in names))


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
