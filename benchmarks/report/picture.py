"""The figures as a picture: who drains how fast, what it costs, and how far we are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.targets import reached

_OURS, _PEERS, _LIMIT, _PALE = "#1f6feb", "#8b949e", "#d29922", "#c9d1d9"
_MET, _MISSED = "#2da44e", "#cf222e"


def draw(results: Results, path: Path) -> None:
    """Write the picture to *path*; its suffix says in which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "font.size": 9,
            "svg.hashsalt": "automate",
            "svg.fonttype": "none",
            "axes.titleweight": "bold",
        }
    )
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 5.2), constrained_layout=True)
    _drains(axes[0], results)
    _costs(axes[1], results)
    _targets(axes[2], results)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _by_rate(results: Results) -> list[str]:
    rates = {name: results.median("drain-1", name, "per_second") for name in results.ran("drain-1")}
    return sorted(rates, key=lambda name: rates[name] or 0)


def _titles(results: Results, names: list[str]) -> list[str]:
    return [results.contenders[name]["title"] for name in names]


def _colour(results: Results, name: str) -> str:
    if results.contenders[name]["peer"]:
        return _PEERS
    return _LIMIT if name == "limit" else _OURS


def _drains(axis: Any, results: Results) -> None:
    names = _by_rate(results)
    places = range(len(names))
    for offset, measure, alpha in ((0.2, "drain-1", 1.0), (-0.2, "drain-2", 0.55)):
        cells = [results.cell(measure, name, "per_second") for name in names]
        values = [cell.median if cell else 0 for cell in cells]
        ranges = [
            [cell.median - cell.low if cell else 0 for cell in cells],
            [cell.high - cell.median if cell else 0 for cell in cells],
        ]
        axis.barh(
            [place + offset for place in places],
            values,
            0.4,
            xerr=ranges,
            color=[_colour(results, name) for name in names],
            alpha=alpha,
            error_kw={"elinewidth": 0.8},
        )
    axis.set_yticks(places, _titles(results, names))
    axis.set_title("Drain, items a second")
    axis.set_xlabel("PostgreSQL; full colour: 1 worker process, pale: 2")


def _costs(axis: Any, results: Results) -> None:
    names = list(reversed(_by_rate(results)))[:7][::-1]
    client = [results.median("drain-1", name, "client_cpu_us") or 0 for name in names]
    server = [results.median("drain-1", name, "server_cpu_us") or 0 for name in names]
    places = range(len(names))
    axis.barh(places, client, color=[_colour(results, name) for name in names])
    axis.barh(places, server, left=client, color=_PALE)
    axis.set_yticks(places, _titles(results, names))
    axis.set_title("CPU time an item, µs")
    axis.set_xlabel("the seven fastest; colour: client, grey: server")


def _targets(axis: Any, results: Results) -> None:
    found = list(reversed(reached(results)))
    places = range(len(found))
    colours = [_MET if each.met else _MISSED for each in found]
    axis.barh(places, [min(each.share, 3.0) for each in found], color=colours)
    for place, each in zip(places, found, strict=True):
        shown = f" {each.figure:,.0f}" if each.figure >= 100 else f" {each.figure:.2f}"
        axis.text(min(each.share, 3.0), place, f"{shown} {each.target.unit}", va="center")
    axis.axvline(1.0, color="black", linewidth=0.9)
    axis.set_yticks(places, [each.target.title for each in found])
    axis.set_title("Reached, of the target")
    axis.set_xlabel("1 is the target; more is better")
