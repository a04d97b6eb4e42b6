"""The handlers of executions' wake-up items, and of the events that start executions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from datetime import timedelta
from typing import Any, Protocol

from automate_kernel import signals
from automate_kernel.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.operations.context import Call
from automate_kernel.outbox import ItemStatus, OutboxItem, Outcome
from automate_kernel.outbox.item import OutcomeRecorded
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import group_of
from automate_kernel.storage.values import encode_json
from automate_kernel.worker.handler import should_stop
from automate_kernel.worker.periodic import try_for
from automate_kernel.workflows.catalogue import Entry
from automate_kernel.workflows.engine.advance import CallOutcome, StepCall, Turn, advance
from automate_kernel.workflows.engine.executions import ExecutionEndedError, ExecutionStore, Loaded
from automate_kernel.workflows.engine.program import WorkflowProgram
from automate_kernel.workflows.engine.statistics import ExecutionActivity
from automate_kernel.workflows.execution import Event, Execution, ExecutionStatus, StepStatus

logger: logging.Logger = get_logger(__name__)

EVENT = "automate.event"
"""The kind of the outbox item that is an event."""

# Threads for the steps of one execution that run beside each other.
_PARALLEL = 64


class Invoke(Protocol):
    """The way to make one call. It returns JSON without secrets and raises only `AutomateError`."""

    def __call__(self, name: str, data: Any, *, call: Call, timeout: float | None = None) -> Any:
        """Call the operation *name* with *data*, in which secrets are handles."""


class Runner:
    """
    The handlers of events and executions.

    *programs* finds the compiled workflow of a definition's id, *listening* those that an event
    starts if their condition holds. *sender* is the sender of the signals. The context manager that
    *around* returns is entered while an execution is driven.
    """

    def __init__(
        self,
        store: ExecutionStore,
        *,
        invoke: Invoke,
        programs: Callable[[str], WorkflowProgram],
        listening: Callable[[Event], Iterable[Entry]],
        sender: Any = None,
        around: Callable[[Execution], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.store = store
        self._invoke = invoke
        self._programs = programs
        self._listening = listening
        self._sender = sender
        self._around = around
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.activity: ExecutionActivity = ExecutionActivity()
        """The counts of this process, until a worker writes them down."""

    # -- events ------------------------------------------------------------------------------

    def handle_event(self, item: OutboxItem) -> OutcomeRecorded:
        """
        Begin an execution of each workflow that the event starts, in one transaction.

        A workflow whose condition can't be rendered holds up no other, but the item is FAILED. Once
        the workflow is mended and the item requeued, the item starts the rest.
        """
        about = {**item.payload, "id": item.id, "tenant_id": item.tenant_id, "labels": item.labels}
        # Once more: the process that accepted it may know fewer secrets than this one.
        event = self.store.redacted(Event.from_json(about))
        starting, outcome = [], Outcome(item.id, token=item.lease_token)
        for entry in self._listening(event):
            try:
                if entry.starts_on(event):
                    starting.append(entry.workflow)
            except AutomateError as error:
                outcome = _undecided(item, entry.workflow.name, error)
        with self.store.holding(item) as rows:
            for workflow in starting:
                self.store.start(rows, workflow, event, priority=item.priority)
            self.store.finish(rows, item, outcome)
        signals.emit(signals.event_received, self._sender, event=event)
        return OutcomeRecorded()

    # -- executions --------------------------------------------------------------------------

    def handle_advance(self, item: OutboxItem) -> OutcomeRecorded | None:
        """Bring an execution as far as it goes now."""
        loaded = self.store.load(item.payload["execution_id"])
        if loaded is None or loaded.execution.status.finished:
            return None
        if loaded.execution.item_id != item.id:
            return None  # resumed since, and so another item's to drive
        program = self._programs(loaded.execution.definition_id)
        try:
            with self._around(loaded.execution):
                _WakeUp(self, item, loaded, program).run()
        except ExecutionEndedError:
            return None
        return OutcomeRecorded()

    def perform(
        self, execution: Execution, call: StepCall, timeout: float | None = None
    ) -> CallOutcome:
        """Make one call; an error is part of the outcome."""
        run, step = call.run, call.step
        about = Call(
            step.action,
            execution.tenant_id,
            execution.id,
            run.step_id,
            run.attempts,
            # Of the step, not the attempt: a service that saw the first must know the second.
            f"{execution.id}:{run.step_id}:{run.position}",
        )
        try:
            output = self._invoke(step.action, call.input, call=about, timeout=timeout)
            encoded = encode_json(output, f"output of step {step.id!r}")
        except AutomateError as error:
            return CallOutcome(call, error=error)
        return CallOutcome(call, output, encoded=encoded)

    def executor(self) -> ThreadPoolExecutor:
        """Return the threads for parallel steps, made at the first need."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_PARALLEL, "automate-step")
            return self._executor

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
                self._executor = None

    def report(self, execution: Execution, turn: Turn, *, began: bool) -> None:
        """Count a turn that has been saved, and send its signals."""
        self.activity.add(execution, turn, began=began)
        send, sender = signals.emit, self._sender
        if began:
            send(signals.workflow_started, sender, execution=execution)
        for run in turn.saves:
            if run.status is StepStatus.COMPLETED:
                send(signals.step_completed, sender, execution=execution, step=run)
            elif run.status is StepStatus.FAILED:
                error = _error(run.error_code, run.error, run.error_group, run.trace)
                send(signals.step_failed, sender, execution=execution, step=run, error=error)
            elif run.status is StepStatus.RUNNING:
                send(signals.step_started, sender, execution=execution, step=run)
        if turn.end is ExecutionStatus.COMPLETED:
            send(signals.workflow_completed, sender, execution=execution)
        elif turn.end is ExecutionStatus.FAILED:
            self.send_failed(execution)

    def send_failed(self, execution: Execution) -> None:
        """Send `workflow_failed`."""
        error = _error(execution.error_code, execution.error, execution.error_group)
        signals.emit(signals.workflow_failed, self._sender, execution=execution, error=error)


