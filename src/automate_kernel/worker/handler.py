"""Handlers: they do the work of items; and the outcome that a result or an error means."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.base.arguments import several
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    LeaseLostError,
    StorageError,
    describe_error,
)
from automate_kernel.operations.context import handled_item
from automate_kernel.operations.error_mapping import is_bug
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.reports import Ending
from automate_kernel.outbox.controls import OutboxControls, controls_of
from automate_kernel.outbox.item import (
    Backoff,
    ItemStatus,
    OutboxItem,
    Outcome,
    OutcomeRecorded,
    Result,
    bounded_seconds,
    new_id,
)
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import group_of, log_error, trace_of

__all__ = [
    "Handler",
    "HandlerRegistry",
    "ItemRunner",
    "Snooze",
    "cancelling",
    "declare_limits",
    "failed",
    "should_stop",
    "stoppable_by",
]

logger: logging.Logger = get_logger(__name__)
Describe = Callable[[BaseException], str]
Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Snooze:
    """
    A handler's result that asks for another call in *seconds*; this attempt isn't counted.

    Operators see the *reason* at the item, with the code ``UNAVAILABLE``.
    """

    seconds: float
    reason: str | None = None


_Asked = Callable[[], bool]
_stops: ContextVar[tuple[_Asked, _Asked]] = ContextVar("automate_stops", default=(bool, bool))


def should_stop() -> bool:
    """
    Return True if this handler should pause at the next good moment, and return `Snooze`.

    The worker that runs it is stopping, or its item is `cancelling`.
    """
    stopping, cancelled = _stops.get()
    return stopping() or cancelled()


def cancelling() -> bool:
    """
    Return True if somebody has cancelled the item that this handler works on.

    Nothing stops a ``def`` handler by force. A long handler looks here, and returns `Snooze` or
    raises. An ``async def`` handler is cancelled by its worker.
    """
    return _stops.get()[1]()


def asked_to_stop() -> Callable[[], Ending | None]:
    """Return a function for other threads: the reason why `should_stop` is True here, or None."""
    stopping, cancelled = _stops.get()

    def asked() -> Ending | None:
        # A worker that stops cancels nothing: what was cancelled says so itself.
        if cancelled():
            return "cancelled"
        return "stopping" if stopping() else None

    return asked


@contextmanager
def stoppable_by(stopping: _Asked, cancelled: _Asked = bool) -> Iterator[None]:
    """Let `should_stop` and `cancelling` ask these while the block runs."""
    token = _stops.set((stopping, cancelled))
    try:
        yield
    finally:
        _stops.reset(token)


@dataclass(frozen=True, slots=True)
class Handler:
    """
    A function for the items of one kind, and how to run it.

    A ``def`` runs on one of the worker's threads, an ``async def`` on its event loop.

    A *transactional* function is called with the item and a transaction of the host's database,
    which commits together with the item's completion. *limit* is set when a worker starts, unless
    an operator has set another. The function is called in the context manager that *around* makes
    of the item. With *pool* a worker runs its items in the pool that this makes of the handlers
    that have it and a `PoolSetup`, and not by calling the function. Without a worker *together* is
    called with those that were claimed at once. It returns by their ids what the function would
    have returned or raised; the others, and all if it fails, are handled by the function.
    """

    kind: str
    function: Callable[..., Any]
    transactional: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    limit: Limit | None = None
    around: Callable[[OutboxItem], AbstractContextManager[Any]] | None = None
    pool: Callable[[Any, Any], Any] | None = None
    together: Callable[[list[OutboxItem]], Mapping[str, Any]] | None = None

    asynchronous: bool = field(init=False, repr=False)
    """True if it is an ``async def``."""

    def __post_init__(self) -> None:
        # Once: it is asked for each item.
        object.__setattr__(self, "asynchronous", _is_async(self.function))
        if self.asynchronous and self.transactional:
            raise ConfigError(
                f"the handler of {self.kind!r} is an async def",
                hint="a transactional handler must be a plain function",
            )

    def call(self, item: OutboxItem, *transaction: Any) -> Any:
        """Call the function."""
        if self.around is None:
            return self.function(item, *transaction)
        with self.around(item):
            return self.function(item, *transaction)

    async def call_async(self, item: OutboxItem) -> Any:
        """Await the function."""
        if self.around is None:
            return await self.function(item)
        with self.around(item):
            return await self.function(item)


def _is_async(function: Callable[..., Any]) -> bool:
    function = inspect.unwrap(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (a callable object's own method)
    )


def declare_limits(store: OutboxStore, handlers: Iterable[Handler]) -> None:
    """Set the limits that *handlers* declare, and lift those that they no longer declare."""
    by_kind = {handler.kind: handler.limit for handler in handlers}
    declared = [limit for limit in by_kind.values() if limit is not None]
    if isinstance(store, OutboxControls):
        store.declare_limits(declared, kinds=by_kind)
    elif declared:
        controls_of(store)  # raises: nobody would keep them


def default_worker_id() -> str:
    """Return a name with host and process that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"[:200]


