"""
Where the steps of a workflow stand in a picture: in layers, below all that they need.

Units are the caller's: characters or pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from automate_kernel.workflows.definition.structure import topological_order

__all__ = ["Layout", "Spot", "lay_out"]

_SWEEPS = 4


@dataclass(slots=True, eq=False)
class Spot:
    """
    A place in a layer: a step's box, or where a line passes on its way to a lower layer.

    *x* is its middle. All lines that leave a step share one way down, so a layer has at most one
    passage per step.
    """

    step_id: str
    passage: bool
    width: float
    x: float = 0.0
    below: list[Spot] = field(default_factory=list)
    above: list[Spot] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layers from top to bottom, each from left to right, and how wide all of it is."""

    layers: list[list[Spot]]
    width: float


def lay_out(
    needs: Mapping[str, Sequence[str]], widths: Mapping[str, float], *, gap: float, thin: float
) -> Layout:
    """
    Give every step of an acyclic graph a spot.

    *gap* is left between neighbours, and *thin* is the width of a line that passes through.
    """
    layers = _layers(needs, widths, thin)
    for _ in range(_SWEEPS):
        for layer in layers[1:]:
            _sort_by(layer, [spot.above for spot in layer])
        for layer in reversed(layers[:-1]):
            _sort_by(layer, [spot.below for spot in layer])
    for layer in layers:
        _place(layer, [_middle(spot.above) for spot in layer], gap)
    for _ in range(_SWEEPS):
        for layer in reversed(layers[:-1]):
            _place(layer, [_middle(spot.below) for spot in layer], gap)
        for layer in layers[1:]:
            _place(layer, [_middle(spot.above) for spot in layer], gap)
    return Layout(layers, _shift_to_zero(layers))


def _layers(
    needs: Mapping[str, Sequence[str]], widths: Mapping[str, float], thin: float
) -> list[list[Spot]]:
    depth: dict[str, int] = {}
    for step_id in topological_order(needs):
        depth[step_id] = max((depth[need] + 1 for need in needs[step_id]), default=0)
    layers: list[list[Spot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    last: dict[str, list[Spot]] = {}  # each step's box and the passages under it
    for step_id in needs:
        spot = Spot(step_id, passage=False, width=widths[step_id])
        layers[depth[step_id]].append(spot)
        last[step_id] = [spot]
    for step_id, own in needs.items():
        for need in own:
            way = last[need]
            while len(way) < depth[step_id] - depth[need]:
                passage = Spot(need, passage=True, width=thin)
                layers[depth[need] + len(way)].append(passage)
                _join(way[-1], passage)
                way.append(passage)
            _join(way[depth[step_id] - depth[need] - 1], last[step_id][0])
    return layers


def _join(upper: Spot, lower: Spot) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _sort_by(layer: list[Spot], neighbours: Sequence[list[Spot]]) -> None:
    """Reorder *layer* by the middle of each spot's neighbours; one without any keeps its place."""
    keys = {
        id(spot): sum(each.x for each in near) / len(near) if near else spot.x
        for spot, near in zip(layer, neighbours, strict=True)
    }
    layer.sort(key=lambda spot: keys[id(spot)])
    for position, spot in enumerate(layer):
        spot.x = float(position)


def _middle(spots: Sequence[Spot]) -> float | None:
    return sum(spot.x for spot in spots) / len(spots) if spots else None


def _place(layer: list[Spot], wanted: Sequence[float | None], gap: float) -> None:
    """
    Move each spot as near to where it is wanted as order and gaps allow.

    Least squares under an order is isotonic regression: neighbours that would overlap are
    pooled, and a pool stands at the mean of what its members want.
    """
    offset, offsets = 0.0, []
    for position, spot in enumerate(layer):
        if position:
            offset += (layer[position - 1].width + spot.width) / 2 + gap
        offsets.append(offset)
    pools: list[list[float]] = []  # each the sum and the number of what its members want
    for spot, want, start in zip(layer, wanted, offsets, strict=True):
        pools.append([(spot.x if want is None else want) - start, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    means = [total / count for total, count in pools for _ in range(int(count))]
    for spot, mean, start in zip(layer, means, offsets, strict=True):
        spot.x = mean + start


def _shift_to_zero(layers: Sequence[Sequence[Spot]]) -> float:
    spots = [spot for layer in layers for spot in layer]
    left = min((spot.x - spot.width / 2 for spot in spots), default=0.0)
    for spot in spots:
        spot.x -= left
    return max((spot.x + spot.width / 2 for spot in spots), default=0.0)
