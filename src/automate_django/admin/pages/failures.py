"""Failed attempts as the pages show them, and what is found by a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.shown import Shown, shown_text
from automate_django.kernel import get_kernel
from automate_django.models import OutboxLabel
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.outbox.labels import read_label

__all__ = ["ShownAttempt", "labelled", "shown_attempts", "shown_labels"]

_MOST_LABELLED = 1000


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """A failed attempt, without secrets and of a length to be shown."""

    attempt: int
    step: str
    code: str
    group: str
    error: Shown
    trace: Shown | None
    failed_at: datetime | None


def shown_attempts(attempts: Iterable[FailedAttempt]) -> list[ShownAttempt]:
    """*attempts* as a page shows them, the latest first."""
    found = [
        ShownAttempt(
            each.attempt,
            f"{each.step_id}[{each.position}]" if each.position >= 0 else each.step_id or "",
            each.error_code,
            shown_text(each.error_group).text,
            shown_text(each.error),
            shown_text(each.trace, 10_000) if each.trace else None,
            each.failed_at,
        )
        for each in attempts
    ]
    return found[::-1]


def shown_labels(labels: Any) -> list[str]:
    """Labels as text, ``order=4711``."""
    given = labels if isinstance(labels, dict) else {}
    return [shown_text(f"{name}={value}").text for name, value in given.items()]


def labelled(label: str, about: str, reach: Reach) -> list[UUID]:
    """The ids of the newest items, or executions, with *label* that *reach* covers."""
    alias = getattr(get_kernel().storage, "alias", "default")
    name, value = read_label(label)
    found: Any = reach.filter(OutboxLabel.objects.using(alias)).filter(value=value, about=about)
    if name is not None:
        found = found.filter(name=name)
    return list(found.order_by("-created_at").values_list("subject_id", flat=True)[:_MOST_LABELLED])
