"""A million items: one process enqueues, a second one works, a third one purges."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from benchmarks.bench import Bench, Entrant, open_bench
from benchmarks.contenders import load
from benchmarks.environments import environment
from benchmarks.machine import resident_mb
from benchmarks.processes import FailedError, Producer, workers

_CHUNK = 10_000
_KEPT_SECONDS = 2.0
_SAMPLE_SECONDS = 0.25
_STALLED_SECONDS = 120.0


@dataclass(frozen=True)
class Endurance:
    """How a long run went. *early_mb* is the worker's memory at 10 % of the items."""

    items: int
    handled: int
    left: int
    purged: int
    seconds: float
    early_mb: float
    late_mb: float
    most_mb: float

    def __str__(self) -> str:
        return (
            f"{self.handled:,} of {self.items:,} items handled in {self.seconds:.0f} s"
            f" ({self.handled / self.seconds:,.0f}/s) while they were enqueued,"
            f" {self.purged:,} purged meanwhile, {self.left} left unfinished\n"
            f"worker's memory: {self.early_mb:.1f} MB at 10 %, {self.late_mb:.1f} MB at the end"
            f" ({self.late_mb / self.early_mb:.2f}), {self.most_mb:.1f} MB at most"
        )


def million(items: int = 1_000_000, server: str | None = None) -> Endurance:
    """Enqueue, work off and purge *items* at the same time, on PostgreSQL."""
    with open_bench(server) as bench:
        return _run(bench, items)


def _run(bench: Bench, items: int) -> Endurance:
    contender = load("ours")
    entrant = Entrant(contender, environment(contender))
    seat = bench.seat(entrant, "postgresql")
    enqueuing, purging = bench.producer(entrant, "postgresql"), Producer(seat)
    purging.call("open")
    stopping, purged = threading.Event(), [0]
    helpers = [
        threading.Thread(target=_enqueue, args=(enqueuing, items), daemon=True),
        threading.Thread(target=_purge, args=(purging, stopping, purged), daemon=True),
    ]
    try:
        with workers(seat, 1, "drain") as (pid,):
            bench.counter.open_gate()
            for helper in helpers:
                helper.start()
            memory = _watch(bench, pid, items)
            query = contender.unfinished["postgresql"]
            deadline = time.monotonic() + _STALLED_SECONDS
            while bench.databases.ask(seat.database, query) and time.monotonic() < deadline:
                time.sleep(0.01)
            seconds = (time.monotonic_ns() - bench.counter.first) / 1e9
    finally:
        stopping.set()
        helpers[1].join(60)
        purging.close()
    left = bench.databases.ask(
        seat.database, "SELECT count(*) FROM automate_outbox WHERE status <> 'COMPLETED'"
    )
    early, late, most = memory
    return Endurance(items, bench.counter.count, left, purged[0], seconds, early, late, most)


def _enqueue(producer: Producer, items: int) -> None:
    for start in range(0, items, _CHUNK):
        producer.call("enqueue_bulk", min(_CHUNK, items - start))


def _purge(producer: Producer, stopping: threading.Event, purged: list[int]) -> None:
    while not stopping.wait(0.5):
        purged[0] += producer.call("purge", _KEPT_SECONDS).result


def _watch(bench: Bench, pid: int, items: int) -> tuple[float, float, float]:
    early = most = 0.0
    count, since = 0, time.monotonic()
    while count < items:
        before, count = count, bench.counter.count
        if count != before:
            since = time.monotonic()
        elif time.monotonic() - since > _STALLED_SECONDS:
            raise FailedError(f"{count:,} of {items:,} were handled, and nothing moves")
        if count >= items / 10:
            now = resident_mb(pid)
            early, most = early or now, max(most, now)
        time.sleep(_SAMPLE_SECONDS)
    late = resident_mb(pid)
    return early or late, late, max(most, late)
