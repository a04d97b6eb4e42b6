"""The receiver of outcomes: it hands what executors deliver to the executions that wait for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.operations.executors import Executors, Placement
from automate_kernel.operations.portal import Portal
from automate_kernel.operations.tasks import TaskOutcome, error_data
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Rows
from automate_kernel.worker.broker_receiver import BrokerReceiver, Taking
from automate_kernel.workflows.decide.executor_tasks import task_key, task_payload, task_signal
from automate_kernel.workflows.decide.waits import SENT
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.events import manual_event

logger: logging.Logger = get_logger(__name__)

_ENDED = (ErrorCodes.NOT_FOUND, ErrorCodes.FAILED_PRECONDITION)


class OutcomeReceiver:
    """
    Receives the outcomes of durable tasks in a worker.

    Each becomes a signal with the task's id as its key, in the database, before the executor may
    forget it. So an outcome that is delivered twice, in two processes even, is taken once.
    """

    def __init__(self, executors: Executors, store: ExecutionStore, portal: Portal) -> None:
        self._store = store
        self.receiver: BrokerReceiver[TaskOutcome] = BrokerReceiver(
            {
                f"executor {name!r}": partial(_delivered, placement)
                for name, placement in executors.placements.items()
                if placement.durable
            },
            self.take,
            portal,
        )
        """The receiver of what the executors of a worker deliver."""

    def take(self, outcomes: Sequence[TaskOutcome]) -> list[AutomateError | None]:
        """
        Send *outcomes* to their executions, each once; return the errors of those that could not.

        Nothing happens for an execution that has ended meanwhile.
        """
        if len(outcomes) > 1:
            try:
                with self._store.storage.begin() as rows:
                    for outcome in outcomes:
                        self._send(rows, outcome)
            except Exception as error:
                logger.debug("%d outcomes are taken one by one: %s", len(outcomes), error)
            else:
                return [None] * len(outcomes)
        return [self._taken(outcome) for outcome in outcomes]

    def _taken(self, outcome: TaskOutcome) -> AutomateError | None:
        """Send one outcome; return the error for which it has to come again."""
        try:
            with self._store.storage.begin() as rows:
                self._send(rows, outcome)
        except AutomateError as error:
            return error
        except Exception:
            logger.exception("the outcome of task %s can't be taken", outcome.task_id)
            return AutomateError(ErrorCodes.INTERNAL, "an outcome can't be taken")
        return None

    def _send(self, rows: Rows, outcome: TaskOutcome) -> None:
        if outcome.execution_id is None:
            return
        try:
            execution = self._store.live(rows, outcome.execution_id)
        except AutomateError as error:
            if error.code not in _ENDED:
                raise
            logger.info("the outcome of task %s is dropped: %s", outcome.task_id, error.message)
            return
        name, key = task_signal(outcome.task_id), task_key(execution, outcome.task_id)
        event: Event = replace(
            manual_event(name, task_payload(outcome)), type="event", source=SENT,
            tenant_id=execution.tenant_id,
        )  # fmt: skip
        try:
            self._store.signals.send(rows, execution, event, outcome.task_id, key=key)
        except PayloadError as error:
            short = replace(outcome, output=None, labels={}, error=error_data(error))
            event = replace(event, payload=task_payload(short))
            self._store.signals.send(rows, execution, event, outcome.task_id, key=key)


async def _delivered(placement: Placement, take: Taking[TaskOutcome]) -> None:
    """Hand over the outcomes of one executor, and note them for its operators."""

    async def noted(outcome: TaskOutcome) -> None:
        await take(outcome)
        placement.note(outcome)

    await placement.executor.deliver(noted)
