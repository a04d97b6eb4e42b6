"""
Checkpoints: the progress of many executions, saved as a group.

A worker has hundreds of executions in flight, and each saves what its steps gave before it goes on.
One transaction for each would cost several statements and a commit. A group costs one statement on
PostgreSQL, and one transaction elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any

from automate_kernel.storage.codec import array_text, decode_time
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import (
    ExecutionStatus,
    ItemStatus,
    ItemWait,
    StepStatus,
    words,
)
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP

RELEASE = ItemWait.RELEASE.value
"""On a running item that is to be put back, and taken up anew: it waits for that."""

LIVE = words(
    ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.PAUSED,
    ExecutionStatus.CANCELLING,
)  # fmt: skip
"""The statuses of an execution that has not ended."""

_CANCELLING, _CANCELLED = words(ExecutionStatus.CANCELLING, ExecutionStatus.CANCELLED)
_STEERED = words(ExecutionStatus.PAUSED, ExecutionStatus.CANCELLING)
# A checkpoint that ends an execution does so in these only, or as CANCELLED in CANCELLING.
_GOES_ON = words(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
_RUNNING, _COMPLETED = words(ItemStatus.RUNNING, ItemStatus.COMPLETED)

# Of a lease of which more than this share is left, nothing is written.
_RENEWED_BELOW = 0.9
_UNFINISHED = words(*(status for status in StepStatus if not status.finished))
# A row that is there keeps these.
_KEPT = ("id", "execution_id", "step_id", "position", "started_at")
# And these, unless it is given others.
_LATEST = ("attempted_at", "worker_id")
_ITEM_ENDS: Mapping[str, Any] = {
    "status": _COMPLETED,
    "waiting_for": None,
    "lease_expires_at": None,
    "completed_at": Now(),
    "updated_at": Now(),
}


@dataclass(slots=True)
class Checkpoint:
    """
    The progress of one execution, whose item is claimed with *token*.

    *steps* are rows of `automate_kernel.storage.tables.STEP` with all columns; their times are
    None or `Now`. One whose step has a row already changes it, unless that step has ended. With
    *status* the execution's status, error and *output* (JSON) are written. *progress* forgets the
    crashes of workers so far. *ends* completes the item; else its lease is renewed. With *beside*
    the transaction changes the execution's row later on too, which is locked before its steps.

    An execution that an operator has paused or cancelled meanwhile keeps that status, and does not
    end otherwise: such a checkpoint is refused.
    """

    item_id: str
    token: str
    execution_id: str
    steps: Sequence[Row] = ()
    status: str | None = None
    error_code: str | None = None
    error: str | None = None
    error_group: str | None = None
    output: str | None = None
    output_ref: str | None = None
    progress: bool = False
    ends: bool = False
    beside: bool = False

    @property
    def final(self) -> bool:
        """True if the execution ends."""
        return self.status is not None and self.status not in LIVE


@dataclass(frozen=True, slots=True)
class Saved:
    """
    The items whose checkpoints were saved, and the time of it by the database's clock.

    *renewed* has those whose leases were renewed, or that have ended. *steered* has those whose
    executions are PAUSED or CANCELLING.
    """

    items: set[str]
    at: datetime
    renewed: set[str]
    steered: frozenset[str] = frozenset()


def save_checkpoints(rows: Rows, group: Sequence[Checkpoint], lease_seconds: float) -> Saved:
    """
    Save the progress of executions; return the items whose claims held, and the time.

    Of an item that is claimed with another token, or whose execution has ended, nothing is written.
    The others' leases are renewed for *lease_seconds*, unless that was done a moment ago. It is one
    statement on PostgreSQL; elsewhere the transaction of *rows* must be atomic.
    """
    if not rows.dialect.arrays:
        return checkpoint_in_steps(rows, group, lease_seconds)
    changes = any(one.status is not None for one in group)
    sql = _checkpoint_sql(
        asks_server=rows.asks_server,
        single=len(group) == 1 and len(group[0].steps) == 1,
        changes=changes,
        # A step that has ended may be written whatever happens meanwhile, one that goes on may not.
        locked=any(one.beside for one in group)
        or any(row["status"] in _UNFINISHED for one in group for row in one.steps),
    )
    parameters = _parameters(group, lease_seconds, changes=changes)
    if not rows.asks_server:
        parameters.insert(0, rows.now())
    found = rows.query(sql, parameters)
    steered = frozenset([row[0] for row in found if row[2] in _STEERED])
    at = decode_time(found[0][1]) if found else rows.now()
    return Saved({row[0] for row in found}, at, {row[0] for row in found if row[3]}, steered)


def checkpoint_in_steps(rows: Rows, group: Sequence[Checkpoint], lease_seconds: float) -> Saved:
    """
    Do `save_checkpoints` with several statements, in the transaction of *rows*.

    For databases without data-modifying ``WITH``.
    """
    now = rows.now()
    held = _renew(rows, group, lease_seconds)
    live, steered = save_progress(rows, [one for one in group if one.item_id in held], now)
    saved = [one for one in group if one.item_id in live]
    progressed = {one.item_id for one in saved if one.progress}
    ended = {one.item_id for one in saved if one.ends}
    forgets: Mapping[str, Any] = {"attempt_count": 1}
    for items, changes in (
        (progressed - ended, forgets),
        (progressed & ended, {**forgets, **_ITEM_ENDS}),
        (ended - progressed, _ITEM_ENDS),
    ):
        if items:
            rows.update(OUTBOX, [Where("id", "in", sorted(items))], changes)
    return Saved(live, now, live, steered)


def save_progress(
    rows: Rows, group: Sequence[Checkpoint], now: datetime
) -> tuple[set[str], frozenset[str]]:
    """
    Save steps and executions of *group*; return the items whose executions had not ended.

    And those among them whose executions are PAUSED or CANCELLING. *now* is the time by the
    database's clock.
    """
    statuses = _live(rows, group)
    live = {one.item_id for one in group if _accepts(statuses.get(one.item_id), one)}
    steered = frozenset([item_id for item_id in live if statuses[item_id] in _STEERED])
    saved = [one for one in group if one.item_id in live]
    # All of them have the checkpoint's one time, however long its statements take.
    _save_steps(rows, [_with_times(row, now) for one in saved for row in one.steps])
    for one in saved:
        if one.status is not None:
            changes = _execution_changes(one)
            if one.item_id in steered and not one.final:
                changes["status"] = statuses[one.item_id]
            rows.update(EXECUTION, [Where("id", "eq", one.execution_id)], changes)
    return live, steered


def _accepts(status: str | None, one: Checkpoint) -> bool:
    """Return True if an execution in *status* takes the checkpoint; None is one that has ended."""
    if status is None or not one.final:
        return status is not None
    return status in _GOES_ON or (status == _CANCELLING and one.status == _CANCELLED)


def _renew(rows: Rows, group: Sequence[Checkpoint], lease_seconds: float) -> set[str]:
    """Renew the leases of the items that are held with the group's tokens; return their ids."""
    by_token: dict[str, list[str]] = {}
    for one in group:
        by_token.setdefault(one.token, []).append(one.item_id)
    held: set[str] = set()
    for token, ids in sorted(by_token.items()):
        where = [
            Where("id", "in", sorted(ids)),
            Where("lease_token", "eq", token),
            Where("status", "eq", _RUNNING),
        ]
        if rows.update(OUTBOX, where, {"lease_expires_at": Now(lease_seconds)}) == len(ids):
            held |= set(ids)
        else:
            held |= {row["id"] for row in rows.select(OUTBOX, where, columns=("id",))}
    return held


