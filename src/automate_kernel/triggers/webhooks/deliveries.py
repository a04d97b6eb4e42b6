"""The last deliveries of webhooks and polls: what was accepted, what wasn't, and a repetition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.tally import Tally
from automate_kernel.outbox.item import NewItem, OutboxItem, new_id
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.query import Now, Plus, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import DELIVERY
from automate_kernel.triggers.webhooks.refusals import RefusedDeliveries

REDELIVERY_LABEL = "redelivery-of"
"""The label of an event that is emitted again; its value is the id of the first one's item."""


@dataclass(frozen=True, slots=True)
class AcceptedDelivery:
    """
    A delivery that was accepted, and the item that it became.

    The *trigger* of a poll is ``poll:`` and its name. An operator has had it redelivered
    *redeliveries* times, the last time at *redelivered_at*.
    """

    id: str
    connector: str
    trigger: str
    item_id: str
    received_at: datetime
    redeliveries: int
    redelivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """
    A page of deliveries, the latest first; *after* leads to the next one, and is empty at the end.

    *looked* is above 0 if there may be more, but only so many deliveries were looked through.
    """

    deliveries: list[AcceptedDelivery] = field(default_factory=list)
    after: str = ""
    looked: int = 0


class Deliveries:
    """
    The deliveries of webhooks and polls that are kept.

    Accepted deliveries are kept for 30 days at least. *refused* has those that started nothing.
    *tally* counts those of this process by connector and outcome.
    """

    def __init__(
        self,
        storage: Storage,
        outbox: OutboxStore,
        new_item: Callable[..., NewItem],
        redact: Callable[[str], str],
    ) -> None:
        self._storage, self._outbox, self._new_item = storage, outbox, new_item
        self.refused: RefusedDeliveries = RefusedDeliveries(storage, redact)
        """The deliveries that started nothing, with their reasons."""
        self.tally: Tally = Tally()
        """The numbers of deliveries that came to this process."""

    def page(
        self,
        *,
        connector: str | None = None,
        after: str = "",
        limit: int = 50,
        seconds: float = 0.0,
    ) -> DeliveryPage:
        """
        Return a page of the accepted deliveries, of all connectors or of one.

        Those of one are looked for in 20,000, and in as many again for *seconds* while none is
        found.
        """
        rest = [Where("redeliveries", "ne", None)]
        rest += [] if connector is None else [Where("connector", "eq", connector)]
        ranges = [IndexRange((), ("-received_at", "-id"), rest)]
        with self._storage.begin(atomic=False) as rows:
            found = read_page(
                rows, DELIVERY, ranges, name=f"deliveries {connector}", after=after, limit=limit,
                seconds=seconds,
            )  # fmt: skip
        return DeliveryPage([_accepted(row) for row in found.rows], found.after, found.looked)

    def get(self, delivery_id: str) -> AcceptedDelivery | None:
        """Return an accepted delivery, or None if there is none with this id."""
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(DELIVERY, [Where("id", "eq", delivery_id)])
        return _accepted(found[0]) if found else None

    def redeliver(
        self, delivery_id: str, *, seen: int | None = None, transaction: Any = None
    ) -> str:
        """
        Emit the event of an accepted delivery again, and return the id of its new item.

        It is the same event, with the same payload, headers, tenant and time of its own, under a
        new id. So each workflow that listens to it now starts once, as it is defined now. What the
        first one started is left alone. With *seen*, the number of redeliveries that somebody has
        seen, a second request by the same sight of it does nothing and raises.

        Raises ``NOT_FOUND`` for an unknown delivery, and ``FAILED_PRECONDITION`` if its event was
        deleted since then, or it was redelivered since it was *seen*.
        """
        found = self.get(delivery_id)
        if found is None:
            raise AutomateError(
                ErrorCodes.NOT_FOUND, f"there is no accepted delivery {delivery_id[:70]!r}",
                hint="accepted deliveries are remembered for 30 days",
            )  # fmt: skip
        first = self._outbox.get(found.item_id)
        if first is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "the event of this delivery was deleted, as finished items are after their time",
                hint="have the service send it again, or keep items longer: retention_seconds",
            )
        item = self._again(first)
        expected = found.redeliveries if seen is None else seen

        def work(rows: Rows) -> None:
            its = [Where("id", "eq", delivery_id), Where("redeliveries", "eq", expected)]
            changes: Row = {"redeliveries": Plus(1), "redelivered_at": Now()}
            if not rows.update(DELIVERY, its, changes):
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    "this delivery was redelivered meanwhile, so nothing was done",
                    hint="look at it again; redeliver it once more if that is meant",
                )
            self._outbox.enqueue_many([item], transaction=rows.native)

        write(self._storage, transaction, work)
        return item.id

    def _again(self, first: OutboxItem) -> NewItem:
        event = first.payload
        item = self._new_item(
            event["name"],
            event["payload"],
            type=event["type"],
            source=event["source"],
            event_headers=event.get("headers"),
            tenant_id=first.tenant_id,
            priority=first.priority,
            labels={REDELIVERY_LABEL: first.id},
            id=new_id(),
        )
        item.payload["occurred_at"] = event["occurred_at"]
        return item


def _accepted(row: Row) -> AcceptedDelivery:
    return AcceptedDelivery(
        row["id"], row["connector"], row["trigger_name"], row["item_id"], row["received_at"],
        row["redeliveries"], row["redelivered_at"],
    )  # fmt: skip
