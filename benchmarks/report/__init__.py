"""Tables and a picture of a run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.picture import draw
from benchmarks.report.tables import tables
from benchmarks.results import Results

__all__ = ["publish", "tables"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "performance.md"
_BEGIN, _END = "<!-- figures: python -m benchmarks report -->", "<!-- end of figures -->"


def publish(results: Results) -> None:
    """Write the tables into the documentation, and the picture beside it."""
    head, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    picture = _PAGE.with_suffix(".svg")
    draw(results, picture)
    image = f"![Drain, CPU time an item, and what was to be reached]({picture.name})"
    _PAGE.write_text(f"{head}{_BEGIN}\n\n{image}\n\n{tables(results)}\n{_END}{tail}")
    print(f"written: {_PAGE}, {picture}")
