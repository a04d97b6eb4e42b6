"""Bulk actions: an operator command for all rows that a filter finds, in small transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_choice, check_limit
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows, Storage

Progress = Callable[[int], Any]
"""Is called with how many rows have been changed so far, after each batch."""


@dataclass(frozen=True, slots=True)
class BulkAction:
    """
    An operator command for all that *matching* finds, and its progress.

    *target* is ``items``, whose *command* is ``requeue``, ``cancel``, ``discard`` or
    ``reschedule``; or ``executions``, whose command is ``resume``, ``cancel``, ``pause``,
    ``unpause`` or ``fork``. The action handles each of them once, the oldest first. Rows that began
    or failed after *began_at* are left out. *after* is the last handled place, *seen* counts the
    places, and *done* the changed rows. *delay* is for ``reschedule``: seconds from now.
    *per_second* is for ``requeue``, ``resume`` and ``fork``: it limits how many become due each
    second. *late* is the number of seconds in which nobody carried the action on. *step* is for
    ``fork``: the copies run from it on, if *current* with the workflow as it is now.

    All fields are JSON, if the times in *matching* are text: so it can be kept and gone on with.
    """

    command: str
    matching: Mapping[str, Any]
    delay: float = 0.0
    per_second: float | None = None
    began_at: str = ""
    after: str = ""
    seen: int = 0
    done: int = 0
    finished: bool = False
    target: str = "items"
    late: float = 0.0
    step: str = ""
    current: bool = False

    @property
    def began(self) -> datetime:
        """The time at which it began."""
        return datetime.fromisoformat(self.began_at)

    @property
    def paced_from(self) -> datetime:
        """The time at which the first would be due, had the action never stood still."""
        return self.began + timedelta(seconds=self.late)


@dataclass(frozen=True, slots=True)
class BulkTarget:
    """
    The rows that bulk actions change, as the store of these rows knows them.

    *statuses* has per command those that it can change, and those that it changes if none is named.
    *order* are the columns in whose order the rows are come to: the id, or a time and the id.
    *ends* are the commands for rows that have ended. A transaction changes *batch* rows at most.
    """

    name: str
    table: str
    order: tuple[str, ...]
    batch: int
    statuses: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    status: type[Enum]
    ends: Sequence[str]
    conditions: Callable[[Rows, Mapping[str, Any]], list[Where]]

    def check(self, action: BulkAction) -> list[str]:
        """
        Return the statuses whose rows *action* changes.

        Raises ``INVALID_ARGUMENT`` for a status that it can't change, and if the filter is empty:
        to mean every row, name a status.
        """
        if action.target != self.name or action.command not in self.statuses:
            raise _invalid(f"no command for {self.name} is called {action.command!r}")
        able, usual = self.statuses[action.command]
        if action.per_second is not None and not action.per_second > 0:
            raise _invalid("per_second must be above 0")
        if all(value is None for value in action.matching.values()):
            raise _invalid(
                f"no filter says which {self.name} are meant",
                f'to mean all of them, name their status: status="{usual[0]}"',
            )
        if (given := action.matching.get("status")) is None:
            return list(usual)
        status = str(check_choice(given, self.status, "status").value)
        if status not in able:
            raise _invalid(
                f"{action.command} can't be done to {self.name} that are {status}",
                f"only to those that are {', '.join(able)}",
            )
        return [status]

    def which(self, rows: Rows, action: BulkAction) -> list[Where]:
        """Return the conditions on the rows that *action* changes, once it has begun."""
        where = [Where("status", "in", self.check(action)), *self.conditions(rows, action.matching)]
        if not action.began_at:
            return where
        # So that this ends however fast new ones come, and whatever fails anew meanwhile.
        where.append(Where("created_at", "le", action.began))
        if action.command in self.ends:
            where.append(Where("completed_at", "le", action.began))
        return where

    def page(self, rows: Rows, where: Sequence[Where], after: str, size: int) -> list[str]:
        """Return the places of up to *size* rows behind *after*; a place ends with the row's id."""
        found: list[str] = []
        for beyond in _beyond(self.order, after):
            some = rows.select(
                self.table, [*where, *beyond], order_by=self.order, limit=size - len(found),
                columns=self.order,
            )  # fmt: skip
            found += [" ".join(_text(row[name]) for name in self.order) for row in some]
            if len(found) == size:
                break
        return found


def carry_on(
    storage: Storage,
    target: BulkTarget,
    action: BulkAction,
    change: Callable[[BulkAction, list[str]], int],
    *,
    seconds: float | None,
    limit: int | None,
    progress: Progress | None,
) -> BulkAction:
    """
    Go on with *action* for so many *seconds* or to its end, and return its progress.

    *change* does it to the rows with some ids, the next ones, and returns how many it changed.
    """
    target.check(action)
    if limit is not None:
        limit = check_limit(limit, least=0)
    until = None if seconds is None else runtime.monotonic() + seconds
    with storage.begin(atomic=False) as rows:
        action = _begun(action, rows.now())
        where = target.which(rows, action)
    while not action.finished:
        size = target.batch if limit is None else min(target.batch, limit - action.seen)
        with storage.begin(atomic=False) as rows:
            # One more tells whether another go is needed.
            found = target.page(rows, where, action.after, size + 1)
        places = found[:size]
        done = change(action, [place.rpartition(" ")[2] for place in places]) if places else 0
        action = replace(
            action,
            after=places[-1] if places else action.after,
            seen=action.seen + len(places),
            done=action.done + done,
            finished=len(found) <= size or action.seen + len(places) == limit,
        )
        if progress is not None and places:
            progress(action.done)
        if until is not None and runtime.monotonic() >= until:
            break
    return action


def _begun(action: BulkAction, now: datetime) -> BulkAction:
    """Return *action* as it goes on *now*: the rate holds also after nobody carried it on."""
    if not action.began_at:
        return replace(action, began_at=now.isoformat())
    if action.per_second is None:
        return action
    next_due = action.paced_from + timedelta(seconds=action.seen / action.per_second)
    late = max(0.0, (now - next_due).total_seconds())
    # Before it began: the clock was put back, and what comes next would wait that long too.
    early = max(0.0, (action.paced_from - now).total_seconds())
    return replace(action, late=action.late + late - early)


def _beyond(order: Sequence[str], after: str) -> Iterator[list[Where]]:
    """Yield the conditions on the parts of a list that follow the place *after*."""
    moment, _, last = after.rpartition(" ")
    if not after:
        yield []
    elif not moment:
        yield [Where(order[0], "gt", last)]
    else:
        # Of the same moment there may be more than one page has.
        at = datetime.fromisoformat(moment)
        yield [Where(order[0], "eq", at), Where(order[1], "gt", last)]
        yield [Where(order[0], "gt", at)]


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _invalid(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)
