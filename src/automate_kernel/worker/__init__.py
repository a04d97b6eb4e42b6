"""Workers: claim items, run their handlers, record what became of them, recover what was lost."""

from automate_kernel.worker.handler import Handler, Snooze, cancelling, draining
from automate_kernel.worker.periodic import Chore
from automate_kernel.worker.process import run_until_stopped
from automate_kernel.worker.reaper import OutboxReaper
from automate_kernel.worker.worker import Worker, WorkerStats

__all__ = [
    "Chore",
    "Handler",
    "OutboxReaper",
    "Snooze",
    "Worker",
    "WorkerStats",
    "cancelling",
    "draining",
    "run_until_stopped",
]
