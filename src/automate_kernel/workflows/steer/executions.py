"""
The executions of an application: found, steered and purged.

`ExecutionStarts` begins them, and `Checkpoints` saves what a worker comes to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from automate_kernel.base.arguments import check_age, check_choice, check_limit, several
from automate_kernel.base.errors import AutomateError, ErrorCodes, type_name
from automate_kernel.outbox import BulkAction, ItemStatus, NewItem, OutboxStore
from automate_kernel.outbox.bulk_actions import Progress, carry_on
from automate_kernel.outbox.failed_attempts import (
    ErrorGroup,
    FailedAttempt,
    error_groups,
    failed_attempts,
)
from automate_kernel.outbox.handover import Handover
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.labels import MAX_LABELS, MOST_LABELLED, labelled_ids
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.output_store import OutputStore
from automate_kernel.storage.paging import LOOK
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write, write_bounded
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP, WAIT
from automate_kernel.workflows.decide.continuations import check_not_continued
from automate_kernel.workflows.decide.waits import OpenWait, WaitingFor
from automate_kernel.workflows.definition.model import CodeWorkflow, Workflow
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.steer.attempts import StepAttempt, step_attempts
from automate_kernel.workflows.steer.bulk_commands import (
    EXECUTIONS,
    BulkFilter,
    copy_event,
    copy_or_leave,
    due_times,
    resume_or_leave,
)
from automate_kernel.workflows.steer.deadlocks import Deadlock, find_deadlocks
from automate_kernel.workflows.store import start_locks
from automate_kernel.workflows.store.checkpoints import Checkpoints
from automate_kernel.workflows.store.definitions import purge_definitions
from automate_kernel.workflows.store.execution_pages import (
    ChildExecutions,
    ExecutionFilter,
    ExecutionPage,
    read_children,
    read_execution_page,
    read_latest,
)
from automate_kernel.workflows.store.large_outputs import LargeOutputs
from automate_kernel.workflows.store.pauses import WorkflowPauses
from automate_kernel.workflows.store.relatives import live_successor
from automate_kernel.workflows.store.repair import (
    check_fits,
    cleaning_again,
    copied_steps,
    followers_of_both,
    forgotten,
    forgotten_of_each,
    reopen,
    reopen_failed,
    reopen_rows,
    reopening,
    reset_steps,
    retried_in_code,
    retry_now,
)
from automate_kernel.workflows.store.retention import ExecutionRetention
from automate_kernel.workflows.store.signal_store import SignalStore
from automate_kernel.workflows.store.starts import ExecutionStarts
from automate_kernel.workflows.store.statistics import (
    ExecutionActivity,
    ExecutionCounts,
    ExecutionStats,
    purge_activity,
    read_activity,
    read_history,
    roll_up_activity,
    write_activity,
)
from automate_kernel.workflows.store.stored import (
    GOING,
    PAUSED,
    PENDING,
    RUNNING,
    begin_cancelling,
    cleaning_up,
    concurrency_of,
    end_cancelled,
    step_runs,
    stored_workflow,
    wake_up,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from automate_kernel.workflows.store.catalogue import Catalogue

__all__ = ["SAME", "ExecutionStore"]

SAME: Any = object()
"""In place of a payload: the same as before."""

_ENDED = [status for status in ExecutionStatus if status.finished]
# An execution may be resumed with another item between two looks at it, but not for ever.
_TRIES = 3
_MOST_LINKS = 20
_MOST_TASKS = 1_000
_RESUMED_BY = (
    "id", "workflow", "definition_id", "status", "tenant_id", "item_id", "completed_at",
    "parent_id", "concurrency_key", "chain_id", "successor_id",
)  # fmt: skip
_PAUSED_AS = {"pause": PAUSED, "unpause": RUNNING}
_NOTHING = "00000000-0000-0000-0000-000000000000"


def _same_workflow(name: str, workflow: Workflow) -> Workflow:
    if not isinstance(workflow, Workflow):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"a definition is a Workflow, not {type_name(workflow)}",
            hint="read a file with load_workflow(path); the one that a kernel has is"
            f" kernel.workflows.get({name!r})",
        )
    if workflow.name == name:
        return workflow
    raise AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"the execution is one of workflow {name!r}, not of {workflow.name!r}",
        hint="pass a definition with the same name, or start the other workflow",
    )


def _equal(**values: Any) -> list[Where]:
    """Return a condition for each of *values* that is not None."""
    return [Where(name, "eq", value) for name, value in values.items() if value is not None]


def _id_of(given: str) -> str:
    """Return the id that is *given*, as it is stored; for what can't be an id, that of nothing."""
    # A caller whose own column is empty means no execution, rather than any, and no database is to
    # refuse another text.
    return next(iter(item_ids_of([given])), _NOTHING)


def _this(execution_id: str, tenant_id: str | None = None) -> list[Where]:
    """Return the conditions on one execution."""
    return [Where("id", "eq", _id_of(execution_id)), *_equal(tenant_id=tenant_id)]


def _hides(rows: Rows, execution_id: str, tenant_id: str | None) -> bool:
    """Return True if for *tenant_id*, if that is given, the execution is not there."""
    its = _this(execution_id, tenant_id)
    return tenant_id is not None and not rows.select(EXECUTION, its, columns=("id",))


def _resuming(
    rows: Rows,
    row: Row,
    item_id: str,
    run_at: datetime | None = None,
    known: Workflow | None = None,
) -> NewItem:
    """Return the item that wakes an execution which had ended."""
    concurrency = concurrency_of(rows, row, known)
    return wake_up(
        row["id"], row["workflow"], item_id, row["tenant_id"],
        run_at=run_at, concurrency=concurrency, resumed=True,
    )  # fmt: skip


