"""
The reasons for which an execution or an item waits: who holds what it needs, what lets it go on.

The command line, the pages and the API show these reasons. They are read from the database as it
stands, so a reason may be over when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from automate_kernel.base.durations import format_duration
from automate_kernel.base.errors import AutomateError, UnknownHereError
from automate_kernel.outbox.handover import Handover
from automate_kernel.outbox.item import WAITING, ItemStatus, OutboxItem, scoped_key
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.queries import pauses_of_kinds
from automate_kernel.secrets.redaction import redact_shown
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import OUTBOX, SLOT
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.decide.waits import WaitingFor

__all__ = ["WaitReason", "first_waits", "why_execution_waits", "why_item_waits"]

_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class WaitReason:
    """
    One reason for a wait.

    *code* is one of ``paused``, ``workflow_paused``, ``kind_paused``, ``concurrency``,
    ``rate_limit``, ``debounce``, ``ordering``, ``limit``, ``handed_over``, ``no_worker``,
    ``worker``, ``running``, ``lease_over``, ``retry``, ``time``, ``event``, ``signal``,
    ``approval`` and ``workflow``. *text* says it for people, *hint* what makes it go on, and
    *command* the words after ``automate`` that do so or show more. *until* is the time at which it
    ends by itself. *details* have the names and ids.
    """

    code: str
    text: str
    hint: str = ""
    command: str = ""
    until: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as an object; `until` and the times in *details* are datetimes."""
        return asdict(self)


def why_execution_waits(kernel: Kernel, execution: Execution) -> list[WaitReason]:
    """
    Return the reasons for which *execution* does not go on now; none once it has ended.

    What keeps it from running comes first, then what its steps wait for.
    """
    if execution.status.finished:
        return []
    found = list(_of_pauses(kernel, execution))
    item = kernel.outbox.get(execution.item_id) if execution.item_id else None
    waits = kernel.executions.waits(execution.id)
    resting = item is None or (
        item.waiting_for in (ItemWait.TIME, ItemWait.RESUME) and item.handover is None
    )
    if item is not None and not resting and not found:
        found += _of_item(kernel, item)
    found += [_of_wait(execution.id, each) for each in waits]
    found += _of_steps(execution, {(each.step_id, each.position) for each in waits})
    if not found and item is not None:
        found += _of_start(kernel, execution, item)
    if not found and item is not None:
        found += _of_item(kernel, item)
    return found


def first_waits(kernel: Kernel, executions: Sequence[Execution]) -> dict[str, WaitReason]:
    """Return what steps of *executions* have waited for longest, by their ids: one statement."""
    ids = [each.id for each in executions if not each.status.finished]
    found = kernel.executions.first_waits(ids) if ids else {}
    return {execution_id: _of_wait(execution_id, wait) for execution_id, wait in found.items()}


def why_item_waits(kernel: Kernel, item: OutboxItem) -> list[WaitReason]:
    """Return the reasons for which *item* is not finished; none once it has ended."""
    return list(_of_item(kernel, item)) if item.status in (*WAITING, ItemStatus.RUNNING) else []


# -- executions ----------------------------------------------------------------------------------


def _of_pauses(kernel: Kernel, execution: Execution) -> Iterator[WaitReason]:
    if execution.status is ExecutionStatus.PAUSED:
        yield WaitReason(
            "paused", "The execution is paused.", command=f"resume execution {execution.id}"
        )
    for each in kernel.workflows.paused(tenant_id=execution.tenant_id):
        if each.workflow == execution.name and each.tenant_id in (None, execution.tenant_id):
            yield WaitReason(
                "workflow_paused",
                f"The workflow {each.workflow!r} is paused{_because(each.reason)}.",
                command=f"resume workflow {each.workflow}",
                details={"workflow": each.workflow, "reason": each.reason},
            )


def _of_start(kernel: Kernel, execution: Execution, item: OutboxItem) -> Iterator[WaitReason]:
    """Yield the conditions of its workflow that put the beginning off."""
    if execution.status is not ExecutionStatus.PENDING or item.waiting_for != ItemWait.TIME:
        return
    workflow = None
    with suppress(UnknownHereError):  # of another version
        workflow = kernel.executions.definition(execution.definition_id)
    rate = workflow and workflow.rate_limit
    debounce = workflow and workflow.debounce
    if rate:
        about = {"limit": rate.limit, "per": rate.per}
        yield WaitReason(
            "rate_limit",
            f"The workflow {execution.name!r} begins at most {rate.limit}"
            f" in {format_duration(rate.per)}.",
            "Its turn comes by itself.", until=item.next_attempt_at, details=about,
        )  # fmt: skip
    if debounce:
        quiet = format_duration(debounce.for_)
        yield WaitReason(
            "debounce", f"It begins once no other event has come for {quiet}.",
            "A further event takes its place.", until=item.next_attempt_at,
            details={"for": debounce.for_, "at_most": debounce.at_most},
        )  # fmt: skip


