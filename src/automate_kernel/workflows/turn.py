"""What `advance` and whoever drives it tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from automate_kernel.errors import AutomateError
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.workflows.execution import ExecutionStatus, StepRun
from automate_kernel.workflows.model import Step

__all__ = ["CallOutcome", "StepCall", "Turn"]


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call to make: the step, its run, and its input, in which secrets are handles."""

    step: Step
    run: StepRun
    input: Any


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What a call gave: an output, or an error whose text is redacted."""

    call: StepCall
    output: Any = None
    error: AutomateError | None = None


@dataclass(slots=True)
class Turn:
    """
    Save *saves* (and the execution, if *end* or *failed*), then make *calls*.

    With *wait* or *end* it is the last: nothing is in flight. *delays* gives, for runs in *saves*
    that are to be retried, the seconds until then. While calls are in flight, *next_retry* is when
    to come back even if none of them has ended. *failures* are attempts that have failed since the
    last turn, also of runs that have begun another one by now.
    """

    saves: list[StepRun] = field(default_factory=list)
    calls: list[StepCall] = field(default_factory=list)
    delays: dict[tuple[str, int], float] = field(default_factory=dict)
    next_retry: float | None = None
    wait: float | None = None
    end: ExecutionStatus | None = None
    output: Any = None
    failed: AutomateError | None = None
    failures: list[FailedAttempt] = field(default_factory=list)

    @property
    def last(self) -> bool:
        """Whether nothing follows in this wake-up."""
        return self.end is not None or self.wait is not None
