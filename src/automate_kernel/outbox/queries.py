"""Reading the outbox: by filter, a page at a time, in figures. All functions work on `Rows`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from automate_kernel.base.arguments import check_choice, check_names, several
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.fair_share import READY, ready_kinds
from automate_kernel.outbox.handover import CODES, LONGEST_SECONDS
from automate_kernel.outbox.item import WAITING, ItemStatus, OutboxItem, owner_begun, scoped_key
from automate_kernel.outbox.labels import MOST_LABELLED, labelled_ids
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.query import Now, Operator, Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import (
    ORDERING_LOCK,
    OUTBOX,
    PAUSE,
    SLOT,
    TABLES,
    WORKFLOW_PAUSE,
)


class ItemFilter(TypedDict, total=False):
    """
    Conditions on items; all must hold, and None is no condition.

    *status* is one status. *waiting_for* is what waiting items wait for: ``worker`` (they are due),
    ``time``, ``key`` or ``resume``, or several of these. *error_code* and *error_group* are of the
    last error (``KeyError in shop.actions.charge``; see `OutboxStore.error_groups`). For these two
    and *tenant_id*, empty text means that there is none. *label* is ``order=4711``, or ``4711``
    under any name. A key is looked for among the items of *tenant_id*, or those of no tenant.
    Invalid *ids* match nothing.
    """

    status: ItemStatus | str | None
    waiting_for: str | Sequence[str] | None
    kind: str | None
    tenant_id: str | None
    error_code: str | None
    error_group: str | None
    created_before: datetime | None
    created_after: datetime | None
    label: str | None
    ids: Sequence[str] | None
    idempotency_key: str | None
    ordering_key: str | None
    concurrency_key: str | None


class Due(NamedTuple):
    """The findings of a look at the outbox."""

    seconds: float | None
    """Seconds until the next item is due, 0 or less if an item is due now; None if none waits."""
    recoverable: bool = True
    """False if nothing is there for `OutboxStore.reap`."""


@dataclass(frozen=True, slots=True)
class ItemPage:
    """
    A page of items; *after* leads to the next one, and is empty at the end.

    *looked* is above 0 if there may be more, but only so many items were looked through.
    """

    items: list[OutboxItem] = field(default_factory=list)
    after: str = ""
    looked: int = 0


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """
    The number of items by kind and state, and the lateness of the oldest due item.

    *late* is the lateness by kind, in seconds, for kinds with a due item; a store may leave it out.
    *waiting* has the numbers of waiting items by kind and reason. *ages* has the age of the oldest
    waiting item by kind, in seconds.
    """

    counts: dict[str, dict[str, int]]
    oldest_due_seconds: float | None
    paused: tuple[str, ...] = ()
    late: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)

    def total(self, status: ItemStatus | str) -> int:
        """Return the number of items in *status*, of all kinds."""
        return sum(of_kind.get(str(status), 0) for of_kind in self.counts.values())


_COLUMNS: Mapping[str, tuple[str, Operator]] = {
    "kind": ("kind", "eq"),
    "tenant_id": ("tenant_id", "eq"),
    "error_code": ("last_error_code", "eq"),
    "error_group": ("last_error_group", "eq"),
    "created_before": ("created_at", "lt"),
    "created_after": ("created_at", "ge"),
}
_KEYS = ("idempotency_key", "ordering_key", "concurrency_key")


def conditions(rows: Rows, matching: Mapping[str, Any]) -> list[Where]:
    """Return the conditions of an `ItemFilter`; an index finds the ids that have a label."""
    check_names(matching, ItemFilter.__annotations__, "items")
    given = {name: value for name, value in matching.items() if value is not None}
    where: list[Where] = []
    if "status" in given:
        where.append(
            Where("status", "eq", check_choice(given["status"], ItemStatus, "status").value)
        )
    if "waiting_for" in given:
        states = given["waiting_for"]
        several = not isinstance(states, str)
        where.append(Where("waiting_for", "in" if several else "eq", states))
    where += [
        Where(column, operator, _value(name, given[name]))
        for name, (column, operator) in _COLUMNS.items()
        if name in given
    ]
    tenant = given.get("tenant_id") or None
    where += [Where(name, "eq", scoped_key(given[name], tenant)) for name in _KEYS if name in given]
    if "ids" in given:
        where.append(Where("id", "in", item_ids_of(given["ids"])))
    if "label" in given:
        found = labelled_ids(
            rows, given["label"], about="item", tenant_id=tenant, limit=MOST_LABELLED
        )
        where.append(Where("id", "in", sorted(each.id for each in found)))
    return where


def _value(name: str, value: Any) -> Any:
    # A bulk action that waits for its next turn is JSON, which has no times.
    if name.startswith("created_") and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value or None


def item_ids_of(given: Iterable[str]) -> list[str]:
    """Return the ids among *given*, or the one that it is, in order; others are no item's."""
    ids = set()
    for item_id in several(given):
        try:
            ids.add(str(UUID(str(item_id))))
        except ValueError:
            continue
    return sorted(ids)


