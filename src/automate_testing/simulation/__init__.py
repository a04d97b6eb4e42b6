"""
Simulation: the real kernel and its workers under one seed, with deaths and lost replies.

::

    class Orders(Scenario):
        def set_up(self, kernel, world): ...
        def act(self, world):
            world.emit("order.placed", {"id": 7})

    def test_orders() -> None:
        simulate(Orders, seeds=200)

It needs greenlet: `pip install 'automate-kernel[simulation]'`.
"""

from __future__ import annotations

from automate_testing.simulation.faults import Fault
from automate_testing.simulation.seeds import (
    History,
    SimulationError,
    replays,
    run_seed,
    simulate,
)
from automate_testing.simulation.world import Scenario, World

__all__ = [
    "Fault", "History", "Scenario", "SimulationError", "World", "replays", "run_seed", "simulate",
]  # fmt: skip
