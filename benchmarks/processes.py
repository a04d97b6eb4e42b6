"""The processes of a contender: one that enqueues, and workers."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contender import Database, Purpose
from benchmarks.counter import Counter
from benchmarks.environments import Environment

_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 60.0
_STOP_SECONDS = 3.0


class FailedError(Exception):
    """A contender did not do what it was asked to; the text says how."""


@dataclass(frozen=True)
class Seat:
    """Everything that a process of a contender must know."""

    contender: str
    variant: str
    environment: Environment
    database: Database
    counter: Counter
    log: Path

    def start(self, purpose: Purpose | None = None, slot: int = 0) -> subprocess.Popen[str]:
        """Start a producer, or with a *purpose* a worker."""
        spec = {
            "contender": self.contender,
            "variant": self.variant,
            "database": asdict(self.database),
            "counter": self.counter.path,
            "purpose": purpose,
            "slot": slot,
        }
        pipe = subprocess.PIPE if purpose is None else subprocess.DEVNULL
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(self.environment.python), "-m", "benchmarks.agent", json.dumps(spec)],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=pipe,
                stdout=pipe if purpose is None else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def complaint(self) -> str:
        """The last that its processes said."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])[-500:]


@dataclass(frozen=True)
class Answer:
    """What a call gave, how long it took and what CPU time it used, seen from inside."""

    result: Any
    seconds: float
    cpu: float


class Producer:
    """A process that does what it is told, one call at a time."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._process = seat.start()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]

    def call(self, method: str, *arguments: Any, patience: float = 300.0) -> Answer:
        """Call a method of the contender there."""
        try:
            self._process.stdin.write(json.dumps([method, *arguments]) + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise FailedError(f"{method}: its process has ended: {self._said()}") from None
        if not self._selector.select(patience):
            self.close()
            raise FailedError(f"{method} took more than {patience:.0f} s")
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise FailedError(f"{method}: its process ended: {self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise FailedError(f"{method}: {answer['error']}")
        return Answer(**answer)

    def _said(self) -> str:
        self.close()
        return self._seat.complaint()

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def workers(seat: Seat, count: int, purpose: Purpose) -> Iterator[list[int]]:
    """Worker processes that are prepared and stand at the gate; gives their process ids."""
    seat.counter.reset()
    started = [seat.start(purpose, slot) for slot in range(count)]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while seat.counter.ready < count:
            if any(one.poll() is not None for one in started) or time.monotonic() > deadline:
                raise FailedError(f"a worker did not start: {seat.complaint()}")
            time.sleep(0.01)
        yield [one.pid for one in started]
    finally:
        for one in started:
            one.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for one in started:
            try:
                one.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
