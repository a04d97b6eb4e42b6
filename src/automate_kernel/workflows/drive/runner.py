"""The runner: it starts what events ask for, and drives executions to their ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from automate_kernel import signals
from automate_kernel.base import runtime
from automate_kernel.base.durations import format_duration
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    LeaseLostError,
    StorageError,
    TemplateError,
    UnknownHereError,
)
from automate_kernel.operations.context import Call
from automate_kernel.operations.executors import Executors, Placement, Suspended, TaskLimits
from automate_kernel.operations.portal import Portal
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.operations.tasks import task_id
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome
from automate_kernel.outbox.item import OutcomeRecorded, bounded_seconds
from automate_kernel.relays.relays import Relays
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import group_of
from automate_kernel.storage.checkpoint import Saved
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.memory import MemoryStorage
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.storage.values import encode_json
from automate_kernel.worker.handler import Snooze, asked_to_stop, cancelling, should_stop
from automate_kernel.worker.periodic import SAVE_SECONDS, try_for
from automate_kernel.workflows.decide.admission import Admission, SkippedError
from automate_kernel.workflows.decide.children import (
    FindChild,
    lose_output,
    take_output,
    unread_output,
)
from automate_kernel.workflows.decide.executor_tasks import task_wait
from automate_kernel.workflows.decide.program import WorkflowProgram
from automate_kernel.workflows.decide.turn import NOT_HERE, CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.waits import DELAY, STARTED, Arrived, OpenWait
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.drive.flow import Flow
from automate_kernel.workflows.drive.progress import ProgressWriter, StepReport
from automate_kernel.workflows.drive.transactional import TransactionalCall
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.catalogue import Entry
from automate_kernel.workflows.store.events import cloud_event
from automate_kernel.workflows.store.locked_starts import DEFERRED_SECONDS, Admitted, Plain
from automate_kernel.workflows.store.start_locks import announce_skipped
from automate_kernel.workflows.store.statistics import ExecutionActivity
from automate_kernel.workflows.store.stored import Loaded, unreadable

logger: logging.Logger = get_logger(__name__)

SEEN_SECONDS = 0.1
"""A call that takes longer has a row while it runs, so that people see it."""

_CANCELLED_BY = ("parent_id", "execution_ids")

OVERRUN_SECONDS = 0.02
"""A turn of code that takes longer leaves the other turns to another thread."""

_UNKNOWN_SECONDS = 1.0


class Calls(Protocol):
    """The operations as the engine calls them; `automate_kernel.operations.Invoker` does."""

    executors: Executors
    """The other places where operations are called."""
    portal: Portal
    """The event loop of calls that are made from threads."""

    def invoke(
        self,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """Call *name* and return JSON without secrets; raises only `AutomateError`."""

    async def ainvoke(
        self,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """`invoke` for asynchronous code."""

    async def dispatch(
        self,
        placement: Placement,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        limits: TaskLimits,
        generation: str = "",
        durable: bool = False,
    ) -> Any:
        """Have *name* called by an executor; with *durable* return `Suspended`."""

    def place_of(self, name: str | OperationSpec, runs_on: str | None = None) -> Placement | None:
        """Return the executor on which *name* is called; None for this process."""

    def lack_of(self, name: str, runs_on: str | None = None) -> UnknownHereError | None:
        """Return the reason why *name* can't be called, here or by an executor; None if it can."""

    def is_async(self, name: str | OperationSpec) -> bool:
        """Return True if *name* is an ``async def``."""

    def is_transactional(self, name: str) -> bool:
        """Return True if *name* writes in the application's transaction."""

    def absence(self, name: str) -> UnknownHereError | None:
        """Return the reason why *name* can't be called here, or None if it can."""


