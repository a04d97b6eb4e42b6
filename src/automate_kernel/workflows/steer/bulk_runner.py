"""
Bulk actions of operators, carried out by a worker whatever becomes of the browser's tab.

How far a bulk action has come is the payload of an outbox item of a kind of our own. The worker
that handles the item carries the action on for a second. It leaves the rest to the next item, in
the transaction that completes this one. So an action survives a worker that dies, and one worker at
a time carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from automate_kernel.access.roles import Right, rights_of
from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError
from automate_kernel.outbox import BulkAction, ItemStatus, OutboxItem, OutboxStore, Outcome
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.item import FINISHED, OutcomeRecorded
from automate_kernel.worker import Snooze, cancelling
from automate_kernel.workflows.steer.executions import ExecutionStore

if TYPE_CHECKING:
    from automate_kernel.access.audit import AuditLog
    from automate_kernel.access.sessions import SessionStore
    from automate_kernel.access.tokens import TokenStore

KIND = "automate.order"
"""The kind of the outbox items that hold bulk actions."""
SECONDS = 1.0
"""The number of seconds that one request, or one item, carries a bulk action on."""

_LABEL, _MODEL = "automate-order", "bulk action"
# By which those under way are found, whatever else is in the outbox.
_TARGET_LABEL = "automate-order-of"
_MOST_UNDER_WAY = 50
# Before what is merely due: somebody waits for it.
_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """
    A bulk action that *user*, whose name is *by*, asked for; and how far it has come.

    *kind* is the application's word for it. *tenant* is the user's own; a user without one reaches
    the rows of all tenants. *about* says in words what is meant, *fields* as the page's address has
    it, and *total* how many there were. With *tied* the tenant follows from the user alone, so that
    it can be looked up again. *session* and *token* are the ids of those by which the user asked:
    it goes on while they are not taken back. The session was known to last *until* then.
    """

    kind: str
    user: str
    tenant: str | None
    about: str
    fields: dict[str, str]
    total: int
    action: BulkAction
    tied: bool = False
    by: str = ""
    session: str = ""
    token: str = ""
    until: str = ""

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


class BulkHost(Protocol):
    """The application's part in bulk actions: who may do what, and the record of it."""

    def review(self, request: BulkRequest) -> tuple[BulkRequest, str]:
        """
        Return why the user may not do it any more; empty text if they may.

        The request that is returned with it has what the next review needs to know.
        """

    def is_tied(self, request: BulkRequest) -> bool:
        """Return True if the user's tenant can be looked up again without the browser's request."""

    def ended(self, request_id: str, request: BulkRequest, problem: str, transaction: Any) -> None:
        """Record that the action ended, in the open *transaction*."""

    def find_ended(self, request_id: str) -> tuple[BulkRequest, str] | None:
        """Return what was recorded of an action's end, and the problem; None if nothing was."""


_RIGHTS: Mapping[str, Right] = {"discard": "discard", "fork": "start"}
_SCOPES = {"items": "outbox:write", "executions": "executions:write"}


class RecordedEnds:
    """
    The ends of bulk actions in the trail of *audit*, and what the users of *kernel*'s own may do.

    A bulk action stops when the token is revoked or expires by which it was begun, and when the
    session is ended by somebody. A user who logs out, or whose session runs out, stops nothing.
    """

    def __init__(self, audit: AuditLog, sessions: SessionStore, tokens: TokenStore) -> None:
        self._audit, self._sessions, self._tokens = audit, sessions, tokens

    def review(self, request: BulkRequest) -> tuple[BulkRequest, str]:
        """Return why the token or the session does not allow it any more."""
        right, session, problem = _RIGHTS.get(request.kind, "steer"), None, ""
        if request.session:
            session, now = self._sessions.look_up(request.session)
            if session is not None:
                last, token = min(session.expires_at, session.ends_at), session.token_id
                request = replace(request, until=last.isoformat(), token=token or "")
            # One that came to its end by itself is forgotten after a while.
            elif not request.until or now < datetime.fromisoformat(request.until):
                problem = "The session in which it was begun was ended"
        if request.token:
            problem = self._objection(request, right) or problem
        elif session is not None and right not in rights_of(session.roles):
            problem = "The user who began it may not do it any more"
        return request, problem

    def _objection(self, request: BulkRequest, right: Right) -> str:
        token = self._tokens.by_ids([request.token]).get(request.token)
        if token is None:
            return "The token by which it was begun is revoked, or has expired"
        scope = "" if request.session else _SCOPES[request.action.target]
        if right in rights_of(token.roles) or (scope and token.allows(scope)):
            return ""
        return "The token by which it was begun does not allow it any more"

    def is_tied(self, request: BulkRequest) -> bool:
        """Return False: nobody is looked up again."""
        return False

    def ended(self, request_id: str, request: BulkRequest, problem: str, transaction: Any) -> None:
        """Write an entry that has the action as it ended."""
        matching = {n: each for n, each in request.action.matching.items() if n != "ids"}
        last = replace(request, action=replace(request.action, matching=matching))
        details = {"request": asdict(last), **({"problem": problem} if problem else {})}
        self._audit.write(
            request.kind, actor=request.by or request.user, actor_id=request.user, model=_MODEL,
            object_id=request_id, tenant_id=request.tenant, details=details,
            object_repr=f"{'stopped' if problem else 'ended'}: {request.label}",
            outcome="refused" if problem else "done", transaction=transaction,
        )  # fmt: skip

    def find_ended(self, request_id: str) -> tuple[BulkRequest, str] | None:
        """Return what the entry has."""
        for each in self._audit.page(object_id=request_id, model=_MODEL).records:
            if "request" in each.details:
                problem = str(each.details.get("problem") or "")
                return BulkRequest.read(each.details["request"]), problem
        return None