def _of_wait(execution_id: str, wait: WaitingFor) -> WaitReason:
    step, details = wait.step_id, redact_shown(wait.details)
    if wait.position >= 0:
        step = f"{step}[{wait.position}]"
    text, hint, command = f"Step {step!r} waits for {wait.about}.", "", ""
    if wait.about == "event":
        text = f"Step {step!r} waits for the event {details['event']!r}{_where(details)}."
        hint = "It goes on with the next such event."
    elif wait.about == "signal":
        text = f"Step {step!r} waits for the signal {details['signal']!r}{_where(details)}."
        command = f"executions signal {execution_id} {details['signal']}"
    elif wait.about == "approval":
        people = ", ".join(details.get("by") or ()) or "anybody"
        text = f"Step {step!r} asks {people}: {details.get('title') or ''}"
        command = f"approvals show {execution_id} {wait.step_id}"
    elif wait.about == "workflow":
        child = details.get("execution_id")
        text = f"Step {step!r} waits for its sub-workflow {details.get('workflow')!r}, {child}."
        command = f"executions show {child}"
    elif wait.about == "task":
        text = f"Step {step!r} runs on the executor {details.get('executor')!r}."
        hint = "It goes on with the outcome. `automate doctor` shows what keeps executors."
    shown = {name: value for name, value in details.items() if name != "asked"}
    return WaitReason(wait.about, text, hint, command, wait.expires_at, {"step": step, **shown})


def _where(details: Mapping[str, Any]) -> str:
    parts = [f"{name} = {value!r}" for name, value in (details.get("match") or {}).items()]
    return f" with {', '.join(parts)}" if parts else ""


def _of_steps(execution: Execution, seen: set[tuple[str, int]]) -> Iterator[WaitReason]:
    """Yield the waits for a time alone, which are no rows: sleeps, and retries."""
    shown = 0
    for run in execution.steps:
        if run.next_attempt_at is None or run.key in seen:
            continue
        step = run.step_id if run.position < 0 else f"{run.step_id}[{run.position}]"
        details = {"step": step, "attempts": run.attempts}
        if run.status is StepStatus.WAITING:
            yield WaitReason(
                "time", f"Step {step!r} waits for its time.", until=run.next_attempt_at,
                details=details,
            )  # fmt: skip
        elif not run.status.finished and run.error is not None:
            yield WaitReason(
                "retry",
                f"Step {step!r} failed {_times(run.attempts)} and is tried again: {run.error}",
                "", f"executions retry {execution.id} --only {run.step_id}", run.next_attempt_at,
                {**details, "error_code": run.error_code, "error": run.error},
            )  # fmt: skip
        else:
            continue
        if (shown := shown + 1) == _MOST_SHOWN:
            return


# -- items ---------------------------------------------------------------------------------------


def _of_item(kernel: Kernel, item: OutboxItem) -> Iterator[WaitReason]:
    with kernel.storage.begin(atomic=False) as rows:
        if item.status is ItemStatus.RUNNING:
            yield _of_lease(rows, item)
            return
        if item.handover is not None:
            yield _of_handover(item, item.handover)
            return
        if item.waiting_for == ItemWait.TIME:
            yield WaitReason(
                "retry" if item.status is ItemStatus.RETRY else "time",
                f"It failed {_times(item.attempt_count)} and is tried again: {item.last_error}"
                if item.status is ItemStatus.RETRY else "It is not due yet.",
                until=item.next_attempt_at,
            )  # fmt: skip
            return
        if item.waiting_for == ItemWait.KEY:
            yield _of_key(rows, item)
        pauses = pauses_of_kinds(rows)
    if item.kind in pauses:
        yield WaitReason(
            "kind_paused", f"The kind {item.kind!r} is paused{_because(pauses[item.kind])}.",
            command=f"resume kind {item.kind}",
            details={"kind": item.kind, "reason": pauses[item.kind]},
        )  # fmt: skip
    elif item.waiting_for == ItemWait.RESUME:
        yield WaitReason("paused", "It was put aside by a pause.")
    elif item.waiting_for == ItemWait.WORKER:
        yield from _of_workers(kernel, item)


def _of_lease(rows: Rows, item: OutboxItem) -> WaitReason:
    worker, until = item.lease_owner, item.lease_expires_at
    details = {"worker": worker}
    if until is not None and until <= rows.now():
        return WaitReason(
            "lease_over", f"The worker {worker} has not been heard of: another one takes over.",
            "", "top --once", until, details,
        )  # fmt: skip
    return WaitReason("running", f"The worker {worker} works on it.", until=until, details=details)