def find_items(
    rows: Rows, matching: Mapping[str, Any], limit: int, before_id: str | None
) -> list[OutboxItem]:
    """Return the newest items that match; see `OutboxStore.find`."""
    where = conditions(rows, matching)
    if before_id is not None:
        if not item_ids_of([before_id]):
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "before_id is no item's id")
        where.append(Where("id", "lt", before_id))
    found = rows.select(OUTBOX, where, order_by=("-id",), limit=limit)
    return [OutboxItem.from_row(row) for row in found]


def running_items(rows: Rows, limit: int) -> list[OutboxItem]:
    """Return items under lease, in the order in which they were claimed."""
    leased = [Where("lease_expires_at", "ne", None)]
    found = rows.select(OUTBOX, leased, order_by=("updated_at", "id"), limit=limit)
    return [OutboxItem.from_row(row) for row in found]


_HANDED_OVER = (
    Where("waiting_for", "eq", ItemWait.TIME.value),
    # None of them waits for longer; what waits for next year isn't looked at.
    Where("next_attempt_at", "le", Now(LONGEST_SECONDS * 2)),
    Where("last_error_code", "in", CODES),
)


def count_handed_over(rows: Rows) -> int:
    """Count the items that wait for another worker, in the database."""
    (counted,) = rows.count(OUTBOX, where=_HANDED_OVER)
    return int(counted["n"])


def handed_over_items(rows: Rows, limit: int, tenant_id: str | None) -> list[OutboxItem]:
    """Return items that wait for another worker; see `OutboxStore.handed_over`."""
    waiting = list(_HANDED_OVER)
    if tenant_id is not None:
        waiting.append(Where("tenant_id", "eq", tenant_id))
    found = rows.select(OUTBOX, waiting, order_by=("next_attempt_at",), limit=limit)
    items = [OutboxItem.from_row(row) for row in found]
    return [item for item in items if item.handover is not None]


def paused_kinds(rows: Rows) -> frozenset[str]:
    """Return the kinds of items that are paused."""
    return frozenset(pauses_of_kinds(rows))


def pauses_of_kinds(rows: Rows) -> dict[str, str]:
    """Return the kinds of items that are paused, each with the reason that was given."""
    found = rows.select(PAUSE, columns=("kind", "reason"))
    return {
        row["kind"]: row["reason"] or ""
        for row in found
        if not row["kind"].startswith(WORKFLOW_PAUSE)
    }


def requests(rows: Rows, worker_id: str, word: str) -> dict[str, str]:
    """Return the items of a worker on which *word* is left: ``cancel`` or ``release``."""
    asked = [
        Where("waiting_for", "eq", word),
        # So that a database without partial indexes has an index to use.
        Where("lease_expires_at", "ne", None),
        Where("lease_owner", "in", [worker_id, owner_begun(worker_id)]),
    ]
    found = rows.select(OUTBOX, asked, columns=("id", "lease_token"))
    return {row["id"]: row["lease_token"] for row in found}


