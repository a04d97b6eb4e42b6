"""
Counts of outbox items, without making a page wait for them.

Counting a table takes as long as it is large. So a page shows the last counts and their age. The
request that refreshes the figures counts again, at most as often as that is cheap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.core.cache import cache
from django.utils import timezone

from automate_kernel.outbox import ErrorGroup, ItemStatus
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.tenant_counts import TenantCounts, counts_of_tenant

CHEAP_ROWS = 10_000
"""A table with at most so many rows is counted at each request."""

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

_MOST_GROUPS = 12
# Counting may take 5 % of the time, at most.
_SHARE = 20
_SHORTEST, _LONGEST = 5.0, 600.0
# What takes no longer is counted at each request.
_QUICK = 0.1
_VERSION = "automate-pages-generation"


@dataclass(frozen=True, slots=True)
class Counts:
    """The items by kind and status, the largest groups of errors, and when they were counted."""

    by_kind: dict[str, dict[str, int]]
    oldest_due_seconds: float | None
    groups: list[ErrorGroup]
    taken_at: datetime
    took: float
    statuses: dict[str, int] = field(default_factory=dict)
    looked: int | None = None
    """The number of items among which they were counted, if not all."""

    @property
    def waiting(self) -> int:
        """The number of items that wait for a worker, for their time or for each other."""
        return self.statuses.get("PENDING", 0) + self.statuses.get("RETRY", 0)

    @property
    def every(self) -> int:
        """The number of milliseconds after which to count again."""
        return int(1000 * min(_LONGEST, max(_SHORTEST, self.took * _SHARE)))


def read_counts(outbox: Any, tenant: str | None = None, *, now: bool) -> Counts | None:
    """
    Return the counts of all items in *outbox*, or those of *tenant*.

    None means: they were not taken yet, and taking them is too slow for a page. With *now* outdated
    counts are taken again, however long that takes. Without it the last counts are returned.
    """
    key = cache_key(outbox.storage, "counts", "*" if tenant is None else f"={tenant}")
    version = cache.get(_VERSION, 0)
    kept: Counts | None
    version_kept, kept = cache.get(key) or (None, None)
    # Only the counts of a large table are kept: if there are some, its size needs no look.
    large = kept is not None or _is_large(outbox)
    if large and (not now or (kept and version_kept == version and _is_fresh(kept))):
        return kept
    taken = _take(outbox, tenant)
    if kept is not None:
        large = _is_large(outbox)  # it may have shrunk
    if large or kept is not None:
        cache.set(key, (version, taken), _LONGEST if large else 0)
    return taken


def read_execution_groups(
    kernel: Kernel, workflow: str | None, tenant: str | None
) -> list[ErrorGroup]:
    """Return the largest groups of failed executions; those of many are kept for a while."""
    executions = kernel.executions
    whose = f"{workflow!r} {tenant!r}"
    key, version = cache_key(executions.storage, "groups", whose), cache.get(_VERSION, 0)
    version_kept, kept = cache.get(key) or (None, None)
    if kept is not None and version_kept == version:
        return list(kept)
    began = time.monotonic()
    groups = executions.error_groups(workflow=workflow, tenant_id=tenant, limit=_MOST_GROUPS)
    took = time.monotonic() - began
    groups = [replace(group, error="") for group in groups]
    if took > _QUICK:
        cache.set(key, (version, groups), min(_LONGEST, max(_SHORTEST, took * _SHARE)))
    return groups


def _is_large(outbox: Any) -> bool:
    return bool(controls_of(outbox).count(most=CHEAP_ROWS + 1) > CHEAP_ROWS)


def forget_counts() -> None:
    """Have everything counted again at the next refresh, since something was changed by hand."""
    cache.set(_VERSION, time.time_ns(), None)


def _is_fresh(kept: Counts) -> bool:
    return (timezone.now() - kept.taken_at).total_seconds() * 1000 < kept.every


def cache_key(storage: Any, name: str, whose: str = "*") -> str:
    """Return the key in the cache of what is called *name* and is read from *storage*."""
    digest = sha256(f"{storage.describe()}|{whose}".encode()).hexdigest()
    return f"automate-pages-{name}-{digest[:32]}"


def _take(outbox: Any, tenant: str | None) -> Counts:
    began = time.monotonic()
    if tenant is None:
        stats = outbox.stats()
        own = TenantCounts(stats.counts, stats.oldest_due_seconds)
    else:
        own = counts_of_tenant(outbox.storage, tenant)
    groups = controls_of(outbox).error_groups(tenant_id=tenant, limit=_MOST_GROUPS)
    plain = {kind: {str(s): n for s, n in of.items()} for kind, of in own.by_kind.items()}
    statuses = {str(s): sum(of.get(str(s), 0) for of in plain.values()) for s in ItemStatus}
    # A cache is no place for the texts of errors.
    short = [replace(group, error="") for group in groups]
    took = time.monotonic() - began
    late = own.oldest_due_seconds
    return Counts(plain, late, short, timezone.now(), took, statuses, own.looked)