class Runner:
    """
    The handlers of events and executions.

    *operations* make the calls. *programs* finds the compiled workflow of a definition's id,
    *listening* those that an event starts if their condition holds, and *find_child* those that
    steps start. *sender* is the sender of the
    signals. The context manager that *around* returns is entered while an execution is driven.
    While *leaves_events* returns True, a worker leaves events to the others. Events that end go out
    by *relays*.
    """

    def __init__(
        self,
        store: ExecutionStore,
        *,
        operations: Calls,
        programs: Callable[[str], WorkflowProgram],
        listening: Callable[[Event], Iterable[Entry]],
        find_child: FindChild | None = None,
        sender: Any = None,
        around: Callable[[Execution], AbstractContextManager[Any]] = nullcontext,
        leaves_events: Callable[[], bool] = bool,
        relays: Relays | None = None,
    ) -> None:
        self.store = store
        self.operations = operations
        self._programs = programs
        self._listening = listening
        self._find_child = find_child
        self._sender = sender
        self.around = around
        self.leaves_events = leaves_events
        self._relays = relays
        fenced = store.outbox.tables is not None
        self._progress = ProgressWriter(store.storage, fenced=fenced)
        self._means: dict[str, float] = {}
        # The actions that are known to be there, and if they are transactional.
        self._known: dict[str, bool] = {}
        self._locked_starts = store.starts.locked_starts
        self._only_here: list[set[str | None]] = []
        self.activity: ExecutionActivity = ExecutionActivity()
        """The counts of this process, until a worker writes them down."""

    # -- events ------------------------------------------------------------------------------

    def handle_event(self, item: OutboxItem) -> OutcomeRecorded:
        """
        Begin an execution of each workflow that the event starts, in one transaction.

        A workflow whose condition can't be rendered holds up no other, but the item is FAILED. Once
        the workflow is mended and the item requeued, the item starts the rest. What an
        application's transaction holds up is put off.
        """
        event, starting, outcome = self._asked_for(item)
        plain, admitted = _by_conditions([(item, starting, event)])
        if self._locked_starts.holds(plain, admitted):
            return self._put_off(item)
        try:
            skipped = self._start_for(item, event, plain, admitted, outcome)
        except LockedError as error:
            logger.warning(
                "event %s is deferred: a transaction that goes on holds up what it starts (%s)",
                item.id, error.message,
            )  # fmt: skip
            self._locked_starts.note(plain, admitted)
            return self._put_off(item)
        self._report_events(signals.emit, [event], skipped)
        return OutcomeRecorded()

    def _put_off(self, item: OutboxItem) -> OutcomeRecorded:
        """Let the event of *item* wait a moment: with an error, by which a watermark knows it."""
        outcome = Outcome(
            item.id, ItemStatus.PENDING, DEFERRED_SECONDS, str(ErrorCodes.ABORTED),
            "a transaction that goes on holds up what it starts", item.lease_token,
        )  # fmt: skip
        if self.store.outbox.acknowledge(item.lease_owner or "", [outcome]):
            raise LeaseLostError("the lease of an event is lost")
        return OutcomeRecorded(outcome)

    def _start_for(
        self,
        item: OutboxItem,
        event: Event,
        plain: Sequence[Plain],
        admitted: Sequence[Admitted],
        outcome: Outcome,
    ) -> list[tuple[Workflow, Event, SkippedError]]:
        """Begin what one event starts, and finish its item; return the starts that were skipped."""
        with self.store.storage.begin() as rows:
            self._locked_starts.wait_briefly(rows, plain, admitted)
            skipped = self.store.starts.start_admitted(rows, admitted)
            for workflow, _, priority, sent_at in plain:
                self.store.starts.start(rows, workflow, event, priority=priority, sent_at=sent_at)
            self._finish_events(rows, [(item, event, [*plain, *admitted], outcome)])
        self._locked_starts.note_stored(plain, admitted)
        return skipped

    def begin_events(
        self, items: Sequence[OutboxItem], send: Callable[..., Any] = signals.emit
    ) -> list[tuple[OutboxItem, Flow | AutomateError]]:
        """
        Begin what several events start, in one transaction, already claimed by their worker.

        Returns the executions with their items. *send* sends the signals. Raises what
        `handle_event` does: then nothing has begun.
        """
        asked = [self._asked_for(item) for item in items]
        starts, admitted = _by_conditions(
            [
                (item, workflows, event)
                for item, (event, workflows, _) in zip(items, asked, strict=True)
            ]
        )
        pauses = self.store.pauses
        held = [one for one in starts if pauses.holds(one[0].name, one[1].tenant_id)]
        starts = [one for one in starts if one not in held]
        ids, owner = list[str](), items[0].lease_owner or ""
        with self.store.starts.freed_if_lost(ids, owner), self.store.storage.begin() as rows:
            self._locked_starts.wait_briefly(rows, [*starts, *held], admitted)
            for workflow, event, priority, sent_at in held:
                self.store.starts.start(rows, workflow, event, priority=priority, sent_at=sent_at)
            skipped = self.store.starts.start_admitted(rows, admitted)
            begun = self.store.starts.start_claimed(rows, starts, owner) if starts else []
            ids += [item.id for item, _ in begun]
            self._finish_events(
                rows,
                [
                    (item, event, workflows, outcome)
                    for item, (event, workflows, outcome) in zip(items, asked, strict=True)
                ],
            )
        self._locked_starts.note_stored([*starts, *held], admitted)
        self._report_events(send, [event for event, _, _ in asked], skipped)
        return [(item, self.flow(item, loaded)) for item, loaded in begun]

    def _report_events(
        self,
        send: Callable[..., Any],
        events: Iterable[Event],
        skipped: Iterable[tuple[Workflow, Event, SkippedError]],
    ) -> None:
        """Send the signals of events that are done, and of the starts that they lack."""
        for event in events:
            send(signals.event_received, self._sender, event=event)
        for workflow, event, error in skipped:
            announce_skipped(self._sender, workflow, event, error, send=send)

    def _asked_for(
        self, item: OutboxItem
    ) -> tuple[Event, list[tuple[Workflow, Admission | None]], Outcome]:
        """Return an item's event, the workflows that it starts, and the item's outcome."""
        about = {**item.payload, "id": item.id, "tenant_id": item.tenant_id, "labels": item.labels}
        # Once more: the process that accepted it may know fewer secrets than this one.
        event = self.store.starts.redacted(Event.from_json(about))
        starting: list[tuple[Workflow, Admission | None]] = []
        outcome = Outcome(item.id, token=item.lease_token)
        started = item.headers.get(STARTED, ())
        for entry in self._listening(event):
            try:
                if entry.workflow.name not in started and entry.starts_on(event):
                    starting.append((entry.workflow, entry.admission(event)))
            except AutomateError as error:
                outcome = _undecided(item, entry.workflow.name, error)
        return event, starting, outcome

    def _finish_events(
        self,
        rows: Rows,
        done: Sequence[tuple[OutboxItem, Event, Sequence[tuple[Any, ...]], Outcome]],
    ) -> None:
        """
        Keep events as signals, and finish their items: of each the starts and the outcome.

        Here each event passes once, whatever way it came in: so here it gets its relays' items.
        """
        first = [(item, event) for item, event, _, _ in done if STARTED not in item.headers]
        self.store.signals.pass_on(
            rows, [(event, item.priority, _sent_at(item)) for item, event in first]
        )
        if self._relays:
            out = [
                new for item, event in first
                for new in self._relays.items(cloud_event(event, item), item)
            ]  # fmt: skip
            if out:
                self.store.outbox.enqueue_many(out, transaction=rows.native)
        for item, _, starts, outcome in done:
            if outcome.status is ItemStatus.FAILED:
                # Put back, it starts the rest alone: what it has started may be purged by then.
                names = {workflow.name for workflow, *_ in starts}
                names.update(item.headers.get(STARTED, ()))
                headers = {**item.headers, STARTED: sorted(names)}
                mine = [Where("id", "eq", item.id), Where("lease_token", "eq", item.lease_token)]
                rows.update(OUTBOX, mine, {"headers": encode_json(headers, "headers")})
        owner, outcomes = done[0][0].lease_owner or "", [outcome for *_, outcome in done]
        if self.store.outbox.acknowledge(owner, outcomes, transaction=rows.native):
            raise LeaseLostError("the lease of an event is lost")

    # -- signals -----------------------------------------------------------------------------

    def handle_signal(self, item: OutboxItem) -> OutcomeRecorded | Snooze:
        """Wake the executions that wait for a signal; those that are locked, later."""
        try:
            self._deliver_all([item])
        except LockedError as error:
            return self.defer(item, error)
        return OutcomeRecorded()

    def defer(self, item: OutboxItem, error: LockedError) -> Snooze:
        """Let a signal come later that can't wake an execution, since somebody has locked it."""
        logger.warning(
            "signal %s is deferred: a transaction that goes on has changed an execution that"
            " waits for it (%s)", item.id, error.message,
        )  # fmt: skip
        return Snooze(DEFERRED_SECONDS)

    def handle_signals(self, items: Sequence[OutboxItem]) -> dict[str, OutcomeRecorded]:
        """Do `handle_signal` for several in one transaction; raises what `deliver` raises."""
        self._deliver_all(items)
        return {item.id: OutcomeRecorded() for item in items}

    def _deliver_all(self, items: Sequence[OutboxItem]) -> None:
        for _ in self.deliver(items):
            pass

    def deliver(self, items: Sequence[OutboxItem]) -> Iterator[None]:
        """Wake the executions that wait for the signals of *items*: some, then it yields."""
        if (yield from self.store.signals.deliver(items)):
            raise LeaseLostError("the lease of a signal is lost")

    def handle_cancel(self, item: OutboxItem) -> Snooze | None:
        """Cancel some sub-workflows that nobody waits for any more."""
        given = {name: item.payload[name] for name in _CANCELLED_BY if name in item.payload}
        # Many are cancelled in several goes, so that other items have their turn between them.
        return Snooze(0.0) if self.store.cancel_children(**given) else None

    def arrived(self, flows: Sequence[Flow]) -> dict[str, dict[StepKey, Arrived]]:
        """Return what has come for executions in flight that wait beside it, by their ids."""
        waiting = {
            flow.execution.id: (
                flow.execution,
                {key: one for key, one in list(flow.waiting.items()) if one.saved},
            )
            for flow in flows
        }
        with self.store.storage.begin(atomic=False) as rows:
            found = self.store.signals.arrived(rows, waiting, told=True)
        for flow in flows:
            its = found.get(flow.execution.id, {})
            self._copy_outputs(flow, flow.ends_to_read(its))
        return found

    # -- executions --------------------------------------------------------------------------

    def open(
        self, items: Sequence[OutboxItem], now: datetime | None = None
    ) -> dict[str, Flow | AutomateError | OutcomeRecorded]:
        """
        Return the executions of claimed items, by the items' ids; *now* is the database's time.

        An item that drives no execution any more is left out. In place of an execution whose
        definition can't be had stands the error, and of one that is paused that it was put back.
        """
        ids = [str(item.payload["execution_id"]) for item in items]
        loaded = self.store.checkpoints.load_all(ids, now)
        opened: dict[str, Flow | AutomateError | OutcomeRecorded] = {}
        for item, execution_id in zip(items, ids, strict=True):
            one = loaded.get(execution_id)
            # Another item's to drive, if it was resumed since.
            if one is None or one.execution.status.finished or one.execution.item_id != item.id:
                continue
            if self.store.checkpoints.is_held(one.execution):
                self.store.checkpoints.defer(item, one.execution, self._unmade(item, one))
                opened[item.id] = OutcomeRecorded(None)
            else:
                opened[item.id] = self.flow(item, one)
        return opened

    def _unmade(self, item: OutboxItem, loaded: Loaded) -> Sequence[StepRun]:
        """Return the runs of an execution that is put back which a worker has left behind."""
        if all(run.status is not StepStatus.RUNNING for run in loaded.execution.steps):
            return ()
        flow = self.flow(item, loaded)
        return flow.unmade() if isinstance(flow, Flow) else ()

    def flow(self, item: OutboxItem, loaded: Loaded) -> Flow | AutomateError:
        """Return the execution of a claimed item, or the reason why it can't be driven."""
        try:
            program = self._programs(loaded.execution.definition_id)
        except TemplateError as error:
            return unreadable(loaded.execution.name, error)
        except AutomateError as error:
            return error
        storage, alone = self.store.storage, self._stays_here(loaded.execution)
        alone = alone or (isinstance(storage, MemoryStorage) and len(storage.kernels) < 2)
        return Flow(item, loaded, program, self.store.outputs, self._find_child, alone=alone)

    @contextmanager
    def only_here(self, execution_id: str | None) -> Iterator[None]:
        """
        Let an execution, and its sub-workflows, fail here where others are handed over.

        Without an id that holds for all.
        """
        kept = {execution_id}
        self._only_here.append(kept)
        try:
            yield
        finally:
            self._only_here.remove(kept)

    def _stays_here(self, execution: Execution) -> bool:
        """Return True if the caller of *execution*, or of one around it, waits for it here."""
        for kept in list(self._only_here):
            if None in kept or execution.id in kept:
                return True
            if execution.parent_id in kept:
                kept.add(execution.id)
                return True
        return False

    def read_outputs(self, flow: Flow) -> None:
        """Read the large outputs that templates need, once an execution has been loaded."""
        for run in flow.unread:
            data = self.store.outputs.fetch(run.output_ref or "")
            run.output = flow.as_read(json.loads(data))
            flow.hold(len(data))
        self._copy_outputs(flow, flow.unread_ends)

    def _copy_outputs(self, flow: Flow, ends: Iterable[tuple[StepKey, Event]]) -> None:
        """Copy large outputs of sub-workflows for the steps that wait for them."""
        outputs = self.store.outputs
        for key, event in ends:
            try:
                text = JsonText(outputs.fetch(unread_output(event) or "").decode())
            except AutomateError as error:
                if error.code is not ErrorCodes.NOT_FOUND:
                    raise
                lose_output(event)
                continue
            copy = outputs.put(flow.execution.id, text, patience=SAVE_SECONDS)
            read = flow.reads(key)
            take_output(event, copy, json.loads(text) if read else None)
            flow.hold(len(text) if read else 0)

    def has_large_output(self, turn: Turn) -> bool:
        """Return True if *turn* has an output of a block or of the execution for the store."""
        outputs = self.store.outputs
        if outputs.store is None:
            return False
        is_large = outputs.is_large
        return is_large(turn.encoded or NOT_HERE) or any(map(is_large, turn.outputs.values()))

    def put_output(self, flow: Flow, turn: Turn) -> None:
        """Put the outputs of blocks, and that of the execution that *turn* ends, in the store."""
        outputs, keys = self.store.outputs, dict[str, str]()

        def put(text: JsonText) -> str:
            # A loop has the output of its last round.
            if text not in keys:
                keys[text] = outputs.put(flow.execution.id, text, patience=SAVE_SECONDS)
            return keys[text]

        for run in turn.saves:
            text = turn.outputs.get(run.key, NOT_HERE)
            if outputs.is_large(text) and not flow.has_taken(run):
                run.output_ref, turn.outputs[run.key] = put(text), NOT_HERE
                turn.size -= len(text)
                flow.hold(len(text))
        if turn.encoded is not None:
            text = self.store.checkpoints.final_output(turn)
            if outputs.is_large(text):
                turn.output_ref = put(text)

    def turn(
        self,
        flow: Flow,
        outcomes: Sequence[CallOutcome] = (),
        arrived: Mapping[StepKey, Arrived] | None = None,
    ) -> Turn:
        """
        Take *outcomes* in, and return what follows; a new execution sends its signal.

        If that is a call of an action that isn't known here, or the code does not repeat what is
        recorded, the execution is handed over.
        """
        if flow.begins and flow.fresh:
            flow.send(signals.workflow_started, self._sender)
        turn = flow.next_turn(outcomes, arrived or {})
        lack = turn.lack
        elsewhere = bool(self.operations.executors.placements)
        for call in turn.calls:
            here = not elsewhere and call.step.runs_on is None
            if lack is None and call.spec is None and not (here and call.action in self._known):
                lack = self._lack_of(call)
        if lack is not None and (turn.lack or not self._stays_here(flow.execution)):
            if not flow.handing_over:
                logger.warning(
                    "execution %s is handed over: this worker %s", flow.execution.id, lack
                )
            flow.hand_over(lack, turn)
        return turn

    def _lack_of(self, call: StepCall) -> UnknownHereError | None:
        """Return the reason why this process can't make *call*, or None if it can."""
        if self._goes_elsewhere(call):
            return self.operations.lack_of(call.action, call.step.runs_on)
        return None if call.action in self._known else self._lacks(call.action)

    def _goes_elsewhere(self, call: StepCall) -> bool:
        return call.step.runs_on is not None or bool(self.operations.executors.placements)

    def place_of(self, call: StepCall) -> Placement | None:
        """Return the executor that makes *call*; None if this process does, or refuses to."""
        if not self._goes_elsewhere(call):
            return None
        try:
            return self.operations.place_of(call.operation, call.step.runs_on)
        except AutomateError:
            return None

    def _lacks(self, action: str) -> UnknownHereError | None:
        lack = self.operations.absence(action)
        if lack is None:
            self._known[action] = self.operations.is_transactional(action)
        return lack

    def hand_over(self, item: OutboxItem, lack: UnknownHereError) -> OutcomeRecorded:
        """Let another worker have an execution that can't even be opened here."""
        logger.warning("item %s is handed over: this worker %s", item.id, lack)
        return OutcomeRecorded(self.store.checkpoints.hand_over(item, lack))

    # -- calls -------------------------------------------------------------------------------

    def show(self, calls: Sequence[tuple[Flow, StepCall]]) -> None:
        """Write rows for those of *calls* that have none yet; raises `StorageError`."""
        self._progress.show([self._report_of(flow, call) for flow, call in calls])

    def begin(self, flow: Flow, call: StepCall) -> None:
        """Note that *call* is made now, and send its signal."""
        flow.begin(call)
        flow.send(signals.step_started, self._sender, call.run)

    def perform(self, flow: Flow, call: StepCall) -> CallOutcome:
        """
        Make one call; an error is part of the outcome.

        A transactional step is saved as well. Raises `LeaseLostError` if that can't be, and
        `StorageError` if its database fails for too long.
        """
        if self._known.get(call.action):
            reports: list[StepReport] = []
            outcome = TransactionalCall(
                self.store, flow, call, partial(self._write, flow, call, reports)
            ).perform()
            left = bool(reports) and _was_left(reports[-1], outcome.error)
            return replace(outcome, begun=False) if left else outcome
        report, timeout = self._report_of(flow, call, self._progress), flow.timeout_of(call)
        name, began = call.action, runtime.monotonic()
        about = _about(flow, call, report)
        try:
            elsewhere = call.step.runs_on is not None or self.operations.executors.placements
            placement = self.place_of(call) if elsewhere else None
            if placement is None:
                output = self.operations.invoke(
                    call.operation, call.input, call=about, timeout=timeout,
                    runs_on=call.step.runs_on,
                )  # fmt: skip
            else:
                output = self.operations.portal.run(self._dispatched(flow, call, placement, about))
            return self._outcome(flow, call, output, report)
        except AutomateError as error:
            failed = _timed_out(flow, call, timeout, error)
            return CallOutcome(call, error=failed, begun=not _was_left(report, failed))
        finally:
            report.end()
            self._note(name, runtime.monotonic() - began)

    def _report_of(
        self, flow: Flow, call: StepCall, writer: ProgressWriter | None = None
    ) -> StepReport:
        return StepReport(
            flow.item, call.run, asked_to_stop(), self.store.outbox.redact, writer,
            call.step.heartbeat,
        )  # fmt: skip

    def _write(
        self, flow: Flow, call: StepCall, reports: list[StepReport], transaction: Any
    ) -> CallOutcome:
        """Make one call in *transaction*; raises the error of a call that fails."""
        # Its progress isn't written: on SQLite that would wait for this very transaction.
        report = self._report_of(flow, call)
        reports.append(report)
        about = replace(_about(flow, call, report), transaction=transaction)
        timeout, began = flow.timeout_of(call), runtime.monotonic()
        # Judged afterwards only, as is its timeout.
        report.heartbeat = None
        output = self.operations.invoke(
            call.action, call.input, call=about, runs_on=call.step.runs_on
        )
        # Nobody else may use its transaction, so it can't be left behind while it runs.
        if timeout is not None and runtime.monotonic() - began > timeout:
            text = f"it took longer than {timeout:g} seconds"
            late = AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text)
            raise _timed_out(flow, call, timeout, late)
        report.heartbeat = call.step.heartbeat
        silence = report.silence()
        if silence is not None:
            raise silence
        return self._outcome(flow, call, output, report)

    def _outcome(self, flow: Flow, call: StepCall, output: Any, report: StepReport) -> CallOutcome:
        """Return the outcome of a call that gave *output*, which is put away if it is large."""
        outputs = self.store.outputs
        encoded = outputs.encode(output, f"output of step {call.step.id!r}")
        if not outputs.is_large(encoded):
            return CallOutcome(call, output, encoded=encoded, labels=report.labels)
        return self._put_away(flow, call, output, encoded, report)

    def _put_away(
        self, flow: Flow, call: StepCall, output: Any, encoded: JsonText, report: StepReport
    ) -> CallOutcome:
        """Put the large *output* of a call in the output store, and return the call's outcome."""
        ref = self.store.outputs.put(flow.execution.id, encoded, patience=SAVE_SECONDS)
        if not flow.keeps(call):
            return CallOutcome(call, encoded=NOT_HERE, ref=ref, labels=report.labels)
        held, labels = len(encoded), report.labels
        return CallOutcome(call, output, encoded=NOT_HERE, ref=ref, held=held, labels=labels)

    def mean_seconds(self, action: str) -> float:
        """Return how long calls of a plain *action* take here; a second if that is unknown."""
        return self._means.get(action, _UNKNOWN_SECONDS)

    def _note(self, action: str, took: float) -> None:
        # Down fast and up slowly: what others did meanwhile makes a quick call look slow.
        mean = self._means.get(action, took)
        if took > OVERRUN_SECONDS:
            self._means[action] = max(mean, took)
        else:
            self._means[action] = mean + (took - mean) * (0.5 if took < mean else 0.02)

    async def aperform(self, flow: Flow, call: StepCall) -> CallOutcome:
        """Make one call of an ``async def``, as `perform` does."""
        report, timeout = self._report_of(flow, call, self._progress), flow.timeout_of(call)
        about = _about(flow, call, report)
        try:
            placement = self.place_of(call)
            if placement is None:
                output = await self.operations.ainvoke(
                    call.operation, call.input, call=about, timeout=timeout,
                    runs_on=call.step.runs_on,
                )  # fmt: skip
            else:
                output = await self._dispatched(
                    flow, call, placement, about, durable=placement.durable
                )
                if isinstance(output, Suspended):
                    left = flow.time_left(call)
                    wait = task_wait(flow.execution, call.run, placement.name, output.task_id, left)
                    return CallOutcome(call, wait=wait)
            encoded = self.store.outputs.encode(output, f"output of step {call.step.id!r}")
            if not self.store.outputs.is_large(encoded):
                return CallOutcome(call, output, encoded=encoded, labels=report.labels)
            # The store must not hold up the loop.
            return await asyncio.to_thread(self._put_away, flow, call, output, encoded, report)
        except AutomateError as error:
            failed = _timed_out(flow, call, timeout, error)
            return CallOutcome(call, error=failed, begun=not _was_left(report, failed))
        finally:
            report.over = True
            if report.latest is not None:
                await asyncio.shield(asyncio.to_thread(report.end))

    async def _dispatched(
        self,
        flow: Flow,
        call: StepCall,
        placement: Placement,
        about: Call,
        *,
        durable: bool = False,
    ) -> Any:
        """Have *call* made elsewhere. Its time counts from where it begins, not in a queue."""
        limits = TaskLimits(call.step.timeout, flow.time_left(call))
        try:
            return await self.operations.dispatch(
                placement, call.operation, call.input, call=about, limits=limits,
                generation=flow.generation, durable=durable,
            )  # fmt: skip
        except asyncio.CancelledError:
            if about.ending is None:
                executors = self.operations.executors
                lost = task_id(about, flow.generation)
                executors.soon(self._cancel_if_over(placement.name, lost, flow.execution.id))
            raise

    async def _cancel_if_over(self, executor: str, task_id: str, execution_id: str) -> None:
        """Cancel a task whose lease was lost, unless another worker waits for it now."""
        execution = await asyncio.to_thread(self.store.get, execution_id, large_outputs=False)
        if execution is None or execution.status.finished:
            await self.operations.executors.cancel(executor, task_id)

    def cancel_tasks(self, waits: Iterable[OpenWait]) -> None:
        """Cancel the tasks that *waits* were about, which have ended."""
        for wait in waits:
            if wait.about == "task":
                self.operations.portal.call_soon(self._cancel_task, wait.details)

    def _cancel_task(self, details: Mapping[str, Any]) -> None:
        executors = self.operations.executors
        executors.soon(executors.cancel(details["executor"], details["task_id"]))

    # -- checkpoints -------------------------------------------------------------------------

    def save(
        self,
        group: Sequence[tuple[Flow, Turn]],
        *,
        until: Callable[[], bool],
        rest: bool = False,
        briefly: bool = False,
    ) -> dict[str, Turn | AutomateError]:
        """
        Write the turns of a group, and return by item what the database has accepted of each.

        What is missing is held by another worker by now, or was ended. It tries for a while,
        as long as *until* returns False: were an outcome lost, its call would be made again. An
        error stands for a turn of which the database accepts nothing. With *rest* the turns are the
        rest of what it has refused. With *briefly* a `LockedError` stands for a turn that an
        application's transaction holds up.
        """
        now = runtime.monotonic()
        try:
            written = self._written(group, until, briefly=briefly)
        except (AutomateError, StorageError) as error:
            if error.code is not ErrorCodes.INVALID_ARGUMENT or rest:
                raise
            return self._save_refused(group, error, until)
        if isinstance(written, LockedError):
            return self._save_halves(group, partial(self.save, until=until, briefly=True), written)
        saved: dict[str, Turn | AutomateError] = {
            flow.item.id: turn for flow, turn in group if flow.item.id in written.items
        }
        for flow, turn in group:
            if flow.item.id in written.renewed:
                flow.leased_at = now
            if flow.item.id in saved:
                cancelling = flow.execution.status is ExecutionStatus.CANCELLING
                flow.to_release |= flow.item.id in written.steered and not cancelling
                self._report(flow, turn, began=flow.saved(turn, written.at))
        # Paused or cancelled just now: what its calls gave is kept, and it is taken up anew.
        refused = [
            (flow, turn.unended()) for flow, turn in group
            if turn.end is not None and flow.item.id not in saved
        ]  # fmt: skip
        if refused:
            saved |= self.save(refused, until=until)
        return saved

    def _written(
        self, group: Sequence[tuple[Flow, Turn]], until: Callable[[], bool], *, briefly: bool
    ) -> Saved | LockedError:
        """Save a group as soon as its database can; with *briefly* a lock is not waited for."""

        def checkpoint() -> Saved | LockedError:
            saves = [flow.save_of(turn) for flow, turn in group]
            if not (briefly and any(map(self.store.checkpoints.may_wait, saves))):
                return self.store.checkpoints.save(saves)
            try:
                return self.store.checkpoints.save(saves, briefly=True)
            except LockedError as error:
                return error

        return try_for(SAVE_SECONDS, checkpoint, "saving executions", until=until)

    def _save_refused(
        self, group: Sequence[tuple[Flow, Turn]], error: AutomateError, until: Callable[[], bool]
    ) -> dict[str, Turn | AutomateError]:
        """Save a group of which the database refuses a value: by halves, to find whose it is."""
        if len(group) > 1:
            return self._save_halves(group, partial(self.save, until=until), error)
        ((flow, turn),) = group
        try:
            return self.save([(flow, _refused(flow, turn, error))], until=until, rest=True)
        except AutomateError as again:
            if again.code is not ErrorCodes.INVALID_ARGUMENT:
                raise
            return {flow.item.id: again}

    def _save_halves(
        self,
        group: Sequence[tuple[Flow, Turn]],
        save: Callable[[Sequence[tuple[Flow, Turn]]], dict[str, Turn | AutomateError]],
        error: AutomateError,
    ) -> dict[str, Turn | AutomateError]:
        """Save the halves of a group that has an *error*; a single turn has it."""
        saved: dict[str, Turn | AutomateError] = {}
        if len(group) == 1:
            return {group[0][0].item.id: error}
        middle = len(group) // 2
        for half in (group[:middle], group[middle:]):
            try:
                saved |= save(half)
            except AutomateError as failure:
                # A database that fails now must not undo the other half.
                saved |= {flow.item.id: failure for flow, _ in half}
        return saved

    def close(self) -> None:
        """End the thread that writes progress."""
        self._progress.close()

    def _report(self, flow: Flow, turn: Turn, *, began: bool) -> None:
        """Count a turn that has been saved, and send its signals."""
        execution = flow.execution
        if flow.left_waits:
            left, flow.left_waits = flow.left_waits, []
            self.cancel_tasks(left)
        self.activity.add(execution, turn, began=began, made=flow.made, reasons=flow.reasons)
        send, sender = flow.send, self._sender
        for wait_ in turn.waits:
            send(signals.step_started, sender, wait_.run)
        for run in turn.saves:
            if run.status is StepStatus.COMPLETED:
                send(signals.step_completed, sender, run)
            elif run.status is StepStatus.FAILED:
                error = _error(run.error_code, run.error, run.error_group, run.trace)
                send(signals.step_failed, sender, run, error=error)
        if turn.end is ExecutionStatus.COMPLETED:
            send(signals.workflow_completed, sender)
        elif turn.end is ExecutionStatus.FAILED:
            send(signals.workflow_failed, sender, error=_error_of(execution))
        elif turn.end is ExecutionStatus.CANCELLED:
            send(signals.workflow_cancelled, sender)

    def send_failed(self, execution: Execution) -> None:
        """Send `workflow_failed`."""
        error = _error_of(execution)
        signals.emit(signals.workflow_failed, self._sender, execution=execution, error=error)

    def send_cancelled(self, execution: Execution) -> None:
        """Send `workflow_cancelled`."""
        signals.emit(signals.workflow_cancelled, self._sender, execution=execution)


