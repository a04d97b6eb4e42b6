"""The kit for tests of workflows: it runs them in this thread, and skips the time they wait."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, overload

from automate_kernel.base.durations import format_duration, parse_duration
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.kernel import Kernel
from automate_kernel.operations.replacement import ReplacedCall, Replacement
from automate_kernel.operations.spec import step_operation
from automate_kernel.workflows.execution import Event, Execution

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = TypeVar("P")

# A year and some: what waits for longer waits for something else than time.
_LONGEST_SECONDS = 400 * 86_400.0
_MOST_SKIPS = 10_000
_STEP_SECONDS = 0.001
_MOST_EXECUTIONS = 10_000


class MovableClock(Protocol):
    """A clock of a storage that a test moves: `automate_testing.FakeClock`."""

    def advance(self, seconds: float, /) -> Any:
        """Move on by *seconds*."""


class _StartOptions(TypedDict, total=False):
    event: Event | None
    tenant_id: str | None


class WorkflowTest:
    """
    Runs workflows of *kernel* in the calling thread, without waiting for anything.

    Where an execution waits (for a retry, a time, a timeout), the clock of the storage moves on to
    the moment when it is due. That takes a `MemoryStorage`, or the *clock* with which another
    storage was made. No worker may run beside it. Used in a ``with`` block, it puts back at the end
    what `replace` has replaced.

    ::

        with WorkflowTest(kernel) as test:
            slack = test.replace("slack.post", {"ok": True})
            execution = test.run("remind", {"order": 7})
            assert slack.calls == [{"text": "Order 7 waits"}]
    """

    def __init__(self, kernel: Kernel, *, clock: MovableClock | None = None) -> None:
        skip = clock.advance if clock is not None else getattr(kernel.storage, "skip", None)
        if skip is None:
            raise ConfigError(
                f"the time of {kernel.storage.describe()} can't be skipped",
                hint="give the test a kernel on MemoryStorage(), or make the storage with a"
                " FakeClock() and pass that as clock too",
            )
        self.kernel = kernel
        self._skip: Callable[[float], Any] = skip
        self._replacements: list[Replacement] = []

    def __enter__(self) -> WorkflowTest:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Put back what was replaced, and allow all calls again."""
        self.kernel.operations.replacements.real = None
        while self._replacements:
            self._replacements.pop().undo()

    # -- actions -----------------------------------------------------------------------------

    def replace(self, operation: str | Callable[..., Any], fake: Any = None) -> Replacement:
        """
        Call *fake* in the place of an action until `close`; see `Kernel.replace`.

        A function that a workflow in code calls may be named as in the error of its step:
        ``shop.flows.reserve``.
        """
        if isinstance(operation, str):
            operation = self._step_function(operation) or operation
        replacement = self.kernel.replace(operation, fake)
        self._replacements.append(replacement)
        return replacement

    def allow_only(self, *operations: str) -> None:
        """Let every call fail, until `close`, but for these *operations* and those replaced."""
        real = set[str]()
        for name in operations:
            if (function := self._step_function(name)) is not None:
                real.add(step_operation(function).name)
                continue
            self.kernel.operations.spec_at_hand(name)
            real.add(name)
        self.kernel.operations.replacements.real = frozenset(real)

    def _step_function(self, name: str) -> Callable[..., Any] | None:
        """Return the function of a module that *name* means, if it is no action's name."""
        if self.kernel.operations.absence(name) is None:
            return None
        path = name.split(".")
        for length in range(len(path) - 1, 0, -1):
            found: Any = sys.modules.get(".".join(path[:length]))
            for part in path[length:]:
                found = getattr(found, part, None)
            if inspect.isroutine(found):
                return found
        return None

    @property
    def calls(self) -> list[ReplacedCall]:
        """The calls of everything that was replaced, in the order in which they were made."""
        made = (call for one in self._replacements for call in one.made)
        return sorted(made, key=lambda call: call.number)

    # -- executions --------------------------------------------------------------------------

    @overload
    def run(
        self, workflow: Callable[[Any, P], Any], payload: P, **options: Unpack[_StartOptions]
    ) -> Execution: ...
    @overload
    def run(
        self,
        workflow: Callable[[Any], Any],
        payload: None = None,
        **options: Unpack[_StartOptions],
    ) -> Execution: ...
    @overload
    def run(
        self, workflow: str, payload: Any = None, **options: Unpack[_StartOptions]
    ) -> Execution: ...
    def run(
        self, workflow: str | Callable[..., Any], payload: Any = None, **options: Any
    ) -> Execution:
        """
        Start *workflow*, by its name or function, and run it to its end, whatever time that takes.

        *options* are those of `start`. If it waits for something that time doesn't bring, it comes
        back as it is.
        """
        return self.finish(self.start(workflow, payload, **options))

    @overload
    def start(
        self, workflow: Callable[[Any, P], Any], payload: P, **options: Unpack[_StartOptions]
    ) -> Execution: ...
    @overload
    def start(
        self,
        workflow: Callable[[Any], Any],
        payload: None = None,
        **options: Unpack[_StartOptions],
    ) -> Execution: ...
    @overload
    def start(
        self, workflow: str, payload: Any = None, **options: Unpack[_StartOptions]
    ) -> Execution: ...
    def start(
        self,
        workflow: str | Callable[..., Any],
        payload: Any = None,
        *,
        event: Event | None = None,
        tenant_id: str | None = None,
    ) -> Execution:
        """Start *workflow*, and run what is due now; see `Kernel.start`."""
        execution_id = self.kernel.start(workflow, payload, event=event, tenant_id=tenant_id)
        self._run_due()
        return self.execution(execution_id)

    def emit(self, name: str, payload: Any = None, **options: Any) -> list[Execution]:
        """
        Accept an event, run what is due now, and return the executions that the event started.

        *options* are those of `Kernel.emit`.
        """
        event_id = self.kernel.emit(name, payload, **options)
        self._run_due()
        found = self.kernel.executions.find(limit=_MOST_EXECUTIONS)
        return [each for each in reversed(found) if each.event.id == event_id]

    def execution(self, execution_id: str) -> Execution:
        """Return an execution as it is now; raises ``NOT_FOUND``."""
        found = self.kernel.executions.get(execution_id)
        if found is None:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        return found

    def finish(self, execution: Execution | str) -> Execution:
        """Skip time until *execution*, or that of an id, has ended or nothing more is due."""
        known = execution if isinstance(execution, str) else execution.id
        self._go_on(_LONGEST_SECONDS, lambda: self.execution(known).status.finished)
        return self.execution(known)

    def pass_time(self, time: float | str | timedelta) -> None:
        """
        Let *time* pass (``"1d"``, seconds), and run all that becomes due meanwhile, in its order.

        A schedule sees the end of it alone, as after a pause of all workers.
        """
        seconds = time.total_seconds() if isinstance(time, timedelta) else parse_duration(time)
        left = self._go_on(seconds, lambda: False)
        if left > 0:
            self._skip(left)
        self._run_due()

    def _run_due(self) -> None:
        # There is no other worker that could know an action which this kernel doesn't.
        with self.kernel.executing_here():
            self.kernel.run_until_idle()

    def _go_on(self, seconds: float, ended: Callable[[], bool]) -> float:
        """Run what becomes due in the next *seconds*, until it has *ended*; return what is left."""
        self._run_due()
        overdue = False
        for _ in range(_MOST_SKIPS):
            due = None if ended() else self.kernel.outbox.next_due_seconds()
            # What is due twice and was not taken is nobody's: its kind is paused, or has no
            # handler.
            if due is None or due > seconds or (due <= 0 and overdue):
                return seconds
            overdue = due <= 0
            if not overdue:
                # A little more: a clock that is moved by fractions of its step may stand still.
                self._skip(due + _STEP_SECONDS)
                seconds -= due
            self._run_due()
        raise AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED,
            f"it still goes on after {_MOST_SKIPS} waits, with {format_duration(seconds)} left",
            hint="a workflow that never ends is tested with pass_time",
        )
