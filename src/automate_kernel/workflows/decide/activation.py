"""
Activations: an execution as a worker takes it up, and the turns that follow from it.

A `Decider` decides the turns: by the steps of a definition, or by running a function.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from automate_kernel.storage.values import MAX_PAYLOAD_BYTES
from automate_kernel.workflows.decide.children import FindChild
from automate_kernel.workflows.decide.turn import CallOutcome, Turn
from automate_kernel.workflows.decide.waits import Inbox
from automate_kernel.workflows.execution import Execution, StepKey


@dataclass(slots=True, kw_only=True)
class Activation:
    """An execution, and what a worker knows of it beside its rows."""

    execution: Execution
    """Changed along the way: it shows what the turns so far have saved, and the calls that run."""
    waits: dict[StepKey, float]
    """The seconds that are left until runs are due that wait for a retry or a time."""
    now: datetime
    """The database's time."""
    left: float | None = None
    """The seconds that are left of the workflow's own timeout."""
    crashes: int = 0
    """
    The number of workers that have died over it since it was saved last.

    What begins at once was running then, and has had so many attempts.
    """
    arrived: Inbox = field(default_factory=dict)
    """The events that have come for runs that wait. A turn takes them out; more may be put in."""
    find_child: FindChild | None = None
    """Finds the workflows of steps that start one."""
    most_output: int = MAX_PAYLOAD_BYTES
    """The size in bytes that an output which is rendered may have."""
    sorts_keys: bool = False
    """True if the database gives the keys of objects back in an order of its own."""
    alone: bool = False
    """True if no other worker can go on with it: it fails over what isn't known here."""


Turns = Generator[Turn, tuple[Sequence[CallOutcome], float], None]
"""Yields turns; takes the outcomes of calls, and the seconds since the last turn."""


class Decider(Protocol):
    """Decides the next turns of an execution, while one worker has it."""

    first: bool
    """True until the first turn has been decided."""

    def next_turn(self) -> Turn:
        """Start what can start, and return the turn that has come together."""

    def settle(self, outcome: CallOutcome) -> None:
        """Take in the outcome of a call."""

    def pass_time(self, elapsed: float) -> None:
        """Bring what waits for a time nearer by these seconds."""


def turns_of(decide: Callable[[], Decider]) -> Turns:
    """Yield the turns of the decider that *decide* returns, until the last turn."""
    decider = decide()
    turn = decider.next_turn()
    decider.first = False
    # Who stays with an execution that waits goes on; the others leave it there.
    while turn.end is None:
        outcomes, elapsed = yield turn
        decider.pass_time(elapsed)
        for outcome in outcomes:
            decider.settle(outcome)
        turn = decider.next_turn()
    yield turn
