"""
Approvals: the steps that wait for a person, the decisions on them, and the links that decide.

A step that waits for an approval has a row in `automate_kernel.storage.tables.WAIT`, whose details
say what is asked and of whom. A decision is written into that row and sent as a signal, both in one
transaction: so it is made once, whoever else decides at the same moment. The row goes when the step
ends, and with it every link.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Literal
from uuid import UUID

from automate_kernel.base.arguments import check_address, check_limit, several
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.outbox import OutboxStore
from automate_kernel.outbox.item import check_text, new_id, redacted_json
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.signing import Signer
from automate_kernel.storage.paging import IndexRange, read_merged_page, read_page
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows, Storage, write_bounded
from automate_kernel.storage.tables import APPROVER, EXECUTION, STEP, WAIT
from automate_kernel.storage.values import encode_json, text_problem
from automate_kernel.workflows.decide.waits import ANYONE, approver_id, signal_item
from automate_kernel.workflows.definition.approval import (
    FormField,
    Notice,
    form_json_schema,
    read_form,
)
from automate_kernel.workflows.definition.blocks import local_id, plain_id
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.steer.decisions import DecisionPage, keep_decision, read_decisions

__all__ = ["ApprovalLink", "ApprovalPage", "Approvals", "Decision", "PendingApproval"]

logger: logging.Logger = get_logger(__name__)

Decision = Literal["approve", "reject"]

ROLE = "role:"
MOST_COMMENT = 5_000
_MOST_DECISION = 400_000  # bytes of JSON
# A link to an approval without a timeout is good for so long.
_LINK_SECONDS = 30 * 86_400.0
# So many waits are looked through for one page.
_LOOK = 2_000
_BATCH = 200
# So many elements does an error name.
_NAMED = 5
_COLUMNS = (
    "id", "key", "execution_id", "step_id", "position", "tenant_id", "details", "created_at",
    "expires_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingApproval:
    """
    A step that waits for a person.

    *by* are the people and roles (``role:NAME``) that may decide; without any, anybody may whom the
    host lets in.
    """

    id: str
    """The id of the step's wait."""
    execution_id: str
    step_id: str
    position: int
    workflow: str
    title: str
    description: str | None
    by: tuple[str, ...]
    form: tuple[FormField, ...]
    tenant_id: str | None
    created_at: datetime
    expires_at: datetime | None
    asked: str
    """The id of this asking: a step that is run again asks again."""
    key: str = field(repr=False)
    decided_by: str | None = None
    """The person who has decided, until a worker takes the decision up."""
    approved: bool | None = None
    """The decision of this person."""
    notify: Notice | None = field(default=None, repr=False)
    """The call that tells people, of a workflow in code; others have it in their definition."""

    def may_decide(self, by: str, roles: Collection[str] = ()) -> bool:
        """Return True if the person *by*, who has these *roles*, may decide."""
        if not self.by:
            return True
        # Nobody becomes a role by being called like one.
        person = not by.startswith(ROLE) and by in self.by
        return person or any(f"{ROLE}{role}" in self.by for role in several(roles))

    def form_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the form, for a user interface of the application's own."""
        return form_json_schema(self.form)


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """
    A page of open approvals; *after* leads to the next one, and is empty at the end.

    It may hold fewer than were asked for, and still not be the last.
    """

    approvals: list[PendingApproval] = field(default_factory=list)
    after: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalLink:
    """The power of a signed link: over an open approval, for *by*, perhaps to one *decision*."""

    approval: PendingApproval
    by: str
    decision: Decision | None = None


