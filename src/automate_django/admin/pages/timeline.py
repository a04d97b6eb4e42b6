"""What is known of an item's life, as moments in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from automate_django.models import OutboxItem
from automate_kernel.outbox.failed_attempts import FailedAttempt

__all__ = ["Moment", "timeline"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, or will, and its tone."""

    at: datetime | None
    text: str
    tone: str = ""
    note: str = ""


def timeline(item: OutboxItem, attempts: Sequence[FailedAttempt] = ()) -> list[Moment]:
    """The moments of *item*; *attempts* are those that failed, as far as they are kept."""
    return list(_moments(item, attempts))


def _moments(item: OutboxItem, attempts: Sequence[FailedAttempt]) -> Iterator[Moment]:
    attempt = f"attempt {item.attempt_count} of {item.max_attempts}"
    yield Moment(item.created_at, "Accepted", note=_options(item))
    # The last one that failed is told below, with what became of the item.
    told = attempts[:-1] if item.status in ("RETRY", "FAILED") else attempts
    for each in told:
        yield Moment(each.failed_at, f"Attempt {each.attempt} failed", "warn", each.error_group)
    earlier = item.attempt_count - 1 - len(told)
    if earlier > 0:
        yield Moment(None, f"{earlier} earlier attempt{'' if earlier == 1 else 's'}", "warn")
    failed = f"{attempt[0].upper()}{attempt[1:]} failed"
    code = item.last_error_code or ""
    match item.status:
        case "RUNNING":
            asked = " (asked to stop)" if item.waiting_for == "cancel" else ""
            yield Moment(
                item.updated_at,
                f"Taken by {item.lease_owner}, {attempt}{asked}",
                "run",
                "Its lease ends if the worker doesn't renew it.",
            )
            yield Moment(item.lease_expires_at, "Lease ends")
        case "RETRY":
            yield Moment(item.updated_at, failed, "warn", code)
            yield Moment(item.next_attempt_at, "Next attempt", note=_held(item))
        case "FAILED":
            yield Moment(
                item.completed_at or item.updated_at, f"Given up at {attempt}", "bad", code
            )
        case "COMPLETED":
            yield Moment(item.completed_at, f"Completed at {attempt}", "ok")
        case "CANCELLED":
            yield Moment(item.completed_at or item.updated_at, "Cancelled")
        case _:
            if item.attempt_count:
                yield Moment(item.updated_at, "Handed back by a worker", "warn", code)
            yield Moment(item.next_attempt_at, "Due", note=_held(item))


def _held(item: OutboxItem) -> str:
    return {
        "key": "It waits for another item with its ordering key.",
        "resume": "Its kind is paused.",
    }.get(item.waiting_for or "", "")


def _options(item: OutboxItem) -> str:
    given = []
    if item.priority:
        given.append(f"priority {item.priority}")
    if item.ordering_key:
        given.append("one at a time with others of its key")
    if item.idempotency_key:
        given.append("once only by its key")
    return ", ".join(given)
