"""The timeline of an outbox item: what happened to it, and what will."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.storage.statuses import ItemStatus


class ItemMoment(NamedTuple):
    """Something that happened, or will, and its tone."""

    at: datetime | None
    text: str
    tone: str = ""
    note: str = ""


def item_moments(item: Any, attempts: Sequence[FailedAttempt]) -> Iterator[ItemMoment]:
    """
    Return the moments of *item*; *attempts* are those that failed, as far as they are kept.

    The item is the kernel's, or a framework's model of its row.
    """
    attempt = f"attempt {item.attempt_count} of {item.max_attempts}"
    yield ItemMoment(item.created_at, "Accepted", note=_options(item))
    # The last one that failed follows below, with the item's state.
    earlier_failed = (
        attempts[:-1] if item.status in (ItemStatus.RETRY, ItemStatus.FAILED) else attempts
    )
    for each in earlier_failed:
        yield ItemMoment(each.failed_at, f"Attempt {each.attempt} failed", "warn", each.error_group)
    earlier = item.attempt_count - 1 - len(earlier_failed)
    if earlier > 0:
        yield ItemMoment(None, f"{earlier} earlier attempt{'' if earlier == 1 else 's'}", "warn")
    failed = f"{attempt[0].upper()}{attempt[1:]} failed"
    code, ended = item.last_error_code or "", item.completed_at or item.updated_at
    match item.status:
        case ItemStatus.RUNNING:
            asked = " (asked to stop)" if item.waiting_for == "cancel" else ""
            yield ItemMoment(
                item.updated_at,
                f"Taken by {item.lease_owner}, {attempt}{asked}",
                "run",
                "Its lease ends if the worker doesn't renew it.",
            )
            yield ItemMoment(item.lease_expires_at, "Lease ends")
        case ItemStatus.RETRY:
            yield ItemMoment(item.updated_at, failed, "warn", code)
            yield ItemMoment(item.next_attempt_at, "Next attempt")
        case ItemStatus.FAILED:
            yield ItemMoment(ended, f"Given up at {attempt}", "bad", code)
        case ItemStatus.COMPLETED:
            yield ItemMoment(item.completed_at, f"Completed at {attempt}", "ok")
        case ItemStatus.CANCELLED:
            yield ItemMoment(ended, "Cancelled")
        case _:
            if item.attempt_count:
                yield ItemMoment(item.updated_at, "Handed back by a worker", "warn", code)
            yield ItemMoment(item.next_attempt_at, "Due")


def _options(item: Any) -> str:
    given = []
    if item.priority:
        given.append(f"priority {item.priority}")
    if item.ordering_key:
        given.append("one at a time with others of its key")
    if item.idempotency_key:
        given.append("once only by its key")
    return ", ".join(given)