def count_items(rows: Rows, matching: Mapping[str, Any], most: int | None) -> int:
    """Return how many items match, *most* at most; see `OutboxStore.count`."""
    where = conditions(rows, matching)
    if most is None:
        counted = rows.count(OUTBOX, (), where)
        return int(counted[0]["n"]) if counted else 0
    return len(rows.select(OUTBOX, where, limit=most, columns=("id",))) if most > 0 else 0


_WITHOUT_PAYLOAD = tuple(
    column.name for column in TABLES[OUTBOX].columns if column.name not in ("payload", "headers")
)


def read_item_page(
    rows: Rows, matching: Mapping[str, Any], *, payloads: bool = True, **options: Any
) -> ItemPage:
    """Return a page of items; see `OutboxStore.page`."""
    name, ranges = _ranges(rows, conditions(rows, matching))
    columns = () if payloads else _WITHOUT_PAYLOAD
    found = read_page(rows, OUTBOX, ranges, name=name, columns=columns, **options)
    bare: Row = {} if payloads else {"payload": None, "headers": {}}
    items = [OutboxItem.from_row({**row, **bare}) for row in found.rows]
    return ItemPage(items, found.after, found.looked)


def _ranges(rows: Rows, where: list[Where]) -> tuple[str, list[IndexRange]]:
    """Return the list that *where* asks for, and the parts of indexes that hold it."""
    given = {one.column: one for one in where if one.operator in ("eq", "in")}

    def besides(*columns: str) -> list[Where]:
        return [one for one in where if one.column not in columns]

    if "id" in given or "idempotency_key" in given:
        return "ids", [IndexRange(where)]
    waiting, status = given.get("waiting_for"), given.get("status")
    key = given.get("ordering_key")
    if key is not None and waiting is not None:
        asleep = Where("waiting_for", "ne", None)
        return "key", [IndexRange([key, asleep], ("-id",), besides("ordering_key"))]
    if waiting is not None and waiting.value == ItemWait.WORKER:
        return "due", _due_ranges(rows, given, besides("waiting_for", "kind", "tenant_id"))
    if waiting is not None and waiting.value == ItemWait.TIME:
        rest = besides("waiting_for")
        return "later", [IndexRange([waiting], ("next_attempt_at", "id"), rest)]
    if status is not None and status.value == ItemStatus.RUNNING.value:
        # However many wait, few run.
        leased = Where("lease_expires_at", "ne", None)
        return "running", [IndexRange([leased, *where], ("lease_expires_at", "id"))]
    if status is not None and status.value == ItemStatus.FAILED.value:
        return "failed", [IndexRange([status], ("-id",), besides("status"))]
    return "all", [IndexRange((), ("-id",), where)]


def _due_ranges(rows: Rows, given: Mapping[str, Where], rest: list[Where]) -> list[IndexRange]:
    """Return ready items, each kind in the order in which it is claimed; tenants' items last."""
    ready, tenant, kind = given["waiting_for"], given.get("tenant_id"), given.get("kind")
    kinds = ready_kinds(rows) if kind is None else [kind.value]
    ranges = []
    for name in kinds:
        its = [ready, Where("kind", "eq", name)]
        if tenant is None or tenant.value is None:
            nobody = [*its, Where("tenant_id", "eq", None)]
            ranges.append(IndexRange(nobody, ("sort_at", "id"), rest, f"0 {name}"))
        if tenant is None:
            of_tenants = [*its, Where("tenant_id", "ne", None)]
            order = ("tenant_id", "sort_at", "id")
            ranges.append(IndexRange(of_tenants, order, rest, f"1 {name}"))
        elif tenant.value is not None:
            ranges.append(IndexRange([*its, tenant], ("sort_at", "id"), rest, f"1 {name}"))
    return ranges


