"""
Deadlocks: a transaction of our own that the database undoes for another one is tried again.

Of two transactions that wait for each other the database undoes one. It has kept nothing, so a
transaction that was ours alone can simply begin again. Where the application has one open, all of
it is undone, and only the application knows what it had done: it gets the error.

What a person asks for waits for another transaction within a bound, too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from automate_kernel.storage.errors import DeadlockError
from automate_kernel.storage.rows import Rows, Storage

T = TypeVar("T")

_TRIES = 10
_APART_SECONDS = 0.02


def write(
    storage: Storage, transaction: Any, work: Callable[[Rows], T], *, atomic: bool = True
) -> T:
    """
    Call *work* with rows as `Storage.begin` opens them, and return its result.

    After a deadlock in a transaction of our own it is called again, ten times at most.
    """
    tries = 1 if storage.joins(transaction) else _TRIES
    for left in reversed(range(tries)):
        try:
            with storage.begin(transaction, atomic=atomic) as rows:
                return work(rows)
        except DeadlockError:
            if not left:
                raise
        # Not in step with those that it would meet again.
        time.sleep(random.uniform(0, _APART_SECONDS * (_TRIES - left)))
    raise AssertionError("unreachable")


def write_bounded(storage: Storage, transaction: Any, work: Callable[[Rows], T]) -> T:
    """
    Do as `write` does, for what a person asks for.

    A transaction of the application's that goes on for long may lock what it needs. Rather than to
    stand still for as long, it raises `LockedError` after half a minute, in a transaction of our
    own.
    """
    if storage.joins(transaction):
        return write(storage, transaction, work)

    def bounded(rows: Rows) -> T:
        rows.bound_waits()
        return work(rows)

    return write(storage, transaction, bounded)
