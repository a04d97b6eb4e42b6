"""Workers: they claim items, run their handlers, record the outcomes and recover lost items."""

from automate_kernel.worker.handler import Handler, Snooze, WorkerStats, cancelling, should_stop
from automate_kernel.worker.periodic import PeriodicTask
from automate_kernel.worker.process import run_until_stopped
from automate_kernel.worker.reaper import OutboxReaper
from automate_kernel.worker.worker import Worker

__all__ = [
    "Handler",
    "OutboxReaper",
    "PeriodicTask",
    "Snooze",
    "Worker",
    "WorkerStats",
    "cancelling",
    "run_until_stopped",
    "should_stop",
]
