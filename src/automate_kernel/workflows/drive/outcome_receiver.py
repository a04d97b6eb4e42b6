"""The receiver of outcomes: it hands what executors deliver to the executions that wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.executors import Executors, Placement
from automate_kernel.operations.portal import Portal
from automate_kernel.operations.tasks import TaskOutcome, error_data
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Rows
from automate_kernel.workflows.decide.executor_tasks import task_payload, task_signal
from automate_kernel.workflows.decide.waits import SENT
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.store.events import manual_event

logger: logging.Logger = get_logger(__name__)

_PAUSE = 2.0
_ENDED = (ErrorCodes.NOT_FOUND, ErrorCodes.FAILED_PRECONDITION)


class OutcomeReceiver:
    """
    Receives the outcomes of durable tasks in a worker.

    Each becomes a signal with the task's id as its key, in the database, before the executor may
    forget it. So an outcome that is delivered twice, in two processes even, is taken once.
    """

    def __init__(self, executors: Executors, store: ExecutionStore, portal: Portal) -> None:
        self._executors, self._store, self._portal = executors, store, portal
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the loop's tasks, which are another process's."""
        self._receiving: dict[str, asyncio.Task[None]] = {}
        self._begun = self._closed = False
        self._come: list[tuple[TaskOutcome, asyncio.Future[None]]] = []
        self._taking: asyncio.Task[None] | None = None

    @property
    def needed(self) -> bool:
        """True if the outcomes of some executor are delivered."""
        return any(each.durable for each in self._executors.placements.values())

    def look(self) -> None:
        """Let outcomes be received from now on, unless they are."""
        if not self._begun:
            self._begun = True
            self._portal.call_soon(self._begin)

    def close(self) -> None:
        """Receive nothing more; what is on its way comes again, to another worker."""
        self._closed = True
        if self._begun:
            self._portal.call_soon(self._end)

    def _begin(self) -> None:
        for name, placement in self._executors.placements.items():
            if placement.durable and not self._closed:
                receiving = asyncio.get_running_loop().create_task(self._receive(placement))
                self._receiving[name] = receiving

    def _end(self) -> None:
        for receiving in self._receiving.values():
            receiving.cancel()

    async def _receive(self, placement: Placement) -> None:
        while not self._closed:
            try:
                await placement.executor.deliver(partial(self._take, placement))
            except AutomateError as error:
                logger.warning("executor %r: %s", placement.name, error.message)
            except Exception:
                logger.exception("executor %r: outcomes can't be received", placement.name)
            await asyncio.sleep(_PAUSE)

    async def _take(self, placement: Placement, outcome: TaskOutcome) -> None:
        """Take *outcome* with those that come at the same time: one transaction for all."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._come.append((outcome, taken))
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_all())
        await taken
        placement.note(outcome)

    async def _take_all(self) -> None:
        try:
            while self._come:
                come, self._come = self._come, []
                errors = await asyncio.to_thread(self.take, [outcome for outcome, _ in come])
                for (_, taken), error in zip(come, errors, strict=True):
                    if taken.done():
                        continue
                    if error is None:
                        taken.set_result(None)
                    else:
                        taken.set_exception(error)
        finally:
            self._taking = None

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
        name = task_signal(outcome.task_id)
        event: Event = replace(
            manual_event(name, task_payload(outcome)), type="event", source=SENT,
            tenant_id=execution.tenant_id,
        )  # fmt: skip
        try:
            self._store.signals.send(rows, execution, event, outcome.task_id)
        except PayloadError as error:
            short = replace(outcome, output=None, labels={}, error=error_data(error))
            event = replace(event, payload=task_payload(short))
            self._store.signals.send(rows, execution, event, outcome.task_id)