def _newest(rows: Rows, where: list[Where], limit: int) -> list[Execution]:
    found = rows.select(EXECUTION, where, order_by=("-created_at", "-id"), limit=limit)
    runs = step_runs(rows, [row["id"] for row in found])
    return [Execution.from_row(row, runs.get(row["id"], ())) for row in found]


class _UncopiedError(Exception):
    """Outputs with these *keys* are to be copied: not in a transaction, which would stand still."""

    def __init__(self, execution_id: str, keys: Sequence[str]) -> None:
        super().__init__()
        self.execution_id, self.keys = execution_id, keys


class ExecutionStore:
    """
    The executions of an application: people find, steer and purge them.

    `starts` begins them, and with `checkpoints` a worker saves those that it drives. *outbox* holds
    the items that wake them, in the same *storage*. *workflows* are what may begin here. Outputs
    that are too large for a row are in *output_store*. *on_cancelled* is called with an execution
    that `cancel` has ended, and what it has waited for.
    """

    def __init__(
        self,
        storage: Storage,
        outbox: OutboxStore,
        workflows: Catalogue,
        output_store: OutputStore | None = None,
        on_cancelled: Callable[[Execution, Collection[OpenWait]], object] | None = None,
    ) -> None:
        self.storage = storage
        self.outbox = outbox
        self.outputs: LargeOutputs = LargeOutputs(output_store)
        """The outputs that are too large for a row."""
        self.signals: SignalStore = SignalStore(storage, outbox)
        """The signals that steps wait for."""
        self._workflows = workflows
        self.pauses: WorkflowPauses = workflows.pauses
        """The workflows of which no execution goes on."""
        self.starts: ExecutionStarts = ExecutionStarts(storage, outbox, self.signals, workflows)
        """Begins executions, in the caller's transaction or for the worker that drives them."""
        self.checkpoints: Checkpoints = Checkpoints(
            storage, outbox, starts=self.starts, signals=self.signals, pauses=self.pauses,
            outputs=self.outputs,
        )  # fmt: skip
        """Reads and saves the executions that a worker drives."""
        self._retention = ExecutionRetention(storage, self.signals, self.outputs)
        self._on_cancelled = on_cancelled

    # -- finding -----------------------------------------------------------------------------

    def get(
        self, execution_id: str, *, tenant_id: str | None = None, large_outputs: bool = True
    ) -> Execution | None:
        """
        Return the execution with this id and its steps, or None.

        With *tenant_id* another tenant's is not there. Outputs in the output store are read too;
        without *large_outputs* they are None, and have an ``output_ref``.
        """
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, _this(execution_id, tenant_id))
            if not found:
                return None
            runs = step_runs(rows, [found[0]["id"]]).get(found[0]["id"], ())
        execution = Execution.from_row(found[0], runs)
        if large_outputs:
            self.outputs.fill(execution)
        return execution

    def output(
        self,
        execution_id: str,
        step_id: str | None = None,
        position: int = -1,
        *,
        tenant_id: str | None = None,
    ) -> Any:
        """
        Return the output of an execution, or of one of its steps, wherever it is kept.

        *position* is that of an element of the step's ``for_each``; without it all are listed, once
        they have completed. Raises ``NOT_FOUND`` if there is no such execution, or the step has not
        begun.
        """
        execution = self.get(execution_id, tenant_id=tenant_id, large_outputs=False)
        one: Execution | StepRun | None = execution
        if execution is not None and step_id is not None:
            one = execution.step(step_id, position)
        if one is None:
            what = f"execution {execution_id!r}" if execution is None else f"step {step_id!r} there"
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no {what}")
        if execution is not None and isinstance(one, StepRun) and self._is_list(execution, one):
            elements = execution.runs_of(one.step_id)
            return [self._read_output(each) for each in elements if each.position >= 0]
        return self._read_output(one)

    def _read_output(self, one: Execution | StepRun) -> Any:
        return one.output if one.output_ref is None else self.outputs.read(one.output_ref)

    def _is_list(self, execution: Execution, run: StepRun) -> bool:
        """Return True if *run* is that of a whole list, which has no output in its own row."""
        whole = run.position < 0 and run.status is StepStatus.COMPLETED
        if not whole or run.output is not None or run.output_ref is not None:
            return False
        return self.definition(execution.definition_id).gives_list(run.step_id)

    def definition(self, definition_id: str) -> Workflow:
        """Read the definition that an execution is pinned to."""
        return self._workflows.stored(definition_id)

    def is_cancelling(self, execution_id: str, *, tenant_id: str | None = None) -> bool:
        """Return True if an execution is CANCELLING; with *tenant_id* none of another tenant's."""
        where = [
            *_this(execution_id, tenant_id),
            Where("status", "eq", ExecutionStatus.CANCELLING.value),
        ]
        with self.storage.begin(atomic=False) as rows:
            return bool(rows.select(EXECUTION, where, columns=("id",)))

    def waits(self, execution_id: str, *, tenant_id: str | None = None) -> list[WaitingFor]:
        """
        List what steps of an execution wait for, beside a time; the longest waits come first.

        With *tenant_id* another tenant's execution is not there.
        """
        with self.storage.begin(atomic=False) as rows:
            if _hides(rows, execution_id, tenant_id):
                return []
            return self.signals.waiting(rows, _id_of(execution_id))

    def first_waits(self, execution_ids: Sequence[str]) -> dict[str, WaitingFor]:
        """Return the longest wait of each of some executions, beside a time, in one statement."""
        with self.storage.begin(atomic=False) as rows:
            return self.signals.first_waiting(rows, execution_ids)

    def waiting_tasks(self) -> Counter[str]:
        """Return the number of waiting steps by executor, among the 1,000 longest waits."""
        with self.storage.begin(atomic=False) as rows:
            found = rows.select(
                WAIT, _equal(about="task"), order_by=("created_at",), limit=_MOST_TASKS,
                columns=("details",),
            )  # fmt: skip
        return Counter(row["details"]["executor"] for row in found)

    def deadlocks(self) -> list[Deadlock]:
        """
        List the executions that wait for each other's concurrency places: none of them goes on.

        A store of items that is not SQL shows none.
        """
        with self.storage.begin(atomic=False) as rows:
            return find_deadlocks(rows)

    def live(self, rows: Rows, execution_id: str, *, tenant_id: str | None = None) -> Execution:
        """
        Return an execution that goes on, without its steps, in the transaction of *rows*.

        If it was continued as new, that is the last execution of the chain.
        Raises ``NOT_FOUND``, with *tenant_id* for another tenant's too; and ``FAILED_PRECONDITION``
        if it has ended.
        """
        its = _equal(tenant_id=tenant_id)
        found = rows.select(EXECUTION, _this(execution_id, tenant_id))
        execution = Execution.from_row(found[0]) if found else None
        if execution is None or execution.status.finished:
            goes_on = live_successor(rows, _id_of(execution_id), its)
            if goes_on is not None:
                return self.live(rows, goes_on, tenant_id=tenant_id)
        if execution is None:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        if execution.status.finished:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"execution {execution_id} has ended: it is {execution.status}",
            )
        return execution

    def page(
        self,
        *,
        after: str = "",
        limit: int = 50,
        look: int = LOOK,
        seconds: float = 0.0,
        events: bool = False,
        **matching: Unpack[ExecutionFilter],
    ) -> ExecutionPage:
        """
        Return a page of executions without their outputs and steps, the newest first.

        Events are read with *events* only, since their payloads may be large.
        The index of one condition is read. The others are looked for along it: among *look*
        executions, and again as many, for as many *seconds*, as long as nothing is found.
        `ExecutionPage.after` leads to the next page; pass it as *after*.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_execution_page(
                rows, matching, events=events, after=after, limit=limit, look=look,
                seconds=seconds,
            )  # fmt: skip

    def find(
        self,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        error_group: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Find executions that match, with their steps, the newest first."""
        where = _equal(
            status=_status(status),
            workflow=workflow,
            tenant_id=tenant_id,
            error_group=error_group,
        )
        with self.storage.begin(atomic=False) as rows:
            return _newest(rows, where, limit)

    def labelled(
        self,
        label: str,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """
        Find executions with *label*, with their steps, the newest first.

        A label is ``order=4711``, or ``4711`` under any name. An index finds them.
        """
        where = _equal(status=_status(status), workflow=workflow, tenant_id=tenant_id)
        with self.storage.begin(atomic=False) as rows:
            known = labelled_ids(
                rows, label, about="execution", tenant_id=tenant_id, limit=MOST_LABELLED
            )
            return _newest(rows, [*where, Where("id", "in", [each.id for each in known])], limit)

    def children(
        self, execution_ids: Sequence[str], *, limit: int = 200
    ) -> dict[str, ChildExecutions]:
        """
        Return the sub-workflows of some executions, by the id of the execution that began them.

        All are counted, in one statement. The newest *limit* of each execution come as values,
        without steps, events and outputs: another statement for a hundred executions.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_children(rows, execution_ids, limit=limit)

    def step_statuses(self, execution_ids: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
        """Count the runs of each step by status, for some executions, in one statement."""
        where = [Where("execution_id", "in", sorted(execution_ids))]
        found: dict[str, dict[str, dict[str, int]]] = {}
        with self.storage.begin(atomic=False) as rows:
            for row in rows.count(STEP, ("execution_id", "step_id", "status"), where):
                of_step = found.setdefault(row["execution_id"], {}).setdefault(row["step_id"], {})
                of_step[row["status"]] = row["n"]
        return found

    def latest(
        self, workflows: Sequence[tuple[str, str | None]], *, limit: int = 20
    ) -> dict[tuple[str, str | None], list[Execution]]:
        """
        Return the newest executions of some workflows, without steps, events and outputs.

        Each of *workflows* is a name and a tenant; with None as the tenant, those of all tenants. A
        hundred of them are one statement.
        """
        with self.storage.begin(atomic=False) as rows:
            return read_latest(rows, workflows, limit=limit)

    def received_signals(
        self, execution_id: str, *, tenant_id: str | None = None, limit: int = 50
    ) -> list[Event]:
        """
        List the latest signals to an execution, or to its chain, the newest first.

        With *tenant_id* another tenant's execution is not there.
        """
        with self.storage.begin(atomic=False) as rows:
            if _hides(rows, execution_id, tenant_id):
                return []
            return self.signals.received(rows, _id_of(execution_id), limit)

    def failed_attempts(
        self, execution_id: str, *, tenant_id: str | None = None
    ) -> list[FailedAttempt]:
        """
        List the errors of all attempts of an execution's steps, the earliest first.

        Those before it was resumed count too. The first is kept, and the latest 199. With
        *tenant_id* another tenant's execution is not there.
        """
        with self.storage.begin(atomic=False) as rows:
            if _hides(rows, execution_id, tenant_id):
                return []
            return failed_attempts(rows, _id_of(execution_id))

    def attempts(self, execution_id: str, *, tenant_id: str | None = None) -> list[StepAttempt]:
        """
        List all attempts of an execution's steps, the earliest first, with times and workers.

        Of those that failed, as many as `failed_attempts` has. With *tenant_id* another tenant's
        execution is not there.
        """
        execution_id = _id_of(execution_id)
        with self.storage.begin(atomic=False) as rows:
            if _hides(rows, execution_id, tenant_id):
                return []
            runs = step_runs(rows, [execution_id]).get(execution_id, ())
            return step_attempts(runs, failed_attempts(rows, execution_id))

    def error_groups(
        self, *, workflow: str | None = None, tenant_id: str | None = None, limit: int = 100
    ) -> list[ErrorGroup]:
        """
        Group the FAILED executions by workflow and by the place that their error came from.

        The largest groups come first; `ErrorGroup.kind` is the workflow's name.
        """
        failed = _equal(status=ExecutionStatus.FAILED.value, workflow=workflow, tenant_id=tenant_id)
        with self.storage.begin(atomic=False) as rows:
            return error_groups(rows, EXECUTION, failed, everybody=tenant_id is None, limit=limit)

    def count_failures(
        self, *, since: datetime, until: datetime, tenant_id: str | None = None
    ) -> dict[tuple[str, str], int]:
        """Count FAILED executions by workflow and place of their error, by when they began."""
        where = [
            *_equal(status=ExecutionStatus.FAILED.value, tenant_id=tenant_id),
            Where("created_at", "ge", since),
            Where("created_at", "lt", until),
        ]
        with self.storage.begin(atomic=False) as rows:
            found = rows.count(EXECUTION, ("workflow", "error_group"), where)
        return {(row["workflow"], row["error_group"] or ""): row["n"] for row in found}

    def handover(self, execution: Execution) -> Handover | None:
        """Return the note of the worker that handed *execution* on, if it waits for another."""
        if execution.status.finished or execution.item_id is None:
            return None
        item = self.outbox.get(execution.item_id)
        return None if item is None else item.handover

    # -- statistics --------------------------------------------------------------------------

    def stats(self) -> ExecutionStats:
        """
        Count by workflow those that have not ended and those that FAILED; reads only these.

        And the steps that wait for a signal, by what it is.
        """
        where = [Where("status", "in", [*LIVE, ExecutionStatus.FAILED.value])]
        with self.storage.begin(atomic=False) as rows:
            found = rows.count(EXECUTION, ("workflow", "status"), where)
            waits = rows.count(WAIT, ("about",))
        counts: dict[str, dict[str, int]] = {}
        for row in found:
            counts.setdefault(row["workflow"], {})[row["status"]] = row["n"]
        waiting = {row["about"]: row["n"] for row in waits}
        paused = Counter(one.workflow for one in self.pauses.paused())
        return ExecutionStats(dict(sorted(counts.items())), waiting, dict(sorted(paused.items())))

    def activity(self, *, seconds: float = 3600.0) -> list[ExecutionCounts]:
        """
        Count the ends of executions and steps in the last *seconds*, by minute and workflow.

        Workers write these counts every few seconds, and they are kept for a week. No execution is
        read. Of more than half an hour `history` is quicker.
        """
        seconds = check_age(seconds, "seconds")
        with self.storage.begin(atomic=False) as rows:
            return read_activity(rows, seconds)

    def history(self, *, seconds: float) -> list[ExecutionCounts]:
        """
        Count as `activity` does, by workflow and by blocks of minutes, the earliest first.

        A block has 5 minutes if *seconds* are half an hour or more, an hour from 6 hours on, and 6
        hours from 36 hours on; else one minute. The block that has begun by then counts whole.
        Workers sum them up, so that a week is a thousand rows.
        """
        seconds = check_age(seconds, "seconds")
        with self.storage.begin(atomic=False) as rows:
            return read_history(rows, seconds)

    def roll_up_activity(self) -> bool:
        """Sum activity up for `history`, for a moment; return True if there is more to do."""
        return roll_up_activity(self.storage)

    def report(self, activity: ExecutionActivity, worker_id: str) -> None:
        """Write down what *activity* has gathered. A worker does so every few seconds."""
        with activity.writing:
            if activity.idle:
                return
            with self.storage.begin() as rows:
                write_activity(rows, activity, worker_id)
            activity.saved()

    def purge_activity(self, *, older_than_seconds: float = 7 * 86_400.0) -> int:
        """Delete old activity; return the number of rows. A worker does so every hour."""
        older_than_seconds = check_age(older_than_seconds, "older_than_seconds")
        with self.storage.begin() as rows:
            return purge_activity(rows, older_than_seconds)

    # -- operator commands -------------------------------------------------------------------

    def cancel(
        self, execution_id: str, *, tenant_id: str | None = None, force: bool = False
    ) -> bool:
        """
        Cancel an execution; return False if it had ended.

        The worker that has it is asked to stop: an ``async def`` step is cancelled, a ``def`` step
        ends as it will, and nothing follows. It is CANCELLED at once, unless its workflow has
        something to clean up: then it is CANCELLING until its steps are undone, and those under
        ``on_cancel`` and ``finally`` have run. With *force*, or if it is CANCELLING already, it is
        CANCELLED at once all the same. If it was continued as new, the execution that goes on is
        cancelled. With *tenant_id* another tenant's is not there.
        """
        return self._cancel_chain(execution_id, tenant_id, force=force)

    def _cancel_chain(
        self, execution_id: str, tenant_id: str | None = None, **options: bool
    ) -> bool:
        its, execution_id = _equal(tenant_id=tenant_id), _id_of(execution_id)
        live: str | None = execution_id
        # It may be continued between two looks at it, but not for ever.
        for _ in range(_MOST_LINKS):
            if live is None or self._cancel(_this(live, tenant_id), **options):
                return live is not None
            with self.storage.begin(atomic=False) as rows:
                live = live_successor(rows, execution_id, its)
        return False

    def _cancel(self, its: list[Where], *, force: bool = False, again: bool = True) -> set[str]:
        """
        Cancel executions, and return their ids.

        Without *again*, those that are CANCELLING are left to their clean-up.
        """
        work = partial(self._cancelled, its=its, force=force, again=again)
        cancelled, ended, waits = write_bounded(self.storage, None, work)
        self.outbox.cancel([each.item_id for each in ended if each.item_id])
        if self._on_cancelled is not None:
            for each in ended:
                self._on_cancelled(each, waits.get(each.id, {}).values())
        return cancelled

    def _cancelled(
        self, rows: Rows, its: list[Where], *, force: bool, again: bool
    ) -> tuple[set[str], list[Execution], dict[str, dict[StepKey, OpenWait]]]:
        """
        Return the ids of the executions that are cancelled now, and those that have ended.

        Of the latter comes what they have waited for, by their ids.
        """
        able = [*its, Where("status", "in", LIVE if again else GOING)]
        found = rows.select(EXECUTION, able, columns=("id", "status", "definition_id"))
        cleaning = [] if force else [row["id"] for row in cleaning_up(rows, found)]
        ending = [row["id"] for row in found if row["id"] not in cleaning]
        held = (
            self._held(rows, [Where("id", "in", cleaning)], self._request_release)
            if cleaning
            else []
        )
        begin_cancelling(rows, held)
        locked = self._held(rows, [Where("id", "in", ending)], self._lock) if ending else []
        locked = [row for row in locked if again or row["status"] in GOING]
        waits = self.signals.open(rows, [row["id"] for row in locked]) if locked else {}
        ended = end_cancelled(rows, locked)
        self.starts.tell_of_ends(rows, ended)
        return {row["id"] for row in (*held, *locked)}, ended, waits

    def cancel_children(
        self, *, parent_id: str | None = None, execution_ids: Sequence[str] = (), limit: int = 50
    ) -> bool:
        """
        Cancel up to *limit* sub-workflows, of a parent or those given; True if there may be more.

        Each takes a transaction of its own, and its own sub-workflows follow. A parent may have
        been resumed meanwhile: what it waits for now is left alone.
        """
        # What is CANCELLING already would be ended at once.
        live, ids = Where("status", "in", GOING), list(execution_ids)
        which = [Where("id", "in", ids), Where("chain_id", "in", ids)]
        found: list[Row] = []
        with self.storage.begin(atomic=False) as rows:
            needed = self.signals.awaited_ends(rows, {each: each for each in ids})
            if parent_id is not None:
                which = [Where("parent_id", "eq", parent_id)]
                opened = self.signals.open(rows, [parent_id]).get(parent_id, {})
                needed |= {wait.subject for wait in opened.values()}
            for its in which:
                found += [
                    row
                    for row in rows.select(
                        EXECUTION, [live, its], order_by=("created_at",),
                        limit=limit + len(needed), columns=("id", "chain_id"),
                    )
                    if (row["chain_id"] or row["id"]) not in needed
                ]  # fmt: skip
        # An operator may have cancelled it meanwhile: twice would end it at once.
        done = [bool(self._cancel(_this(row["id"]), again=False)) for row in found]
        # What has just ended may have been continued as new.
        return len(found) >= limit or not all(done)

    def _held(
        self, rows: Rows, its: list[Where], hold: Callable[[Rows, Sequence[str]], object]
    ) -> list[Row]:
        """Return the rows of executions that go on, locked, once *hold* has locked their items."""
        live, held = Where("status", "in", LIVE), dict[str, Row]()
        for _ in range(_TRIES):
            found = rows.select(EXECUTION, [*its, live], columns=("id", "item_id"))
            items = {row["id"]: row["item_id"] for row in found if row["id"] not in held}
            if not items:
                break
            # Items first, as a checkpoint does: two that lock them in turns would wait for ever.
            hold(rows, [each for each in items.values() if each is not None])
            these = [Where("id", "in", list(items)), live]
            locked = rows.select(EXECUTION, these, order_by=("id",), lock=True)
            # It may have ended meanwhile, and even been resumed with another item.
            held |= {row["id"]: row for row in locked if row["item_id"] == items[row["id"]]}
            if items.keys() <= held.keys():
                break
        return list(held.values())

    def _request_release(self, rows: Rows, item_ids: Sequence[str]) -> None:
        """Have items taken up again, and lock them."""
        self.outbox.request_release(item_ids, transaction=rows.native)

    def _lock(self, rows: Rows, item_ids: Sequence[str]) -> list[Row]:
        """Lock items, where they are in our tables, and return their states."""
        if self.outbox.tables is None:
            return []
        its, read = [Where("id", "in", list(item_ids))], ("id", "status", "waiting_for")
        return rows.select(OUTBOX, its, order_by=("id",), lock=True, columns=read)

    def _tell(self, rows: Rows, item_ids: Sequence[str]) -> None:
        """Have the workers that drive or deferred them look anew; others keep their time."""
        if self.outbox.tables is not None:
            item_ids = [
                row["id"] for row in self._lock(rows, item_ids)
                if row["status"] == ItemStatus.RUNNING or row["waiting_for"] == ItemWait.RESUME
            ]  # fmt: skip
        if item_ids:
            self._request_release(rows, item_ids)

    def pause(self, execution_id: str, *, tenant_id: str | None = None) -> bool:
        """
        Let no more steps of an execution begin until `unpause`; return False if it can't be paused.

        What runs ends and is saved. An execution that has ended, is cancelled or is paused already
        can't be paused. The times of its retries, and of its workflow's timeout, go on. With
        *tenant_id* another tenant's is not there.
        """
        return bool(self._set_paused(_this(execution_id, tenant_id), (PENDING, RUNNING), PAUSED))

    def unpause(self, execution_id: str, *, tenant_id: str | None = None) -> bool:
        """Let a PAUSED execution go on; return False if it is not PAUSED."""
        return bool(self._set_paused(_this(execution_id, tenant_id), (PAUSED,), RUNNING))

    def _set_paused(self, its: list[Where], able: Sequence[str], status: str) -> int:
        def work(rows: Rows) -> int:
            held = self._held(rows, [*its, Where("status", "in", able)], self._tell)
            ids = {row["id"] for row in held if row["status"] in able}
            begun = start_locks.which_have_begun(rows, ids) if status == RUNNING else ids
            for these, new in ((begun, status), (ids - begun, PENDING)):
                if these:
                    changes = {"status": new, "updated_at": Now()}
                    rows.update(EXECUTION, [Where("id", "in", sorted(these))], changes)
            return len(ids)

        return write_bounded(self.storage, None, work)

    def resume(
        self,
        execution_id: str,
        *,
        step_id: str | None = None,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> bool:
        """
        Run a failed execution again from the steps that failed; return False if it had not failed.

        A step that was undone runs again too, with all that follow from it. A sub-workflow that the
        step had begun goes on where it ended, unless its input or definition is another one by now.
        With *step_id* it may be any execution that has ended, whatever its end. That step and all
        that follow from it run again, though they had completed. Raises `WorkflowError` if there is
        no such step.

        With *definition* it goes on with this corrected definition of its workflow. Raises
        ``INVALID_ARGUMENT`` if that is of another workflow, and ``FAILED_PRECONDITION`` if it lacks
        a step that has completed. With *tenant_id* another tenant's execution is not there.
        """
        work = partial(
            self._resume, execution_id=execution_id, step_id=step_id, definition=definition,
            tenant_id=tenant_id,
        )  # fmt: skip
        return write_bounded(self.storage, None, work)

    def retry_step(
        self,
        execution_id: str,
        step_id: str,
        position: int = -1,
        *,
        tenant_id: str | None = None,
    ) -> bool:
        """
        Run one failed step again, and all that follows; return False if it has not failed.

        Of a step with ``for_each``, the elements that failed run again: *position* names one. In an
        execution that goes on, a step that waits for its retry is due now, with all of its elements
        or what is inside it. In one that has ended, other steps that have failed, and may, stay as
        they are; what was undone runs again. A step that cleans up runs again by itself: so a
        compensation that failed can be tried once more.
        Raises `WorkflowError` if there is no such step.
        """
        return write_bounded(
            self.storage, None,
            lambda rows: self._retry_step(rows, execution_id, step_id, position, tenant_id),
        )  # fmt: skip

    def _retry_step(
        self, rows: Rows, execution_id: str, step_id: str, position: int, tenant_id: str | None
    ) -> bool:
        its, execution_id = _this(execution_id, tenant_id), _id_of(execution_id)
        found = rows.select(EXECUTION, its)
        if not found:
            return False
        workflow = stored_workflow(rows, found[0]["definition_id"])
        in_code = isinstance(workflow, CodeWorkflow)
        step = None if in_code else workflow.step(step_id)
        if found[0]["status"] in LIVE:
            return self._retry_now(rows, its, workflow, step_id, position)
        workflow.check_outside(step_id)
        where = _equal(
            execution_id=execution_id, step_id=step_id, position=position,
            status=StepStatus.FAILED.value,
        )  # fmt: skip
        if not rows.select(STEP, where, columns=("id",)):
            return False
        row, item_id = found[0], new_id()
        check_not_continued(row)
        changes = reopening(item_id)
        gone = None
        if step is None:
            gone, more = retried_in_code(rows, row, workflow, step_id)
            changes |= more
        elif step in workflow.steps:
            followers = workflow.followers(step_id)
            gone = forgotten(rows, execution_id, workflow)
            gone.steps |= set(followers[1:])
            gone.spared = {
                each.id for each in workflow.steps
                if each.on_failure == "continue" and each.id not in followers
            }  # fmt: skip
        else:
            changes |= cleaning_again(rows, row, workflow, step_id)
        if not reopen_rows(rows, row, _ENDED, changes):
            return False
        if gone is not None:
            reset_steps(rows, [row], {row["id"]: gone}, workflow)
        self.outbox.enqueue_many([_resuming(rows, row, item_id)], transaction=rows.native)
        return True

    def _retry_now(
        self, rows: Rows, its: list[Where], workflow: Workflow, step_id: str, position: int
    ) -> bool:
        held = self._held(rows, its, self._tell)
        if not held or not retry_now(rows, held[0]["id"], workflow, step_id, position):
            return False
        self._request_release(rows, [held[0]["item_id"]])
        return True

    def fork(
        self,
        execution_id: str,
        step_id: str,
        *,
        payload: Any = SAME,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """
        Begin a copy of an execution that runs from *step_id* on, and return its id.

        The steps that have ended, and don't follow from that step, are copied with their outputs
        and not called again. With *payload* the copy's event has this payload: only the steps that
        run see it, and its ``concurrency`` key is that of a start with it. With *definition* it
        runs this definition of the workflow. The label ``forked_from`` leads to the original, which
        stays as it is. Raises ``NOT_FOUND`` if there is no such execution, and `WorkflowError` if
        there is no such step.
        """
        copy = partial(
            self._fork, event_id=new_id(), execution_id=execution_id, step_id=step_id,
            payload=payload, definition=definition, tenant_id=tenant_id,
        )  # fmt: skip
        return self._copied(copy)

    def _copied(self, copy: Callable[..., str]) -> str:
        """Return what *copy* does, once the large outputs that it needs are copied."""
        copied = dict[str, str]()
        while True:
            try:
                return write_bounded(self.storage, None, partial(copy, copied=copied))
            except _UncopiedError as error:
                self.outputs.copy(error.keys, error.execution_id, copied)

    def _fork(
        self,
        rows: Rows,
        *,
        event_id: str,
        copied: Mapping[str, str],
        execution_id: str,
        step_id: str,
        payload: Any = SAME,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
        due: datetime | None = None,
    ) -> str:
        found = rows.select(EXECUTION, _this(execution_id, tenant_id))
        if not found:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        first, execution_id = Execution.from_row(found[0]), found[0]["id"]
        known = stored_workflow(rows, first.definition_id)
        workflow = known if definition is None else _same_workflow(first.name, definition)
        in_code = isinstance(known, CodeWorkflow)
        gone = forgotten(rows, execution_id, known, step_id if in_code else None)
        if not in_code:
            gone.steps |= followers_of_both(known, workflow, step_id)
        if workflow is not known:
            check_fits(rows, execution_id, known, workflow, gone)
        labels = {**first.event.labels, "forked_from": execution_id}
        event = replace(
            first.event,
            id=event_id,
            payload=first.event.payload if payload is SAME else payload,
            # Nobody waits for the copy.
            headers=first.event.headers if first.parent_id is None else {},
            labels=labels if len(labels) <= MAX_LABELS else first.event.labels,
        )
        new = self.starts.new(workflow, event, own=first.own_labels)
        new.row["seed"] = first.seed or first.id
        changed = payload is not SAME or workflow is not known
        admission = self._workflows.admission(workflow, event) if changed else None
        item, concurrency = new.item, concurrency_of(rows, found[0])
        if admission is not None and admission.concurrency is not None:
            # The place that a start with this payload would take.
            concurrency = admission.concurrency_key or "", admission.concurrency.limit
        if concurrency is not None:
            new.row["concurrency_key"] = concurrency[0]
            item = wake_up(new.id, workflow.name, item.id, event.tenant_id, concurrency=concurrency)
        item.run_at = due
        copies = copied_steps(rows, execution_id, new.id, gone)
        large = [each for each in copies if each["output_ref"] is not None]
        if uncopied := {each["output_ref"] for each in large} - copied.keys():
            raise _UncopiedError(new.id, sorted(uncopied))
        for each in large:
            each["output_ref"] = copied[each["output_ref"]]
        if not self.starts.insert(rows, [new]):
            return new.id  # a bulk action that is repeated has begun it before
        if copies:
            rows.insert(STEP, copies)
        self.outbox.enqueue_many([item], transaction=rows.native)
        return new.id

    def resume_matching(
        self,
        *,
        status: ExecutionStatus | str | None = None,
        workflow: str | None = None,
        tenant_id: str | None = None,
        error_code: str | None = None,
        error_group: str | None = None,
        created_before: datetime | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        per_second: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """
        Resume the failed executions that match all of the filters; return their number.

        The oldest come first, and at most *limit*. It takes small transactions, so that workers
        never wait for thousands. *progress* gets the number so far after each. If it is cut short,
        what was resumed stays resumed. With *per_second* so many go on in a second, so that the
        cause of their failure is not overrun. An execution that can't be resumed (its definition is
        gone) is logged and left. Raises ``INVALID_ARGUMENT`` without any filter: to mean all, pass
        ``status="FAILED"``.
        """
        matching: BulkFilter = {
            "status": status, "workflow": workflow, "tenant_id": tenant_id,
            "error_code": error_code, "error_group": error_group,
            "created_before": created_before, "created_after": created_after,
        }  # fmt: skip
        action = BulkAction("resume", matching, per_second=per_second, target="executions")
        return self.run_bulk(action, limit=limit, progress=progress).done

    def run_bulk(
        self,
        action: BulkAction,
        *,
        seconds: float | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> BulkAction:
        """
        Carry a bulk action on, for so many *seconds* or to its end; return how far it has come.

        Its *target* is ``executions``. The commands are ``resume`` (for what FAILED), ``cancel``,
        ``pause``, ``unpause``, and ``fork`` from a *step* on (for what has ended; FAILED unless
        *matching* names another status). Pass what is returned to go on, in another process too. ::

            action = BulkAction("cancel", {"workflow": "pay"}, target="executions")
            while not action.finished:
                action = executions.run_bulk(action, seconds=1.0)
        """
        if (action.command == "fork") != bool(action.step):
            problem = "a fork needs the step from which the copies run, and nothing else takes one"
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, problem)
        return carry_on(
            self.storage, EXECUTIONS, action, self._change_batch, seconds=seconds, limit=limit,
            progress=progress,
        )  # fmt: skip

    def count_bulk(self, action: BulkAction) -> int:
        """Return the number of executions that a bulk action would come to now."""
        with self.storage.begin(atomic=False) as rows:
            return int(rows.count(EXECUTION, (), EXECUTIONS.which(rows, action))[0]["n"])

    def _change_batch(self, action: BulkAction, ids: list[str]) -> int:
        if action.command == "resume":
            due = due_times(action, ids)
            resume = partial(self._resume_failed, due=due, failed_until=action.began)
            work = partial(resume_or_leave, resume=resume, ids=ids)
            return write_bounded(self.storage, None, work)
        if action.command == "fork":
            return self._fork_each(action, ids)
        if action.command == "cancel":
            # What is CANCELLING stays so: a batch may be repeated, and twice would end it at once.
            done = self._cancel([Where("id", "in", ids)], again=False)
            # Others have ended meanwhile. Some were continued as new.
            left = [each for each in ids if each not in done]
            return len(done) + sum(self._cancel_chain(each, again=False) for each in left)
        able, status = EXECUTIONS.statuses[action.command][0], _PAUSED_AS[action.command]
        return self._set_paused([Where("id", "in", ids)], able, status)

    def _fork_each(self, action: BulkAction, ids: Sequence[str]) -> int:
        """Begin a copy of each of the executions *ids*, unless it has begun; log what has none."""
        with self.storage.begin(atomic=False) as rows:
            where = [Where("id", "in", ids)]
            found = rows.select(EXECUTION, where, columns=("id", "workflow", "tenant_id"))
        about = {row["id"]: (row["workflow"], row["tenant_id"]) for row in found}
        definitions: dict[tuple[str, str | None], Workflow] = {}
        if action.current:
            definitions = {of: self._workflows.get(*of) for of in set(about.values())}
        begun = 0
        for execution_id, due in due_times(action, ids).items():
            definition = definitions.get(about.get(execution_id, ("", None)))
            copy = partial(
                self._fork, event_id=copy_event(action, execution_id), step_id=action.step,
                execution_id=execution_id, definition=definition, due=due,
            )  # fmt: skip
            begun += copy_or_leave(partial(self._copied, copy), execution_id)
        return begun

    def _resume_failed(
        self,
        rows: Rows,
        ids: Sequence[str],
        *,
        due: Mapping[str, datetime | None],
        failed_until: datetime,
    ) -> int:
        """Resume those of the executions *ids* that had failed until then, in few statements."""
        failed = _equal(status=ExecutionStatus.FAILED.value)
        failed += [Where("id", "in", ids), Where("completed_at", "le", failed_until)]
        found = rows.select(EXECUTION, failed, order_by=("id",), lock=True, columns=_RESUMED_BY)
        groups: dict[str, list[Row]] = {}
        for row in found:
            check_not_continued(row)
            groups.setdefault(row["definition_id"], []).append(row)
        known = {each: stored_workflow(rows, each) for each in groups}
        # All is read before anything is written: a refused execution leaves the others.
        gone = {
            each: forgotten_of_each(rows, [row["id"] for row in its], known[each])
            for each, its in groups.items()
        }
        names = {row["workflow"] for row in found}
        awaited = {each for name in names for each in self._workflows.awaited_in_code(name)}
        self.signals.register(rows, awaited)
        items = {row["id"]: new_id() for row in found}
        for each, its in groups.items():
            reopen_failed(rows, its, gone[each], known[each], items)
        new = [
            _resuming(rows, row, items[row["id"]], due[row["id"]], known[row["definition_id"]])
            for row in found
        ]
        self.outbox.enqueue_many(new, transaction=rows.native)
        return len(found)

    def _resume(
        self,
        rows: Rows,
        execution_id: str,
        step_id: str | None = None,
        definition: Workflow | None = None,
        tenant_id: str | None = None,
    ) -> bool:
        found = rows.select(EXECUTION, _this(execution_id, tenant_id))
        if not found:
            return False
        statuses = [ExecutionStatus.FAILED] if step_id is None else _ENDED
        if definition is not None:
            definition = _same_workflow(found[0]["workflow"], definition)
        item_id = new_id()
        if ExecutionStatus(found[0]["status"]) in statuses:
            check_not_continued(found[0])
        if not reopen(rows, found[0], item_id, statuses, step_id, definition):
            return False
        # What it waits for now may be new, and may come before that step begins.
        awaited = self._workflows.awaited_in_code(found[0]["workflow"])
        self.signals.register(rows, {*awaited, *(definition.awaited if definition else ())})
        self.outbox.enqueue_many([_resuming(rows, found[0], item_id)], transaction=rows.native)
        return True

    # -- retention ---------------------------------------------------------------------------

    def purge(
        self,
        *,
        older_than_seconds: float,
        limit: int = 1000,
        statuses: Sequence[ExecutionStatus | str] | None = None,
    ) -> int:
        """
        Delete up to *limit* executions that ended that long ago, with their steps.

        Only those in one of *statuses*, by default in any. Raises ``INVALID_ARGUMENT`` for an age
        below zero.
        """
        check_age(older_than_seconds, "older_than_seconds")
        purged = 0
        limit = check_limit(limit, least=0)
        chosen = _ENDED if statuses is None else several(statuses)
        for status in [check_choice(each, ExecutionStatus, "status") for each in chosen]:
            if purged < limit:
                purged += self._retention.purge(
                    status, older_than_seconds=older_than_seconds, limit=limit - purged
                )
        return purged

    def purge_definitions(
        self, *, older_than_seconds: float, keep: Collection[str] = (), limit: int = 100
    ) -> int:
        """
        Delete up to *limit* definitions that no execution is pinned to; return their number.

        Only those that were stored that long ago. *keep* are the hashes of definitions that stay.
        A definition with which an execution begins at that moment stays too.
        """
        return purge_definitions(
            self.storage, older_than_seconds=older_than_seconds, keep=keep, limit=limit
        )

    def purge_start_locks(self) -> int:
        """Delete what starts of one key locked a day ago or earlier; return the number."""
        total, after = 0, ""
        while True:
            work = partial(start_locks.purge_start_locks, after=after)
            deleted, last = write(self.storage, None, work)
            total += deleted
            if last is None:
                return total
            after = last

    def purge_outputs(self, *, older_than_seconds: float = 86_400.0) -> int:
        """
        Delete outputs in the output store that no execution has; return the number.

        Only those that were put there that long ago, and a day ago at least.
        """
        return self.outputs.purge(self.storage, older_than_seconds=older_than_seconds)

    def sweep_outputs(self) -> bool:
        """Do so for a few seconds, from where the last time ended; return True if there is more."""
        return self.outputs.sweep(self.storage)


def _status(given: ExecutionStatus | str | None) -> str | None:
    return None if given is None else check_choice(given, ExecutionStatus, "status").value
