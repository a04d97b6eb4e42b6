"""What does the work of an item, and what its result or its error means for the item."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..errors import AutomateError, ConfigError, LeaseLostError
from .item import ItemStatus, OutboxItem
from .retry import Backoff
from .store import Outcome, OutboxStore

__all__ = ["Acknowledged", "Handler", "Snooze", "aexecute", "draining", "execute"]

logger = logging.getLogger(__name__)
Describe = Callable[[BaseException], str]


@dataclass(frozen=True, slots=True)
class Snooze:
    """Returned by a handler: call me again in *seconds*, and don't count this attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Returned by a handler that has recorded the item's outcome itself, in its own transaction."""


_draining: ContextVar[Callable[[], bool]] = ContextVar("automate_draining", default=lambda: False)


def draining() -> bool:
    """Whether the worker that runs this handler is stopping, so that long work should pause."""
    return _draining.get()()


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
) -> Outcome | None:
    """
    Run a handler, and return what to record; None if that is done already or the lease is lost.
    """
    try:
        if not handler.transactional:
            return _outcome(store, item, handler.function(item))
        with store.transaction() as transaction:
            outcome = _outcome(store, item, handler.function(item, transaction))
            if outcome and store.acknowledge(worker_id, [outcome], transaction=transaction):
                raise LeaseLostError(f"the lease of item {item.id} was lost")
        store.forget([item.id])
    except BaseException as error:
        return _failed(handler, item, error, describe)
    return None


async def aexecute(
    store: OutboxStore, handler: Handler, item: OutboxItem, describe: Describe
) -> Outcome | None:
    """`execute` for an ``async def`` handler. Cancellation passes through."""
    try:
        return _outcome(store, item, await handler.function(item))
    except Exception as error:
        return _failed(handler, item, error, describe)


def _outcome(store: OutboxStore, item: OutboxItem, result: Any) -> Outcome | None:
    if isinstance(result, Acknowledged):
        store.forget([item.id])
        return None
    if isinstance(result, Snooze):
        return Outcome(item.id, ItemStatus.PENDING, result.seconds, token=item.lease_token)
    return Outcome(item.id, token=item.lease_token)


def _failed(
    handler: Handler, item: OutboxItem, error: BaseException, describe: Describe
) -> Outcome | None:
    if isinstance(error, LeaseLostError):
        logger.warning("%s: lease lost, its result is dropped", item)
        return None
    code, retryable, delay = "ERROR", True, None
    if isinstance(error, AutomateError):
        code, retryable, delay = str(error.code), error.retryable, error.retry_after
    if delay is None:
        delay = handler.backoff.delay(item.attempt_count)
    text = describe(error)
    last = not retryable or item.attempt_count >= item.max_attempts
    logger.log(
        logging.ERROR if last else logging.WARNING,
        "item %s (%s) failed at attempt %d of %d: %s",
        item.id, item.kind, item.attempt_count, item.max_attempts, text,
    )  # fmt: skip
    status = ItemStatus.RETRY if retryable else ItemStatus.FAILED
    return Outcome(item.id, status, delay, code, text, item.lease_token)