class _WakeUp:
    """One wake-up of one execution: the loop between `advance`, the calls and the database."""

    def __init__(
        self, runner: Runner, item: OutboxItem, loaded: Loaded, program: WorkflowProgram
    ) -> None:
        self._runner = runner
        self._item = item
        self._execution = loaded.execution
        self._workflow = program.workflow
        self._loaded_at, self._since = loaded.now, time.monotonic()
        self._ends_at: float | None = None
        left = None
        if program.workflow.timeout is not None:
            # Since its wake-up was enqueued: an execution that is resumed has all its time again.
            age_seconds = (loaded.now - item.created_at).total_seconds()
            left = program.workflow.timeout - age_seconds
            self._ends_at = time.monotonic() + left
        self._flow = advance(program, loaded.execution, waits=loaded.waits, left=left)
        self._stored = {run.key for run in loaded.execution.steps}
        self._in_flight: set[Future[CallOutcome]] = set()
        self._pausing = False

    def run(self) -> None:
        """Take turns until the execution ends or has to wait."""
        turn = next(self._flow)
        since = time.monotonic()
        try:
            while True:
                if should_stop():
                    self._pause(turn)
                turn = self._save(turn)
                if turn.last:
                    return
                outcomes = self._make(turn)
                now = time.monotonic()
                turn = self._flow.send((outcomes, now - since))
                since = now
        finally:
            for future in self._in_flight:
                future.cancel()  # the next holder of the execution makes those that have not begun

    def _pause(self, turn: Turn) -> None:
        """Begin no more calls, and stop once none runs: another worker takes the execution on."""
        for call in turn.calls:
            call.run.attempts -= 1
            call.run.status = StepStatus.PENDING
            self._pausing = True
        turn.saves = [run for run in turn.saves if run.status is not StepStatus.PENDING]
        turn.calls = []
        if self._pausing and not self._in_flight and not turn.last:
            turn.wait = 0.0

    def _make(self, turn: Turn) -> Sequence[CallOutcome]:
        """Make the turn's calls; return the outcomes so far: some, unless a retry is due."""
        perform, execution = self._runner.perform, self._execution
        if len(turn.calls) == 1 and not self._in_flight and turn.next_retry is None:
            return [perform(execution, turn.calls[0], self._timeout(turn.calls[0]))]
        submit = self._runner.executor().submit
        self._in_flight |= {
            # In a copy of the context each, for logs and traces.
            submit(copy_context().run, perform, execution, call, self._timeout(call))
            for call in turn.calls
        }
        done, self._in_flight = wait(self._in_flight, turn.next_retry, FIRST_COMPLETED)
        return [future.result() for future in done]

    def _timeout(self, call: StepCall) -> float | None:
        """Return the step's timeout, or the rest of the workflow's if that is less."""
        timeout = call.step.timeout
        if self._ends_at is None or call.step in self._workflow.on_failure:
            return timeout
        left = max(0.001, self._ends_at - time.monotonic())
        return left if timeout is None else min(timeout, left)

    def _save(self, turn: Turn) -> Turn:
        """Write a turn; return the part of it that the database accepts."""
        if not (turn.saves or turn.failed or turn.last):
            return turn
        began = self._execution.status is ExecutionStatus.PENDING
        # An outcome is worth more than one try: were it lost, the call would be made again.
        patience = self._runner.store.outbox.lease_seconds / 2
        try:
            try_for(patience, lambda: self._write(turn), "saving an execution", until=should_stop)
        except StorageError as error:
            if error.code is not ErrorCodes.INVALID_ARGUMENT:
                raise
            turn = self._refused(turn, error)
            self._write(turn)
        self._stored |= {run.key for run in turn.saves}
        self._date(turn)
        self._runner.report(self._execution, turn, began=began)
        return turn

    def _refused(self, turn: Turn, error: StorageError) -> Turn:
        """
        Return the rest of a turn that the database refuses: the steps with outputs have failed.

        It is the last turn of this wake-up. The next one goes on from the state that is written
        here, and calls no step again whose output can't be kept.
        """
        code, text = str(error.code), f"its output can't be stored: {error}"
        left = Turn(delays=turn.delays, wait=0.0, failed=turn.failed)
        failing = {step.id for step in self._workflow.steps if step.on_failure == "fail"}
        blamed = None
        for run in turn.saves:
            if run.status is StepStatus.COMPLETED and run.output is not None:
                run.status, run.output, run.error_code, run.error = (
                    StepStatus.FAILED, None, code, text,
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
        if blamed is not None and self._execution.error_code is None:
            left.failed = AutomateError(error.code, blamed)
            self._execution.error_code, self._execution.error = code, blamed
        return left

    def _date(self, turn: Turn) -> None:
        """Date the runs for receivers of signals: about as the database did, without asking it."""
        now = self._loaded_at + timedelta(seconds=time.monotonic() - self._since)
        for run in turn.saves:
            if run.started_at is None and run.status is StepStatus.RUNNING:
                run.started_at = now
            if run.status.finished:
                run.completed_at = now
        self._execution.updated_at = now
        if turn.end is not None:
            self._execution.completed_at = now

    def _write(self, turn: Turn) -> None:
        execution, store = self._execution, self._runner.store
        with store.holding(self._item) as rows:
            store.save(
                rows, execution, turn.saves, turn.delays, self._stored,
                outputs=turn.outputs, failures=turn.failures, claim=self._item.lease_token or "",
            )  # fmt: skip
            if turn.failed is not None and turn.end is None:
                store.change(rows, execution, ExecutionStatus.RUNNING)
            if turn.end is not None:
                store.change(rows, execution, turn.end, turn.output)
            if turn.last:
                store.finish(rows, self._item, self._item_outcome(turn))

    def _item_outcome(self, turn: Turn) -> Outcome:
        item = self._item
        if turn.wait is None:
            return Outcome(item.id, token=item.lease_token)
        return Outcome(item.id, ItemStatus.PENDING, turn.wait, token=item.lease_token)


def _undecided(item: OutboxItem, workflow: str, error: AutomateError) -> Outcome:
    """Return the outcome of an event item, for a workflow whose condition can't be decided."""
    text = f"the condition that starts workflow {workflow!r}: {error.message}"
    logger.error("event %s: %s", item.id, text)
    return Outcome(
        item.id, ItemStatus.FAILED, 0.0, str(error.code), text, item.lease_token,
        group_of(error), error.trace,
    )  # fmt: skip


def _error(
    code: str | None, message: str | None, group: str | None, trace: str | None = None
) -> AutomateError:
    try:
        error = AutomateError(ErrorCodes(code or ErrorCodes.INTERNAL), message or "")
    except ValueError:
        error = AutomateError(ErrorCodes.INTERNAL, message or "")
    error.group, error.trace = group, trace
    return error
