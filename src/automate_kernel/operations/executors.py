"""
Step executors: other places where calls run, and the host's side of a call that runs there.

::

    invoker ─▶ Executors ─▶ StepExecutor.submit ─▶ broker ─▶ StepExecutor.serve ─▶ TaskWorker
       ▲                                             │                                │
       └──────── outcome, or a signal with a key ◀───┴──── the first outcome is kept ◀┘

The engine, its checkpoints, retries and waits stay where they are. A task is created once for each
attempt that fails: whoever submits it again, after a crash say, attaches to it.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    UnknownHereError,
    did_you_mean,
)
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.brokers import close_all, problems_of, try_within
from automate_kernel.operations.context import Call
from automate_kernel.operations.tasks import (
    Declined,
    RemoteTask,
    TaskOutcome,
    input_text,
    task_id,
)
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.worker_reports import ExecutorUse
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.output_store import OutputStore

__all__ = [
    "HERE",
    "Executors",
    "Heard",
    "Perform",
    "Placement",
    "StepExecutor",
    "Suspended",
    "TaskLimits",
    "TaskNews",
]

logger = get_logger(__name__)

HERE = "here"
"""The name in ``runs_on`` of the process that asks."""

# The codes of a broker that can't be reached, or is full: the call waits.
_WAITS = (ErrorCodes.UNAVAILABLE, ErrorCodes.RESOURCE_EXHAUSTED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_WATCH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class TaskNews:
    """
    News of a task that has not ended: a report of *progress*, or the reason why it *waits*.

    *progress* is an object with ``value`` and ``message``.
    """

    progress: Any = None
    waits: str | None = None


Heard = Callable[[TaskNews], None]
"""Takes the news of one task, from the executor's event loop."""

Perform = Callable[[RemoteTask, Heard, bool], Awaitable["TaskOutcome | Declined"]]
"""Makes the call of a task, and returns its outcome; True if it was delivered before."""


class StepExecutor(ABC):
    """
    A place where calls run, between hosts that submit tasks and remotes that serve them.

    A subclass knows one broker. Each process makes its own instance, and uses it from one event
    loop. A method raises `AutomateError` with ``UNAVAILABLE`` while the broker can't be reached,
    and with ``RESOURCE_EXHAUSTED`` while it is full: the caller waits and tries again. Outcomes
    and tasks are kept until nobody can ask for them any more.
    """

    largest: int = 1_000_000
    """The most bytes of a task or an outcome. What is larger goes by the output store."""

    supports_durable: ClassVar[bool] = True
    """True if `deliver` is there: a call may be waited for without a process that holds it."""

    # -- the host's side ---------------------------------------------------------------------

    @abstractmethod
    async def submit(self, task: RemoteTask) -> None:
        """
        Create the task, or attach to the one with its id that waits, runs or has an outcome.

        If *task* is ``repeated``, look for an outcome first. It is durable when this returns.
        """

    @abstractmethod
    async def outcome(self, task_id: str, heard: Heard) -> TaskOutcome | None:
        """
        Wait for the outcome of a task that was submitted, however long that takes.

        Return None if the broker knows neither the task nor an outcome: it is to be submitted
        again. *heard* gets the news until then.
        """

    @abstractmethod
    async def cancel(self, task_id: str) -> None:
        """
        Let a task not begin, and its call stop where it runs; its outcome is ``CANCELLED``.

        Nothing happens to a task that has an outcome.
        """

    async def detach(self, task_id: str) -> None:  # noqa: B027 - many hold nothing
        """Forget a task here, which goes on elsewhere: this process stops."""

    async def deliver(self, take: Callable[[TaskOutcome], Awaitable[None]]) -> None:
        """
        Hand the outcomes of durable tasks over to *take*, until this is cancelled.

        An outcome that *take* raises for comes again, perhaps in another process.
        """
        raise NotImplementedError

    async def problems(self) -> list[str]:
        """Return what keeps tasks from being done, in words for operators; empty if all is well."""
        return []

    async def close(self) -> None:  # noqa: B027 - many hold nothing
        """Give back connections."""

    # -- the remote's side -------------------------------------------------------------------

    @abstractmethod
    async def serve(
        self, perform: Perform, *, slots: int, stopping: asyncio.Event, name: str
    ) -> None:
        """
        Take tasks and *perform* them, at most *slots* at once, until *stopping* is set.

        It looks for an outcome before a task begins, and keeps its outcome before the task is
        acknowledged; the first outcome counts. A task that is declined waits for another remote.
        Once *stopping* is set nothing more is taken, and this returns when all that runs has ended.
        If it is cancelled, what runs is left to other remotes. *name* names this process.
        """


