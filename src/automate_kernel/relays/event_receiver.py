"""Events from other systems: each becomes an event of our own once, by its source and id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from automate_kernel.base.errors import PayloadError
from automate_kernel.outbox.item import NewItem, check_text, new_id
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.relays.cloud_events import CloudEvent
from automate_kernel.relays.relays import RELAYED
from automate_kernel.storage.rows import Rows, Storage, write
from automate_kernel.triggers.webhooks.ledger import ReplayLedger, WebhookReceipt

_LEDGER = "automate.relay"
"""The connector by which the ledger keeps them apart from deliveries of webhooks."""


@dataclass(frozen=True, slots=True)
class EventReceiver:
    """
    Receives CloudEvents into *outbox*, each once, in the transaction that remembers its id.

    *new_item* makes the outbox item of an event, from its name, its payload and options.
    """

    storage: Storage
    ledger: ReplayLedger
    outbox: OutboxStore
    new_item: Callable[..., NewItem]

    def receive(
        self, events: Sequence[CloudEvent], *, transaction: Any = None
    ) -> list[WebhookReceipt]:
        """
        Accept *events*, all or none, and return their receipts in order.

        Raises `PayloadError` for an event that can't be one of ours.
        """
        # Before anything is locked or written.
        items = [self._item(event) for event in events]

        def work(rows: Rows) -> list[WebhookReceipt]:
            receipts, new = list[WebhookReceipt](), list[NewItem]()
            for event, item in zip(events, items, strict=True):
                key = json.dumps([event.source, event.id])
                about = (_LEDGER, "events", key)
                if self.ledger.remember(
                    rows, *about, item.id, tenant_id=event.tenant_id, listed=False
                ):
                    new.append(item)
                    receipts.append(WebhookReceipt(True, item.id))
                else:
                    first = self.ledger.item_of(rows, *about, tenant_id=event.tenant_id)
                    receipts.append(WebhookReceipt(True, first, duplicate=True))
            if new:
                self.outbox.enqueue_many(new, transaction=rows.native)
            return receipts

        return write(self.storage, transaction, work)

    def _item(self, event: CloudEvent) -> NewItem:
        item = self.new_item(
            event.type, event.data, source=event.source, tenant_id=event.tenant_id, id=new_id(),
            labels=event.labels or None, ordering_key=_ordering_key(event),
            occurred_at=_instant(event.time),
            headers={**event.trace, RELAYED: {"id": event.id, "source": event.source}},
        )  # fmt: skip
        item.to_row()  # raises for what can't be stored
        return item


def _ordering_key(event: CloudEvent) -> str | None:
    """Return the key that keeps the order of events with the same partition key."""
    if event.partition_key is None:
        return None
    try:
        beside = len(event.tenant_id or "") + 10
        check_text(event.partition_key, "ordering_key", beside=beside)
    except PayloadError:
        # Another system's keys may be longer than ours, or blank.
        return hashlib.sha256(event.partition_key.encode("utf-8", "surrogatepass")).hexdigest()
    return event.partition_key


def _instant(text: str | None) -> str | None:
    """Return the time of an event, unless it is no instant."""
    try:
        found = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return text if found.tzinfo is not None else None
