"""``automate doctor``: is everything as it should be, and what to do where it isn't."""

from __future__ import annotations

from automate_kernel.cli.command import Context
from automate_kernel.cli.definitions import Command

__all__ = ["DOCTOR"]


def doctor(context: Context) -> None:
    """
    Check the database, plugins, secrets, workflows, workers' leases and clocks.

    Each finding comes with its remedy. Exits with 1 if something is broken.
    """
    from automate_kernel.cli.diagnosis import CHECKS
    from automate_kernel.cli.findings import diagnose

    diagnose(context, CHECKS)


DOCTOR = Command("doctor", doctor, ("automate doctor", "automate doctor --json"), data=True)
