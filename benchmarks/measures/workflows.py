"""How many durable workflows a second: of three quick steps, of many elements, of a long step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.contender import STEP_SECONDS, Purpose
from benchmarks.machine import cpu_seconds
from benchmarks.measures.base import Measure, Values
from benchmarks.processes import workers

_STEPS = 3


def _each(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    producer = bench.producer(entrant, "postgresql")
    count = sizes.items(entrant.contender, "workflows-each", sizes.workflow_seconds, 200)
    producer.call("reset")
    producer.call("run_workflows", 3)
    bench.noise.start()
    answer = producer.call("run_workflows", count)
    producer.call("reset")
    return {
        "per_second": count / answer.seconds,
        "each_ms": answer.seconds / count * 1e3,
        "client_cpu_us": answer.cpu / count * 1e6,
    }


def _waiting(
    bench: Bench,
    entrant: Entrant,
    sizes: Sizes,
    *,
    place: str = "postgresql",
    unfinished: str = "workflows",
) -> Values:
    producer = bench.producer(entrant, place)
    count = sizes.items(entrant.contender, "workflows", sizes.workflow_seconds, 200)
    producer.call("reset")
    producer.call("start_workflows", count)
    bench.databases.settle(bench.seat(entrant, place).database)
    drained = bench.drain(
        entrant, place, count, purpose="workflows", ticks=_STEPS, unfinished=unfinished
    )
    producer.call("reset")
    return {
        "per_second": drained.per_second,
        "client_cpu_us": drained.client_cpu_us,
        "server_cpu_us": drained.server_cpu_us,
    }


@dataclass(frozen=True)
class _Watched:
    """How one worker fared with executions: the seconds since its first step was counted."""

    seconds: float
    cpu_seconds: float
    in_flight: int
    early_mb: float
    late_mb: float


def _watched(
    bench: Bench, entrant: Entrant, count: int, start: str, purpose: Purpose = "workflows"
) -> _Watched:
    """Let a worker do *count* steps that *start* begins; memory is watched from 10 % of them on."""
    producer, seat = bench.producer(entrant, "postgresql"), bench.seat(entrant, "postgresql")
    producer.call("reset")
    producer.call(start, count)
    bench.databases.settle(seat.database)
    with workers(seat, 1, purpose) as (pid,):
        bench.noise.start()
        used = cpu_seconds(pid)
        bench.counter.open_gate()
        in_flight, early, late = bench.watch(pid, count)
        bench.wait_for_commit(entrant, seat.database, "workflows")
        seconds = (time.monotonic_ns() - bench.counter.first) / 1e9
        used = cpu_seconds(pid) - used
    producer.call("reset")
    return _Watched(seconds, used, in_flight, early, late)


def _elements(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    """One workflow with one step for each of many elements."""
    count = sizes.bounded(sizes.elements)
    watched = _watched(bench, entrant, count, "start_elements")
    return {
        "per_second": count / watched.seconds,
        "client_cpu_us": watched.cpu_seconds / count * 1e6,
        "resident_mb": watched.late_mb,
        "growth": watched.late_mb / watched.early_mb,
    }


def _async_steps(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    """Workflows with an ``async def`` step that waits."""
    count = sizes.bounded(sizes.async_steps)
    watched = _watched(bench, entrant, count, "start_async_steps", "async-steps")
    return {
        # The first step was counted when it ended.
        "seconds": watched.seconds + STEP_SECONDS,
        "in_flight": watched.in_flight,
        "resident_mb": watched.late_mb,
        "growth": watched.late_mb / watched.early_mb,
    }


WORKFLOWS_EACH = Measure(
    "workflows-each", "3-step workflows, one after another", "workflows/s", _each
)
WORKFLOWS = Measure("workflows", "3-step workflows that wait, 1 worker", "workflows/s", _waiting)
SQLITE_WORKFLOWS = Measure(
    "sqlite-workflows", "3-step workflows that wait, 1 worker, SQLite", "workflows/s",
    partial(_waiting, place="sqlite", unfinished="sqlite-workflows"), "sqlite",
)  # fmt: skip
ASYNC_STEPS = Measure(
    "async-steps", "workflows with a step that waits 1 s, 4 threads", "s", _async_steps
)
ELEMENTS = Measure(
    "elements", "for_each of one workflow, 50 elements at a time", "elements/s", _elements
)