def _of_handover(item: OutboxItem, note: Handover) -> WaitReason:
    until = item.next_attempt_at if item.waiting_for == ItemWait.TIME else None
    return WaitReason(
        "handed_over", f"It was handed over by the worker {note.worker}: {note.reason}.",
        f"It waits for {note.needed}. Or cancel it, then resume it from a step or start it again.",
        "", until,
        {"code": note.code, "worker": note.worker, "since": note.since, "times": note.times},
    )  # fmt: skip


def _of_key(rows: Rows, item: OutboxItem) -> WaitReason:
    if item.concurrency_key is not None:
        key = scoped_key(item.concurrency_key, item.tenant_id)
        slots = rows.select(
            SLOT, [Where("concurrency_key", "eq", key)], order_by=("id",), limit=_MOST_SHOWN + 1
        )
        holders = _holders(rows, [slot["item_id"] for slot in slots])
        line = [Where("concurrency_key", "eq", key), Where("waiting_for", "eq", ItemWait.KEY.value)]
        waiting = sum(row["n"] for row in rows.count(OUTBOX, ("concurrency_key",), line))
        return WaitReason(
            "concurrency",
            f"The places of its concurrency ({item.concurrency_limit}) are taken by"
            f" {_named(holders)}. In line for a place: {waiting}.",
            "It goes on once a place is free and its turn comes.",
            details={"key": item.concurrency_key, "limit": item.concurrency_limit,
                     "holders": holders, "waiting": waiting},
        )  # fmt: skip
    key = scoped_key(item.ordering_key, item.tenant_id)
    line = [
        Where("ordering_key", "eq", key),
        Where("status", "in", [*WAITING, ItemStatus.RUNNING.value]),
    ]
    before = rows.select(OUTBOX, line, order_by=("sort_at", "id"), limit=1, columns=("id",))
    holders = _holders(rows, [row["id"] for row in before if row["id"] != item.id])
    return WaitReason(
        "ordering",
        f"Items of its ordering key {item.ordering_key!r} go one at a time."
        f" Before it goes {_named(holders)}.",
        details={"key": item.ordering_key, "holders": holders},
    )


def _holders(rows: Rows, item_ids: Sequence[str]) -> list[dict[str, str]]:
    its = rows.select(
        OUTBOX, [Where("id", "in", sorted(item_ids))], order_by=("id",),
        columns=("id", "kind", "status", "payload"),
    )  # fmt: skip
    return [
        {"item": row["id"], "kind": row["kind"], "status": row["status"]}
        | ({"execution": its_id} if (its_id := _execution_in(row["payload"])) else {})
        for row in its
    ]


def _execution_in(payload: Any) -> str | None:
    found = payload.get("execution_id") if isinstance(payload, Mapping) else None
    return found if isinstance(found, str) else None


def _named(holders: Sequence[Mapping[str, str]]) -> str:
    names = [
        f"the execution {each['execution']}" if "execution" in each else f"the item {each['item']}"
        for each in holders[:_MOST_SHOWN]
    ]
    return ", ".join(names) + (" and others" if len(holders) > _MOST_SHOWN else "") or "another"


def _of_workers(kernel: Kernel, item: OutboxItem) -> Iterator[WaitReason]:
    limits: Sequence[Limit] = ()
    with suppress(AutomateError):  # a store of the application's own may have none
        limits = kernel.outbox.limits()
    limit = next((each for each in limits if each.kind == item.kind), None)
    if limit is not None:
        about = {"concurrency": limit.concurrency, "rate": limit.rate, "per": limit.per_seconds}
        shown = [f"{limit.concurrency} at once"] if limit.concurrency else []
        shown += [f"{limit.rate} in {limit.per_seconds:g} s"] if limit.rate else []
        yield WaitReason(
            "limit", f"The kind {item.kind!r} is limited: {', '.join(shown)}.",
            command=f"outbox limit {item.kind} --remove",
            details={name: value for name, value in about.items() if value is not None},
        )  # fmt: skip
    able = [
        each for each in kernel.outbox.workers()
        if each.alive and not each.stopping
        and any(fnmatchcase(item.kind, kind) for kind in each.kinds)
    ]  # fmt: skip
    if not able:
        yield WaitReason(
            "no_worker", f"No worker takes items of the kind {item.kind!r}.",
            "Start one.", "worker", details={"kind": item.kind},
        )  # fmt: skip
    elif limit is None:
        full = all(each.in_flight >= each.slots for each in able)
        yield WaitReason(
            "worker",
            f"It is due. Workers that take its kind: {len(able)}"
            + (", and each has its hands full." if full else "."),
            "More workers, or more slots, take more at once." if full else "",
            details={"workers": len(able)},
        )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
