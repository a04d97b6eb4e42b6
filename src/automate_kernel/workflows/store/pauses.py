"""Pauses of whole workflows: their executions wait, and new ones with them, until it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from automate_kernel.base import runtime
from automate_kernel.outbox import OutboxStore
from automate_kernel.outbox.item import check_text
from automate_kernel.outbox.limits import TimedCache
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Rows, Storage, write_bounded
from automate_kernel.storage.statuses import ExecutionStatus, ItemStatus, ItemWait, words
from automate_kernel.storage.tables import EXECUTION, PAUSE, WORKFLOW_PAUSE
from automate_kernel.storage.values import storable

# Between the workflow's name and its tenant.
_OF_TENANT = "\n"
# What is remembered may be so old. Who defers an execution looks again.
_REMEMBERED_SECONDS = 1.0
_BATCH = 200


@dataclass(frozen=True, slots=True)
class PausedWorkflow:
    """A workflow that is paused, for one tenant or for all, and the reason for it."""

    workflow: str
    tenant_id: str | None
    reason: str
    paused_at: datetime


def _key(workflow: str, tenant_id: str | None) -> str:
    return WORKFLOW_PAUSE + workflow + (_OF_TENANT + tenant_id if tenant_id is not None else "")


class WorkflowPauses:
    """The pauses of workflows by their names, in the database; *clock* returns seconds."""

    def __init__(
        self, storage: Storage, outbox: OutboxStore, clock: Callable[[], float] = runtime.clock
    ) -> None:
        self._storage, self._outbox = storage, outbox
        self._known: TimedCache[frozenset[str]] = TimedCache(_REMEMBERED_SECONDS, clock)

    def pause(self, workflow: str, reason: str = "", *, tenant_id: str | None = None) -> bool:
        """
        Let no step of *workflow* begin until `resume`; return False if it is paused already.

        What runs ends and is saved. Events still start executions, which wait. With *tenant_id*
        only this tenant's executions wait.
        """
        key = _key(workflow, tenant_id)
        text = key.replace(_OF_TENANT, " ")
        check_text(text, "the workflow's name with its tenant", column="kind")
        if self._outbox.redact is not None:
            reason = self._outbox.redact(reason)
        row = {"kind": key, "reason": storable(reason), "created_at": Now()}
        with self._known.changing():
            paused = bool(
                write_bounded(self._storage, None, lambda rows: rows.insert(PAUSE, [row]))
            )
        for item_ids in self._items(workflow, tenant_id):
            # Only what runs has to be told: the others are looked at when they are claimed.
            running = self._outbox.find(
                ids=item_ids, status=ItemStatus.RUNNING, limit=len(item_ids)
            )
            self._outbox.request_release([item.id for item in running])
        return paused

    def resume(self, workflow: str, *, tenant_id: str | None = None) -> bool:
        """Let executions of *workflow* go on; return False if it was not paused."""
        key = Where("kind", "eq", _key(workflow, tenant_id))
        with self._known.changing():
            resumed = bool(
                write_bounded(self._storage, None, lambda rows: rows.delete(PAUSE, [key]))
            )
        # After that commit: whoever defers one from now on sees that nothing is paused.
        for item_ids in self._items(workflow, tenant_id):
            deferred = self._outbox.find(
                ids=item_ids, waiting_for=ItemWait.RESUME.value, limit=len(item_ids)
            )
            self._outbox.request_release([item.id for item in deferred])
        return resumed

    def paused(self, *, tenant_id: str | None = None) -> list[PausedWorkflow]:
        """List the paused workflows by name; with *tenant_id* those that are for this tenant."""
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(PAUSE)
        pauses = []
        for row in found:
            if row["kind"].startswith(WORKFLOW_PAUSE):
                name, _, tenant = row["kind"].removeprefix(WORKFLOW_PAUSE).partition(_OF_TENANT)
                if tenant_id is None or tenant in ("", tenant_id):
                    reason = row["reason"] or ""
                    pauses.append(PausedWorkflow(name, tenant or None, reason, row["created_at"]))
        return sorted(pauses, key=lambda one: (one.workflow, one.tenant_id or ""))

    def holds(self, workflow: str, tenant_id: str | None) -> bool:
        """Return True if *workflow* seems to be paused: what is remembered may be a second old."""
        known = self._known.get(self._read)
        return bool(known) and not known.isdisjoint(_keys(workflow, tenant_id))

    def _read(self) -> frozenset[str]:
        with self._storage.begin(atomic=False) as rows:
            return frozenset(row["kind"] for row in rows.select(PAUSE, columns=("kind",)))

    def locked(self, rows: Rows, workflow: str, tenant_id: str | None) -> bool:
        """Return True if *workflow* is paused, and stays so until the transaction ends."""
        keys = sorted(_keys(workflow, tenant_id))
        where = [Where("kind", "in", keys)]
        return bool(rows.select(PAUSE, where, order_by=("kind",), lock=True, columns=("kind",)))

    def _items(self, workflow: str, tenant_id: str | None) -> Iterator[list[str]]:
        """Yield the ids of the items that drive live executions of *workflow*, in batches."""
        live = [
            Where("workflow", "eq", workflow),
            # What cleans up after a cancellation is not held.
            Where("status", "in", words(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)),
        ]
        if tenant_id is not None:
            live.append(Where("tenant_id", "eq", tenant_id))
        beyond: list[Where] = []
        while True:
            with self._storage.begin(atomic=False) as rows:
                found = rows.select(
                    EXECUTION, [*live, *beyond], order_by=("id",), limit=_BATCH,
                    columns=("id", "item_id"),
                )  # fmt: skip
            if not found:
                return
            yield [row["item_id"] for row in found]
            beyond = [Where("id", "gt", found[-1]["id"])]


def _keys(workflow: str, tenant_id: str | None) -> set[str]:
    return {_key(workflow, None), _key(workflow, tenant_id)}
