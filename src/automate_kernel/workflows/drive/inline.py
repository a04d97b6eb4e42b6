"""
Executions without a worker: the thread that asks drives them, as far as they go now.

`Kernel.run` does so, and what runs due items inline. Only steps in parallel need other threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, LeaseLostError, UnknownHereError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.outbox.item import OutboxItem, OutcomeRecorded, Result
from automate_kernel.worker.handler import should_stop
from automate_kernel.worker.in_flight import Ended, Task
from automate_kernel.worker.threads import Threads
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.decide.waiting import LOOK_SECONDS
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.drive.driver import ActiveExecution, ExecutionDriver, broken
from automate_kernel.workflows.drive.flow import Flow
from automate_kernel.workflows.drive.runner import SEEN_SECONDS, Runner
from automate_kernel.workflows.execution import Event, Execution
from automate_kernel.workflows.store.stored import Loaded

# Threads for the parallel steps of all executions that run without a worker.
_PARALLEL = 64
# Nothing of other executions is left unsaved for a call that takes longer.
_QUICK_SECONDS = 0.01


class InlineDriver(ExecutionDriver):
    """
    Drives executions in the thread that calls `drive`.

    It saves once no execution can have a turn, and makes a call that may take long once all is
    saved. *threads* returns the threads for calls beside others.
    """

    def __init__(self, runner: Runner, threads: Callable[[], Threads[InlineDriver, None]]) -> None:
        super().__init__(
            runner,
            lease_seconds=runner.store.outbox.lease_seconds,
            stopping=should_stop,
            gives_up=should_stop,
            briefly=False,
        )
        self._threads = threads
        self._results: dict[str, Result | BaseException] = {}
        self._calls: deque[tuple[ActiveExecution, StepCall]] = deque()
        # Calls beside others: each is made by the thread that takes it.
        self._beside: runtime.SimpleQueue[tuple[ActiveExecution, StepCall]] = runtime.SimpleQueue()
        self._has_threads = True
        self._look_at = 0.0

    def drive(self, flows: Iterable[Flow]) -> dict[str, Result | BaseException]:
        """Drive *flows* as far as they go now; return their results, or errors, by their items."""
        try:
            for flow in flows:
                active = ActiveExecution(Task(flow.item, flow.leased_at), flow)
                self._guarded(active, self._enter, active)
            while self._active:
                if self._timers or self._young:
                    self._ring_timers()
                if self._ready.empty():
                    self._go_on_waiting()
                else:
                    self._take_next(None)
        finally:
            for active in list(self._active):
                self._close(active)
        return self._results

    def _take_next(self, timeout: float | None) -> None:
        try:
            entry = self._ready.get(timeout=timeout)
        except runtime.Empty:
            return
        if entry is not None:
            try:
                self._take(entry)
            except Exception as error:
                self._fail(entry[0], error)

    def _go_on_waiting(self) -> None:
        """Do what has waited until no execution can have a turn."""
        if not self._dirty.empty():
            self._commit_all()
        elif self._calls:
            active, call = self._calls.popleft()
            if active in self._active:
                self._guarded(active, self._call_here, active, call)
        elif not self._has_threads and not self._beside.empty():
            self.help()
        else:
            self._await_outcome()

    def _guarded(self, active: ActiveExecution, function: Callable[..., Any], *given: Any) -> None:
        """Call *function*; an error of it is the result of *active*, and stops no other."""
        try:
            function(*given)
        except Exception as error:
            self._active[active] = None
            self._fail(active, error)

    def _commit_all(self) -> None:
        group: list[ActiveExecution] = []
        with suppress(runtime.Empty):
            while (active := self._dirty.get_nowait()) is not None:
                group.append(active)
        self._commit(group)

    def _call_here(self, active: ActiveExecution, call: StepCall) -> None:
        held = active.flow.to_release or self._is_over(active)
        outcome = CallOutcome(call, begun=False) if held else self._outcome(active, call)
        self._ready.put((active, [outcome]))

    def _await_outcome(self) -> None:
        """Wait until another thread has made a call, a timer rings, or a signal may be there."""
        waiting = self._waiting() if runtime.monotonic() >= self._look_at else {}
        if waiting:
            self._look_at = runtime.monotonic() + LOOK_SECONDS
            if self._look_for(waiting):
                return
        self._take_next(self._until_timer())

    def _make(self, active: ActiveExecution, calls: Sequence[StepCall]) -> None:
        if len(active.flow.running) > 1 or active.due is not None or active.flow.waiting:
            for call in calls:
                self._beside.put((active, call))
            try:
                self._threads().put([self] * len(calls))
            except RuntimeError:  # the machine has no more: this thread makes what others leave
                self._has_threads = False
            return
        (call,) = calls
        mean = self._runner.mean_seconds(call.action)
        if mean <= _QUICK_SECONDS:
            active.arrived.append(self._outcome(active, call))
            return
        if mean > SEEN_SECONDS:
            # Nobody can do so while this thread makes the call.
            self._show(active, call)
        self._calls.append((active, call))

    def help(self) -> None:
        """Make a call that is to be made beside others, if one is left."""
        with suppress(runtime.Empty):
            active, call = self._beside.get_nowait()
            if active not in self._active or active.abandoned or active.flow.to_release:
                outcome = CallOutcome(call, begun=False)
            else:
                active.flow.started(call)
                self._show_later(active, call)
                try:
                    outcome = self._outcome(active, call)
                except BaseException as error:  # a SystemExit too: the caller waits for it
                    outcome = broken(call, error)
            self._ready.put((active, [outcome]))

    def _move(self, active: ActiveExecution) -> None:
        self._move_outputs(active)

    def _wait_on(self, active: ActiveExecution, turn: Turn, *, told: bool) -> None:
        """Leave it to `_await_outcome`."""

    def _abandon(self, active: ActiveExecution) -> None:
        super()._abandon(active)
        # The caller doesn't wait for what runs: whoever goes on with it makes the others.
        active.flow.running.clear()

    def _failed(self, active: ActiveExecution, error: BaseException) -> Result:
        self._results[active.task.item.id] = error
        return None

    def _end(self, ended: list[Ended]) -> None:
        for task, result in ended:
            if task.item.id not in self._results:
                lost = result is None
                self._results[task.item.id] = _lost(task) if lost else result


def _lost(task: Task) -> LeaseLostError:
    return LeaseLostError(f"the lease of item {task.item.id} is lost")


class InlineExecutions:
    """The executions that run without a worker, in the threads of their callers."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        # Executions that `begin` has begun, until they are driven: they need not be read.
        self._begun: dict[str, Loaded] = {}
        self._threads: Threads[InlineDriver, None] | None = None
        renew_in_children(self)

    def begin(
        self, workflow: Workflow, event: Event, owner: str
    ) -> tuple[str, OutboxItem | None, Execution | None]:
        """
        Begin an execution, claimed by *owner*; return its id, and the item for `handle`.

        With the item comes the execution, as that will leave it. There are none if the execution
        has to wait to be claimed.
        """
        store = self._runner.store
        if store.pauses.holds(workflow.name, event.tenant_id):
            with store.storage.begin() as rows:
                return store.starts.start(rows, workflow, event), None, None
        execution_id, item, loaded = store.starts.start_new(workflow, event, owner)
        if item is None or loaded is None:
            return execution_id, None, None
        self._begun[item.id] = loaded
        return execution_id, item, loaded.execution

    def handle(self, item: OutboxItem) -> Result:
        """Bring an execution as far as it goes now, in this thread."""
        begun = self._begun.pop(item.id, None)
        flow = self._runner.flow(item, begun) if begun else self._runner.open([item]).get(item.id)
        if isinstance(flow, UnknownHereError):
            return self._runner.hand_over(item, flow)
        if isinstance(flow, AutomateError):
            raise flow
        if not isinstance(flow, Flow):
            return flow
        result = InlineDriver(self._runner, self._started).drive([flow])[item.id]
        if isinstance(result, BaseException):
            raise result
        return result

    def handle_all(self, items: Sequence[OutboxItem]) -> dict[str, Result | BaseException]:
        """
        Bring several executions as far as they go now, in this thread, and save them as a group.

        Returns by item what `handle` would return or raise; of some nothing.
        """
        opened = self._runner.open([item for item in items if item.id not in self._begun])
        flows = [each for each in opened.values() if isinstance(each, Flow)]
        deferred = {key: each for key, each in opened.items() if isinstance(each, OutcomeRecorded)}
        return {**deferred, **InlineDriver(self._runner, self._started).drive(flows)}

    def _started(self) -> Threads[InlineDriver, None]:
        if self._threads is None:
            self._threads = Threads(_PARALLEL, "automate-step", InlineDriver.help, lambda *_: None)
        return self._threads

    def renew(self) -> None:
        """Forget the threads, which are another process's."""
        self._threads = None

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.stop()
            self._threads = None
