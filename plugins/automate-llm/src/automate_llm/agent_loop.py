"""
The event loop of one agent, which stops whenever the agent waits for its workflow.

An agent is a task of asyncio, and makes tasks of its own. A workflow in code is none: it may await
its context alone, and is left and replayed. So the agent gets an event loop on a thread of its own,
and only one of the two runs at a time. Once every task of the agent waits, its calls are handed
over together, in the order in which they were asked for. That order is the same in each replay.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from automate_kernel import AutomateError, ErrorCodes, WorkflowContext
from automate_kernel.operations.portal import leave_nothing

logger: logging.Logger = logging.getLogger(__name__)
T = TypeVar("T")

# An agent that goes on awaiting things of its own while it is left is given up.
_LEAVE_SECONDS = 5.0

Perform = Callable[[WorkflowContext], Awaitable[Any]]


@dataclass(eq=False, slots=True)
class Asked:
    """A call that the agent waits for. *perform* makes it, in the workflow."""

    perform: Perform
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """The value that a call has ended with, or its error."""

    value: Any = None
    error: Exception | None = None


class AgentLoop(Generic[T]):
    """
    An event loop for the coroutine of *work*, driven from a workflow.

    `start` and `go_on` return the calls that it waits for next, and none once it has ended.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._asked: list[Asked] = []
        self._handed: SimpleQueue[Sequence[Asked]] = SimpleQueue()
        self._answers: SimpleQueue[Sequence[CallAnswer] | None] = SimpleQueue()
        self._waiting: Sequence[Asked] = ()
        self._task: asyncio.Task[T] | None = None
        self._left = False
        self._ended: tuple[T | None, BaseException | None] | None = None
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="automate-agent", daemon=True
        )

    def start(self) -> Sequence[Asked]:
        """Begin, and return the calls that it waits for first."""
        try:
            self._thread.start()
        except RuntimeError:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                "the machine has no thread left for an agent",
                hint="run fewer agents at once",
            ) from None
        return self._next()

    def go_on(self, answers: Sequence[CallAnswer]) -> Sequence[Asked]:
        """Give the *answers* to the calls that it waits for, and return the next ones."""
        self._answers.put(answers)
        return self._next()

    def result(self) -> T:
        """Return the result of the work that has ended, or raise its error."""
        if self._ended is None:
            raise RuntimeError("the agent has not ended")
        value, error = self._ended
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def leave(self) -> None:
        """Cancel the work if it has not ended. Nothing that it asks for on its way out is begun."""
        if self._ended is not None or not self._thread.is_alive():
            return
        self._answers.put(None)
        self._thread.join(_LEAVE_SECONDS)
        if self._thread.is_alive():
            logger.error("an agent goes on though its workflow has left it")

    async def ask(self, perform: Perform) -> Any:
        """Have *perform* done in the workflow, and return what it returns; on the loop alone."""
        if self._left:
            raise asyncio.CancelledError
        future = asyncio.get_running_loop().create_future()
        self._asked.append(Asked(perform, future))
        return await future

    def _next(self) -> Sequence[Asked]:
        self._waiting = self._handed.get()
        return self._waiting

    def _run(self) -> None:
        try:
            loop = asyncio.SelectorEventLoop(_IdleSelector(self._idle))
            try:
                self._task = loop.create_task(self._work())
                self._ended = loop.run_until_complete(self._task), None
            finally:
                self._left = True  # tasks that are left over have nothing begun
                loop.run_until_complete(leave_nothing(_LEAVE_SECONDS / 2))
                loop.close()
        except BaseException as error:
            self._ended = None, error
        finally:
            self._handed.put(())

    def _idle(self) -> bool:
        """Hand the calls over, and take their answers; False if there are none to wait for."""
        # Those of tasks that were cancelled meanwhile are not begun.
        asked = [each for each in self._asked if not each.future.done()]
        self._asked = []
        if self._left or not asked:
            return False
        self._handed.put(asked)
        answers = self._answers.get()
        if answers is None:
            self._left = True
            if self._task is not None:
                self._task.cancel()
            return True
        for each, answer in zip(asked, answers, strict=True):
            if answer.error is not None:
                each.future.set_exception(answer.error)
            else:
                each.future.set_result(answer.value)
        return True


class _IdleSelector(selectors.DefaultSelector):
    """A selector that says when its loop has nothing left to do, by calling *idle*."""

    def __init__(self, idle: Callable[[], bool]) -> None:
        super().__init__()
        self._idle = idle

    def select(self, timeout: float | None = None) -> Any:
        # A loop that has tasks to run asks with 0.
        if (timeout is None or timeout > 0) and self._idle():
            timeout = 0
        return super().select(timeout)


class InlineExecutor(Executor):
    """
    An executor that calls at once.

    The plain functions of an agent (instructions, validators) run on its thread: on others they
    would end in an order that differs from run to run.
    """

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Call *function*, and return its result as a future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **named))
        except BaseException as error:
            future.set_exception(error)
        return future