def _sent_at(item: OutboxItem) -> datetime:
    """Return when the event of *item* was sent: one with a delay when that was over."""
    delay = item.headers.get(DELAY)
    if not isinstance(delay, (int, float)):
        return item.created_at
    return item.created_at + timedelta(seconds=bounded_seconds(delay))


def _by_conditions(
    asked: Iterable[tuple[OutboxItem, Iterable[tuple[Workflow, Admission | None]], Event]],
) -> tuple[list[Plain], list[Admitted]]:
    """Return the starts that items ask for: those without conditions, and those with some."""
    plain: list[Plain] = []
    admitted: list[Admitted] = []
    for item, starting, event in asked:
        for workflow, admission in starting:
            start = (workflow, event, item.priority, _sent_at(item))
            if admission is None:
                plain.append(start)
            else:
                admitted.append((*start, admission))
    return plain, admitted


def _was_left(report: StepReport, error: AutomateError | None) -> bool:
    """Return True if a call gave up since its worker stops, as it has seen: it is no attempt."""
    if error is None or error.code is ErrorCodes.DEADLINE_EXCEEDED or report.over:
        return False
    if error.code.retryable and not error.retryable:
        return False  # it says that nobody may make it again: it may have had its effect
    return report.told and should_stop() and not cancelling()