def _live(rows: Rows, group: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the status of the executions that have not ended and are theirs, by items."""
    ids = sorted([one.execution_id for one in group])
    found = rows.select(
        EXECUTION, [Where("id", "in", ids), Where("status", "in", LIVE)],
        order_by=("id",), lock=True, columns=("id", "item_id", "status"),
    )  # fmt: skip
    theirs = {one.item_id for one in group}
    return {row["item_id"]: row["status"] for row in found if row["item_id"] in theirs}


def _execution_changes(one: Checkpoint) -> Row:
    changes: Row = {
        "status": one.status,
        "error_code": one.error_code,
        "error": one.error,
        "error_group": one.error_group,
        "updated_at": Now(),
    }
    if one.status not in LIVE:
        changes |= {"completed_at": Now(), "output": one.output, "output_ref": one.output_ref}
    return changes


def _with_times(row: Row, now: datetime) -> Row:
    return {
        name: now + timedelta(seconds=value.offset) if type(value) is Now else value
        for name, value in row.items()
    }


def _save_steps(rows: Rows, steps: Sequence[Row]) -> None:
    if not steps or rows.insert(STEP, steps) == len(steps):
        return
    # Some have a row: of an attempt that failed or took long, or of this very save, whose reply
    # was lost.
    for row in steps:
        where = [
            Where("execution_id", "eq", row["execution_id"]),
            Where("step_id", "eq", row["step_id"]),
            Where("position", "eq", row["position"]),
            Where("status", "in", _UNFINISHED),
        ]
        changes = {
            name: value for name, value in row.items()
            if name not in _KEPT and (value is not None or name not in _LATEST)
        }  # fmt: skip
        rows.update(STEP, where, changes)


# -- one statement ---------------------------------------------------------------------------------

# The times of a step are sent as seconds from now, or null.
_STEP_COLUMNS = {
    "id": "uuid", "execution_id": "uuid", "step_id": "text", "position": "integer",
    "status": "text", "attempts": "integer",
    "failures": "integer", "output": "jsonb", "error_code": "text", "error": "text",
    "trace": "text", "error_group": "text", "started_at": "time",
    "next_attempt_at": "time", "completed_at": "time", "place": "text", "output_ref": "text",
    "worker_id": "text",
}  # fmt: skip
_CHANGED_COLUMNS = [name for name in _STEP_COLUMNS if name not in (*_KEPT, *_LATEST)]
_CLAIM_COLUMNS = {
    "item_id": "uuid", "token": "uuid", "execution_id": "uuid", "progress": "boolean",
    "ends": "boolean",
}  # fmt: skip
_STATUS_COLUMNS = {
    "final": "boolean", "status": "text", "error_code": "text", "error": "text",
    "error_group": "text", "output": "jsonb", "output_ref": "text",
}  # fmt: skip


def _given_columns(*, changes: bool) -> Mapping[str, str]:
    return {**_CLAIM_COLUMNS, **_STATUS_COLUMNS} if changes else _CLAIM_COLUMNS


def _sent_rows(columns: Mapping[str, str], *, single: bool) -> str:
    """Return a query of rows that are sent as an array of text for each column, or of one row."""
    cells = []
    for name, type_ in columns.items():
        value = "{}" if single else name
        if type_ == "time":
            cells.append(f"clock.now + {value}::float8 * interval '1 second' AS {name}")
        else:
            cells.append(f"{value}::{type_} AS {name}")
    query = f"SELECT {', '.join(cells)} FROM clock"
    if single:
        return query
    # By way of text: asyncpg sends nothing but a list for an array.
    arrays = ", ".join("{}::text::text[]" for _ in columns)
    return f"{query}, unnest({arrays}) AS sent({', '.join(columns)})"


def _listed(found: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in found)


_LIVES = f"driven.status IN ({_listed(LIVE)})"
_ACCEPTS = (
    f"CASE WHEN given.final THEN driven.status IN ({_listed(_GOES_ON)})"
    f" OR (driven.status = '{_CANCELLING}' AND given.status = '{_CANCELLED}')"
    f" ELSE {_LIVES} END"
)
# Whoever pauses or cancels an execution locks the item first, and leaves word there: a statement
# that had to wait for that sees it on the item, not on the execution.
_ENDS_UNSTEERED = (
    f"(item.waiting_for IS NULL OR item.waiting_for <> '{RELEASE}' OR NOT given.final)"
)
# The items that are still held, and whether something of them changes. Nearly always nothing does,
# and to write a row anew costs as much as to insert a step. They are locked first: whoever takes
# one over waits, and then finds it so.
_HELD = f"""
    SELECT item.id, given.execution_id, driven.status, given.ends
        OR item.lease_expires_at
            < clock.now + lease.seconds * {_RENEWED_BELOW} * interval '1 second'
        OR (given.progress AND item.attempt_count > 1) AS changes
    FROM given, clock, lease, {OUTBOX} AS item, {EXECUTION} AS driven
    WHERE item.id = given.item_id AND item.lease_token = given.token
        AND item.status = '{_RUNNING}' AND driven.id = given.execution_id
        AND driven.item_id = given.item_id AND {{}}
    FOR NO KEY UPDATE OF item
"""
# Those whose executions have not ended meanwhile. Locked: who cancels one waits, and then ends the
# steps that are written here.
_LOCKED = f"""
    SELECT held.id, held.execution_id, driven.status, held.changes
    FROM held JOIN {EXECUTION} AS driven ON driven.id = held.execution_id
    WHERE driven.item_id = held.id AND {_LIVES}
    FOR NO KEY UPDATE OF driven
"""
_RENEWED = f"""
    UPDATE {OUTBOX} AS item SET
        lease_expires_at = CASE WHEN given.ends THEN NULL
            ELSE clock.now + lease.seconds * interval '1 second' END,
        attempt_count = CASE WHEN given.progress THEN 1 ELSE item.attempt_count END,
        status = CASE WHEN given.ends THEN '{_COMPLETED}' ELSE item.status END,
        waiting_for = CASE WHEN given.ends THEN NULL ELSE item.waiting_for END,
        completed_at = CASE WHEN given.ends THEN clock.now ELSE item.completed_at END,
        updated_at = CASE WHEN given.ends THEN clock.now ELSE item.updated_at END
    FROM given JOIN {{}} AS live ON live.id = given.item_id, clock, lease
    WHERE item.id = live.id AND live.changes
"""
# A short alias: psycopg prepares no statement of more than 4,096 characters.
_SAVED = f"""
    INSERT INTO {STEP} AS s ({", ".join(_STEP_COLUMNS)}, attempted_at)
    SELECT steps.*, steps.started_at FROM steps JOIN {{}} AS live USING (execution_id)
    ON CONFLICT (execution_id, step_id, position) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in _CHANGED_COLUMNS)},
        {", ".join(f"{name} = coalesce(excluded.{name}, s.{name})" for name in _LATEST)}
    WHERE s.status IN ({_listed(_UNFINISHED)})
