"""What measures work with: contenders that are ready, their databases and processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Contender, Database, Purpose
from benchmarks.counter import Counter
from benchmarks.databases import Databases
from benchmarks.environments import Environment
from benchmarks.machine import Noise, cpu_seconds, resident_mb, tree_cpu_seconds
from benchmarks.processes import FailedError, Producer, Seat, workers

_LAST_COMMIT_SECONDS = 15.0
_WARM_UP_SECONDS = 30.0
_SETTLED_SECONDS = 0.5
_SAMPLE_SECONDS = 0.05
_WATCHED_SECONDS = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much work each measure does."""

    drain_seconds: float = 2.0
    enqueue_seconds: float = 1.0
    bulk_items: int = 20_000
    samples: int = 200
    filled_rows: int = 1_000_000
    filled_patience: float = 20.0
    wait_items: int = 60_000
    workflow_seconds: float = 2.0
    elements: int = 10_000
    async_steps: int = 1_500
    idle_seconds: float = 1.5
    most: int | None = None
    """No run takes more items than this."""

    def items(self, contender: type[Contender], family: str, seconds: float, pace: float) -> int:
        """So many that *contender* takes about *seconds*."""
        return self.bounded(max(20, round(contender.pace.get(family, pace) * seconds, -1)))

    def bounded(self, items: float) -> int:
        """*items*, or the most that is allowed."""
        return int(min(items, self.most or items))


QUICK = Sizes(
    drain_seconds=0.75,
    enqueue_seconds=0.4,
    bulk_items=10_000,
    samples=50,
    filled_rows=100_000,
    filled_patience=5.0,
    wait_items=20_000,
    workflow_seconds=0.5,
    elements=2_000,
    async_steps=500,
    idle_seconds=0.7,
)


@dataclass(frozen=True)
class Entrant:
    """One contender with one set of settings, which is one row of a table."""

    contender: type[Contender]
    environment: Environment
    variant: str = ""

    @property
    def name(self) -> str:
        """What results call it."""
        return "/".join(filter(None, [self.contender.name, self.variant]))


@dataclass(frozen=True)
class Drained:
    """How a drain went. CPU time is microseconds an item, after the start of the workers."""

    items: int
    per_second: float
    client_cpu_us: float
    server_cpu_us: float
    complete: bool = True


@contextmanager
def open_bench(server: str | None) -> Iterator[Bench]:
    """Open a bench in a folder of its own, on a new PostgreSQL or the one at *server*."""
    with tempfile.TemporaryDirectory(prefix="automate-benchmark-") as name:
        databases = Databases(Path(name), server)
        bench = Bench(Path(name), databases)
        try:
            yield bench
        finally:
            bench.close()
            databases.close()