def _about(flow: Flow, call: StepCall, report: StepReport) -> Call:
    execution, run = flow.execution, call.run
    return Call(
        call.action,
        execution.tenant_id,
        execution.id,
        run.step_id,
        run.attempts,
        # Of the step, not the attempt: a service that saw the first must know the second.
        f"{execution.id}:{run.step_id}:{run.position}",
        reports=report,
        written=call.written,
        begun_before=flow.may_repeat(call),
        failed_attempts=run.failures,
    )


def _timed_out(
    flow: Flow, call: StepCall, timeout: float | None, error: AutomateError
) -> AutomateError:
    """Return *error*, or, if the workflow's own time is over, one that says so."""
    if error.code is not ErrorCodes.DEADLINE_EXCEEDED or timeout in (None, call.step.timeout):
        return error
    if not flow.is_late:
        return error  # the call's own: it was silent for too long, say
    limit = format_duration(flow.workflow.timeout or 0.0)
    return AutomateError(error.code, f"the workflow took longer than its timeout of {limit}")


def _refused(flow: Flow, turn: Turn, error: AutomateError) -> Turn:
    """
    Return the rest of a turn that the database refuses: the steps with outputs have failed.

    Nothing more begins in this wake-up, and it ends once what is in flight has ended. The next one
    goes on from the state that is written here, and calls no step again whose output can't be kept.
    """
    code, text = str(error.code), f"its output can't be stored: {error}"
    flow.handing_over = True
    flow.pause(turn)
    left = replace(
        turn.unended(), wait=None if flow.running else 0.0,
        # What begins does so with a step that is not saved as it is here.
        saves=[], outputs={}, waits=[], children=[], size=0, next_retry=None,
    )  # fmt: skip
    failing = {step.id for step in flow.workflow.steps if step.on_failure == "fail"}
    blamed = None
    for run in turn.saves:
        if run.status is StepStatus.COMPLETED and run.output is not None:
            run.status, run.output, run.output_ref, run.error_code, run.error = (
                StepStatus.FAILED, None, None, code, text,
            )  # fmt: skip
            if run.position < 0 and run.step_id in failing:
                blamed = blamed or f"step {run.step_id!r} failed: {text}"
            left.saves.append(run)
        elif run.status.finished or run.status is StepStatus.RETRY:
            left.saves.append(run)
    if not left.saves and turn.end is None:
        raise error
    if turn.end is not None and blamed is None:
        blamed = text
    if blamed is not None and flow.execution.error_code is None:
        left.failed = AutomateError(error.code, blamed)
        flow.execution.error_code, flow.execution.error = code, blamed
    return left


def _undecided(item: OutboxItem, workflow: str, error: AutomateError) -> Outcome:
    """Return the outcome of an event item, for a workflow whose condition can't be decided."""
    text = f"the condition that starts workflow {workflow!r}: {error.message}"
    logger.error("event %s: %s", item.id, text)
    return Outcome(
        item.id, ItemStatus.FAILED, 0.0, str(error.code), text, item.lease_token,
        group_of(error), error.trace,
    )  # fmt: skip


def _error_of(execution: Execution) -> AutomateError:
    return _error(execution.error_code, execution.error, execution.error_group)


def _error(
    code: str | None, message: str | None, group: str | None, trace: str | None = None
) -> AutomateError:
    error = AutomateError(ErrorCodes.of(code), message or "")
    error.group, error.trace = group, trace
    return error
