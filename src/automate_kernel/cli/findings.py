"""Checks of a diagnosis, and how what they find is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from automate_kernel.cli.definitions import Context, Option
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring.diagnosis import Finding

__all__ = ["IdleAfter", "diagnose"]

IdleAfter = Annotated[
    str,
    Option(
        "--idle-after", metavar="DURATION",
        help="How long work may be due that no worker works on; 60s unless given.",
    ),
]  # fmt: skip
C = TypeVar("C", bound=Context)


def diagnose(context: C, checks: Iterable[tuple[str, Callable[[C], list[Finding]]]]) -> None:
    """Make all *checks* and tell what they find; raises `WorkFailedError` for what is broken."""
    findings = [found for name, check in checks for found in _carefully(name, check, context)]
    out, broken = context.out, sum(each.state == "fail" for each in findings)
    out.data({"ok": not broken, "findings": [each.to_json() for each in findings]})
    out.table(
        ("CHECK", "STATE", "FOUND"), [(each.check, each.state, each.text) for each in findings]
    )
    for each in findings:
        if each.remedy and each.state != "ok":
            out.line(f"{each.check}: {each.remedy}", "yellow")
    if broken:
        text = f"{broken} of {len(findings)} findings are failures"
        raise WorkFailedError(ErrorCodes.FAILED_PRECONDITION, text)


def _carefully(name: str, check: Callable[[C], list[Finding]], context: C) -> list[Finding]:
    try:
        return check(context)
    except AutomateError as error:
        text = context.redact(error.message)
        return [Finding(name, "fail", text, error.hint and context.redact(error.hint))]
    except Exception as error:
        if context.debug:
            raise
        # Its text may be anybody's, and hold anything.
        return [Finding(name, "fail", f"the check itself failed: {type(error).__name__}")]
