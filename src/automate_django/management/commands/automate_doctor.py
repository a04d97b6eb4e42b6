"""``manage.py automate_doctor``: is everything as it should be, and what to do where it isn't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError

from automate_django.kernel import get_kernel
from automate_django.management.base import AutomateCommand, CommandOutput
from automate_django.management.diagnosis import CHECKS
from automate_kernel.diagnosis import Finding
from automate_kernel.errors import AutomateError

__all__ = ["Command"]


class Command(AutomateCommand):
    """Runs all checks, those that need the database too."""

    help = (
        "Check settings, versions, database, migrations, plugins, workflows, secrets and workers. "
        "Each finding comes with its remedy. Exits with 1 if something is broken."
    )
    # It runs them itself, and goes on to tell the rest.
    requires_system_checks: list[str] = []  # noqa: RUF012

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Tell all findings; raises CommandError if one of them is a failure."""
        out = CommandOutput(self.stdout, self.stderr, json=options["json"])
        findings = [finding for name, check in CHECKS for finding in _carefully(name, check)]
        broken = sum(each.state == "fail" for each in findings)
        out.data({"ok": not broken, "findings": [each.to_json() for each in findings]})
        shown = [(each.check, each.state, each.text) for each in findings]
        out.table(("CHECK", "STATE", "FOUND"), shown)
        for each in findings:
            if each.remedy and each.state != "ok":
                out.line(f"{each.check}: {each.remedy}")
        if broken:
            raise CommandError(f"{broken} of {len(findings)} findings are failures")
        return None


def _carefully(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except AutomateError as error:
        hint = error.hint and _redacted(error.hint)
        return [Finding(name, "fail", _redacted(error.message), hint)]
    except Exception as error:
        # Its text may be anybody's, and hold anything.
        return [Finding(name, "fail", f"the check itself failed: {type(error).__name__}")]


def _redacted(text: str) -> str:
    try:
        return get_kernel().redactor.redact(text)
    except AutomateError:
        return text  # without a kernel no secret was read