@dataclass(frozen=True, slots=True)
class Suspended:
    """A call whose outcome is delivered later, to the step that waits for the task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """
    The limits of a task in seconds: of one *attempt*, from where it begins, and of the wait for it.

    A task that waits in a queue has not begun. The wait ends after *until* seconds.
    """

    attempt: float | None = None
    until: float | None = None


@dataclass(slots=True)
class Placement:
    """One executor as it is configured: its *name*, and the *operations* that run there."""

    name: str
    executor: StepExecutor
    operations: tuple[str, ...] = ()
    """The patterns of operations that run there by default."""
    durable: bool = False
    """True if steps wait for outcomes without being held in a worker."""
    problem: str | None = field(default=None, compare=False)
    """The reason why the last task could not be submitted at once; None once one was."""
    found: list[str] = field(default_factory=list, compare=False)
    """The problems that the executor had when it was looked at."""
    in_flight: int = field(default=0, compare=False)
    """The number of calls whose outcomes this process waits for."""
    ended: int = field(default=0, compare=False)
    """The number of outcomes that have come."""
    error: str | None = field(default=None, compare=False)
    """The error of the last outcome; None if it was an output."""

    def takes(self, operation: str) -> bool:
        """Return True if *operation* runs there by default."""
        return any(fnmatchcase(operation, pattern) for pattern in self.operations)

    def note(self, outcome: TaskOutcome) -> None:
        """Note *outcome* for the report about the executor."""
        failure = outcome.failure()
        self.ended += 1
        self.error = None if failure is None else f"{failure.code}: {failure.message}"


class Executors:
    """
    The executors of a kernel, by name.

    *outputs* is the output store, for what is too large for a broker.
    """

    def __init__(
        self, placements: Mapping[str, Placement], outputs: OutputStore | None = None
    ) -> None:
        self.placements: dict[str, Placement] = dict(placements)
        """The executors by their names."""
        self._outputs = outputs
        # Cancellations on their way: the loop itself keeps no task alive.
        self._cancelling: set[asyncio.Task[None]] = set()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the calls in flight, which are another process's."""
        self._watched: dict[asyncio.Future[TaskOutcome], Call] = {}
        self._watches = False
        for each in self.placements.values():
            each.in_flight = 0

    def named(self, runs_on: str) -> Placement:
        """Return the executor called *runs_on*; raises `UnknownHereError` without one."""
        found = self.placements.get(runs_on)
        if found is None:
            known = [*self.placements, HERE]
            raise UnknownHereError(
                f"doesn't know the executor {runs_on!r}",
                reason="UNKNOWN_EXECUTOR",
                hint=did_you_mean(runs_on, known, also=f"there are: {', '.join(known)}"),
            )
        return found

    def chosen(self, operation: str, runs_on: str | None = None) -> Placement | None:
        """Return where *operation* runs: *runs_on*, or the first whose patterns fit; None here."""
        if runs_on is not None:
            return None if runs_on == HERE else self.named(runs_on)
        for placement in self.placements.values():
            if placement.takes(operation):
                return placement
        return None

    # -- one call ----------------------------------------------------------------------------

    async def run(
        self, placement: Placement, task: RemoteTask, call: Call, until: float | None
    ) -> Any:
        """
        Return the output of *task*, or raise its error; after *until* seconds a timeout.

        Once its worker stops, the task goes on without it: raises ``CANCELLED``, and whoever
        submits it again attaches. If the call is cancelled, the task is too.
        """
        waiting = asyncio.ensure_future(self._outcome(placement, task, call))
        placement.in_flight += 1
        self._watch(waiting, call)
        try:
            await asyncio.wait([waiting], timeout=until)
        except asyncio.CancelledError:
            waiting.cancel()
            self._leave(placement, task, call)
            raise
        finally:
            placement.in_flight -= 1
            self._watched.pop(waiting, None)
        if waiting.cancelled():
            self._leave(placement, task, call)
            raise AutomateError(ErrorCodes.CANCELLED, f"the call on {placement.name!r} is left")
        if not waiting.done():
            waiting.cancel()
            await self._give_up(placement, task)
            text = f"it took longer than {until:g} seconds on {placement.name!r}"
            raise AutomateError(ErrorCodes.DEADLINE_EXCEEDED, text)
        placement.note(waiting.result())
        return await self.output_of(waiting.result(), call)

    def _watch(self, waiting: asyncio.Future[TaskOutcome], call: Call) -> None:
        """Have *waiting* cancelled once its worker stops, or nobody wants it any more."""
        if call.reports is None:
            return
        self._watched[waiting] = call
        if not self._watches:
            self._watches = True
            asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._look)

    def _look(self) -> None:
        # One look for all: hundreds are in flight.
        for waiting, call in list(self._watched.items()):
            if call.cancelled:
                waiting.cancel()
        self._watches = bool(self._watched)
        if self._watches:
            asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._look)

    def _leave(self, placement: Placement, task: RemoteTask, call: Call) -> None:
        """Leave a task to whoever attaches to it, or cancel it if nobody will."""
        leaves = call.reports is not None and call.ending in (None, "stopping")
        work = self._detach(placement, task) if leaves else self._give_up(placement, task)
        # Its caller may be being cancelled: what that awaits now would be too.
        self.soon(work)

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Have *work* done soon, on the running loop: a cancellation, say."""
        running = asyncio.get_running_loop().create_task(work)
        self._cancelling.add(running)
        running.add_done_callback(self._cancelling.discard)

    async def output_of(self, outcome: TaskOutcome, call: Call) -> Any:
        """Return the output of a task that has ended, or raise its error; take its labels in."""
        if call.reports is not None:
            if outcome.labels:
                call.reports.label(outcome.labels)
            if outcome.progress is not None and isinstance(outcome.progress, Mapping):
                call.reports.report(outcome.progress.get("value"), outcome.progress.get("message"))
        failure = outcome.failure()
        if failure is not None:
            raise failure
        if outcome.output_ref is None:
            return outcome.output
        return await asyncio.to_thread(self.read, outcome.output_ref)

    def read(self, key: str) -> Any:
        """Return the value under *key* of the output store."""
        return json.loads(self._store("read what a remote has put there").get(key))

    async def suspend(self, placement: Placement, task: RemoteTask, call: Call) -> Suspended:
        """Submit *task*, whose outcome is delivered."""
        await self._submit(placement, replace(task, durable=True), call)
        return Suspended(task.id)

    async def _outcome(self, placement: Placement, task: RemoteTask, call: Call) -> TaskOutcome:
        executor, heard = placement.executor, _hearing(call)
        while True:
            await self._submit(placement, task, call)
            try:
                outcome = await executor.outcome(task.id, heard)
            except AutomateError as error:
                if error.code not in _WAITS:
                    raise
                self._note(placement, call, error)
                await asyncio.sleep(_FIRST_PAUSE)
                outcome = None
            if outcome is not None:
                return outcome
            # Whoever comes back may find that it has ended meanwhile.
            task = replace(task, repeated=True)

    async def _submit(self, placement: Placement, task: RemoteTask, call: Call) -> None:
        task, pause = await self._fitting(placement, task), _FIRST_PAUSE
        while True:
            try:
                await placement.executor.submit(task)
            except AutomateError as error:
                if error.code not in _WAITS:
                    raise
                # It may have been created by the try that failed.
                task = replace(task, repeated=True)
                self._note(placement, call, error)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)
            else:
                placement.problem = None
                return

    async def _fitting(self, placement: Placement, task: RemoteTask) -> RemoteTask:
        """Return *task*, with its input in the output store if it is too large for the broker."""
        if len(task.to_text()) <= placement.executor.largest:
            return task
        text = input_text(task)
        key = f"{task.execution_id or 'task'}/{new_id()}"
        store = self._store(f"hand over an input of {len(text):,} bytes")
        await asyncio.to_thread(store.put, key, text.encode())
        return replace(task, input=None, input_ref=key)

    def _store(self, purpose: str) -> OutputStore:
        if self._outputs is None:
            raise PayloadError(
                f"there is no output store to {purpose}",
                hint="give the host and the remote the same output_store",
            )
        return self._outputs

    def _note(self, placement: Placement, call: Call, error: AutomateError) -> None:
        """Note why a task waits: for its operators, and on the pages of its step."""
        if placement.problem is None:
            logger.warning("executor %r: tasks wait: %s", placement.name, error.message)
        placement.problem = error.message
        if call.reports is not None:
            call.reports.waits(f"waits for executor {placement.name!r}: {error.message}")

    # -- ends --------------------------------------------------------------------------------

    async def cancel(self, name: str, task_id: str) -> None:
        """Cancel a task of the executor *name*, as far as it can be reached."""
        placement = self.placements.get(name)
        if placement is not None:
            await try_within(f"executor {placement.name!r}", placement.executor.cancel(task_id))

    async def _give_up(self, placement: Placement, task: RemoteTask) -> None:
        await try_within(f"executor {placement.name!r}", placement.executor.cancel(task.id))

    async def _detach(self, placement: Placement, task: RemoteTask) -> None:
        await try_within(f"executor {placement.name!r}", placement.executor.detach(task.id))

    async def problems(self) -> dict[str, list[str]]:
        """Return by name what keeps tasks from being done, in words for operators."""
        placements = self.placements.values()
        found = await asyncio.gather(*(problems_of(each.executor) for each in placements))
        for each, problems in zip(placements, found, strict=True):
            each.found = problems
        return {each.name: each.found for each in placements if each.found}

    def used(self, redact: Callable[[str], str]) -> list[ExecutorUse]:
        """Return this process's use of each executor, with texts that *redact* has cleaned."""
        return [
            ExecutorUse(
                each.name, each.in_flight, each.ended,
                None if each.error is None else redact(each.error),
                redact("; ".join(dict.fromkeys(filter(None, (each.problem, *each.found))))) or None,
            )
            for each in self.placements.values()
        ]  # fmt: skip

    async def close(self) -> None:
        """Close every executor."""
        await close_all({f"executor {n!r}": each.executor for n, each in self.placements.items()})


