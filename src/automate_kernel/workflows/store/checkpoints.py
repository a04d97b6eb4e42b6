"""
The progress of executions: read when a worker takes one up, and saved step by step.

An execution has no lease of its own. The outbox item that wakes it has one, and every save renews
that lease in the same transaction. So only the worker that holds the item can save.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from automate_kernel.base.errors import LeaseLostError, UnknownHereError
from automate_kernel.operations.outputs import stored_output
from automate_kernel.outbox import (
    ItemStatus,
    NewItem,
    OutboxItem,
    OutboxStore,
    Outcome,
    concurrency_keys,
)
from automate_kernel.outbox.failed_attempts import (
    MOST_OF_EXECUTION,
    keep_attempts,
    new_attempt,
)
from automate_kernel.outbox.handover import NOTE, Handover
from automate_kernel.outbox.item import TRACE_HEADERS, WAITING, bounded_seconds, new_id, scoped_key
from automate_kernel.outbox.labels import label_rows, redacted_labels, replace_labels
from automate_kernel.outbox.worker_reports import read_workers
from automate_kernel.storage.checkpoint import Checkpoint, Saved, save_checkpoints, save_progress
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_kernel.storage.values import encode_json, storable
from automate_kernel.workflows.decide.admission import Admission
from automate_kernel.workflows.decide.children import Child, cancel_items, end_items
from automate_kernel.workflows.decide.continuations import Successor
from automate_kernel.workflows.decide.record import LONGEST_PLACE
from automate_kernel.workflows.decide.turn import NOT_HERE, Turn
from automate_kernel.workflows.decide.waits import ADVANCE, Arrived, OpenWait
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.store.large_outputs import LargeOutputs
from automate_kernel.workflows.store.pauses import WorkflowPauses
from automate_kernel.workflows.store.repair import delete_runs, resumed_child
from automate_kernel.workflows.store.signal_store import SignalStore
from automate_kernel.workflows.store.start_locks import has_begun
from automate_kernel.workflows.store.starts import ExecutionStarts, NewExecution
from automate_kernel.workflows.store.stored import (
    PAUSED,
    PENDING,
    RUNNING,
    Loaded,
    step_runs,
    stored_error,
    wake_up,
)

_MOST_REASON = 1000
# A wait whose end waits for what was sent before is looked at again after a tenth of what it is
# late: many that ended while no worker ran don't keep those busy that come to bring it.
_RELOOK_SHARE = 0.1
_RELOOK_SECONDS = (0.5, 10.0)
# In a store that can't defer an item, it is looked at so often.
_LATE_SECONDS = 60.0
_failures_of = attrgetter("turn.failures")


@dataclass(slots=True)
class Save:
    """
    The progress of an execution since its last checkpoint: a turn of `advance`.

    *begun* has, of the runs that began here, the id of their row and the seconds since then. One of
    *turn*'s idle runs that is there was called, and has a row from now on.
    *stored* is False for the first checkpoint of an execution. *waiting* are the waits of one that
    is deferred. *advanced* is True once a step has ended under this claim.
    """

    item: OutboxItem
    execution: Execution
    turn: Turn
    begun: Mapping[StepKey, tuple[str, float]]
    stored: bool
    waiting: Sequence[OpenWait] = ()
    advanced: bool = False


def _step_row(save: Save, run: StepRun) -> Row:
    """Return the row of *run*; the database's clock gives it its times."""
    output, delay = save.turn.outputs.get(run.key), save.turn.delays.get(run.key)
    if run.output_ref is not None:
        output = NOT_HERE
    elif output is None:
        output = stored_output(run.output, f"output of step {run.step_id!r}")
    # Ids are made when runs begin: their order is that of the rows.
    row_id, since = save.begun.get(run.key) or (new_id(), None)
    code, error, group = stored_error(run)
    return {
        "id": row_id,
        "execution_id": run.execution_id,
        "step_id": run.step_id,
        "position": run.position,
        "status": run.status.value,
        "attempts": run.attempts,
        "failures": run.failures,
        "output": output,
        "error_code": code,
        "error": error,
        "trace": storable(run.trace) if run.trace else None,
        "error_group": group,
        "started_at": None if since is None else Now(-since),
        "next_attempt_at": Now(bounded_seconds(delay)) if delay is not None else None,
        "completed_at": Now() if run.status.finished else None,
        "place": run.place and storable(run.place, LONGEST_PLACE),
        "output_ref": run.output_ref,
        # Of its latest attempt, if that was made here.
        "attempted_at": None if since is None else Now(-since),
        "worker_id": None if since is None else save.item.lease_owner,
    }


