"""The statuses of items, executions and steps: the one place of their words, also for SQL."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    # The same text on every Python: 3.10's str() of a str-enum member has the class in front.
    __str__ = str.__str__


class ItemStatus(_Word):
    """The states of an item."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRY = "RETRY"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ItemWait(_Word):
    """The column ``waiting_for`` of an item: a reason to wait, or an order to a running item."""

    WORKER = "worker"
    """It is due."""
    TIME = "time"
    KEY = "key"
    """Its ordering or concurrency key is busy."""
    RESUME = "resume"
    """Its kind, its execution or its workflow is paused."""
    CANCEL = "cancel"
    """It runs, and is asked to stop."""
    RELEASE = "release"
    """It runs, and is to be put back and taken up again."""


_UNFINISHED = ("PENDING", "RUNNING", "RETRY", "WAITING", "PAUSED", "CANCELLING")


class _Status(_Word):
    finished: bool
    """True if the status is final."""

    def __init__(self, word: str) -> None:
        self.finished = word not in _UNFINISHED


class ExecutionStatus(_Status):
    """The status of an execution."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepStatus(_Status):
    """The status of one step of an execution."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRY = "RETRY"
    WAITING = "WAITING"
    """It waits for a time, an event, a decision or another workflow."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


def words(*statuses: _Word) -> tuple[str, ...]:
    """Return *statuses* as the database has them."""
    return tuple(status.value for status in statuses)


# Constants where many rows are written: an enum's `value` is a call.
DUE, LATER = ItemWait.WORKER.value, ItemWait.TIME.value
