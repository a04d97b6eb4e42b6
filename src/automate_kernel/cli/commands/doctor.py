"""``automate doctor``: is everything as it should be, and what to do where it isn't."""

from __future__ import annotations

from automate_kernel.cli.command import Context
from automate_kernel.cli.definitions import Command
from automate_kernel.cli.findings import IdleAfter

__all__ = ["DOCTOR"]


def doctor(context: Context, idle_after: IdleAfter = "60s") -> None:
    """
    Check the database and its tables, plugins, secrets, workflows, workers and clocks.

    Each finding comes with its remedy. Exits with 1 if something is broken: work that is due and
    that nobody works on, for example.
    """
    from automate_kernel.cli.diagnosis import checks
    from automate_kernel.cli.findings import diagnose
    from automate_kernel.cli.inputs import duration

    diagnose(context, checks(duration(idle_after, "--idle-after")))


DOCTOR = Command(
    "doctor",
    doctor,
    (
        "automate doctor",
        "automate doctor --json",
        "automate doctor --idle-after 15m   # where a worker runs every ten minutes",
    ),
    data=True,
)
