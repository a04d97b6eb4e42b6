"""Which items an operator means: by ids, or by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.storage.rows import Row, Storage, Where
from automate_kernel.storage.tables import OUTBOX

__all__ = ["BATCH", "Matching", "batches_of", "item_ids_of", "matching_rows"]

BATCH = 200
"""How many items one transaction changes, so that nobody waits for it for long."""

_COLUMNS = ("id", "kind", "status")


@dataclass(frozen=True, slots=True)
class Matching:
    """What items have in common; a condition that is None holds for all."""

    status: ItemStatus | str | None = None
    kind: str | None = None
    tenant_id: str | None = None
    error_code: str | None = None
    error_group: str | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None

    def where(self, able: Sequence[str], usual: Sequence[str]) -> list[Where]:
        """
        The conditions on a row; without a status they are those of *usual*.

        Raises ``INVALID_ARGUMENT`` for a status that is not in *able*, and if nothing is named at
        all: who means every item says so with its status.
        """
        if all(getattr(self, each.name) is None for each in fields(self)):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "no filter says which items are meant",
                hint='to mean all of them, name their status: status="FAILED"',
            )  # fmt: skip
        return [Where("status", "in", self._statuses(able, usual)), *self._others()]

    def _statuses(self, able: Sequence[str], usual: Sequence[str]) -> Sequence[str]:
        if self.status is None:
            return usual
        status = ItemStatus(self.status).value
        if status not in able:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"this can't be done to items that are {status}",
                hint=f"only to those that are {', '.join(able)}",
            )  # fmt: skip
        return [status]

    def _others(self) -> list[Where]:
        conditions = (
            Where("kind", "eq", self.kind),
            Where("tenant_id", "eq", self.tenant_id),
            Where("last_error_code", "eq", self.error_code),
            Where("last_error_group", "eq", self.error_group),
            Where("created_at", "lt", self.created_before),
            Where("created_at", "ge", self.created_after),
        )
        return [one for one in conditions if one.value is not None]


def matching_rows(
    storage: Storage, where: Sequence[Where], limit: int | None
) -> Iterator[list[Row]]:
    """
    Up to *limit* matching items as rows of id, kind and status, the oldest first.

    They come `BATCH` at a time, each batch read in a transaction of its own. What is enqueued
    meanwhile is not among them, so that this ends however fast new ones come.
    """
    left = limit
    beyond: list[Where] = []
    with storage.begin(atomic=False) as rows:
        where = [*where, Where("created_at", "le", rows.now())]
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        with storage.begin(atomic=False) as rows:
            found = rows.select(
                OUTBOX, [*where, *beyond], order_by=("id",), limit=size, columns=_COLUMNS
            )
        if not found:
            return
        yield found
        beyond = [Where("id", "gt", found[-1]["id"])]
        left = None if left is None else left - len(found)


def item_ids_of(given: Iterable[str]) -> list[str]:
    """The ids among *given*, each once and in order; what can't be one is no item's."""
    ids = set()
    for item_id in given:
        try:
            ids.add(str(UUID(str(item_id))))
        except ValueError:
            continue
    return sorted(ids)


def batches_of(ids: Sequence[str]) -> Iterator[list[str]]:
    """*ids*, `BATCH` at a time."""
    for start in range(0, len(ids), BATCH):
        yield list(ids[start : start + BATCH])
