"""``manage.py automate_doctor``: is everything as it should be, and what to do where it isn't."""

from __future__ import annotations

from automate_django.management.base import AutomateCommand
from automate_django.management.diagnosis import DOCTOR

__all__ = ["Command"]


class Command(AutomateCommand):
    """Makes all checks, those that need the database too."""

    definition = DOCTOR
    # It runs them itself, and goes on to tell the rest.
    requires_system_checks: list[str] = []  # noqa: RUF012
