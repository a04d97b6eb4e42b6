"""Stored values, errors and labels as pages show them: without secrets, of bounded length."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from automate_django.kernel import get_kernel
from automate_kernel.monitoring.waiting import WaitReason
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.secrets.masking import hide_named
from automate_kernel.workflows.steer.attempts import StepAttempt

MOST = 20_000
"""The number of characters of one value that a page shows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Text for a page; if it was *cut*, *length* is how long the whole is."""

    text: str
    length: int
    cut: bool = False

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


def shown_json(value: Any) -> Shown:
    """
    Return a JSON value as indented text.

    What the redactor knows is taken out first, and so is whatever stands under a name like
    ``password`` or ``api_key``: the redactor of this process knows only the secrets that this
    process has used.
    """
    clean = hide_named(get_kernel().redactor.redact_value(value))
    return _cut(json.dumps(clean, indent=2, ensure_ascii=False), MOST)


def shown_text(text: str | None, most: int = MOST) -> Shown:
    """Return an error or a traceback, without what the redactor knows."""
    return _cut(get_kernel().redactor.redact(text or ""), most)


def shown_reasons(reasons: Iterable[WaitReason]) -> str:
    """Return why something waits, a line for each reason, without what the redactor knows."""
    lines = []
    for each in reasons:
        until = "" if each.until is None else f" Until {each.until:%Y-%m-%d %H:%M:%S} UTC."
        lines.append(" ".join(filter(None, (each.text + until, each.hint))))
    return shown_text("\n".join(lines)).text


def _cut(text: str, most: int) -> Shown:
    return Shown(text[:most], len(text), len(text) > most)


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
    given = labels if isinstance(labels, dict) else {}
    return [shown_text(f"{name}={value}").text for name, value in given.items()]
