"""One thing to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench, Entrant, Sizes

Values = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """
    One thing to measure: *run* does it once, for one contender.

    Its first value is the main one. *variants* says that rows of other settings take part too,
    *at_most* bounds the repetitions of what hardly varies, and *needs* are measures that it is
    compared with.
    """

    name: str
    title: str
    unit: str
    run: Callable[[Bench, Entrant, Sizes], Values]
    place: str = "postgresql"
    variants: bool = False
    at_most: int | None = None
    needs: tuple[str, ...] = ()
