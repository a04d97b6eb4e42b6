"""
How many items are in each state, without making a page wait for it.

To count a table takes as long as it is large. So a page shows the last count and its age, and a
new one is taken by the request that refreshes the figures, not oftener than it is cheap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.cache import cache
from django.db import connections
from django.db.models import Count
from django.utils import timezone

from automate_django.admin.pages.access import Reach
from automate_django.admin.pages.slices import SLICES
from automate_django.kernel import get_kernel
from automate_django.models import OutboxItem
from automate_django.tenant_counts import counts_of_tenant
from automate_kernel.outbox import ItemStatus

__all__ = ["FAILED_COUNTED", "Counts", "Group", "counts", "failed_groups", "forget"]

CHEAP_ROWS = 50_000
"""A table with fewer rows is counted whenever somebody asks."""
FAILED_COUNTED = 100_000
"""How many failed items are looked at to tell which errors there are; the newest."""

# A count may take a twentieth of the time, at most.
_SHARE = 20
_SHORTEST, _LONGEST = 5.0, 600.0
_VERSION = "automate-pages-generation"


@dataclass(frozen=True, slots=True)
class Group:
    """Failed items of one kind, whose errors have their place and code in common."""

    kind: str
    group: str
    code: str
    n: int
    share: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted, when, and how long that took."""

    by_kind: dict[str, dict[str, int]]
    oldest_due_seconds: float | None
    groups: list[Group]
    groups_cut: bool
    taken_at: datetime
    took: float
    statuses: dict[str, int] = field(default_factory=dict)
    looked: int | None = None
    """Among how many items they were counted, if not among all."""

    @property
    def total(self) -> int:
        """All items."""
        return sum(self.statuses.values())

    @property
    def waiting(self) -> int:
        """Items that wait for a worker, for their time or for each other."""
        return self.statuses.get("PENDING", 0) + self.statuses.get("RETRY", 0)

    @property
    def every(self) -> int:
        """After how many milliseconds to ask again."""
        return int(1000 * min(_LONGEST, max(_SHORTEST, self.took * _SHARE)))


def counts(reach: Reach, *, now: bool) -> Counts | None:
    """
    The counts of what *reach* covers; None if there are none and counting would take too long.

    With *now* they are taken if the last ones are out of date, however long that takes; without,
    the last ones are given, old as they may be.
    """
    if reach.nothing:
        return Counts({}, None, [], False, timezone.now(), 0.0)
    if _row_estimate() <= CHEAP_ROWS:
        return _take(reach)
    key, version = _key(reach), cache.get(_VERSION, 0)
    taken_at, kept = cache.get(key) or (None, None)
    if not now or (kept is not None and taken_at == version and _fresh(kept)):
        found: Counts | None = kept
        return found
    taken = _take(reach)
    cache.set(key, (version, taken), _LONGEST)
    return taken


def forget() -> None:
    """Have everything counted anew at the next refresh: something was changed by hand."""
    cache.set(_VERSION, time.time_ns(), None)


def _fresh(kept: Counts) -> bool:
    return (timezone.now() - kept.taken_at).total_seconds() * 1000 < kept.every


def _key(reach: Reach) -> str:
    from hashlib import sha256

    who = f"{get_kernel().storage.describe()}|{'*' if reach.everyone else '='}{reach.tenant or ''}"
    return f"automate-pages-counts-{sha256(who.encode()).hexdigest()[:32]}"


def _take(reach: Reach) -> Counts:
    began = time.monotonic()
    store = get_kernel().outbox
    if reach.everyone:
        stats = store.stats()
        by_kind, oldest, looked = stats.counts, stats.oldest_due_seconds, None
    else:
        own = counts_of_tenant(get_kernel().storage, reach.tenant or "")
        by_kind, oldest, looked = own.by_kind, own.oldest_due_seconds, own.looked
    groups, cut = failed_groups(reach)
    statuses: dict[str, int] = {str(status): 0 for status in ItemStatus}
    for of_kind in by_kind.values():
        for status, n in of_kind.items():
            statuses[str(status)] = statuses.get(str(status), 0) + n
    plain = {kind: {str(s): n for s, n in of_kind.items()} for kind, of_kind in by_kind.items()}
    took = time.monotonic() - began
    return Counts(plain, oldest, groups, cut, timezone.now(), took, statuses, looked)


def _items(reach: Reach) -> Any:
    return reach.filter(OutboxItem.objects.using(_alias()))


def failed_groups(reach: Reach, *, most: int = 12) -> tuple[list[Group], bool]:
    """The largest groups of failed items, and whether there are more than were looked at."""
    failed = _items(reach).filter(SLICES["failed"].condition)
    # Among those of all tenants: the index knows none.
    every = _items(Reach(everyone=True)).filter(SLICES["failed"].condition)
    ids = every.order_by("-id").values_list("id", flat=True)
    oldest = next(iter(ids[FAILED_COUNTED : FAILED_COUNTED + 1]), None)
    if oldest is not None:
        failed = failed.filter(id__gt=oldest)
    by = ("kind", "last_error_group", "last_error_code")
    rows = list(failed.order_by().values(*by).annotate(n=Count("id")).order_by("-n", *by))
    total = sum(row["n"] for row in rows) or 1
    groups = [
        Group(
            row["kind"],
            row["last_error_group"] or "",
            row["last_error_code"] or "",
            row["n"],
            row["n"] / total,
        )
        for row in rows[:most]
    ]
    return groups, oldest is not None


def _alias() -> str:
    return str(getattr(get_kernel().storage, "alias", "default"))


def _row_estimate() -> int:
    """About how many items there are, without counting them."""
    connection = connections[_alias()]
    table = OutboxItem._meta.db_table
    with connection.cursor() as cursor:
        match connection.vendor:
            case "postgresql":
                # Never analysed: a page holds some 15 rows of ours.
                cursor.execute(
                    "SELECT CASE WHEN reltuples < 0 THEN"
                    " pg_relation_size(oid) / 8192 * 15 ELSE reltuples END"
                    " FROM pg_class WHERE oid = %s::regclass",
                    [table],
                )
            case "sqlite":
                cursor.execute(f'SELECT max(rowid) FROM "{table}"')
            case _:
                cursor.execute(
                    "SELECT table_rows FROM information_schema.tables"
                    " WHERE table_schema = database() AND table_name = %s",
                    [table],
                )
        found = cursor.fetchone()
    return int(found[0] or 0) if found else 0
