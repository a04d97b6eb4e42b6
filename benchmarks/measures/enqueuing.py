"""How fast one producer enqueues."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.measures.base import Measure, Values

_WARM_UP = 50


def _enqueue(
    bench: Bench,
    entrant: Entrant,
    sizes: Sizes,
    *,
    place: str,
    family: str,
    call: str = "enqueue_each",
) -> Values:
    producer = bench.producer(entrant, place)
    items = sizes.items(entrant.contender, family, sizes.enqueue_seconds, 2000)
    producer.call("reset")
    producer.call(call, min(_WARM_UP, items))
    bench.noise.start()
    answer = producer.call(call, items)
    producer.call("reset")
    return {"per_second": items / answer.seconds, "client_cpu_us": answer.cpu / items * 1e6}


def _bulk(bench: Bench, entrant: Entrant, sizes: Sizes) -> Values:
    producer = bench.producer(entrant, "postgresql")
    slow = entrant.contender.pace.get("bulk", sizes.bulk_items) * sizes.enqueue_seconds
    items = sizes.bounded(min(sizes.bulk_items, max(slow, 500)))
    producer.call("reset")
    # The first statements of a kind are prepared; a second one would be faster otherwise.
    producer.call("enqueue_bulk", min(items, 1000))
    bench.noise.start()
    answer = producer.call("enqueue_bulk", items)
    producer.call("reset")
    return {"per_second": items / answer.seconds, "client_cpu_us": answer.cpu / items * 1e6}


ENQUEUE = Measure(
    "enqueue",
    "enqueue, one per commit",
    "items/s",
    partial(_enqueue, place="postgresql", family="enqueue"),
)
WITHIN = Measure(
    "enqueue-within",
    "enqueue, one per transaction of the host",
    "items/s",
    partial(_enqueue, place="postgresql", family="enqueue", call="enqueue_within"),
)
BULK = Measure("bulk", "enqueue many at once", "items/s", _bulk)
SQLITE_ENQUEUE = Measure(
    "sqlite-enqueue",
    "SQLite: enqueue, one per commit",
    "items/s",
    partial(_enqueue, place="sqlite", family="sqlite-enqueue"),
    place="sqlite",
)
