"""A lock that processes on all machines share: one parameter of Parameter Store."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from automate_aws.clients import AwsClients
from automate_aws.failures import aws_code
from automate_kernel.base.errors import AutomateError, SecretUnavailableError
from automate_kernel.base.forks import new_lock

logger: logging.Logger = logging.getLogger(__name__)

_FREE = "free"
_LOOK_SECONDS, _MARGIN_SECONDS = 0.5, 5.0
_local: dict[str, threading.Lock] = {}
_local_guard = new_lock()


@dataclass(frozen=True, slots=True)
class _State:
    version: int
    free: bool
    age_seconds: float


@dataclass(frozen=True, slots=True)
class ParameterLock:
    """
    The lock *name*: of those who want it, one has it for *lease_seconds* at most.

    Each write of a parameter gives it the next version number. Who saw version n free, writes, and
    gets n + 1, has the lock: nobody wrote between. A holder that dies loses it by the age of its
    write, which AWS's own clock tells.
    """

    clients: AwsClients
    name: str
    lease_seconds: float = 60.0
    wait_seconds: float = 60.0
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all others out for the block; raise `SecretUnavailableError` if it isn't free."""
        until = self.clock() + self.wait_seconds
        mine = _lock_of_process(self.name)
        # Threads of this process needn't ask AWS about each other.
        if not mine.acquire(timeout=self.wait_seconds):
            raise self._taken()
        try:
            since = self._acquire(until)
            try:
                yield
            finally:
                # Once the lease has run out, it may be another's.
                if self.clock() - since < self.lease_seconds - _MARGIN_SECONDS:
                    self._free()
        finally:
            mine.release()

    def _free(self) -> None:
        try:
            self._write(_FREE)
        except AutomateError as error:
            # What the lock was for is done, and the lease runs out.
            logger.warning("the lock %s could not be freed: %s", self.name, error)

    def _acquire(self, until: float) -> float:
        """Wait for the lock, and return a time that is not after the beginning of its lease."""
        while True:
            # Before the write, whose answer may be late.
            since = self.clock()
            if self._tried() and self.clock() - since < self.lease_seconds:
                return since
            if self.clock() > until:
                raise self._taken()
            self.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.5))

    def _tried(self) -> bool:
        state, mine = self._state(), f"held {uuid4().hex}"
        if state is None:
            try:
                return self._write(mine, first=True) == 1
            except AutomateError as error:
                if aws_code(error) != "ParameterAlreadyExists":
                    raise
                return False
        if not state.free and state.age_seconds < self.lease_seconds:
            return False
        # A loser's write stays, and reads as held: the holder frees it, or the lease runs out.
        return self._write(mine) == state.version + 1

    def _state(self) -> _State | None:
        try:
            answer = self.clients.call("ssm", "get_parameter", Name=self.name)
        except AutomateError as error:
            if aws_code(error) == "ParameterNotFound":
                return None
            raise
        found = answer["Parameter"]
        age = (_now_of(answer) - found["LastModifiedDate"]).total_seconds()
        return _State(found["Version"], found["Value"] == _FREE, age)

    def _write(self, value: str, *, first: bool = False) -> int:
        answer = self.clients.call(
            "ssm", "put_parameter", Name=self.name, Value=value, Type="String", Overwrite=not first
        )
        return int(answer["Version"])

    def _taken(self) -> SecretUnavailableError:
        return SecretUnavailableError(f"the lock {self.name!r} is held by another process")


def _lock_of_process(name: str) -> threading.Lock:
    with _local_guard:
        return _local.setdefault(name, new_lock())


def _now_of(answer: dict[str, Any]) -> datetime:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"])