@dataclass(slots=True)
class WorkerStats:
    """The outcomes that a worker has recorded since it started."""

    completed: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    cancelled: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add an outcome that was recorded."""
        if outcome.status is ItemStatus.COMPLETED:
            self.completed += 1
        elif outcome.status is ItemStatus.FAILED:
            self.failed += 1
        elif outcome.status is ItemStatus.RETRY:
            self.retried += 1
        elif outcome.status is ItemStatus.CANCELLED:
            self.cancelled += 1

    @property
    def total(self) -> int:
        """All outcomes."""
        return self.completed + self.retried + self.failed + self.lost + self.cancelled


@dataclass(frozen=True, slots=True)
class ItemRunner:
    """
    Runs handlers on items that *worker_id* has claimed from *store*.

    *describe* gives an error's text, *redact* takes secrets out of its traceback.
    """

    store: OutboxStore
    worker_id: str
    describe: Describe = describe_error
    redact: Redact = str

    def run(self, handler: Handler, item: OutboxItem) -> Result:
        """Run a handler, and return the result to record."""
        token = handled_item.set(item)
        try:
            if not handler.transactional:
                return self._outcome(item, handler.call(item))
            with self.store.transaction() as transaction:
                outcome = self._outcome(item, handler.call(item, transaction))
                if isinstance(outcome, Outcome) and self.store.acknowledge(
                    self.worker_id, [outcome], transaction=transaction
                ):
                    raise LeaseLostError(f"the lease of item {item.id} was lost")
            return self._outcome(item, OutcomeRecorded())
        except BaseException as error:
            if is_interruption(error):
                raise  # Ctrl-C is meant for the program, not for the item that happened to run
            return self.failed(handler, item, error)
        finally:
            handled_item.reset(token)

    async def arun(self, handler: Handler, item: OutboxItem) -> Result:
        """Run an ``async def`` handler as `run` does. Cancellation passes through."""
        token = handled_item.set(item)
        try:
            return self._outcome(item, await handler.call_async(item))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit too: it would end the loop, and all work on it
            return self.failed(handler, item, error)
        finally:
            handled_item.reset(token)

    def failed(self, handler: Handler, item: OutboxItem, error: BaseException) -> Outcome | None:
        """Return the outcome of an item whose handler ended with *error*; see `failed`."""
        return failed(handler, item, error, self.describe, self.redact)

    def result(self, handler: Handler, item: OutboxItem, given: Any) -> Result:
        """Return the result to record of what *handler* returned or raised for an item."""
        failed = isinstance(given, BaseException)
        return self.failed(handler, item, given) if failed else self._outcome(item, given)

    def _outcome(self, item: OutboxItem, result: Any) -> Outcome | OutcomeRecorded:
        if isinstance(result, OutcomeRecorded):
            self.store.forget_claims([item.id], token=item.lease_token)
            return result
        if isinstance(result, Snooze):
            code = str(ErrorCodes.UNAVAILABLE) if result.reason else None
            return Outcome(
                item.id, ItemStatus.PENDING, result.seconds, code, result.reason, item.lease_token
            )
        return Outcome(item.id, token=item.lease_token)


def failed(
    handler: Handler,
    item: OutboxItem,
    error: BaseException,
    describe: Describe,
    redact: Redact = str,
) -> Outcome | None:
    """
    Return the outcome of an item whose handler ended with *error*; None if its lease is lost.

    *describe* gives the error's text, *redact* takes secrets out of its traceback.
    """
    if isinstance(error, LeaseLostError):
        logger.warning("%s: lease lost, its result is dropped", item)
        return None
    code, retryable, delay = "ERROR", True, None
    if isinstance(error, AutomateError):
        # A database that failed says nothing about the item, whatever its own work could hope for;
        # a database that refused a value will refuse it again.
        refused = error.code is ErrorCodes.INVALID_ARGUMENT
        retryable = error.retryable or (isinstance(error, StorageError) and not refused)
        code, delay = str(error.code), error.retry_after
    if delay is None:
        delay = handler.backoff.delay(item.attempt_count)
    text = _described(error, describe)
    last = not retryable or item.attempt_count >= item.max_attempts
    trace, group = trace_of(error, redact), group_of(error, redact)
    log_error(
        logger, logging.ERROR if last else logging.WARNING,
        "item %s (%s) failed at attempt %d of %d: %s",
        item.id, item.kind, item.attempt_count, item.max_attempts, text,
        trace=trace if last or is_bug(error) else None,
    )  # fmt: skip
    status = ItemStatus.FAILED if last else ItemStatus.RETRY
    return Outcome(
        item.id, status, bounded_seconds(delay), code, text, item.lease_token, group, trace
    )


def _described(error: BaseException, describe: Describe) -> str:
    try:
        return describe(error)
    except Exception:
        return type(error).__name__


class HandlerRegistry:
    """The handlers, by the kind of their items."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Handler] = {}

    @property
    def kinds(self) -> list[str]:
        """The kinds that have a handler, sorted."""
        return sorted(self._by_kind)

    def __getitem__(self, kind: str) -> Handler:
        return self._by_kind[kind]

    def add(self, handler: Handler) -> None:
        """Add *handler*; raises ``ALREADY_EXISTS`` if its kind has one."""
        if handler.kind in self._by_kind:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"items of kind {handler.kind!r} have a handler already"
            )
        self._by_kind[handler.kind] = handler

    def choose(
        self, kinds: Iterable[str], exclude_kinds: Iterable[str], *, unwanted: Iterable[str] = ()
    ) -> list[Handler]:
        """
        Return the handlers whose kinds match *kinds* (by default all), without *exclude_kinds*.

        Both are patterns such as ``mail.*``. *unwanted* kinds are left out silently. Raises
        `ConfigError` for a pattern that fits no handler, and if all are left out.
        """
        patterns, others = several(kinds), several(exclude_kinds)
        for pattern in (*patterns, *others):
            if not any(fnmatchcase(kind, pattern) for kind in self._by_kind):
                raise ConfigError(
                    f"no handler is there for items of kind {pattern!r}",
                    hint=f"there are: {', '.join(self.kinds)}",
                )
        wanted = [handler for kind, handler in self._by_kind.items() if kind not in {*unwanted}]
        chosen = [
            handler
            for handler in wanted
            if (not patterns or _fits(handler.kind, patterns)) and not _fits(handler.kind, others)
        ]
        if wanted and not chosen:
            raise ConfigError(
                "no kind of item is left to work on",
                hint="name fewer kinds that are left out, or others that are worked on",
            )
        return chosen


def _fits(kind: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in patterns)
