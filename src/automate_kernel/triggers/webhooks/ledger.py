"""The replay ledger: webhook deliveries that were accepted before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from automate_kernel.base.errors import ConfigError
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import DELIVERY
from automate_kernel.triggers.webhooks.request import Ignored

_DAY = 86_400.0
_MIN_AGE_SECONDS = 3_600.0
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class WebhookReceipt:
    """
    The outcome of a received webhook.

    A *duplicate* was accepted before: *item_id* is then the item of the first delivery. An
    *ignored* webhook has no item. The sender sees a success in each case, or it would go on
    sending: with *answer* as the body, if its trigger has an answer.
    """

    accepted: bool
    item_id: str | None = None
    duplicate: bool = False
    ignored: Ignored | None = None
    answer: Mapping[str, Any] | None = field(default=None, hash=False)


class ReplayLedger:
    """
    Remembers deliveries, so that a repeated one starts nothing.

    A unique key in the database decides, in the transaction that enqueues the item: of two
    deliveries at once, one gets in. Use it only after the signature was verified, or a stranger
    could use up the ids of future deliveries.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def remember(
        self,
        rows: Rows,
        connector: str,
        trigger: str,
        delivery_id: str,
        item_id: str,
        *,
        tenant_id: str | None = None,
        listed: bool = True,
    ) -> bool:
        """
        Record that *delivery_id* becomes the item *item_id*; False if it was seen before.

        Of a delivery with several ids one is *listed* among the last deliveries.
        """
        key = _key(connector, trigger, delivery_id, tenant_id)
        row = _row(key, connector, trigger, item_id)
        return rows.insert(DELIVERY, [row if listed else {**row, "redeliveries": None}]) == 1

    def remember_all(
        self,
        rows: Rows,
        connector: str,
        trigger: str,
        deliveries: Mapping[str, str],
        *,
        tenant_id: str | None = None,
    ) -> set[str]:
        """
        Record the items of several deliveries, and return the ids of those that are new.

        What comes again and again is remembered from its last time on, to the day.

        Only for a caller that holds a lock on what they come from: two at once would both see them
        as new.
        """
        keys = {_key(connector, trigger, each, tenant_id): each for each in deliveries}
        known = {
            row["id"]
            for row in rows.select(DELIVERY, [Where("id", "in", sorted(keys))], columns=["id"])
        }
        new = [
            _row(key, connector, trigger, deliveries[each])
            for key, each in keys.items()
            if key not in known
        ]
        if new:
            rows.insert(DELIVERY, new)
        if known:
            seen = [Where("id", "in", sorted(known)), Where("received_at", "lt", Now(-_DAY))]
            rows.update(DELIVERY, seen, {"received_at": Now()})
        return {keys[row["id"]] for row in new}

    def item_of(
        self,
        rows: Rows,
        connector: str,
        trigger: str,
        delivery_id: str,
        *,
        tenant_id: str | None = None,
    ) -> str | None:
        """Return the id of the item of *delivery_id*, or None if it was never seen."""
        key = _key(connector, trigger, delivery_id, tenant_id)
        found = rows.select(DELIVERY, [Where("id", "eq", key)], columns=["item_id"], limit=1)
        return str(found[0]["item_id"]) if found else None

    def forget(self, older_than_seconds: float = 30 * _DAY) -> int:
        """
        Remove older deliveries, and return their number.

        Services send again for days: GitHub three, Stripe three, others more.
        """
        if older_than_seconds < _MIN_AGE_SECONDS:
            raise ConfigError(
                f"deliveries can't be forgotten after {older_than_seconds:g} s",
                hint="a signature may still be valid then; keep them for an hour at least",
            )
        old = [Where("received_at", "lt", Now(-older_than_seconds))]
        total = 0
        while True:
            # A transaction for each batch: none holds many locks, or holds them for long.
            found, deleted = write(self._storage, None, partial(_forget_some, old=old))
            total += deleted
            if not found:
                return total


def _forget_some(rows: Rows, old: Sequence[Where]) -> tuple[int, int]:
    """Delete some of the *old* deliveries; return how many were found, and how many deleted."""
    found = rows.select(DELIVERY, old, order_by=["received_at"], limit=_BATCH, columns=["id"])
    ids = [row["id"] for row in found]
    return len(ids), rows.delete(DELIVERY, [Where("id", "in", ids)]) if ids else 0


def _row(key: str, connector: str, trigger: str, item_id: str) -> Row:
    return {
        "id": key, "connector": connector, "trigger_name": trigger, "item_id": item_id,
        "received_at": Now(), "redeliveries": 0,
    }  # fmt: skip


def _key(connector: str, trigger: str, delivery_id: str, tenant_id: str | None) -> str:
    # JSON keeps the parts apart, and takes any text that a header may hold.
    parts = json.dumps([tenant_id, connector, trigger, delivery_id])
    return hashlib.sha256(parts.encode("ascii")).hexdigest()
