"""Stored values, errors and labels as pages show them: without secrets, of bounded length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from automate_django.kernel import get_kernel
from automate_kernel.monitoring.waiting import WaitReason
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.workflows.steer.attempts import StepAttempt
from automate_pages import formats
from automate_pages.formats import ShownValue


def shown_json(value: Any) -> ShownValue:
    """Return a JSON value as indented text, without secrets."""
    return formats.shown_json(get_kernel(), value)


def shown_text(text: str | None, most: int = formats.MOST) -> ShownValue:
    """Return an error or a traceback, without what the redactor knows."""
    return formats.shown_text(get_kernel(), text, most)


def shown_reasons(reasons: Iterable[WaitReason]) -> str:
    """Return why something waits, a line for each reason, without what the redactor knows."""
    return shown_text("\n".join(formats.shown_reasons(get_kernel(), reasons))).text


def shown_attempts(attempts: Iterable[FailedAttempt]) -> list[dict[str, Any]]:
    """Return failed *attempts* as a page shows them, the latest first: short, without secrets."""
    found = [
        {
            "attempt": each.attempt,
            "step": f"{each.step_id}[{each.position}]" if each.position >= 0 else each.step_id,
            "code": each.error_code,
            "group": shown_text(each.error_group),
            "error": shown_text(each.error),
            "trace": shown_text(each.trace, 10_000),
            "failed_at": each.failed_at,
            "took": each.duration_seconds,
            "worker": each.worker_id,
        }
        for each in attempts
    ]
    return found[::-1]


def shown_step_attempts(attempts: Iterable[StepAttempt]) -> list[dict[str, Any]]:
    """Return all *attempts* of steps as a page lists them, the latest first."""
    found = [
        {
            "attempt": each.attempt,
            "step": f"{each.step_id}[{each.position}]" if each.position >= 0 else each.step_id,
            "status": each.status,
            "started_at": each.started_at,
            "took": each.duration_seconds,
            "worker": each.worker_id,
            "code": each.error_code,
        }
        for each in attempts
    ]
    return found[::-1]


def shown_labels(labels: Any) -> list[str]:
    """Return labels as text: ``order=4711``."""
    return formats.shown_labels(get_kernel(), labels)
