"""How many durable workflows of three steps a second."""

from __future__ import annotations

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.measures.base import Measure, Values

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


WORKFLOWS_EACH = Measure(
    "workflows-each", "3-step workflows, one after another", "workflows/s", _each
)
WORKFLOWS = Measure("workflows", "3-step workflows that wait, 1 worker", "workflows/s", _waiting)
