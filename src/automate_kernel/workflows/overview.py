"""How executions do right now, workflow by workflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from automate_kernel.outbox.overview import CountedSeldom, Recently
from automate_kernel.workflows.activity import ExecutionStats, WorkflowActivity
from automate_kernel.workflows.state import ExecutionStore

__all__ = ["ExecutionObserver", "WorkflowOverview"]


@dataclass(frozen=True, slots=True)
class WorkflowOverview:
    """
    The executions of one workflow.

    *waiting* (PENDING), *running* and *failed* are numbers of executions that are stored; *recent*
    is what became of executions in the last *seconds*.
    """

    workflow: str
    waiting: int
    running: int
    failed: int
    recent: WorkflowActivity
    seconds: float

    @property
    def rate(self) -> float:
        """Executions that were completed, in a second."""
        return self.recent.completed / self.seconds

    def per_minute(self, count: int) -> float:
        """*count*, being of the last *seconds*, in a minute."""
        return count * 60.0 / self.seconds


class ExecutionObserver:
    """Looks at *executions* again and again; see `automate_kernel.outbox.overview.Observer`."""

    def __init__(
        self, executions: ExecutionStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recently: Recently[WorkflowActivity] = Recently(executions, clock)
        self._counts: CountedSeldom[ExecutionStats] = CountedSeldom(executions, clock)

    def look(self, now: datetime) -> list[WorkflowOverview]:
        """How each workflow does at *now* on the database's clock, sorted by name."""
        seconds, recent = self._recently.look(now)
        counts = self._counts.look().counts
        return [
            WorkflowOverview(
                name,
                waiting=counts.get(name, {}).get("PENDING", 0),
                running=counts.get(name, {}).get("RUNNING", 0),
                failed=counts.get(name, {}).get("FAILED", 0),
                recent=recent.get(name) or WorkflowActivity(now, name),
                seconds=seconds,
            )
            for name in sorted({*counts, *recent})
        ]
