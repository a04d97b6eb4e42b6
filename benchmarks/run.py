"""Runs the measures: each repetition goes through all of them, and through all contenders."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Entrant, Sizes
from benchmarks.contenders import NAMES, load
from benchmarks.databases import Databases
from benchmarks.environments import MissingError, environment
from benchmarks.machine import describe
from benchmarks.measures import MEASURES, Measure
from benchmarks.processes import FailedError
from benchmarks.results import Results, Sample

_MOST_FAILURES = 2
Say = Callable[[str], None]
Keep = Callable[[Results], None]


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Plan:
    """What to run. With *budget_seconds* no repetition after the first begins later than that."""

    measures: Sequence[str] = tuple(MEASURES)
    contenders: Sequence[str] = NAMES
    repetitions: int = 5
    sizes: Sizes = field(default_factory=Sizes)
    budget_seconds: float | None = None
    quiet_seconds: float = 60.0
    """How long to wait for a quiet machine, altogether."""
    server: str | None = None

    def chosen(self) -> list[Measure]:
        """The measures, with those that they need."""
        needed = {need for name in self.measures for need in MEASURES[name].needs}
        return [each for name, each in MEASURES.items() if name in {*self.measures, *needed}]


def run(plan: Plan, keep: Keep, say: Say = _print) -> Results:
    """
    Run everything in *plan*; raises nothing for a contender that fails.

    *keep* gets what there is after each sample, so that a run that is interrupted is not lost.
    """
    with tempfile.TemporaryDirectory(prefix="automate-benchmark-") as name:
        folder = Path(name)
        databases = Databases(folder, plan.server)
        bench = Bench(folder, databases)
        try:
            results = Results(
                datetime.now(timezone.utc).isoformat(timespec="seconds"),
                {
                    "commit": _commit(),
                    "repetitions": plan.repetitions,
                    "sizes": asdict(plan.sizes),
                    "postgresql": databases.settings,
                },
                describe(folder),
            )
            entrants = _entrants(plan, results, say)
            for sample in _samples(plan, bench, entrants, say):
                results.samples.append(sample)
                keep(results)
        finally:
            bench.close()
            databases.close()
    return results


def _entrants(plan: Plan, results: Results, say: Say) -> list[Entrant]:
    entrants = []
    for name in plan.contenders:
        contender = load(name)
        noted: dict[str, Any] = {"title": contender.title, "peer": contender.peer}
        try:
            found = environment(contender)
        except MissingError as error:
            results.contenders[name] = {**noted, "missing": str(error)}
            say(f"{name} is missing: {error}")
            continue
        noted |= {"python": found.python_version, "versions": found.versions}
        for variant in ("", *contender.variants):
            entrant = Entrant(contender, found, variant)
            entrants.append(entrant)
            title = f"{contender.title}, {variant}" if variant else contender.title
            results.contenders[entrant.name] = {**noted, "title": title}
    return entrants


def _samples(plan: Plan, bench: Bench, entrants: list[Entrant], say: Say) -> Iterator[Sample]:
    began, failures = time.monotonic(), Counter[tuple[str, str]]()
    bench.noise.grant(plan.quiet_seconds)
    for repetition in range(plan.repetitions):
        for measure in plan.chosen():
            if repetition >= (measure.at_most or plan.repetitions):
                continue
            for entrant in _turn(measure, entrants, repetition):
                late = plan.budget_seconds and time.monotonic() - began > plan.budget_seconds
                key = (measure.name, entrant.name)
                if (late and repetition) or failures[key] >= _MOST_FAILURES:
                    continue
                sample = _sample(measure, bench, entrant, plan.sizes, repetition)
                yield sample
                say(_told(measure, sample, plan.repetitions))
                failures[key] += bool(sample.failed)
                if not sample.values.get("complete", 1.0):
                    # What did not end in time would only take its time again.
                    failures[key] = _MOST_FAILURES


def _turn(measure: Measure, entrants: list[Entrant], repetition: int) -> list[Entrant]:
    """Those that take part, each time beginning with another one."""
    taking = [
        entrant
        for entrant in entrants
        if measure.name in entrant.contender.offers
        and (measure.variants or not entrant.variant)
    ]  # fmt: skip
    first = repetition % len(taking) if taking else 0
    return taking[first:] + taking[:first]


def _sample(
    measure: Measure, bench: Bench, entrant: Entrant, sizes: Sizes, repetition: int
) -> Sample:
    bench.noise.wait()
    bench.noise.start()
    try:
        values = measure.run(bench, entrant, sizes)
    except FailedError as error:
        return Sample(measure.name, entrant.name, repetition, failed=str(error))
    except Exception as error:
        # The others are still worth measuring.
        reason = f"{type(error).__name__}: {error}"
        return Sample(measure.name, entrant.name, repetition, failed=reason)
    return Sample(measure.name, entrant.name, repetition, values, bench.noise.share())


def _told(measure: Measure, sample: Sample, repetitions: int) -> str:
    where = f"{sample.repetition + 1}/{repetitions} {measure.name:15} {sample.contender:16}"
    if sample.failed:
        return f"{where} failed: {sample.failed}"
    noise = f"  (others used {sample.others_cpu:.0%})" if sample.others_cpu > 0.1 else ""
    return f"{where} {next(iter(sample.values.values())):12,.1f} {measure.unit}{noise}"


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
