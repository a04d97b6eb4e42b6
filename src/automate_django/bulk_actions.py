"""
Bulk actions of operators, carried out by a worker whatever becomes of the browser's tab.

How far a bulk action has come is the payload of an outbox item of a kind of our own. The worker
that handles the item carries the action on for a second. It leaves the rest to the next item, in
the transaction that completes this one. So an action survives a worker that dies, and one worker at
a time carries it out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import router

from automate_django.audit_trail import entry_values, write_entries
from automate_django.models import AuditEntry, OutboxItem
from automate_django.outbox_counts import forget_counts
from automate_django.tenants import OPERATE
from automate_kernel.errors import LeaseLostError
from automate_kernel.outbox import BulkAction, ItemStatus, OutboxStore, Outcome
from automate_kernel.outbox import OutboxItem as Item
from automate_kernel.outbox.item import FINISHED, OutcomeRecorded
from automate_kernel.worker import Snooze, cancelling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automate_kernel.kernel import Kernel

KIND = "automate.order"
"""The kind of the outbox items that hold bulk actions."""
CHANGE = "automate_django.change_outboxitem"
"""The permission that every bulk action needs."""
SECONDS = 1.0
"""The number of seconds that one request, or one item, carries a bulk action on."""

_LABEL = "automate-order"
# Before what is merely due: somebody waits for it.
_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class BulkActionKind:
    """
    Something that can be done with items.

    *command* is the kernel's word for it. *permission* is needed beside `CHANGE`. A *safe* action
    on one item needs no confirmation.
    """

    name: str
    command: str
    label: str
    done: str
    explanation: str
    permission: str = ""
    tone: str = ""
    safe: bool = False

    def allowed(self, user: Any) -> bool:
        """Return True if *user* may do it."""
        return all(map(user.has_perm, filter(None, (CHANGE, self.permission))))


BULK_ACTIONS: dict[str, BulkActionKind] = {
    one.name: one
    for one in (
        BulkActionKind(
            "retry",
            "requeue",
            "Retry",
            "put back to wait",
            "They wait for a worker again, with all their attempts. A workflow goes on at the step"
            " that failed.",
            safe=True,
        ),
        BulkActionKind(
            "reschedule",
            "reschedule",
            "Reschedule",
            "rescheduled",
            "They become due at another time. Their attempts and their priority stay.",
            safe=True,
        ),
        BulkActionKind(
            "cancel",
            "cancel",
            "Cancel",
            "cancelled, or asked to stop",
            "What waits is cancelled, and so are the executions of workflows that it belongs to."
            " What runs is asked to stop; if it succeeds first, that stands. A cancelled item can"
            " be retried.",
            tone="bad",
        ),
        BulkActionKind(
            "discard",
            "discard",
            "Discard",
            "deleted",
            "They are deleted from the outbox, with their payload and error. This can't be undone.",
            permission="automate_django.delete_outboxitem",
            tone="bad",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """
    A bulk action that *user* asked for, and how far it has come.

    *tenant* is the user's own; a user without one reaches the items of all tenants. *about* says in
    words which items are meant, *fields* as the page's address has it, and *total* how many there
    were.
    """

    kind: str
    user: str
    tenant: str | None
    about: str
    fields: dict[str, str]
    total: int
    action: BulkAction

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> BulkRequest:
        """Return the request that ``asdict`` made *data* of."""
        return cls(**{**data, "action": BulkAction(**data["action"])})

    @property
    def label(self) -> str:
        """The progress in words: ``35 of 40 failed items``."""
        return f"{self.action.done:,} of {self.total:,} {self.about}"


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """The progress of a bulk action: *over* if nothing follows, *problem* if it ended badly."""

    id: str
    request: BulkRequest
    over: bool
    item_id: str = ""
    waits: bool = False
    problem: str = ""


def run_on_items(outbox: OutboxStore, kind: str, ids: list[str], *, delay: float = 0.0) -> int:
    """Do what the bulk action *kind* does to the items *ids*; return how many it changed."""
    command = BULK_ACTIONS[kind].command
    if command == "reschedule":
        return outbox.reschedule(ids, delay=delay)
    return int(getattr(outbox, command)(ids))


def carry_on(outbox: OutboxStore, request: BulkRequest) -> BulkRequest:
    """Carry a bulk action on for `SECONDS`; return it as far as it has come."""
    return replace(request, action=outbox.run_bulk(request.action, seconds=SECONDS))


# -- what a worker does ----------------------------------------------------------------------


def has_worker(outbox: OutboxStore) -> bool:
    """Return True if a worker is there that carries out bulk actions."""
    return any(KIND in one.kinds and not one.lost and not one.stopping for one in outbox.workers())


def hand_over(outbox: OutboxStore, request: BulkRequest) -> str:
    """Let a worker carry *request* on; return an id to follow it by."""
    request_id = str(uuid4())
    _enqueue(outbox, request_id, 0, request)
    return request_id


def _enqueue(
    outbox: OutboxStore, request_id: str, step: int, request: BulkRequest, transaction: Any = None
) -> None:
    outbox.enqueue(
        KIND,
        {"id": request_id, "step": step, "request": asdict(request)},
        labels={_LABEL: request_id},
        idempotency_key=f"{_LABEL}:{request_id}:{step}",
        priority=_PRIORITY,
        transaction=transaction,
    )


def find_progress(outbox: OutboxStore, request_id: UUID) -> BulkProgress | None:
    """Return where the bulk action with this id stands; None if there is none."""
    # All steps have the same label; the newest one is where it stands.
    found = outbox.find(label=f"{_LABEL}={request_id}", limit=1)
    # What is completed may be deleted at once. That it ended is written down.
    # Not in a replica, which may not know it yet: the item would be gone, and nothing known of it.
    entries = AuditEntry.objects.using(router.db_for_write(AuditEntry))
    entries = entries.filter(model=OutboxItem._meta.label_lower)
    entry = entries.filter(object_id=str(request_id)).first()
    if entry is not None and (not found or found[0].status is ItemStatus.COMPLETED):
        request, problem = BulkRequest.read(entry.details["request"]), entry.details.get("problem")
        return BulkProgress(str(request_id), request, over=True, problem=problem or "")
    return _progress_of(found[0]) if found else None


def _progress_of(item: Item) -> BulkProgress:
    failed = f"It failed: {item.last_error}"
    ends = {ItemStatus.CANCELLED: "It was stopped", ItemStatus.FAILED: failed}
    return BulkProgress(
        item.payload["id"],
        BulkRequest.read(item.payload["request"]),
        over=item.status.value in FINISHED,
        item_id=item.id,
        waits=item.status in (ItemStatus.PENDING, ItemStatus.RETRY),
        problem=ends.get(item.status, ""),
    )


def stop(outbox: OutboxStore, request_id: UUID) -> bool:
    """Have nothing more done of a bulk action; return False if it was over."""
    # Another step may follow between the look and the change.
    for _ in range(3):
        found = find_progress(outbox, request_id)
        if found is None or found.over:
            return False
        if outbox.cancel([found.item_id]):
            return True
    return False


def add_bulk_actions(kernel: Kernel) -> None:
    """Let workers of *kernel* carry out bulk actions, if the project has an admin."""
    if not apps.is_installed("django.contrib.admin"):
        return

    kernel.handler(KIND)(lambda item: _handle(kernel.outbox, item))


def _handle(outbox: OutboxStore, item: Item) -> OutcomeRecorded | Snooze:
    """Handle the item of a bulk action: a second's worth of it, and the next item for the rest."""
    given, request = item.payload, BulkRequest.read(item.payload["request"])
    problem = _objection(request)
    if not problem:
        request = carry_on(outbox, request)
    if cancelling():
        return Snooze(0)  # which ends it as CANCELLED: what is done stays done
    ends = bool(problem) or request.action.finished
    with outbox.transaction() as transaction:
        outcome = Outcome(item.id, token=item.lease_token)
        if outbox.acknowledge(item.lease_owner or "", [outcome], transaction=transaction):
            raise LeaseLostError(f"the lease of item {item.id} is lost")
        if ends:
            _record_end(given["id"], request, problem)
        else:
            _enqueue(outbox, given["id"], given["step"] + 1, request, transaction)
    if ends:
        forget_counts()
    return OutcomeRecorded()


def _objection(request: BulkRequest) -> str:
    """Return why the user may not do it any more; empty text if they may."""
    user = _user(request)
    may = user is not None and user.is_active and BULK_ACTIONS[request.kind].allowed(user)
    if may and (request.tenant is not None or user.has_perm(OPERATE)):
        return ""
    return "The user who began it may not do it any more"


def _user(request: BulkRequest) -> Any:
    return get_user_model()._default_manager.filter(pk=request.user).first()


def _record_end(request_id: str, request: BulkRequest, problem: str) -> None:
    nobody = SimpleNamespace(pk=None, get_username=lambda: "")
    by: Any = SimpleNamespace(user=_user(request) or nobody)
    details: dict[str, Any] = {"filter": request.fields, "request": asdict(request)}
    if problem:
        details["problem"] = problem
    entry = entry_values(by, request.kind, OutboxItem, tenant=request.tenant, details=details)
    about = f"{'stopped' if problem else 'ended'}: {request.label}"
    write_entries([{**entry, "object_repr": about[:200], "object_id": request_id}])
