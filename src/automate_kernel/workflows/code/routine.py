"""A plain function as a coroutine: it runs on a thread of its own, and stops at each call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any, Protocol, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.logs import get_logger
from automate_kernel.workflows.code.calls import UnwoundError

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")

# A function that goes on asking while it is left is given up.
_MOST_UNWINDS = 100


in_workflow: ContextVar[bool] = ContextVar("automate_in_workflow", default=False)
"""True in the code of a workflow, and not in its steps."""


class Routine(Protocol):
    """The part of a coroutine that is needed to drive it."""

    def send(self, value: Any, /) -> Any:
        """Go on with *value*, and return what is asked for next; raises ``StopIteration``."""

    def throw(self, error: BaseException, /) -> Any:
        """Go on with *error*."""

    def close(self) -> None:
        """Leave it."""


class PlainRoutine:
    """
    A plain *function* that is driven like a coroutine.

    Only one side runs at a time: `send` waits until the function asks for something or ends. Raises
    ``RuntimeError`` if the machine has no more threads.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._function, self._arguments = function, arguments
        # (True, what is asked for), or (False, the result and the error).
        self._asked: runtime.SimpleQueue[tuple[bool, Any, BaseException | None]] = (
            runtime.SimpleQueue()
        )
        self._answers: runtime.SimpleQueue[tuple[Any, BaseException | None]] = runtime.SimpleQueue()
        self._over = False
        self._thread = runtime.Thread(
            target=copy_context().run, args=(self._run,), name="automate-workflow", daemon=True
        )
        self._thread.start()

    def send(self, value: Any) -> Any:
        """Let the function go on with *value*, and return what it asks for next."""
        return self._went_on(value, None)

    def throw(self, error: BaseException) -> Any:
        """Raise *error* where the function waits, and return what it asks for next."""
        return self._went_on(None, error)

    def close(self) -> None:
        """Leave the function, which goes on though it is left: its thread stays where it is."""
        if not self._over:
            logger.error("%s goes on though it is left", self._function.__qualname__)

    def _went_on(self, value: Any, error: BaseException | None) -> Any:
        if self._over:
            raise RuntimeError("the workflow has ended")
        self._answers.put((value, error))
        asks, value, error = self._asked.get()
        if asks:
            return value
        self._over = True
        if isinstance(error, StopIteration):
            text = "the workflow raised StopIteration"
            raise RuntimeError(text) from error  # noqa: TRY004  (as a coroutine does)
        if error is not None:
            raise error
        raise StopIteration(value)

    def _run(self) -> None:
        in_workflow.set(True)
        try:
            self._answered()
            result = self._function(*self._arguments)
        except BaseException as error:
            self._asked.put((False, None, error))
        else:
            self._asked.put((False, result, None))

    def _answered(self) -> Any:
        value, error = self._answers.get()
        if error is not None:
            raise error
        return value

    def ask(self, asked: Awaitable[T]) -> T:
        """Hand *asked* over, on the function's thread, and return the answer."""
        if runtime.current_thread() is not self._thread:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "the context of a workflow is used on another thread",
                hint="call the steps from the workflow itself",
            )
        self._asked.put((True, asked, None))
        answer: T = self._answered()
        return answer


def leave(routine: Routine) -> None:
    """Leave *routine* for now: what it does on its way out begins nothing."""
    for _ in range(_MOST_UNWINDS):
        try:
            routine.throw(UnwoundError())
        except BaseException:  # the one above, or what the function made of it
            return
    routine.close()