"""
# What a cancellation does to an execution meanwhile is seen once more here.
_CHANGED = f"""
    UPDATE {EXECUTION} AS driven SET
        status = CASE WHEN driven.status IN ({_listed(_STEERED)}) AND NOT given.final
            THEN driven.status ELSE given.status END,
        error_code = given.error_code, error = given.error,
        error_group = given.error_group, updated_at = clock.now,
        output = CASE WHEN given.final THEN given.output ELSE driven.output END,
        output_ref = CASE WHEN given.final THEN given.output_ref ELSE driven.output_ref END,
        completed_at = CASE WHEN given.final THEN clock.now END
    FROM given JOIN {{}} AS live ON live.id = given.item_id, clock
    WHERE driven.id = given.execution_id AND given.status IS NOT NULL
        AND driven.item_id = given.item_id AND {_ACCEPTS}
"""


@lru_cache(16)
def _checkpoint_sql(*, asks_server: bool, single: bool, changes: bool, locked: bool) -> str:
    """
    Return the statement for PostgreSQL, whose parameters are the time and `_parameters`.

    The clock is the server's, or the first parameter. *single* is for one execution with one step:
    its values stand in the place of rows of arrays, so that the server has nothing to join. With
    *changes* the status of some execution is written. With *locked* the executions are locked
    before anything of them is written.
    """
    now = DIALECTS["postgresql"].now if asks_server else "{}::timestamptz"
    kept = "NOT MATERIALIZED" if single else "MATERIALIZED"
    accepts = f"{_ACCEPTS} AND {_ENDS_UNSTEERED}" if changes else _LIVES
    live = "live" if locked else "held"
    parts = {
        "clock AS NOT MATERIALIZED": f"SELECT {now} AS now",
        "lease AS NOT MATERIALIZED": "SELECT {}::float8 AS seconds",
        f"given AS {kept}": _sent_rows(_given_columns(changes=changes), single=single),
        f"steps AS {kept}": _sent_rows(_STEP_COLUMNS, single=single),
        "held AS MATERIALIZED": _HELD.format(accepts),
        **({"live AS MATERIALIZED": _LOCKED} if locked else {}),
        "renewed AS": _RENEWED.format(live),
        "saved AS": _SAVED.format(live),
        **({"changed AS": _CHANGED.format(live)} if changes else {}),
    }
    text = ", ".join(f"{name} ({query})" for name, query in parts.items())
    text = f"WITH {text} SELECT live.id::text, clock.now, live.status, live.changes FROM {live}"
    # Drivers keep what they know of a statement for short ones only.
    text = re.sub(r"\bgiven\b", "g", f"{text} AS live, clock")
    return " ".join(re.sub(r"\bdriven\b", "d", text).split())


def _parameters(group: Sequence[Checkpoint], lease_seconds: float, *, changes: bool) -> list[Any]:
    """Return the parameters of the statement in their order."""
    columns = _given_columns(changes=changes)
    steps = [row for one in group for row in one.steps]
    if len(group) == len(steps) == 1:
        given, row = attrgetter(*columns)(group[0]), _step_values(steps[0])
        return [lease_seconds, *given, *_sent(row)]
    # Sorted, so that two groups lock their rows in the same order.
    group = sorted(group, key=lambda one: one.item_id)
    steps = [row for one in group for row in one.steps]
    return [
        lease_seconds,
        *[array_text([getattr(one, name) for one in group]) for name in columns],
        *[array_text(_sent([row[name] for row in steps])) for name in _STEP_COLUMNS],
    ]


_step_values = itemgetter(*_STEP_COLUMNS)


def _sent(values: Iterable[Any]) -> list[Any]:
    return [value.offset if type(value) is Now else value for value in values]
