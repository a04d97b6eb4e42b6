"""What does the work of an item, and what its result or its error means for the item."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.errors import AutomateError, ConfigError, LeaseLostError, StorageError
from automate_kernel.outbox.item import ItemStatus, OutboxItem, bounded_seconds
from automate_kernel.outbox.retry import Backoff
from automate_kernel.outbox.store import OutboxStore, Outcome

__all__ = [
    "Acknowledged",
    "Handler",
    "Result",
    "Snooze",
    "aexecute",
    "drained_by",
    "draining",
    "execute",
    "failed",
]

logger = logging.getLogger(__name__)
Describe = Callable[[BaseException], str]


@dataclass(frozen=True, slots=True)
class Snooze:
    """Returned by a handler: call me again in *seconds*, and don't count this attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Returned by a handler that has recorded the item's outcome itself, in its own transaction."""


Result = Outcome | Acknowledged | None
"""What a handler's run came to; None if its lease was lost, so that nothing may be recorded."""

_draining: ContextVar[Callable[[], bool]] = ContextVar("automate_draining", default=lambda: False)


def draining() -> bool:
    """Whether the worker that runs this handler is stopping, so that long work should pause."""
    return _draining.get()()


@contextmanager
def drained_by(stopping: Callable[[], bool]) -> Iterator[None]:
    """Let `draining` ask *stopping* while the block runs, and nobody after it."""
    token = _draining.set(stopping)
    try:
        yield
    finally:
        _draining.reset(token)


@dataclass(frozen=True, slots=True)
class Handler:
    """
    A function for the items of one kind, and how to run it.

    A ``def`` runs on a thread, or with *inline* in the loop that claims (for work of well under a
    millisecond that never blocks); an ``async def`` runs on the worker's event loop. With
    *transactional* it is called with the item and a transaction of the host's database, which
    commits together with the item's completion.
    """

    kind: str
    function: Callable[..., Any]
    transactional: bool = False
    inline: bool = False
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if self.asynchronous and (self.transactional or self.inline):
            raise ConfigError(
                f"the handler of {self.kind!r} is an async def",
                hint="transactional and inline handlers must be plain functions",
            )

    @property
    def asynchronous(self) -> bool:
        """Whether it is an ``async def``."""
        function = inspect.unwrap(self.function)
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  (a callable object's own method)
        )


def execute(
    store: OutboxStore, worker_id: str, handler: Handler, item: OutboxItem, describe: Describe
) -> Result:
    """Run a handler, and return what to record."""
    try:
        if not handler.transactional:
            return _outcome(store, item, handler.function(item))
        with store.transaction() as transaction:
            outcome = _outcome(store, item, handler.function(item, transaction))
            if isinstance(outcome, Outcome) and store.acknowledge(
                worker_id, [outcome], transaction=transaction
            ):
                raise LeaseLostError(f"the lease of item {item.id} was lost")
        return _outcome(store, item, Acknowledged())
    except BaseException as error:
        main = threading.current_thread() is threading.main_thread()
        if isinstance(error, KeyboardInterrupt) and main:
            raise  # Ctrl-C is meant for the program, not for the item that happened to run
        return failed(handler, item, error, describe)


async def aexecute(
    store: OutboxStore, handler: Handler, item: OutboxItem, describe: Describe
) -> Result:
    """`execute` for an ``async def`` handler. Cancellation passes through."""
    try:
        return _outcome(store, item, await handler.function(item))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # SystemExit too: it would end the loop, and all work on it
        return failed(handler, item, error, describe)


def _outcome(store: OutboxStore, item: OutboxItem, result: Any) -> Outcome | Acknowledged:
    if isinstance(result, Acknowledged):
        store.forget([item.id], token=item.lease_token)
        return result
    if isinstance(result, Snooze):
        return Outcome(item.id, ItemStatus.PENDING, result.seconds, token=item.lease_token)
    return Outcome(item.id, token=item.lease_token)


def failed(
    handler: Handler, item: OutboxItem, error: BaseException, describe: Describe
) -> Outcome | None:
    """What to record for an item whose handler ended with *error*; None if its lease is lost."""
    if isinstance(error, LeaseLostError):
        logger.warning("%s: lease lost, its result is dropped", item)
        return None
    code, retryable, delay = "ERROR", True, None
    if isinstance(error, AutomateError):
        # A database that failed says nothing about the item, whatever its own work could hope for.
        retryable = error.retryable or isinstance(error, StorageError)
        code, delay = str(error.code), error.retry_after
    if delay is None:
        delay = handler.backoff.delay(item.attempt_count)
    text = _described(error, describe)
    last = not retryable or item.attempt_count >= item.max_attempts
    logger.log(
        logging.ERROR if last else logging.WARNING,
        "item %s (%s) failed at attempt %d of %d: %s",
        item.id, item.kind, item.attempt_count, item.max_attempts, text,
    )  # fmt: skip
    status = ItemStatus.FAILED if last else ItemStatus.RETRY
    return Outcome(item.id, status, bounded_seconds(delay), code, text, item.lease_token)


def _described(error: BaseException, describe: Describe) -> str:
    try:
        return describe(error)
    except Exception:  # its own __str__ may be what fails
        return type(error).__name__
