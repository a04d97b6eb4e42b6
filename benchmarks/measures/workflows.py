"""How many durable workflows a second: of three quick steps, of many elements, of a long step."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.contender import STEP_SECONDS
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


def _elements(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    """One workflow with one step for each of many elements; its memory is watched from 10 % on."""
    producer, seat = bench.producer(entrant, "postgresql"), bench.seat(entrant, "postgresql")
    count = sizes.bounded(sizes.elements)
    producer.call("reset")
    producer.call("start_elements", count)
    bench.databases.settle(seat.database)
    with workers(seat, 1, "workflows") as (pid,):
        bench.noise.start()
        used = cpu_seconds(pid)
        bench.counter.open_gate()
        _, early, late = bench.watch(pid, count)
        bench.wait_for_commit(entrant, seat.database, "workflows")
        seconds = (time.monotonic_ns() - bench.counter.first) / 1e9
        used = cpu_seconds(pid) - used
    producer.call("reset")
    return {
        "per_second": count / seconds,
        "client_cpu_us": used / count * 1e6,
        "resident_mb": late,
        "growth": late / early,
    }


def _async_steps(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    """Workflows with an ``async def`` step that waits; memory is watched from 10 % of them on."""
    producer, seat = bench.producer(entrant, "postgresql"), bench.seat(entrant, "postgresql")
    count = sizes.bounded(sizes.async_steps)
    producer.call("reset")
    producer.call("start_async_steps", count)
    bench.databases.settle(seat.database)
    with workers(seat, 1, "async-steps") as (pid,):
        bench.noise.start()
        bench.counter.open_gate()
        in_flight, early, late = bench.watch(pid, count)
        bench.wait_for_commit(entrant, seat.database, "workflows")
        # The first step was counted when it ended.
        seconds = (time.monotonic_ns() - bench.counter.first) / 1e9 + STEP_SECONDS
    producer.call("reset")
    return {
        "seconds": seconds, "in_flight": in_flight, "resident_mb": late, "growth": late / early,
    }  # fmt: skip


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