class BulkRunner:
    """The runner of bulk actions on items and executions."""

    def __init__(self, outbox: OutboxStore, executions: ExecutionStore, host: BulkHost) -> None:
        self._outbox, self._executions = outbox, executions
        self._host = host

    def ask(self, host: BulkHost) -> None:
        """
        Let *host* say from now on who may go on: an application that has users of its own.

        Derive it from `RecordedEnds`, and return a text from `review` for who may not any more.
        """
        self._host = host

    def total(self, action: BulkAction) -> int:
        """Return how many items or executions *action* would come to now."""
        if action.target == "executions":
            return self._executions.count_bulk(action)
        return controls_of(self._outbox).count(**action.matching)

    def carry_on(self, request: BulkRequest) -> BulkRequest:
        """Go on with a bulk action for `SECONDS`, and return its progress."""
        of_items = request.action.target == "items"
        run = controls_of(self._outbox).run_bulk if of_items else self._executions.run_bulk
        return replace(request, action=run(request.action, seconds=SECONDS))

    def has_worker(self) -> bool:
        """Return True if a worker is there that carries out bulk actions."""
        return any(
            KIND in each.kinds and not each.lost and not each.stopping
            for each in self._outbox.workers()
        )

    def hand_over(self, request: BulkRequest) -> str:
        """Let a worker carry *request* on; return an id to follow it by."""
        request_id, action = str(runtime.uuid4()), request.action
        matching = {
            name: each.isoformat() if isinstance(each, datetime) else each
            for name, each in action.matching.items()
        }
        request = replace(request, action=replace(action, matching=matching))
        request = replace(request, tied=request.tied or self._host.is_tied(request))
        request, problem = self._host.review(request)
        if problem:
            raise AutomateError(ErrorCodes.PERMISSION_DENIED, problem)
        self._enqueue(request_id, 0, request)
        return request_id

    def _enqueue(
        self, request_id: str, step: int, request: BulkRequest, transaction: Any = None
    ) -> None:
        self._outbox.enqueue(
            KIND,
            {"id": request_id, "step": step, "request": asdict(request)},
            labels={_LABEL: request_id, _TARGET_LABEL: request.action.target},
            idempotency_key=f"{_LABEL}:{request_id}:{step}",
            priority=_PRIORITY,
            transaction=transaction,
        )

    def find_progress(
        self, request_id: UUID, *, target: str | None = None, tenant_id: str | None = None
    ) -> BulkProgress | None:
        """Return where the bulk action with this id stands; None if none of those has it."""
        # All steps have the same label; the newest one is where it stands.
        items = self._outbox.find(label=f"{_LABEL}={request_id}", limit=1)
        # What is completed may be deleted at once. That it ended is written down.
        ended = self._host.find_ended(str(request_id))
        if ended is not None and (not items or items[0].status is ItemStatus.COMPLETED):
            found = BulkProgress(str(request_id), ended[0], over=True, problem=ended[1])
        elif items:
            found = _progress_of(items[0])
        else:
            return None
        asked = found.request
        meant = target in (None, asked.action.target) and tenant_id in (None, asked.tenant)
        return found if meant else None

    def under_way(self, target: str, *, tenant_id: str | None = None) -> list[BulkProgress]:
        """Return the bulk actions on *target* that workers carry on, of their latest 50 steps."""
        items = self._outbox.find(label=f"{_TARGET_LABEL}={target}", limit=_MOST_UNDER_WAY)
        found = [_progress_of(item) for item in items if item.status.value not in FINISHED]
        return [each for each in found if tenant_id in (None, each.request.tenant)]

    def stop(self, request_id: UUID) -> bool:
        """Have nothing more done of a bulk action; return False if it was over."""
        # Another step may follow between the look and the change.
        for _ in range(3):
            found = self.find_progress(request_id)
            if found is None or found.over:
                return False
            if self._outbox.cancel([found.item_id]):
                return True
        return False

    def handle(self, item: OutboxItem) -> OutcomeRecorded | Snooze:
        """Handle the item of a bulk action: a second's worth of it, and the next item's."""
        given, request = item.payload, BulkRequest.read(item.payload["request"])
        request, problem = self._host.review(request)
        if not problem:
            request = self.carry_on(request)
        if cancelling():
            return Snooze(0)  # which ends it as CANCELLED: what is done stays done
        ends = bool(problem) or request.action.finished
        with self._outbox.transaction() as transaction:
            outcome = Outcome(item.id, token=item.lease_token)
            lost = self._outbox.acknowledge(
                item.lease_owner or "", [outcome], transaction=transaction
            )
            if lost:
                raise LeaseLostError(f"the lease of item {item.id} is lost")
            if ends:
                self._host.ended(given["id"], request, problem, transaction)
            else:
                self._enqueue(given["id"], given["step"] + 1, request, transaction)
        return OutcomeRecorded()


def _progress_of(item: OutboxItem) -> BulkProgress:
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
