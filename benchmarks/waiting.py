"""Executions that wait: what ten thousand of them cost, and how fast events wake them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.bench import Bench, Entrant, open_bench
from benchmarks.contenders import load
from benchmarks.environments import environment
from benchmarks.machine import cpu_seconds, resident_mb
from benchmarks.processes import FailedError, workers

_IDLE_SECONDS = 10.0
_STALLED_SECONDS = 300.0
_PARKED = (
    "SELECT count(*) FROM automate_outbox WHERE kind = 'automate.advance' AND waiting_for = 'time'"
)
_DONE = "SELECT count(*) FROM automate_execution WHERE status = 'COMPLETED'"
_TRANSACTIONS = (
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
)


@dataclass(frozen=True)
class Idle:
    """A worker that has nothing to do: its memory, its CPU share, and its transactions a second."""

    mb: float
    cpu: float
    transactions: float

    def __str__(self) -> str:
        return f"{self.mb:.1f} MB, {self.cpu:.2%} CPU, {self.transactions:.1f} transactions/s"


@dataclass(frozen=True)
class Waiting:
    """The cost of *count* executions that sleep, and as many that wait for an event."""

    count: int
    before: Idle
    during: Idle
    deferred_per_second: float
    woken_per_second: float

    def __str__(self) -> str:
        return (
            f"a worker without work: {self.before}\n"
            f"with {self.count:,} executions that sleep and {self.count:,} that wait:"
            f" {self.during}\n"
            f"started and deferred: {self.deferred_per_second:,.0f}/s,"
            f" woken by an event each and ended: {self.woken_per_second:,.0f}/s"
        )


def waiting(count: int = 10_000, server: str | None = None) -> Waiting:
    """Start *count* executions of each kind on PostgreSQL, leave them, and wake those that wait."""
    with open_bench(server) as bench:
        return _run(bench, count)


def _run(bench: Bench, count: int) -> Waiting:
    contender = load("ours")
    entrant = Entrant(contender, environment(contender))
    seat = bench.seat(entrant, "postgresql")
    producer = bench.producer(entrant, "postgresql")

    def ask(query: str) -> int:
        return int(bench.databases.ask(seat.database, query))

    def until(query: str, wanted: int) -> None:
        deadline = time.monotonic() + _STALLED_SECONDS
        while (found := ask(query)) < wanted:
            if time.monotonic() > deadline:
                raise FailedError(f"{found:,} of {wanted:,}, and nothing moves")
            time.sleep(0.05)

    def idle(pid: int) -> Idle:
        time.sleep(2.0)
        cpu, transactions = cpu_seconds(pid), ask(_TRANSACTIONS)
        time.sleep(_IDLE_SECONDS)
        # The figures of the database are a second late at most; those of the questions count too.
        rate = (ask(_TRANSACTIONS) - transactions) / _IDLE_SECONDS
        return Idle(resident_mb(pid), (cpu_seconds(pid) - cpu) / _IDLE_SECONDS, rate)

    producer.call("reset")
    with workers(seat, 1, "workflows") as (pid,):
        bench.counter.open_gate()
        # So that its modules are loaded and its connections open.
        producer.call("start_waiting", "sleeping", 100)
        until(_PARKED, 100)
        before = idle(pid)
        began = time.monotonic()
        producer.call("start_waiting", "sleeping", count)
        producer.call("start_waiting", "waiting", count)
        until(_PARKED, 2 * count + 100)
        deferred = 2 * count / (time.monotonic() - began)
        during = idle(pid)
        began = time.monotonic()
        producer.call("ring", count)
        until(_DONE, count)
        woken = count / (time.monotonic() - began)
    producer.call("reset")
    return Waiting(count, before, during, deferred, woken)
