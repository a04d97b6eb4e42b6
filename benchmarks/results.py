"""Samples of a run, what they come to, and how that compares with an earlier run."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import Noise

_FEWEST_QUIET = 3


@dataclass(frozen=True)
class Sample:
    """One repetition of one measure by one contender; *failed* says why there are no values."""

    measure: str
    contender: str
    repetition: int
    values: dict[str, float] = field(default_factory=dict)
    others_cpu: float = 0.0
    failed: str | None = None


@dataclass(frozen=True)
class Cell:
    """The median of a value, its range, and whether too much of it was measured in noise."""

    median: float
    low: float
    high: float
    count: int
    noisy: bool


@dataclass
class Results:
    """All that a run found out, and what a reader must know about how."""

    created: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per contender its title, Python and versions, or under "missing" why it did not run."""
    samples: list[Sample] = field(default_factory=list)

    def values(self, measure: str, contender: str) -> list[Sample]:
        """The samples that count: quiet ones, if there are enough of them."""
        found = [
            sample
            for sample in self.samples
            if (sample.measure, sample.contender) == (measure, contender) and sample.values
        ]
        quiet = [sample for sample in found if sample.others_cpu <= Noise.quiet]
        return quiet if len(quiet) >= _FEWEST_QUIET or len(quiet) == len(found) else found

    def cell(self, measure: str, contender: str, value: str) -> Cell | None:
        """One figure, or None if it was not measured."""
        used = [each for each in self.values(measure, contender) if value in each.values]
        if not used:
            return None
        figures = [each.values[value] for each in used]
        noisy = any(each.others_cpu > Noise.quiet for each in used)
        return Cell(statistics.median(figures), min(figures), max(figures), len(used), noisy)

    def median(self, measure: str, contender: str, value: str) -> float | None:
        """The median alone."""
        cell = self.cell(measure, contender, value)
        return None if cell is None else cell.median

    def ran(self, measure: str) -> list[str]:
        """The contenders that have figures for *measure*."""
        return [
            name for name in self.contenders if any(self.values(measure, name))
        ]  # fmt: skip

    def failures(self) -> list[Sample]:
        """What went wrong, once per measure and contender."""
        seen: dict[tuple[str, str], Sample] = {}
        for sample in self.samples:
            if sample.failed:
                seen.setdefault((sample.measure, sample.contender), sample)
        return list(seen.values())

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Per measure and contender, each value's median and range."""
        measures = dict.fromkeys(sample.measure for sample in self.samples)
        return {
            measure: {
                name: {
                    value: _rounded(self.cell(measure, name, value))
                    for value in self.values(measure, name)[0].values
                }
                for name in self.ran(measure)
            }
            for measure in measures
        }

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        document = {**asdict(self), "summary": self.summary()}
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line per sample: a difference between two runs can be read.
        samples = ",\n".join("    " + json.dumps(_short(each)) for each in document.pop("samples"))
        head = json.dumps(document, indent=2)[:-2]
        path.write_text(f'{head},\n  "samples": [\n{samples}\n  ]\n}}\n')

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        document = json.loads(path.read_text())
        document.pop("summary")
        samples = [Sample(**sample) for sample in document.pop("samples")]
        return cls(**document, samples=samples)

    def compared(self, former: Results) -> list[str]:
        """A line for each main figure that both runs have: now, then, and the ratio."""
        lines = []
        for measure, rows in self.summary().items():
            for name, values in rows.items():
                value = next(iter(values))
                before = former.median(measure, name, value)
                now = self.median(measure, name, value)
                if before and now:
                    lines.append(
                        f"{measure:16} {name:18} {value:12} {now:12,.1f} {before:12,.1f}"
                        f" {now / before:7.2f}"
                    )
        return lines


def _rounded(cell: Cell | None) -> dict[str, Any]:
    if cell is None:
        return {}
    return {
        "median": _figure(cell.median),
        "range": [_figure(cell.low), _figure(cell.high)],
        "repetitions": cell.count,
        **({"noisy": True} if cell.noisy else {}),
    }


def _figure(value: float) -> float:
    return round(value) if abs(value) >= 1000 else round(value, 3)


def _short(sample: dict[str, Any]) -> dict[str, Any]:
    values = {name: _figure(value) for name, value in sample["values"].items()}
    kept = {**sample, "values": values, "others_cpu": round(sample["others_cpu"], 3)}
    return {name: value for name, value in kept.items() if value not in ({}, None)}
