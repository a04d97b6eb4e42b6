"""How many durable workflows of three steps a second, and how many elements of one step."""

from __future__ import annotations

import time

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.machine import cpu_seconds
from benchmarks.measures.base import Measure, Values
from benchmarks.processes import workers

_STEPS = 3


def _each(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    producer = bench.producer(entrant, "postgresql")
    count = sizes.items(entrant.contender, "workflows", sizes.workflow_seconds, 200)
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


def _waiting(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    producer = bench.producer(entrant, "postgresql")
    count = sizes.items(entrant.contender, "workflows", sizes.workflow_seconds, 200)
    producer.call("reset")
    producer.call("start_workflows", count)
    bench.databases.settle(bench.seat(entrant, "postgresql").database)
    drained = bench.drain(
        entrant, "postgresql", count, purpose="workflows", ticks=_STEPS, unfinished="workflows"
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


WORKFLOWS_EACH = Measure(
    "workflows-each", "3-step workflows, one after another", "workflows/s", _each
)
WORKFLOWS = Measure("workflows", "3-step workflows that wait, 1 worker", "workflows/s", _waiting)
ELEMENTS = Measure(
    "elements", "for_each of one workflow, 50 elements at a time", "elements/s", _elements
)
