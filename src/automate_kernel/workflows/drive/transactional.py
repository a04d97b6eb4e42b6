"""
Transactional steps: their writes commit together with their checkpoint.

::

    BEGIN ─▶ the action writes ─▶ fence, step's row ─▶ COMMIT
                  │ raises             │ lease lost, value refused
                  ▼                    ▼
               ROLLBACK             ROLLBACK

So a step is COMPLETED exactly if its writes are there, whenever the worker dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, LeaseLostError, StorageError
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_kernel.worker.handler import should_stop
from automate_kernel.worker.periodic import SAVE_SECONDS, try_for
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.drive.flow import Flow
from automate_kernel.workflows.execution import StepRun, StepStatus
from automate_kernel.workflows.steer.executions import ExecutionStore


class TransactionalCall:
    """
    One call of a step in a transaction of the application's database, in which it is saved as well.

    *invoke* makes the call in a transaction, which the application's framework knows.
    """

    def __init__(
        self,
        store: ExecutionStore,
        flow: Flow,
        call: StepCall,
        invoke: Callable[[Any], CallOutcome],
    ) -> None:
        self._store, self._flow, self._call = store, flow, call
        self._invoke = invoke
        # The outcome of a call that has been made, once its commit may have happened.
        self._made: CallOutcome | None = None
        # True once an attempt has seen that its execution had ended.
        self._ended_itself = False

    def perform(self) -> CallOutcome:
        """
        Make the call and save it; an error of the call is part of the outcome.

        What a failing database has rolled back is done again, for a while; then its
        `StorageError` is raised. Raises `LeaseLostError`, with nothing written, if the execution is
        another worker's by now or has been ended.
        """
        what = f"step {self._call.step.id!r}"
        try:
            return try_for(SAVE_SECONDS, self._once, what, until=should_stop)
        except (LeaseLostError, StorageError):
            raise
        except AutomateError as error:
            return CallOutcome(self._call, error=error)

    def _once(self) -> CallOutcome:
        if self._made is not None and self._is_saved():
            return self._made
        self._made = None
        try:
            with self._store.storage.begin(bounded=False) as rows:
                outcome = self._made = self._labelled(self._called(rows))
                self._save(rows, outcome)
        except LeaseLostError:
            self._made = None
            if self._ended_itself and self._goes_on():
                return CallOutcome(self._call, error=_ended_itself(self._flow))
            raise
        except StorageError as error:
            if self._made is None:
                raise
            if self._is_saved():  # the reply alone was lost
                return self._made
            self._made = None
            if error.code is ErrorCodes.INVALID_ARGUMENT:
                text = f"its output can't be stored: {error}"
                return CallOutcome(self._call, error=AutomateError(error.code, text))
            if error.retryable:
                raise
            # A statement of the action's own has failed, say, and nothing can follow on it.
            return CallOutcome(self._call, error=error)
        return outcome

    def _called(self, rows: Rows) -> CallOutcome:
        try:
            return self._invoke(rows.native)
        except StorageError:
            raise
        except AutomateError:
            # If the database has gone away, the action's own statement has failed for that. No
            # driver says so in one way; but then nothing can be asked any more.
            its = Where("id", "eq", self._flow.item.id)
            try:
                rows.select(OUTBOX, [its], columns=("id",))
            except StorageError as gone:
                if gone.retryable:
                    raise
            raise

    def _labelled(self, outcome: CallOutcome) -> CallOutcome:
        """Return *outcome* with the labels that are saved with it: of others it warns once."""
        if not outcome.labels:
            return outcome
        return replace(outcome, labels=self._flow.changed_labels(outcome))

    def _save(self, rows: Rows, outcome: CallOutcome) -> None:
        run = _as(self._call.run, StepStatus.COMPLETED, outcome)
        # Conditional steps that run keep their decision, whatever is saved beside them.
        decided = [
            _as(other.run, StepStatus.RUNNING)
            for other in list(self._flow.running.values())
            if other is not self._call
            if (other.step.if_ is not None or other.step.while_ is not None)
            and other.step.for_each is None
        ]
        turn = Turn([run, *decided])
        turn.labels = dict(outcome.labels)
        if outcome.encoded is not None:
            turn.outputs[run.key] = outcome.encoded
        save = self._flow.save_of(turn)
        if save.item.id not in self._store.checkpoints.save([save], within=rows).items:
            # As this transaction sees it: another's end it may see as well, or only after it.
            self._ended_itself = not self._is_going(rows)
            raise LeaseLostError(f"the lease of item {save.item.id} is lost")

    def _goes_on(self) -> bool:
        """Return True if the execution, and the worker's lease of it, are there as they were."""
        item = self._flow.item
        mine = [Where("id", "eq", item.id), Where("lease_token", "eq", item.lease_token)]
        with self._store.storage.begin() as rows:
            return self._is_going(rows) and bool(rows.select(OUTBOX, mine, columns=("id",)))

    def _is_going(self, rows: Rows) -> bool:
        its = [Where("id", "eq", self._call.run.execution_id), Where("status", "in", LIVE)]
        return bool(rows.select(EXECUTION, its, columns=("id",)))

    def _is_saved(self) -> bool:
        """Return True if the step's row says that it has completed."""
        run, item = self._call.run, self._flow.item
        with self._store.storage.begin() as rows:
            # Whose reply was lost may still commit: it has this row, and is waited for.
            rows.select(OUTBOX, [Where("id", "eq", item.id)], lock=True, columns=("id",))
            its = [
                Where("execution_id", "eq", run.execution_id),
                Where("step_id", "eq", run.step_id),
                Where("position", "eq", run.position),
                Where("status", "eq", StepStatus.COMPLETED.value),
            ]
            return bool(rows.select(STEP, its, columns=("id",)))


def _ended_itself(flow: Flow) -> AutomateError:
    """Return the error of a step that would be rolled back for ever, and called again."""
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the step ended its own execution {flow.execution.id} in its own transaction, and so"
        " can't be saved: all of it was rolled back",
        hint="cancel the execution in a step that isn't transactional, or raise an error here",
    )


def _as(run: StepRun, status: StepStatus, outcome: CallOutcome | None = None) -> StepRun:
    """Return a copy of *run*, which the engine's own thread may change meanwhile."""
    output, ref = (outcome.output, outcome.ref) if outcome is not None else (None, None)
    return replace(
        run, status=status, output=output, output_ref=ref, error_code=None, error=None,
        error_group=None, trace=None,
    )  # fmt: skip