def _attempts(save: Save, at: datetime) -> list[Row]:
    """Return the rows of attempts that failed since the last checkpoint; this one is saved *at*."""
    # Where an attempt was made here its step's row tells when it began, and so does its own.
    begun: dict[tuple[str, int, datetime | None], datetime] = {
        (*run.key, run.attempted_at): at - timedelta(seconds=save.begun[run.key][1])
        for run in save.turn.saves
        if run.key in save.begun and run.attempted_at is not None
    }
    rows = []
    for one in save.turn.failures:
        began = begun.get((one.step_id or "", one.position, one.started_at), one.started_at)
        failed = replace(one, started_at=began, failed_at=at)
        rows.append(new_attempt(save.execution.id, save.item.lease_token or "", failed))
    return rows


def _is_saved(rows: Rows, save: Save) -> bool:
    """Return True if *save* was committed before, by a call whose reply was lost."""
    if not save.turn.last:
        return False
    mine = [Where("id", "eq", save.item.id), Where("lease_token", "eq", save.item.lease_token)]
    items = rows.select(
        OUTBOX, [*mine, Where("status", "ne", ItemStatus.RUNNING.value)], columns=("id",)
    )
    status = str(save.turn.end or ExecutionStatus.RUNNING)
    where = [Where("id", "eq", save.execution.id), Where("status", "eq", status)]
    return bool(items) and bool(rows.select(EXECUTION, where, columns=("id",)))


def _waits(runs: Iterable[StepRun], now: datetime) -> dict[StepKey, float]:
    """Return the seconds until those of *runs* are due that wait for a retry or a time."""
    timed = (StepStatus.RETRY, StepStatus.WAITING)
    return {
        run.key: (run.next_attempt_at - now).total_seconds()
        for run in runs
        if run.status in timed and run.next_attempt_at is not None
    }


def _relooks(
    waits: Mapping[StepKey, OpenWait], come: Mapping[StepKey, Arrived], now: datetime
) -> dict[StepKey, float]:
    """Return the seconds after which waits are looked at again that have ended, but aren't over."""
    late = {
        key: (now - one.expires_at).total_seconds()
        for key, one in waits.items()
        if one.expires_at is not None and (key not in come or not come[key].over)
    }
    least, most = _RELOOK_SECONDS
    return {
        key: min(most, max(least, _RELOOK_SHARE * seconds))
        for key, seconds in late.items() if seconds >= 0
    }  # fmt: skip


def _admissions(group: Sequence[Save]) -> list[Admission]:
    """Return the conditions on the sub-workflows that begin."""
    given = (child.admission for save in group for child in save.turn.children)
    return [admission for admission in given if admission is not None]


def _writes_beside(save: Save) -> bool:
    """Return True if *save* writes more than steps, its execution and its item."""
    turn = save.turn
    tells = turn.end is not None and save.execution.parent_id is not None
    tells = tells or turn.successor is not None
    beside = (
        turn.waits, turn.answered, turn.children, turn.abandoned, turn.past, turn.labels, turn.idle,
    )  # fmt: skip
    return tells or any(beside)


def _release_runs(rows: Rows, idle: Iterable[StepRun]) -> None:
    """Let no row say RUNNING of those *idle* runs that nobody makes now."""
    for run in idle:
        its = [
            Where("execution_id", "eq", run.execution_id),
            Where("step_id", "eq", run.step_id),
            Where("position", "eq", run.position),
            Where("status", "eq", StepStatus.RUNNING.value),
        ]
        rows.update(STEP, its, {"status": run.status.value, "attempts": run.attempts})


def _traced(item: NewItem, cause: OutboxItem) -> NewItem:
    """Return *item*, now in the trace of the item that it follows from, if that is in one."""
    found = {name: cause.headers[name] for name in TRACE_HEADERS if name in cause.headers}
    if found:
        item.headers = {**found, **item.headers}
    return item