def task_of(
    call: Call,
    data: Any,
    *,
    generation: str = "",
    timeout: float | None = None,
    ends_at: float | None = None,
    headers: dict[str, str] | None = None,
) -> RemoteTask:
    """Return the task that *call* with the input *data* becomes; secrets in it are handles."""
    report, written = call.reports, None
    if call.written is not None:
        given = data if isinstance(data, Mapping) else {}
        texts = call.written if isinstance(call.written, Mapping) else {}
        written = tuple(sorted(name for name in given if texts.get(name) == given[name]))
    return RemoteTask(
        id=task_id(call, generation), operation=call.operation, input=data,
        tenant_id=call.tenant_id, execution_id=call.execution_id, step_id=call.step_id,
        attempt=call.attempt, failed_attempts=call.failed_attempts,
        idempotency_key=call.idempotency_key, repeated=call.repeated, written=written,
        progress=None if report is None else report.previous, timeout=timeout,
        heartbeat=None if report is None else report.heartbeat, ends_at=ends_at,
        headers=headers or {},
    )  # fmt: skip


def _hearing(call: Call) -> Heard:
    report = call.reports

    def heard(news: TaskNews) -> None:
        if report is None or report.over:
            return
        if news.waits is not None:
            report.waits(news.waits)
        elif isinstance(news.progress, Mapping):
            report.report(news.progress.get("value"), news.progress.get("message"))

    return heard
