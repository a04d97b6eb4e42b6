"""How fast workers empty a full queue."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench, Drained, Entrant, Sizes
from benchmarks.contender import Filling
from benchmarks.measures.base import Measure, Values


def _values(drained: Drained) -> Values:
    return {
        "per_second": drained.per_second,
        "client_cpu_us": drained.client_cpu_us,
        "server_cpu_us": drained.server_cpu_us,
        "items": drained.items,
        "complete": float(drained.complete),
    }


def _drain(
    bench: Bench, entrant: Entrant, sizes: Sizes, *, count: int, place: str, family: str
) -> Values:
    producer = bench.producer(entrant, place)
    items = sizes.items(entrant.contender, family, sizes.drain_seconds * count, 1000)
    producer.call("reset")
    producer.call("enqueue_bulk", items)
    bench.databases.settle(bench.seat(entrant, place).database)
    try:
        return _values(bench.drain(entrant, place, items, count=count))
    finally:
        producer.call("reset")


def _filled(bench: Bench, entrant: Entrant, sizes: Sizes, *, filling: Filling) -> Values:
    """The same drain beside rows that are finished, or due tomorrow, in a table that is kept."""
    producer, database = bench.producer(entrant, filling), bench.seat(entrant, filling).database
    rows = sizes.bounded(sizes.filled_rows)
    if database not in bench.filled:
        producer.call("fill", filling, rows, patience=600)
        bench.filled.add(database)
    pace = entrant.contender.pace
    family = filling if filling in pace else "drain"
    items = sizes.items(entrant.contender, family, sizes.drain_seconds, 1000)
    producer.call("enqueue_bulk", items)
    bench.databases.settle(database)
    drained = bench.drain(entrant, filling, items, patience=sizes.filled_patience)
    return {**_values(drained), "rows": rows}


DRAIN_1 = Measure(
    "drain-1",
    "drain, 1 worker process",
    "items/s",
    partial(_drain, count=1, place="postgresql", family="drain"),
    variants=True,
)
DRAIN_2 = Measure(
    "drain-2",
    "drain, 2 worker processes",
    "items/s",
    partial(_drain, count=2, place="postgresql", family="drain"),
)
SQLITE_DRAIN = Measure(
    "sqlite-drain",
    "SQLite: drain, 1 worker process",
    "items/s",
    partial(_drain, count=1, place="sqlite", family="sqlite"),
    place="sqlite",
)
FINISHED = Measure(
    "finished",
    "drain beside finished rows",
    "items/s",
    partial(_filled, filling="finished"),
    place="finished",
    needs=("drain-1",),
)
FUTURE = Measure(
    "future",
    "drain beside rows that are due tomorrow",
    "items/s",
    partial(_filled, filling="future"),
    place="future",
    needs=("drain-1",),
)