class Bench:
    """Holds the databases and a producer for each contender, and runs workers."""

    def __init__(self, folder: Path, databases: Databases) -> None:
        self.folder = folder
        self.databases = databases
        self.counter = Counter(folder / "counter", create=True)
        self._postmaster = databases.postmaster
        self.noise = Noise([self._postmaster] if self._postmaster else [])
        self._producers: dict[tuple[str, str], Producer] = {}
        self.filled: set[Database] = set()
        """The databases that hold many rows already."""

    def close(self) -> None:
        """End all producers."""
        for producer in self._producers.values():
            producer.close()

    def seat(self, entrant: Entrant, place: str) -> Seat:
        """Where *entrant* works: *place* is a kind of database, or another one of that kind."""
        name = entrant.contender.name
        kind = "sqlite" if place == "sqlite" else "postgresql"
        database, _ = self.databases.database(kind, f"{name}-{place}")
        log = self.folder / f"{name}-{place}.log"
        return Seat(
            name, entrant.variant, entrant.environment, database, self.counter, log
        )  # fmt: skip

    def producer(self, entrant: Entrant, place: str) -> Producer:
        """The process that enqueues for *entrant*; its tables are there."""
        key = (entrant.contender.name, place)
        found = self._producers.get(key)
        if found is not None and found.alive:
            return found
        made = Producer(self.seat(entrant, place))
        try:
            if found is None:
                made.call("set_up")
            made.call("open")
        except FailedError:
            made.close()
            raise
        self._producers[key] = made
        return made

    @contextmanager
    def working(self, entrant: Entrant, place: str, purpose: Purpose) -> Iterator[int]:
        """One worker with nothing to do any more; gives its process id."""
        producer = self.producer(entrant, place)
        with workers(self.seat(entrant, place), 1, purpose) as (pid,):
            self.counter.open_gate()
            producer.call("enqueue_each", 1)
            deadline = time.monotonic() + _WARM_UP_SECONDS
            while not self.counter.count:
                if time.monotonic() > deadline:
                    raise FailedError("the worker does nothing")
                time.sleep(0.01)
            time.sleep(_SETTLED_SECONDS)
            yield pid

    def drain(
        self,
        entrant: Entrant,
        place: str,
        items: int,
        *,
        count: int = 1,
        purpose: Purpose = "drain",
        ticks: int = 1,
        patience: float = 240.0,
        unfinished: str | None = None,
    ) -> Drained:
        """
        Have *count* workers do the *items* that wait.

        The clock runs from the first call of a handler until the database shows that all is
        finished. If *patience* ends before, the rate is that of what was done by then.
        """
        seat, expected = self.seat(entrant, place), items * ticks
        what = unfinished or seat.database.kind
        # Asked once before: connecting is no part of the time.
        self.databases.ask(seat.database, self._claimed(entrant, what))
        with workers(seat, count, purpose) as pids:
            self.noise.start()
            opened = self._used(pids)
            self.counter.open_gate()
            deadline = time.monotonic() + patience
            while not self.counter.first and time.monotonic() < deadline:
                time.sleep(0.001)
            before, client, server = self._used(pids)
            if before >= expected:  # so few that all was done before this look
                before, client, server = opened
            while self.counter.count < expected and time.monotonic() < deadline:
                time.sleep(0.002)
            complete = self.counter.count >= expected
            if complete:
                self.wait_for_commit(entrant, seat.database, what)
            ended = time.monotonic_ns()
            done, client_after, server_after = self._used(pids)
            query = entrant.contender.unfinished[what]
            left = complete and self.databases.ask(seat.database, query)
        if not done or (complete and done != expected):
            raise FailedError(f"{done:,} of {expected:,} were handled: {seat.complaint()}")
        if left:
            raise FailedError("all was handled, but not all is finished")
        counted, measured = done / ticks, max(1, done - before) / ticks
        return Drained(
            int(counted),
            counted / ((ended - self.counter.first) / 1e9),
            (client_after - client) / measured * 1e6,
            (server_after - server) / measured * 1e6,
            complete,
        )

    def _used(self, pids: list[int]) -> tuple[int, float, float]:
        client = sum(map(cpu_seconds, pids))
        done = self.counter.count
        return done, client, tree_cpu_seconds(self._postmaster) if self._postmaster else 0.0

    def watch(self, pid: int, items: int) -> tuple[int, float, float]:
        """
        Wait until all *items* are handled by the worker *pid*.

        Returns the most that were in flight, and its memory at 10 % of them and at the end.
        """
        early = 0.0
        deadline = time.monotonic() + _WATCHED_SECONDS
        while (count := self.counter.count) < items:
            if time.monotonic() > deadline:
                raise FailedError(f"{count:,} of {items:,} were handled")
            if count >= items / 10 and not early:
                early = resident_mb(pid)
            time.sleep(_SAMPLE_SECONDS)
        late = resident_mb(pid)
        return self.counter.most_at_once, early or late, late

    @staticmethod
    def _claimed(entrant: Entrant, what: str) -> str:
        return entrant.contender.claimed.get(what) or entrant.contender.unfinished[what]

    def wait_for_commit(
        self, entrant: Entrant, database: Database, what: str | None = None
    ) -> None:
        """Wait until the results of all that was handled are in the database."""
        query = self._claimed(entrant, what or database.kind)
        deadline = time.monotonic() + _LAST_COMMIT_SECONDS
        while self.databases.ask(database, query):
            if time.monotonic() > deadline:
                raise FailedError("all was handled, but not all is finished")
            time.sleep(0.001)
