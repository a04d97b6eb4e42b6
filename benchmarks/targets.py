"""What was to be reached, and what was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import NAMES, load
from benchmarks.results import Results

_OURS, _LIMIT = "ours", "limit"
_PEERS = [name for name in NAMES if load(name).peer]


@dataclass(frozen=True)
class Target:
    """*figure* of a run must be at least, or with *at_most* at most, *wanted*."""

    title: str
    wanted: float
    figure: Callable[[Results], float | None]
    at_most: bool = False
    unit: str = "×"


@dataclass(frozen=True)
class Reached:
    """A target, and how far a run got."""

    target: Target
    figure: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        if self.target.at_most:
            return self.figure <= self.target.wanted
        return self.figure >= self.target.wanted

    @property
    def share(self) -> float:
        """1 is the target; more is better, whichever way it counts."""
        ratio = self.figure / self.target.wanted
        return 1 / ratio if self.target.at_most else ratio


def _own(measure: str, value: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(measure, _OURS, value)


def _of(measure: str, other: str, value: str = "per_second") -> Callable[[Results], float | None]:
    def figure(results: Results) -> float | None:
        return _ratio(results.median(measure, _OURS, value), results.median(measure, other, value))

    return figure


def _of_best(
    measure: str, value: str = "per_second", *, own: str = "", least: bool = False
) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float | None:
        of_peers = [results.median(measure, peer, value) for peer in _PEERS]
        known = [one for one in of_peers if one is not None]
        best = (min if least else max)(known, default=None)
        return _ratio(results.median(own or measure, _OURS, value), best)

    return figure


def _of_empty(measure: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float | None:
        return _ratio(
            results.median(measure, _OURS, "per_second"),
            results.median("drain-1", _OURS, "per_second"),
        )

    return figure


def _hosts(results: Results) -> float | None:
    rates = [results.median("drain-1", name, "per_second") for name in (_OURS, "ours-django")]
    known = [rate for rate in rates if rate is not None]
    return min(known) / max(known) if len(known) == len(rates) else None


def _workflows_hosts(results: Results) -> float | None:
    return _ratio(
        results.median("workflows", "ours-django", "per_second"),
        results.median("workflows", _OURS, "per_second"),
    )


def _ratio(ours: float | None, other: float | None) -> float | None:
    return ours / other if ours and other else None


TARGETS = (
    Target("drain, 1 worker, of the best peer", 1.4, _of_best("drain-1")),
    Target("drain, 1 worker, of the limit", 0.70, _of("drain-1", _LIMIT)),
    Target("drain, 2 workers, of the best peer", 1.4, _of_best("drain-2")),
    Target("drain, 2 workers, of the limit", 0.75, _of("drain-2", _LIMIT)),
    Target("client CPU an item in the drain", 25, _own("drain-1", "client_cpu_us"), True, "µs"),
    Target("slower host of the faster one", 0.85, _hosts),
    Target("enqueue one, of the best peer", 1.1, _of_best("enqueue")),
    # Three round trips, where the peer makes one.
    Target("the same in the host's transaction", 1.1, _of_best("enqueue", own="enqueue-within")),
    Target("enqueue in bulk, of the best peer", 1.2, _of_best("bulk")),
    Target("pick-up p50, of the best peer", 0.6, _of_best("pick-up", "p50_ms", least=True), True),
    Target("pick-up p99, of the best peer", 0.9, _of_best("pick-up", "p99_ms", least=True), True),
    Target("beside finished rows, of the empty table", 0.95, _of_empty("finished")),
    Target("beside future rows, of the empty table", 0.90, _of_empty("future")),
    Target("SQLite: enqueue one, of the best peer", 0.9, _of_best("sqlite-enqueue")),
    Target("SQLite: drain, of the best peer", 12, _of_best("sqlite-drain")),
    Target("workflows that wait, of dbos", 12, _of("workflows", "dbos")),
    Target("the same on SQLite", 12, _of("sqlite-workflows", "dbos")),
    Target("the same, Django of SQLAlchemy", 0.85, _workflows_hosts),
    Target(
        "workflows one after another, of the limit",
        1.5,
        _of("workflows-each", _LIMIT, "each_ms"),
        True,
    ),
    Target("for_each: elements a second", 2000, _own("elements", "per_second"), unit=""),
    Target("the same: growth of memory", 1.2, _own("elements", "growth"), True),
    Target("1,500 async steps of 1 s", 5, _own("async-steps", "seconds"), True, "s"),
    Target("the same: growth of memory", 1.2, _own("async-steps", "growth"), True),
    Target("idle memory, of the bare imports", 1.3, _own("memory", "of_bare"), True),
    Target("handler that waits 50 ms: items a second", 8000, _own("wait", "per_second"), unit=""),
    Target("the same: growth of memory", 1.2, _own("wait", "growth"), True),
    # At 50 ms each that many in flight would be 100,000 items a second.
    Target("handler that waits 500 ms: in flight", 5000, _own("wait-long", "in_flight"), unit=""),
    Target("the same: items a second", 8000, _own("wait-long", "per_second"), unit=""),
    Target("the same: growth of memory", 1.2, _own("wait-long", "growth"), True),
)


def reached(results: Results) -> list[Reached]:
    """How far a run got, for the targets that it measured."""
    figures = [(target, target.figure(results)) for target in TARGETS]
    return [Reached(target, figure) for target, figure in figures if figure is not None]
