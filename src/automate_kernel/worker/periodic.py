"""Periodic tasks of a worker: recovery, schedules, cleaning up; and retries of failed calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import ErrorCodes, LeaseLostError, StorageError
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import TooManyConnectionsError, warn_of

__all__ = ["SAVE_SECONDS", "PeriodicRunner", "PeriodicTask", "keep_trying", "note_tries", "try_for"]

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")

_MORE_SECONDS = 1.0
# A task that finds no free connection again and again tries less often, but no less than so.
_LONGEST_SECONDS = 8.0
SAVE_SECONDS = 150.0
"""
For so long the outcome of a call waits for a database that fails: without it the call is repeated.

Its lease may end meanwhile. While the database is away nobody takes it over, and whoever does so
later has it refused.
"""


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """
    A function to call every so many *seconds*. An error is logged, and it is called again in time.

    With *at_once* it is first called when the worker starts, else at some time after. A task that
    returns True has more to do, and is called again in a second.

    A worker has two sorts. The *clock* looks at what is due, in milliseconds. All else is upkeep,
    which may take longer, and holds up no look at what is due.
    """

    name: str
    seconds: float
    run: Callable[[], Any]
    at_once: bool = False
    clock: bool = False


class PeriodicRunner:
    """
    Runs periodic tasks in turn, each when its time has come.

    A database that is away is no error of a task's: a line reports it when it begins.
    """

    def __init__(self, tasks: Sequence[PeriodicTask], stopping: runtime.Event) -> None:
        self._tasks = tasks
        self._stopping = stopping
        self._failures: dict[str, int] = {}

    def run(self) -> None:
        """Work until the worker stops."""
        # Workers that were started together must not all reap at the same moment.
        now, phase = runtime.monotonic(), runtime.numbers.random()
        due = {
            task.name: now if task.at_once else now + task.seconds * phase for task in self._tasks
        }
        while due and not self._stopping.wait(max(0.0, min(due.values()) - runtime.monotonic())):
            now = runtime.monotonic()
            for task in self._tasks:
                if due[task.name] <= runtime.monotonic() and not self._stopping.is_set():
                    pause = self._run(task)
                    # Those of one period stay together, unless they took long: one wake-up is
                    # enough for them.
                    ended = runtime.monotonic()
                    due[task.name] = pause + (now if ended - now < pause / 4 else ended)

    def _run(self, task: PeriodicTask) -> float:
        """Run *task*, and return the seconds until its next time."""
        try:
            more = task.run() is True
        except TooManyConnectionsError as error:
            warn_of(logger, error, "periodic task %r failed: %s", task.name)
            times = self._failures[task.name] = self._failures.get(task.name, 0) + 1
            longest = max(task.seconds, _LONGEST_SECONDS)
            return runtime.numbers.uniform(0.5, 1.0) * min(
                longest, task.seconds * 2.0 ** min(times, 9)
            )
        except Exception as error:
            self._report(task, error)
            return task.seconds
        self._failures.pop(task.name, None)
        return min(task.seconds, _MORE_SECONDS) if more else task.seconds

    def _report(self, task: PeriodicTask, error: Exception) -> None:
        if not (isinstance(error, StorageError) and error.retryable):
            text = "periodic task %r failed; next try in %gs"
            logger.error(text, task.name, task.seconds, exc_info=error)
            return
        # The place in our code says nothing about a database that is away, and no second line more.
        again = self._failures.get(task.name, 0)
        self._failures[task.name] = again + 1
        level = logging.DEBUG if again else logging.WARNING
        logger.log(level, "periodic task %r failed, trying again: %s", task.name, error)


_thread = runtime.local()


def note_tries(move: Callable[[], object]) -> None:
    """Have *move* called for what this thread tries again: it waits for a database, and lives."""
    _thread.move = move


def keep_trying(
    work: Callable[[], T],
    stopping: runtime.Event | None,
    what: str,
    *,
    longest: float = 30.0,
) -> T | None:
    """
    Call *work* until it succeeds, with random pauses of up to *longest* seconds.

    Returns None if *stopping* was set while it failed, or after five failures if there is no such
    event. A database that is down makes a worker wait, and never lose what it has finished.
    """
    from tenacity import (
        Retrying,
        retry_if_not_exception_type,
        stop_after_attempt,
        stop_when_event_set,
    )

    try:
        return work()  # the way it nearly always goes needs no machinery
    except LeaseLostError:
        raise
    except Exception as error:
        warn_of(logger, error, "%s failed, trying again: %s", what)
    pause: Callable[[float], Any] = stopping.wait if stopping else runtime.pause
    retrying = Retrying(
        wait=_pauses(longest),
        stop=stop_when_event_set(stopping) if stopping else stop_after_attempt(5),
        retry=retry_if_not_exception_type((LeaseLostError, KeyboardInterrupt, SystemExit)),
        sleep=pause,
        before_sleep=_warn_again(what),
        retry_error_callback=lambda state: None,
    )
    return retrying(work)


def try_for(seconds: float, work: Callable[[], T], what: str, *, until: Callable[[], bool]) -> T:
    """
    Call *work* until its database does not fail, *until* returns True or *seconds* have passed.

    An error about refused values (``INVALID_ARGUMENT``) is raised at once.
    """
    try:
        return work()
    except StorageError as error:
        if not _may_pass(error):
            raise
        warn_of(logger, error, "%s failed, trying again: %s", what)
    # Nearly always there is nothing to try again.
    from tenacity import Retrying, retry_if_exception

    ends_at = runtime.monotonic() + seconds
    retrying = Retrying(
        wait=_pauses(10),
        stop=lambda state: until() or runtime.monotonic() >= ends_at,
        retry=retry_if_exception(_may_pass),
        sleep=runtime.pause,
        before_sleep=_warn_again(what),
        reraise=True,
    )
    return retrying(work)


def _pauses(longest: float) -> Callable[[Any], float]:
    """Return the seconds before each further try: a random part of what doubles each time."""
    return lambda state: runtime.numbers.uniform(
        0.0, min(longest, 0.1 * 2.0 ** min(state.attempt_number - 1, 30))
    )


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.code is not ErrorCodes.INVALID_ARGUMENT


def _warn_again(what: str) -> Callable[[Any], None]:
    def warn(state: Any) -> None:
        move: Callable[[], object] = getattr(_thread, "move", bool)
        move()
        text, error = "%s failed (try %d), trying again: %s", state.outcome.exception()
        if state.attempt_number < 5 or isinstance(error, TooManyConnectionsError):
            warn_of(logger, error, text, what, state.attempt_number)
        else:
            logger.error(text, what, state.attempt_number, error)

    return warn