def read_stats(rows: Rows) -> OutboxStats:
    """Count items per kind and state, and read lateness and paused kinds."""
    counts: dict[str, dict[str, int]] = {}
    waiting: dict[str, dict[str, int]] = {}
    oldest: dict[str, datetime] = {}
    for row in rows.count(OUTBOX, ("kind", "status", "waiting_for"), ends="created_at"):
        its, of = counts.setdefault(row["kind"], {}), row["waiting_for"]
        its[row["status"]] = its.get(row["status"], 0) + row["n"]
        if row["status"] in WAITING and of is not None:
            found = waiting.setdefault(row["kind"], {})
            found[of] = found.get(of, 0) + row["n"]
            oldest[row["kind"]] = min(row["least"], oldest.get(row["kind"], row["least"]))
    paused = tuple(sorted(paused_kinds(rows)))
    counts = dict(sorted(counts.items()))
    if not waiting:
        return OutboxStats(counts, None, paused)
    now = rows.now()
    late = _late_kinds(rows, waiting, now)
    ages = {kind: (now - at).total_seconds() for kind, at in oldest.items()}
    return OutboxStats(counts, max(late.values(), default=None), paused, late, waiting, ages)


# What the reaper looks after, each by an index of its own.
_RECOVERABLE = (
    (OUTBOX, (Where("lease_expires_at", "lt", Now()),)),
    (ORDERING_LOCK, ()),
    (SLOT, ()),
    (OUTBOX, (Where("waiting_for", "ne", None), Where("ordering_key", "ne", None))),
    (
        OUTBOX,
        (Where("waiting_for", "eq", ItemWait.KEY.value), Where("concurrency_key", "ne", None)),
    ),
)


def read_due(rows: Rows, *, recovery: bool) -> Due:
    """Return what is due, with one statement; with *recovery* also if the reaper has work."""
    looks = (*READY, *_RECOVERABLE) if recovery else READY
    later = OUTBOX, "next_attempt_at", [Where("waiting_for", "eq", ItemWait.TIME.value)]
    *found, first, now = rows.found(*looks, first=later)
    recoverable = any(found[len(READY) :])
    if any(found[: len(READY)]):
        return Due(0.0, recoverable)
    return Due(None if first is None else (first - now).total_seconds(), recoverable)


def _late_kinds(
    rows: Rows, waiting: Mapping[str, Mapping[str, int]], now: datetime
) -> dict[str, float]:
    """Return for how many seconds the oldest due item has waited, of the kinds in *waiting*."""
    ready = Where("waiting_for", "eq", ItemWait.WORKER.value)
    nobody, somebody = (Where("tenant_id", each, None) for each in ("eq", "ne"))
    kinds = sorted(kind for kind, its in waiting.items() if its.get(ItemWait.WORKER))
    firsts = [[ready, Where("kind", "eq", kind), nobody] for kind in kinds]
    # Of the tenants' it is one look along their index, however many tenants there are.
    for of in rows.count(OUTBOX, ("kind",), [ready, somebody], ends="sort_at") if kinds else ():
        first = Where("sort_at", "eq", of["least"])
        firsts.append([ready, Where("kind", "eq", of["kind"]), somebody, first])
    # The first in claim order, which is the oldest but for priorities.
    parts, order = [Portion(its, 1) for its in firsts], ("sort_at", "id")
    read = ("kind", "next_attempt_at", *order)
    found = rows.select_parts(OUTBOX, parts, order_by=order, columns=read)
    due = [(row["kind"], row) for some in found for row in some]
    if any(its.get(ItemWait.TIME) for its in waiting.values()):
        # Only that of all kinds: a worker that is there makes these ready at once, so if one is
        # late it is because there is none, for whatever kind.
        later = [
            Where("waiting_for", "eq", ItemWait.TIME.value),
            Where("next_attempt_at", "le", Now()),
        ]
        overdue = rows.select(OUTBOX, later, order_by=("next_attempt_at",), limit=1, columns=read)
        due += [(row["kind"], row) for row in overdue]
    late: dict[str, float] = {}
    for kind, row in due:
        seconds = max(0.0, (now - row["next_attempt_at"]).total_seconds())
        late[kind] = max(seconds, late.get(kind, 0.0))
    return late
