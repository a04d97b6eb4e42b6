"""The remote's side of a call that runs elsewhere: a task becomes a call, the call an outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.operations.executors import HERE, Heard, TaskNews
from automate_kernel.operations.invoker import Invoker
from automate_kernel.operations.reports import CallReport, Ending
from automate_kernel.operations.tasks import Declined, RemoteTask, TaskOutcome, with_input
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.output_store import OutputStore
from automate_kernel.storage.values import Redaction

_NEWS_SECONDS = 0.5


def _goes_on() -> Ending | None:
    return None


class TaskReport(CallReport):
    """The report of a task's call, whose progress goes to the host by *heard*."""

    def __init__(self, task: RemoteTask, heard: Heard, **options: Any) -> None:
        previous = task.progress if isinstance(task.progress, dict) else None
        super().__init__(previous, heartbeat=task.heartbeat, **options)
        self._heard_by, self._loop = heard, asyncio.get_running_loop()
        self._sent_at, self._sends = -_NEWS_SECONDS, False

    def report(self, value: Any, message: str | None) -> None:
        """Take the newest progress in, from any thread; it is sent a few times in a second."""
        super().report(value, message)
        if not self._sends:
            self._sends = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._send_soon)

    def _send_soon(self) -> None:
        self._loop.call_later(self._sent_at + _NEWS_SECONDS - runtime.monotonic(), self._send)

    def _send(self) -> None:
        self._sends, self._sent_at = False, runtime.monotonic()
        if self.latest is not None and not self.over:
            self._heard_by(TaskNews(progress=json.loads(self.latest)))


class TaskWorker:
    """
    Performs the tasks that a `StepExecutor` hands over, by the plugins of this process.

    *operations* resolves secrets with its own backends, and takes them out of what it returns.
    *outputs* is the output store that the host has too. *largest* is the most bytes of an outcome
    that the broker takes. *ending* says why calls should stop. *redact* takes secrets out of
    their progress.
    """

    def __init__(
        self,
        operations: Invoker,
        outputs: OutputStore | None = None,
        *,
        largest: int = 1_000_000,
        name: str = "",
        ending: Callable[[], Ending | None] = _goes_on,
        redact: Redaction | None = None,
    ) -> None:
        self._operations, self._outputs = operations, outputs
        self.largest, self.name = largest, name
        self._ending, self._redact = ending, redact
        self.done: int = 0
        """The number of tasks that have ended here."""
        self.failed: int = 0
        """The number of those that ended with an error."""
        self.declined: int = 0
        """The number of tasks that were left to other remotes."""
        self.running: dict[str, RemoteTask] = {}
        """The tasks whose calls run now."""

    async def perform(self, task: RemoteTask, heard: Heard, again: bool) -> TaskOutcome | Declined:
        """
        Make the call of *task*, and return its outcome; `Declined` if it can't be made here.

        A task that nobody waits for any more is not begun. Errors are part of the outcome.
        """
        lack = self._operations.absence(task.operation)
        if lack is not None:
            return self._left(f"{self.name or 'a remote'} {lack.message}")
        if task.ends_at is not None and runtime.time() >= task.ends_at:
            late = AutomateError(ErrorCodes.DEADLINE_EXCEEDED, "its time was over before it began")
            return TaskOutcome.failed(task, late, worker=self.name)
        self.running[task.id] = task
        try:
            return await self._performed(task, heard, again)
        finally:
            self.running.pop(task.id, None)

    async def _performed(
        self, task: RemoteTask, heard: Heard, again: bool
    ) -> TaskOutcome | Declined:
        report = TaskReport(task, heard, asked=self._ending, redact=self._redact)
        failure: AutomateError | None = None
        output: Any = None
        try:
            if task.input_ref is not None:
                task = with_input(task, await self._fetched(task.input_ref))
            call = task.call(reports=report, again=again)
            with self._operations.hooks.around("automate_performing", task=task):
                output = await self._operations.ainvoke(
                    task.operation, task.input, call=call, timeout=task.timeout, runs_on=HERE
                )
        except AutomateError as error:
            if self._was_left(report, error):
                return self._left(f"{self.name or 'a remote'} stops")
            failure = error
        finally:
            report.over = True
        self.done += 1
        self.failed += failure is not None
        return await self._fitting(task, report, output, failure)

    def _left(self, reason: str) -> Declined:
        self.declined += 1
        return Declined(reason)

    def _was_left(self, report: TaskReport, error: AutomateError) -> bool:
        """Return True if a call gave up since this process stops, as it has seen."""
        if error.code is ErrorCodes.DEADLINE_EXCEEDED or (
            error.code.retryable and not error.retryable
        ):
            return False
        return report.told and report.ending == "stopping"

    async def _fetched(self, key: str) -> Any:
        if self._outputs is None:
            raise PayloadError(
                "the input is in an output store, and this executor has none",
                hint="give the host and the remote the same output_store",
            )
        return json.loads(await asyncio.to_thread(self._outputs.get, key))

    async def _fitting(
        self, task: RemoteTask, report: TaskReport, output: Any, failure: AutomateError | None
    ) -> TaskOutcome:
        """Return the outcome, with an output in the store if the broker takes no more."""
        about: dict[str, Any] = {
            "worker": self.name, "labels": report.labels,
            "progress": json.loads(report.latest) if report.latest is not None else None,
        }  # fmt: skip
        if failure is not None:
            return TaskOutcome.failed(task, failure, **about)
        own: dict[str, Any] = {
            "task_id": task.id,
            "execution_id": task.execution_id,
            "durable": task.durable,
        }
        try:
            outcome = TaskOutcome(output=output, **own, **about)
            size = len(outcome.to_text())
        except PayloadError as error:
            return TaskOutcome.failed(task, error, **about)
        if size <= self.largest:
            return outcome
        if self._outputs is None:
            lacking = PayloadError(
                f"the output takes {size:,} bytes, and the broker {self.largest:,} at most",
                hint="give the host and the remote the same output_store",
            )
            return TaskOutcome.failed(task, lacking, **about)
        key = f"{task.execution_id or 'task'}/{new_id()}"
        await asyncio.to_thread(self._outputs.put, key, json.dumps(output).encode())
        return TaskOutcome(output_ref=key, **own, **about)