class Checkpoints:
    """
    Reads and saves the executions that a worker drives.

    Their rows are in *storage*, the items that wake them in *outbox*, and what is too large for a
    row in *outputs*. *starts* begins what an execution brings forth.
    """

    def __init__(
        self,
        storage: Storage,
        outbox: OutboxStore,
        *,
        starts: ExecutionStarts,
        signals: SignalStore,
        pauses: WorkflowPauses,
        outputs: LargeOutputs,
    ) -> None:
        self._storage, self._outbox, self._starts = storage, outbox, starts
        self._tables = outbox.tables
        self._signals, self._pauses, self._outputs = signals, pauses, outputs

    def load(self, execution_id: str) -> Loaded | None:
        """Read an execution as it was saved last; None if there is none."""
        return self.load_all([execution_id]).get(execution_id)

    def load_all(
        self, execution_ids: Sequence[str], now: datetime | None = None
    ) -> dict[str, Loaded]:
        """
        Read executions as they were saved last, by their ids.

        *now* is the database's time, if it is known.
        """
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(EXECUTION, [Where("id", "in", sorted(execution_ids))])
            runs = step_runs(rows, [row["id"] for row in found])
            now = now or rows.now()
            loaded = {
                row["id"]: Loaded(
                    Execution.from_row(row, runs.get(row["id"], ())),
                    _waits(runs.get(row["id"], ()), now),
                    now,
                    sorts_keys=rows.dialect.sorts_keys,
                )
                for row in found
            }
            self._load_waits(rows, loaded, now)
        return loaded

    def _load_waits(self, rows: Rows, loaded: dict[str, Loaded], now: datetime) -> None:
        """Add the waits of those that have any, and what has come for them."""
        waiting = [
            key for key, one in loaded.items()
            if any(run.status is StepStatus.WAITING for run in one.execution.steps)
        ]  # fmt: skip
        if not waiting:
            return
        opened = self._signals.open(rows, waiting)
        arrived = self._signals.arrived(
            rows, {key: (loaded[key].execution, its) for key, its in opened.items()}, now=now
        )
        for key, its in opened.items():
            one, come = loaded[key], arrived.get(key, {})
            late = _relooks(its, come, now)
            loaded[key] = replace(one, open=its, arrived=come, waits={**one.waits, **late})

    def save(
        self, group: Sequence[Save], *, within: Rows | None = None, briefly: bool = False
    ) -> Saved:
        """
        Save what executions have come to, in one transaction: that of *within*, if given.

        Returns the items that were held, and the time by the database's clock.

        Of an execution that has ended meanwhile, or whose item is another's by now, nothing is
        saved. The leases of those that go on are renewed. With *briefly* it raises `LockedError`
        and saves nothing if an application's transaction holds up what is written beside them.
        """
        checkpoints = [self._checkpoint(save) for save in group]
        failures = any(map(_failures_of, group))
        # What finishes an item in more than one statement; nearly always there is nothing.
        outcomes = [
            save for save, one in zip(group, checkpoints, strict=True)
            if save.turn.last and not one.ends
        ]  # fmt: skip
        deferred = [save for save in outcomes if save.waiting and save.turn.lack is None]
        beside = any(map(_writes_beside, group))
        plain = self._tables is not None and not failures and not outcomes and not beside
        atomic = not plain or not self._storage.supports_skip_locked
        opened: AbstractContextManager[Rows]
        opened = self._storage.begin(atomic=atomic) if within is None else nullcontext(within)
        with opened as rows:
            if briefly:
                rows.wait_briefly()
            if beside:
                self._starts.lock(rows, _admissions(group))
            saved = self._write(rows, group, checkpoints)
            held = saved.items
            if plain and len(held) == len(group):
                return saved
            if beside:
                self._write_beside(rows, [save for save in group if save.item.id in held])
            self._finish(
                rows, [one for one in outcomes if one.item.id in held and one not in deferred],
                saved.at,
            )  # fmt: skip
            kept = [save for save in group if save.item.id in held]
            failed = [row for save in kept for row in _attempts(save, saved.at)]
            keep_attempts(rows, failed, MOST_OF_EXECUTION)
            if len(held) < len(group):
                done = {
                    one.item.id for one in group if one.item.id not in held if _is_saved(rows, one)
                }
                deferred = [save for save in deferred if save.item.id in held]
                held |= done
        if beside and within is None:
            its = (save.turn.started for save in group if save.item.id in held)
            self._starts.locked_starts.stored(workflow for started in its for workflow in started)
        if deferred:
            # The waits are committed: who sends a signal from now on finds them.
            held -= self._defer_waiting(deferred)
        return replace(saved, items=held)

    def may_wait(self, save: Save) -> bool:
        """Return True if a transaction of the application's may hold up what *save* writes."""
        turn = save.turn
        # Of an approval that ended without a decision, somebody may be deciding; and of a
        # sub-workflow that goes on, somebody may be steering it.
        steered = any(child.goes_on for child in turn.children)
        return (
            turn.undecided
            or steered
            or self._starts.locked_starts.may_wait(
                turn.started, (child.admission for child in turn.children)
            )
        )

    def _write_beside(self, rows: Rows, saves: Sequence[Save]) -> None:
        """Write waits, sub-workflows, and what parents and abandoned children are told."""
        items = self._begin_children(rows, saves)
        for save in saves:
            its = [*cancel_items(save.execution, save.turn.abandoned)]
            if save.turn.successor is not None:
                its += self._continue(rows, save, save.turn.successor)
            elif save.turn.end is not None:
                its += end_items(save.execution)
            its += [item for wait in save.turn.waits for item in wait.items]
            items += [_traced(item, save.item) for item in its]
        if items:
            self._outbox.enqueue_many(items, transaction=rows.native)
        for save in saves:
            delete_runs(rows, save.execution.id, save.turn.past)
            called = [_step_row(save, run) for run in save.turn.idle if run.key in save.begun]
            if called:
                rows.insert(STEP, called)
            _release_runs(rows, save.turn.idle)
            if save.turn.labels:
                self._write_labels(rows, save)
        self._signals.end(
            rows, [(save.execution.id, key) for save in saves for key in save.turn.answered]
        )
        self._signals.begin(
            rows, [(wait, save.execution.tenant_id) for save in saves for wait in save.turn.waits]
        )

    def _begin_children(self, rows: Rows, saves: Sequence[Save]) -> list[NewItem]:
        """Begin sub-workflows, or let them go on; return the items that are left to enqueue."""
        plain: list[NewExecution] = []
        items: list[NewItem] = []
        for save in saves:
            for child in save.turn.children:
                told = self._resumed(rows, save, child) if child.goes_on else None
                if told is not None:
                    items += told
                    continue
                begun = self._child(save, child)
                if child.admission is None:
                    plain.append(begun)
                else:
                    self._starts.admit(rows, begun, child.admission)
        return [*(one.item for one in self._starts.insert(rows, plain)), *items] if plain else items

    def _write_labels(self, rows: Rows, save: Save) -> None:
        execution = save.execution
        changed = redacted_labels(save.turn.labels, self._outbox.redact)
        # With the age of the execution: what has a label is listed by that.
        replace_labels(rows, label_rows(
            execution.id, "execution", changed, execution.tenant_id, execution.created_at
        ))  # fmt: skip
        own = encode_json({**execution.own_labels, **changed}, "labels")
        rows.update(EXECUTION, [Where("id", "eq", execution.id)], {"labels": own})

    def _child(self, save: Save, child: Child) -> NewExecution:
        parent_id = save.execution.id if child.waited else None
        new = self._starts.new(
            child.workflow, child.event, save.item.priority,
            execution_id=child.id, parent_id=parent_id,
        )  # fmt: skip
        _traced(new.item, save.item)
        return new

    def _resumed(self, rows: Rows, save: Save, child: Child) -> list[NewItem] | None:
        """Let *child* go on; return the items that tell of it, or None if it is gone."""
        items = resumed_child(rows, child.id, child.event.headers, save.item.priority)
        # Its code may wait for other events by now.
        self._signals.register(rows, child.workflow.awaited)
        return items and [_traced(item, save.item) for item in items]

    def _continue(self, rows: Rows, save: Save, successor: Successor) -> list[NewItem]:
        """Begin the execution that follows one which has ended; return the item that wakes it."""
        its = [Where("id", "eq", save.execution.id)]
        rows.update(EXECUTION, its, {"successor_id": successor.id})
        new = self._successor(save, successor)
        since, taken = self._signals.leave_to_successor(rows, save.execution, successor)
        new.row["events_since"] = since
        new.row["events_taken"] = encode_json(taken, "events that were taken")
        return [one.item for one in self._starts.insert(rows, [new])]

    def _successor(self, save: Save, successor: Successor) -> NewExecution:
        """Return the execution that goes on in the place of that of *save*."""
        execution, item = save.execution, save.item
        new = self._starts.new(
            successor.workflow, successor.event, item.priority, execution_id=successor.id,
            parent_id=execution.parent_id, own=execution.own_labels,
        )  # fmt: skip
        new.row["chain_id"] = execution.chain_id or execution.id
        new.row["concurrency_key"] = item.concurrency_key
        if item.concurrency_key is not None:
            concurrency = (item.concurrency_key, item.concurrency_limit or 1)
            woken = wake_up(
                new.id, successor.workflow.name, new.item.id, execution.tenant_id, item.priority,
                concurrency=concurrency,
            )  # fmt: skip
            new = replace(new, item=woken)
        return new

    def _defer_waiting(self, saves: Sequence[Save]) -> set[str]:
        """
        Put executions back that wait for signals; return the items whose leases were lost.

        One for which a signal has come since it was looked at last is due at once.
        """
        outcomes = [
            Outcome(save.item.id, ItemStatus.PENDING, save.turn.wait, token=save.item.lease_token)
            for save in saves
        ]
        owner = saves[0].item.lease_owner or ""
        with self._storage.begin() as rows:
            for save in saves:
                self._change_note(rows, save.item, None)
            lost = self._outbox.acknowledge(owner, outcomes, transaction=rows.native)
            waiting = {save.item.id: (save.execution, save.waiting) for save in saves}
            come = self._signals.unseen(rows, waiting)
            self._signals.wake(rows, sorted(come - lost))
        return lost

    def _write(self, rows: Rows, group: Sequence[Save], checkpoints: Sequence[Checkpoint]) -> Saved:
        if self._tables is not None:
            saved = save_checkpoints(rows, checkpoints, self._tables.lease_seconds)
            for save, one in zip(group, checkpoints, strict=True):
                if one.progress and one.item_id in saved.items:
                    self._tables.progressed(save.item)
            return saved
        held = []
        for save, one in zip(group, checkpoints, strict=True):
            item, owner = save.item, save.item.lease_owner or ""
            with suppress(LeaseLostError):
                self._outbox.renew(item.id, owner, token=item.lease_token, transaction=rows.native)
                held.append(one)
        now = rows.now()
        live, steered = save_progress(rows, held, now)
        return Saved(live, now, live, steered)

    def _checkpoint(self, save: Save) -> Checkpoint:
        item, turn, execution = save.item, save.turn, save.execution
        one = Checkpoint(
            item.id,
            item.lease_token or "",
            execution.id,
            [_step_row(save, run) for run in turn.saves],
            progress=turn.progresses,
            beside=bool(turn.labels or turn.idle),
        )
        if turn.end is None and turn.failed is None and save.stored:
            return one
        cancelling = execution.status is ExecutionStatus.CANCELLING
        one.status = str(turn.end or (execution.status if cancelling else ExecutionStatus.RUNNING))
        one.error_code, one.error, one.error_group = stored_error(execution)
        if turn.end is not None:
            one.output_ref = turn.output_ref
            one.output = self.final_output(turn) if turn.output_ref is None else NOT_HERE
            keyed = item.ordering_key or item.concurrency_key
            kept = self._outbox.retention_seconds != 0
            one.ends = self._tables is not None and not keyed and kept
        return one

    def final_output(self, turn: Turn) -> JsonText:
        """Return the output of the execution that *turn* ends, as JSON without secrets."""
        name, redact = "output of the workflow", self._outbox.redact
        text = turn.encoded or self._outputs.encode(turn.output, name)
        if redact is not None and redact.finds(text):
            turn.output = redact(json.loads(text))
            text = self._outputs.encode(turn.output, name)
        return text

    def _finish(self, rows: Rows, saves: Sequence[Save], now: datetime) -> None:
        """Record the outcomes of items in the transaction that saves their executions."""
        # Asked once for all that are handed over together.
        able = self._able(rows) if any(save.turn.lack for save in saves) else ()
        outcomes = [self._outcome(rows, save, now, able) for save in saves]
        # At once: who leaves one key after another wakes who waits in an order of its own, and two
        # such could wait for each other.
        owner = saves[0].item.lease_owner or "" if saves else ""
        if lost := self._outbox.acknowledge(owner, outcomes, transaction=rows.native):
            raise LeaseLostError(f"the lease of item {min(lost)} is lost")

    def _outcome(self, rows: Rows, save: Save, now: datetime, able: Sequence[str]) -> Outcome:
        item, wait = save.item, save.turn.wait
        if save.turn.lack is not None:
            return self._handover(rows, item, save.turn.lack, now, able, anew=save.advanced)
        if wait is None:
            return Outcome(item.id, token=item.lease_token)
        self._change_note(rows, item, None)
        return Outcome(item.id, ItemStatus.PENDING, wait, token=item.lease_token)

    def hand_over(self, item: OutboxItem, lack: UnknownHereError) -> Outcome:
        """Let the execution of a claimed item wait for another worker; return what was recorded."""
        with self._storage.begin() as rows:
            outcome = self._handover(rows, item, lack, rows.now(), self._able(rows))
            owner = item.lease_owner or ""
            if self._outbox.acknowledge(owner, [outcome], transaction=rows.native):
                raise LeaseLostError(f"the lease of item {item.id} is lost")
        return outcome

    def _handover(
        self,
        rows: Rows,
        item: OutboxItem,
        lack: UnknownHereError,
        now: datetime,
        able: Sequence[str],
        *,
        anew: bool = False,
    ) -> Outcome:
        """
        Note on *item* why another worker has to go on; return the outcome to record.

        *able* are the workers that live. The note follows on the one before, if it isn't *anew*.
        """
        worker = item.lease_owner or ""
        reason = f"worker {worker} {lack}"
        if self._outbox.redact is not None:
            reason = self._outbox.redact(reason)
        note = Handover(lack.reason, reason[:_MOST_REASON], worker, now)
        note = note.after({} if anew else item.headers)
        self._change_note(rows, item, note)
        delay = note.delay(untried=not set(able) <= set(note.tried))
        return Outcome(
            item.id, ItemStatus.PENDING, delay, note.code, note.reason, item.lease_token, note.code
        )

    def _able(self, rows: Rows) -> list[str]:
        """Return the workers that live and drive executions."""
        if self._tables is None:
            return []
        live = (one for one in read_workers(rows) if one.alive and not one.stopping)
        return [one.id for one in live if ADVANCE in one.kinds]

    def _change_note(self, rows: Rows, item: OutboxItem, note: Handover | None) -> None:
        """Write the note of a handover, or take away the one that is there."""
        if self._tables is None or (note is None and NOTE not in item.headers):
            return
        headers = {name: value for name, value in item.headers.items() if name != NOTE}
        changes: dict[str, Any]
        changes = dict.fromkeys(("last_error_code", "last_error", "last_error_group"))
        if note is not None:
            headers[NOTE], changes = note.to_json(), {}
        changes["headers"] = encode_json(headers, "headers")
        mine = [Where("id", "eq", item.id), Where("lease_token", "eq", item.lease_token)]
        rows.update(OUTBOX, mine, changes)

    def holds(self, item: OutboxItem) -> bool:
        """Renew the lease of *item*; return False if it is another's by now."""
        try:
            self._outbox.renew(item.id, item.lease_owner or "", token=item.lease_token)
        except LeaseLostError:
            return False
        return True

    def is_held(self, execution: Execution) -> bool:
        """Return True if *execution* must not go on now: it is paused, or its workflow may be."""
        if execution.status is ExecutionStatus.PAUSED:
            return True
        goes_on = execution.status.value in (PENDING, RUNNING)
        return goes_on and self._pauses.holds(execution.name, execution.tenant_id)

    def defer(self, item: OutboxItem, execution: Execution, idle: Sequence[StepRun] = ()) -> None:
        """
        Put a claimed item back until its execution, and its workflow, may go on.

        *idle* are the calls that a worker has left behind.
        """
        late = None if self._tables is not None else _LATE_SECONDS
        outcome = Outcome(item.id, ItemStatus.PENDING, late, token=item.lease_token)
        with self._storage.begin() as rows:
            native = rows.native
            if self._outbox.acknowledge(item.lease_owner or "", [outcome], transaction=native):
                return
            # Looked at again, and locked: a resume finds it deferred, or it is not.
            its = Where("id", "eq", execution.id)
            found = rows.select(EXECUTION, [its], lock=True, columns=("status",))
            status = found[0]["status"] if found else None
            _release_runs(rows, idle)
            # One that was cancelled meanwhile cleans up, also while its workflow is paused.
            held = status == PAUSED or (
                status in (PENDING, RUNNING)
                and self._pauses.locked(rows, execution.name, execution.tenant_id)
            )
            if not held:
                self._outbox.request_release([item.id], transaction=native)
            elif self._tables is not None:
                waits = [Where("id", "eq", item.id), Where("status", "in", WAITING)]
                rows.update(OUTBOX, waits, {"waiting_for": ItemWait.RESUME.value})
                key = scoped_key(item.concurrency_key, item.tenant_id)
                # Whose worker died may have begun its first step, of which there is no row yet.
                begun = item.attempt_count > 1 or has_begun(rows, execution.id)
                if status == PAUSED and key is not None and not begun:
                    # While its whole workflow is paused, all others of the key wait too.
                    concurrency_keys.release(rows, [(key, item.id)])
