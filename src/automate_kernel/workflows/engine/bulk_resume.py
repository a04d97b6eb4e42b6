"""The bulk resume: many failed executions go on, so few at once that nobody waits for it long."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from automate_kernel.errors import AutomateError
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.deadlocks import write_bounded
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.tables import EXECUTION
from automate_kernel.workflows.execution import ExecutionStatus

logger: logging.Logger = get_logger(__name__)

Resume = Callable[[Rows, str, "datetime | None"], bool]
"""Resumes one execution, at once or at that time; returns False if it has not failed."""

# Executions that are resumed in one transaction.
_AT_ONCE = 50


def resume_failed(
    storage: Storage,
    resume: Resume,
    where: Sequence[Where],
    *,
    created_before: datetime | None,
    limit: int | None,
    per_second: float | None,
    progress: Callable[[int], Any] | None,
) -> int:
    """
    Resume the FAILED executions that match *where*, the oldest first; return their number.

    At most *limit*, and with *per_second* so many go on in a second. *progress* gets the number so
    far after each transaction. One that *resume* refuses is logged and left.
    """
    with storage.begin(atomic=False) as rows:
        start = rows.now()
    # Whatever fails anew while this goes on is not meant.
    until = Where("created_at", "lt" if created_before else "le", created_before or start)
    failed = Where("status", "eq", ExecutionStatus.FAILED.value)
    count = place = 0
    for ids in _pages(storage, [failed, *where, until], limit):
        due = [
            start + timedelta(seconds=at / per_second) if per_second and at else None
            for at in range(place, place + len(ids))
        ]
        place += len(ids)
        work = partial(_resume_page, resume=resume, due=dict(zip(ids, due, strict=True)))
        count += write_bounded(storage, None, work)
        if progress is not None:
            progress(count)
    return count


def _pages(storage: Storage, where: list[Where], limit: int | None) -> Iterator[list[str]]:
    """Yield the ids of executions that match, the oldest first, each once, in small lists."""
    count, beyond = 0, list[Where]()
    # Of the moment that the last ones ended with: they may have stayed, or failed again.
    seen: set[str] = set()
    while limit is None or count < limit:
        most = _AT_ONCE if limit is None else min(_AT_ONCE, limit - count)
        with storage.begin(atomic=False) as rows:
            found = rows.select(
                EXECUTION, [*where, *beyond], order_by=("created_at", "id"),
                limit=most + len(seen), columns=("id", "created_at"),
            )  # fmt: skip
        new = [row for row in found if row["id"] not in seen][:most]
        if not new:
            return
        count += len(new)
        last = new[-1]["created_at"]
        if beyond and beyond[0].value != last:
            seen = set()
        seen |= {row["id"] for row in new if row["created_at"] == last}
        beyond = [Where("created_at", "ge", last)]
        yield [row["id"] for row in new]


def _resume_page(rows: Rows, resume: Resume, due: dict[str, datetime | None]) -> int:
    return sum(_resume_or_leave(rows, resume, each, run_at) for each, run_at in due.items())


def _resume_or_leave(
    rows: Rows, resume: Resume, execution_id: str, run_at: datetime | None
) -> bool:
    try:
        return resume(rows, execution_id, run_at)
    except AutomateError as error:
        if error.retryable:
            raise
        logger.warning("execution %s can't be resumed: %s", execution_id, error)
        return False