class Approvals:
    """
    The approvals of a host: people find and decide them, with an account or by a signed link.

    *signer* makes the links, below *public_url*. Each call is checked against the approval's ``by``
    list; who the caller is, and which roles they have, is the application's to know.
    """

    def __init__(
        self, storage: Storage, outbox: OutboxStore, signer: Signer, public_url: str | None = None
    ) -> None:
        self.storage = storage
        self.outbox = outbox
        self.signer = signer
        self.public_url = public_url

    # -- finding -----------------------------------------------------------------------------

    def pending(
        self,
        *,
        by: str | None = None,
        roles: Collection[str] = (),
        tenant_id: str | None = None,
        workflow: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> ApprovalPage:
        """
        Return a page of open approvals, the oldest first.

        With *by* or *roles* only those that this person may decide. With *tenant_id* only that
        tenant's. Pass `ApprovalPage.after` as *after* for the next page.
        """
        limit, looked = check_limit(limit), 0
        # Nobody becomes a role by being called like one.
        people = [by] if by is not None and not by.startswith(ROLE) else []
        asked = [ANYONE, *people, *(f"{ROLE}{role}" for role in several(roles))]
        read = partial(_read_asked, asked=asked) if by is not None or roles else _read_all
        with self.storage.begin(atomic=False) as rows:
            now, size = rows.now(), limit
            while True:
                some, after = read(rows, tenant_id=tenant_id, after=after, limit=size)
                looked += size
                found = [
                    each for each in _approvals(rows, some)
                    if each.decided_by is None
                    and (each.expires_at is None or each.expires_at > now)
                    and workflow in (None, each.workflow)
                    and ((by is None and not roles) or each.may_decide(by or "", roles))
                ]  # fmt: skip
                if found or not after or looked >= _LOOK:
                    return ApprovalPage(found, after)
                size = max(limit, _LOOK // 2)

    def decided(
        self, *, tenant_id: str | None = None, limit: int = 50, after: str = ""
    ) -> DecisionPage:
        """
        Return a page of decisions that people have made, the latest first.

        With *tenant_id* only that tenant's. Pass `DecisionPage.after` as *after* for the next page.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_decisions(rows, tenant_id=tenant_id, after=after, limit=check_limit(limit))

    def get(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        tenant_id: str | None = None,
    ) -> PendingApproval | None:
        """
        Return what a step waits for, or None if it waits for no approval.

        With *tenant_id* another tenant's is not there.
        """
        with self.storage.begin(atomic=False) as rows:
            return _waiting(rows, execution_id, step_id, position, tenant_id)

    # -- deciding ----------------------------------------------------------------------------

    def approve(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        by: str,
        roles: Collection[str] = (),
        comment: str = "",
        form: Mapping[str, Any] | None = None,
        transaction: Any = None,
        tenant_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Approve what a step waits for, in the application's *transaction*; return the step's output.

        *by* is the person, with *roles* by their plain names. *position* is that of an element of
        ``for_each``. Raises ``NOT_FOUND`` if the step doesn't wait for an approval, and
        ``FAILED_PRECONDITION`` if somebody has decided or it is too late. Raises
        ``PERMISSION_DENIED`` if the approval is for others, and ``INVALID_ARGUMENT`` for a *form*
        that is not right.
        """
        return self._decide(
            execution_id, step_id, position, approved=True, by=by, roles=roles, comment=comment,
            form=form, transaction=transaction, tenant_id=tenant_id,
        )  # fmt: skip

    def reject(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        by: str,
        roles: Collection[str] = (),
        comment: str = "",
        form: Mapping[str, Any] | None = None,
        transaction: Any = None,
        tenant_id: str | None = None,
    ) -> dict[str, Any]:
        """Reject what a step waits for, as `approve` approves it; no field is required then."""
        return self._decide(
            execution_id, step_id, position, approved=False, by=by, roles=roles, comment=comment,
            form=form, transaction=transaction, tenant_id=tenant_id,
        )  # fmt: skip

    def _decide(
        self,
        execution_id: str,
        step_id: str,
        position: int,
        *,
        by: str,
        roles: Collection[str],
        transaction: Any,
        tenant_id: str | None,
        **answer: Any,
    ) -> dict[str, Any]:
        check_text(by, "by", column="kind")

        def work(rows: Rows) -> dict[str, Any]:
            where = _where(execution_id, step_id, position, tenant_id)
            waiting = _locked(rows, where) if where is not None else None
            if waiting is None:
                raise _none_waits(rows, where)
            if not waiting.may_decide(by, roles):
                raise _not_theirs(waiting, by)
            return self._record(rows, waiting, by, **answer)

        return write_bounded(self.storage, transaction, work)

    def _record(
        self,
        rows: Rows,
        waiting: PendingApproval,
        by: str,
        *,
        approved: bool,
        comment: str,
        form: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Write a decision into the wait's row, which is locked, and send its signal."""
        now = rows.now()
        if waiting.decided_by is not None:
            raise _already(waiting.decided_by, waiting.approved)
        if waiting.expires_at is not None and waiting.expires_at <= now:
            raise _too_late(f"the time to decide ended at {waiting.expires_at.isoformat()}")
        if not isinstance(comment, str) or len(comment) > MOST_COMMENT:
            raise PayloadError(f"the comment must be text of at most {MOST_COMMENT:,} characters")
        decision: dict[str, Any] = {
            "approved": approved,
            "by": by,
            "comment": comment,
            "form": read_form(waiting.form, form, approved=approved),
            "at": now.isoformat(),
            "timed_out": False,
        }
        # Bounded, since it is kept beside the question and becomes the step's output.
        encode_json(decision, "decision", _MOST_DECISION)
        if self.outbox.redact is not None:
            decision = redacted_json(decision, "decision", self.outbox.redact)
        mine = [Where("id", "eq", waiting.id)]
        (row,) = rows.select(WAIT, mine, columns=("details",))
        rows.update(WAIT, mine, {"details": {**row["details"], "decision": decision}})
        people = sorted(approver_id(waiting.id, who) for who in waiting.by or [ANYONE])
        rows.delete(APPROVER, [Where("id", "in", people)])
        about = ("execution_id", "step_id", "position", "workflow", "title", "tenant_id")
        asked = {name: getattr(waiting, name) for name in about}
        keep_decision(rows, asked, decision, now)
        event = Event(
            id=new_id(),
            name="automate.approval",
            payload=decision,
            source="approval",
            tenant_id=waiting.tenant_id,
            occurred_at=now.isoformat(),
        )
        item = signal_item(
            waiting.key, event, tenant_id=waiting.tenant_id,
            idempotency_key=f"approval:{waiting.asked}",
        )  # fmt: skip
        self.outbox.enqueue_many([item], transaction=rows.native)
        return decision

    # -- links -------------------------------------------------------------------------------

    def link(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        by: str,
        roles: Collection[str] = (),
        decision: Decision | None = None,
        base_url: str | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """
        Return the link by which *by* decides on a step's approval, without an account.

        *by* is a person who may decide, or an entry of the approval's ``by`` list, such as a role.
        Whoever has the link of an entry decides in the entry's name. With *decision* the link makes
        that decision only. It works once, until the approval's timeout, or for 30 days if there is
        none. It is below *base_url*, by default the kernel's ``public_url``. Raises
        ``PERMISSION_DENIED`` if the approval is for others, and `ConfigError` without a signing key
        or an address.
        """
        base = check_address(base_url, "base_url") or self.public_url
        if not base:
            raise ConfigError(
                "nobody has said where links lead to",
                hint='give the kernel public_url="https://…", where its approvals are answered;'
                " in Django it is AUTOMATE_APPROVALS['PUBLIC_URL']",
            )
        token = self.token(
            execution_id, step_id, position, by=by, roles=roles, decision=decision,
            tenant_id=tenant_id,
        )  # fmt: skip
        return f"{base.rstrip('/')}/approvals/{token}"

    def token(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        by: str,
        roles: Collection[str] = (),
        decision: Decision | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Return the token of a link; see `link`."""
        check_text(by, "by", column="kind")
        if decision not in (None, "approve", "reject"):
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "decision is approve or reject")
        with self.storage.begin(atomic=False) as rows:
            waiting = _waiting(rows, execution_id, step_id, position, tenant_id)
            now = rows.now()
            if waiting is None:
                raise _none_waits(rows, _where(execution_id, step_id, position, tenant_id))
        if not (by in waiting.by or waiting.may_decide(by, roles)):
            raise _not_theirs(waiting, by)
        ends = waiting.expires_at and waiting.expires_at.timestamp()
        payload = {
            "asked": waiting.asked, "execution": waiting.execution_id, "step": waiting.step_id,
            "position": waiting.position, "tenant": waiting.tenant_id, "by": by,
            "decision": decision, "expires": int(ends or now.timestamp() + _LINK_SECONDS),
        }  # fmt: skip
        return self.signer.sign(payload)

    def by_token(self, token: str) -> ApprovalLink:
        """
        Return what the link with *token* is good for; nothing changes.

        Raises ``NOT_FOUND``, in the same words for a link that was used, has expired, was changed
        or made up. The log has the reason.
        """
        with self.storage.begin(atomic=False) as rows:
            return self._linked(rows, token)

    def decide_by_token(
        self,
        token: str,
        *,
        approved: bool,
        comment: str = "",
        form: Mapping[str, Any] | None = None,
        transaction: Any = None,
    ) -> dict[str, Any]:
        """
        Decide by a link; return the step's output.

        Raises what `by_token` does, and ``PERMISSION_DENIED`` if the link is good for the other
        decision only.
        """

        def work(rows: Rows) -> dict[str, Any]:
            link = self._linked(rows, token, lock=True)
            if link.decision not in (None, "approve" if approved else "reject"):
                raise AutomateError(
                    ErrorCodes.PERMISSION_DENIED, f"this link can {link.decision} only"
                )
            return self._record(
                rows, link.approval, link.by, approved=approved, comment=comment, form=form
            )

        return write_bounded(self.storage, transaction, work)

    def _linked(self, rows: Rows, token: str, *, lock: bool = False) -> ApprovalLink:
        given = self.signer.read(token) if self.signer.able else None
        if given is None:
            raise _no_link("it was not made here")
        where = _where(given["execution"], given["step"], given["position"], given["tenant"])
        waiting = None
        if where is not None:
            waiting = _locked(rows, where) if lock else _first(rows, where)
        if waiting is None or waiting.decided_by is not None or waiting.asked != given["asked"]:
            raise _no_link("it was used, or the step waits no longer")
        now = rows.now()
        ends = waiting.expires_at
        if given["expires"] <= now.timestamp() or (ends is not None and ends <= now):
            raise _no_link("it has expired")
        if waiting.tenant_id != given["tenant"]:
            raise _no_link("it is another tenant's")
        return ApprovalLink(waiting, given["by"], given["decision"])


# -- rows ----------------------------------------------------------------------------------------


def _where(
    execution_id: str, step_id: str, position: int, tenant_id: str | None
) -> list[Where] | None:
    """Return the condition for the wait of one step; None if no step can be meant."""
    try:
        execution_id = str(UUID(str(execution_id)))
    except ValueError:
        return None
    if text_problem(str(step_id)):
        return None
    where = [
        Where("execution_id", "eq", execution_id),
        Where("step_id", "eq", step_id),
        Where("position", "eq", position),
        Where("about", "eq", "approval"),
    ]
    return where if tenant_id is None else [*where, Where("tenant_id", "eq", tenant_id)]


def _read_all(
    rows: Rows, *, tenant_id: str | None, after: str, limit: int
) -> tuple[list[Row], str]:
    """Return a page of waits for approvals, the oldest first, and the place of the next."""
    rest = [] if tenant_id is None else [Where("tenant_id", "eq", tenant_id)]
    along = IndexRange([Where("about", "eq", "approval")], ("created_at", "id"), rest)
    page = read_page(
        rows, WAIT, [along], name=f"approvals {tenant_id or ''}", after=after, limit=limit,
        columns=_COLUMNS,
    )  # fmt: skip
    return page.rows, page.after


def _read_asked(
    rows: Rows, *, asked: Sequence[str], tenant_id: str | None, after: str, limit: int
) -> tuple[list[Row], str]:
    """Return such a page of those that the people and roles *asked* may decide on."""
    its = [] if tenant_id is None else [Where("tenant_id", "eq", tenant_id)]
    page = read_merged_page(
        rows, APPROVER, [[Where("who", "eq", who), *its] for who in asked],
        order=("created_at", "wait_id"), name=f"inbox {tenant_id or ''} {sorted(asked)}",
        after=after, limit=limit, columns=("wait_id", "created_at"),
    )  # fmt: skip
    ids = [row["wait_id"] for row in page.rows]
    found = rows.select(WAIT, [Where("id", "in", sorted(ids))], columns=_COLUMNS) if ids else []
    waits = {row["id"]: row for row in found}
    return [waits[each] for each in ids if each in waits], page.after


def _waiting(
    rows: Rows, execution_id: str, step_id: str, position: int, tenant_id: str | None
) -> PendingApproval | None:
    where = _where(execution_id, step_id, position, tenant_id)
    return None if where is None else _first(rows, where)


def _first(rows: Rows, where: Sequence[Where]) -> PendingApproval | None:
    found = _approvals(rows, rows.select(WAIT, where, columns=_COLUMNS))
    return found[0] if found else None


def _locked(rows: Rows, where: Sequence[Where]) -> PendingApproval | None:
    """Return the wait that *where* finds; nobody else decides on it in this transaction."""
    # A write first: on SQLite a transaction that has read can't always write any more.
    rows.update(WAIT, where, {"about": "approval"})
    return _first(rows, where)


def _approvals(rows: Rows, found: Sequence[Row]) -> list[PendingApproval]:
    ids = sorted({row["execution_id"] for row in found})
    names = {
        row["id"]: row["workflow"]
        for row in rows.select(EXECUTION, [Where("id", "in", ids)], columns=("id", "workflow"))
    }
    return [_approval(row, names.get(row["execution_id"], "")) for row in found]


def _approval(row: Row, workflow: str) -> PendingApproval:
    details = row["details"] or {}
    decision = details.get("decision")
    return PendingApproval(
        id=row["id"],
        execution_id=row["execution_id"],
        step_id=row["step_id"],
        position=row["position"],
        workflow=workflow,
        title=details.get("title", ""),
        description=details.get("description"),
        by=tuple(details.get("by", ())),
        form=tuple(FormField.model_validate(each) for each in details.get("form", ())),
        tenant_id=row["tenant_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        key=row["key"],
        asked=str(details.get("asked", "")),
        decided_by=None if decision is None else str(decision["by"]),
        approved=None if decision is None else decision["approved"],
        notify=Notice.model_validate(details["notify"]) if "notify" in details else None,
    )


def _none_waits(rows: Rows, where: Sequence[Where] | None) -> AutomateError:
    """Return the error for a step that waits for no approval: decided, or never there."""
    its = [one for one in where or () if one.column in ("execution_id", "step_id", "position")]
    known = {one.column: one.value for one in where or ()}
    steps = rows.select(STEP, its, columns=("status", "output")) if its else []
    owned = [Where("id", "eq", known.get("execution_id"))]
    if "tenant_id" in known:
        owned.append(Where("tenant_id", "eq", known["tenant_id"]))
    asked = _asked_beside(rows, where) if where is not None else []
    if asked:
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"step {known['step_id']!r} asks more than once, for elements or in rounds",
            hint=f"name one that waits: {', '.join(asked)}",
        )
    if steps and rows.select(EXECUTION, owned, columns=("id",)):
        output = steps[0]["output"]
        if isinstance(output, dict) and output.get("by"):
            return _already(output["by"], output.get("approved"))
        return _too_late(f"it waits no longer: the step is {steps[0]['status']}")
    return AutomateError(
        ErrorCodes.NOT_FOUND, "no step waits for this approval",
        hint="kernel.approvals.pending() lists those that are open",
    )  # fmt: skip


def _asked_beside(rows: Rows, where: Sequence[Where]) -> list[str]:
    """Return the first elements and rounds that wait where a step was named without any."""
    known = {one.column: one.value for one in where}
    if known["position"] != -1:
        return []
    every = [one for one in where if one.column not in ("step_id", "position")]
    read, order = ("step_id", "position"), ("created_at", "step_id", "position")
    found = rows.select(WAIT, every, order_by=order, limit=_BATCH, columns=read)
    mine = (
        row
        for row in found
        if known["step_id"] in (plain_id(row["step_id"]), local_id(row["step_id"]))
    )
    return [
        row["step_id"] + (f" at position {row['position']}" if row["position"] >= 0 else "")
        for row in islice(mine, _NAMED)
    ]


def _not_theirs(waiting: PendingApproval, by: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.PERMISSION_DENIED,
        f"{by!r} may not decide this; it is for {', '.join(waiting.by)}",
    )


def _already(by: str, approved: bool | None) -> AutomateError:
    error = _too_late(f"already decided by {by}")
    error.details = {"by": by, "approved": approved}
    return error


def _too_late(message: str) -> AutomateError:
    return AutomateError(ErrorCodes.FAILED_PRECONDITION, message)


def _no_link(reason: str) -> AutomateError:
    logger.info("a link to an approval was refused: %s", reason)
    return AutomateError(ErrorCodes.NOT_FOUND, "this link is used, has expired, or never was one")
