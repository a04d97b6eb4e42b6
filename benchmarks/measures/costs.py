"""What single items wait, what a worker weighs, and what an import takes."""

from __future__ import annotations

import subprocess
import time
from functools import partial

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.contender import WAIT_SECONDS, Purpose
from benchmarks.machine import resident_mb
from benchmarks.measures.base import Measure, Values
from benchmarks.processes import FailedError, workers

_RESIDENT = """
import os
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
"""


def _pick_up(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    producer = bench.producer(entrant, "postgresql")
    producer.call("reset")
    with bench.working(entrant, "postgresql", "pick-up"):
        bench.noise.start()
        taken = sorted(producer.call("pick_up", sizes.bounded(sizes.samples)).result)
    producer.call("reset")
    return {"p50_ms": _percentile(taken, 0.5), "p99_ms": _percentile(taken, 0.99)}


def _percentile(ordered: list[float], share: float) -> float:
    position = (len(ordered) - 1) * share
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _memory(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    bench.producer(entrant, "postgresql").call("reset")
    with bench.working(entrant, "postgresql", "pick-up") as pid:
        time.sleep(sizes.idle_seconds)
        values = {"resident_mb": resident_mb(pid)}
    if bare := entrant.contender.bare_imports:
        values["bare_mb"] = float(_python(entrant, bare + _RESIDENT))
        values["of_bare"] = values["resident_mb"] / values["bare_mb"]
    return values


def _import(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    seconds = []
    # The first one may read the disk.
    for _ in range(4):
        bare = _timed(entrant, "pass")
        seconds.append(_timed(entrant, entrant.contender.imports) - bare)
    return {"import_ms": min(seconds[1:]) * 1e3}


def _timed(entrant: Entrant, code: str) -> float:
    began = time.perf_counter()
    _python(entrant, code)
    return time.perf_counter() - began


def _python(entrant: Entrant, code: str) -> str:
    command = [str(entrant.environment.python), "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise FailedError(f"{code.splitlines()[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _wait(bench: Bench, entrant: Entrant, sizes: Sizes, *, purpose: Purpose = "wait") -> Values:
    """One worker whose handler waits; its memory is watched from 10 % of the items on."""
    producer, seat = bench.producer(entrant, "postgresql"), bench.seat(entrant, "postgresql")
    items = sizes.bounded(sizes.wait_items)
    producer.call("reset")
    producer.call("enqueue_bulk", items)
    bench.databases.settle(seat.database)
    with workers(seat, 1, purpose) as (pid,):
        bench.noise.start()
        bench.counter.open_gate()
        in_flight, early, late = bench.watch(pid, items)
        bench.wait_for_commit(entrant, seat.database)
        # The first handler was counted when it ended.
        seconds = (time.monotonic_ns() - bench.counter.first) / 1e9 + WAIT_SECONDS[purpose]
    producer.call("reset")
    return {
        "per_second": items / seconds,
        "in_flight": in_flight,
        "resident_mb": late,
        "growth": late / early,
    }


PICK_UP = Measure("pick-up", "from commit to handler", "ms", _pick_up)
MEMORY = Measure("memory", "resident memory of an idle worker", "MB", _memory, at_most=3)
IMPORT = Measure("import", "import time", "ms", _import, at_most=3)
WAIT = Measure("wait", "asynchronous handler that waits 50 ms", "items/s", _wait)
WAIT_LONG = Measure(
    "wait-long",
    "asynchronous handler that waits 500 ms",
    "items/s",
    partial(_wait, purpose="wait-long"),
)
