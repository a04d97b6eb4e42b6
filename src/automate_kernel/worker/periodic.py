"""What a worker does beside the work: recovery, schedules, cleaning up."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from automate_kernel.errors import ErrorCodes, LeaseLostError, StorageError
from automate_kernel.secrets.logs import get_logger

__all__ = ["Chore", "Chores", "keep_trying", "try_for"]

logger: logging.Logger = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chore:
    """
    Something to do every so often. An error is logged and the chore runs again next time.

    With *at_once* it is first done when the worker starts, else at some time after.
    """

    name: str
    seconds: float
    run: Callable[[], Any]
    at_once: bool = False


class Chores:
    """Runs chores in turn, each when its time has come."""

    def __init__(self, chores: Sequence[Chore], stopping: threading.Event) -> None:
        self._chores = chores
        self._stopping = stopping

    def run(self) -> None:
        """Work until the worker stops."""
        # Workers that were started together must not all reap at the same moment.
        now = time.monotonic()
        due = {
            chore.name: now if chore.at_once else now + chore.seconds * random.random()
            for chore in self._chores
        }
        while due and not self._stopping.wait(max(0.0, min(due.values()) - time.monotonic())):
            for chore in self._chores:
                if due[chore.name] <= time.monotonic():
                    self._run(chore)
                    due[chore.name] = time.monotonic() + chore.seconds

    def _run(self, chore: Chore) -> None:
        try:
            chore.run()
        except Exception:
            logger.exception("chore %r failed; it runs again in %gs", chore.name, chore.seconds)


def keep_trying(work: Callable[[], T], stopping: threading.Event | None, what: str) -> T | None:
    """
    Call *work* until it succeeds, backing off with jitter up to half a minute.

    Returns None if *stopping* was set while it failed, or after five failures if there is no such
    event. A database that is down makes a worker wait, and never lose what it has finished.
    """
    from tenacity import (
        Retrying,
        retry_if_not_exception_type,
        stop_after_attempt,
        stop_when_event_set,
        wait_random_exponential,
    )

    try:
        return work()  # the way it nearly always goes needs no machinery
    except LeaseLostError:
        raise
    except Exception as error:
        logger.warning("%s failed, trying again: %s", what, error)
    pause: Callable[[float], Any] = stopping.wait if stopping else time.sleep
    retrying = Retrying(
        wait=wait_random_exponential(multiplier=0.1, max=30),
        stop=stop_when_event_set(stopping) if stopping else stop_after_attempt(5),
        retry=retry_if_not_exception_type((LeaseLostError, KeyboardInterrupt, SystemExit)),
        sleep=pause,
        before_sleep=_teller(what),
        retry_error_callback=lambda state: None,
    )
    return retrying(work)


def try_for(seconds: float, work: Callable[[], T], what: str, *, until: Callable[[], bool]) -> T:
    """
    Call *work* until its database has no failure, *until* is true or *seconds* have passed.

    What the database refuses for its values (``INVALID_ARGUMENT``) is raised at once.
    """
    from tenacity import (
        Retrying,
        retry_if_exception,
        stop_after_delay,
        stop_any,
        wait_random_exponential,
    )

    try:
        return work()
    except StorageError as error:
        if not _may_pass(error):
            raise
        logger.warning("%s failed, trying again: %s", what, error)
    retrying = Retrying(
        wait=wait_random_exponential(multiplier=0.1, max=10),
        stop=stop_any(stop_after_delay(seconds), lambda state: until()),  # type: ignore[arg-type]
        retry=retry_if_exception(_may_pass),
        before_sleep=_teller(what),
        reraise=True,
    )
    return retrying(work)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.code is not ErrorCodes.INVALID_ARGUMENT


def _teller(what: str) -> Callable[[Any], None]:
    def tell(state: Any) -> None:
        error = state.outcome.exception()
        log = logger.warning if state.attempt_number < 5 else logger.error
        log("%s failed (try %d), trying again: %s", what, state.attempt_number, error)

    return tell
