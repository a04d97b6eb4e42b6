"""
Fair share: kinds share a claim equally, within a kind its tenants do, and of these their lanes.

A *group* is the ready items of one kind and tenant, and while those are backlogged, of one lane.
Within a group items go by priority and age; no group waits for another's backlog, however long
that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from automate_kernel.base import runtime
from automate_kernel.storage.query import Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import ItemWait
from automate_kernel.storage.tables import OUTBOX


class Group(NamedTuple):
    """The items of a kind, of a tenant or of none, and of a *lane*: None is whatever lane."""

    kind: str
    tenant: str | None
    lane: str | None = None

    @property
    def line(self) -> Group:
        """The group of all its lanes."""
        return Group(self.kind, self.tenant)

    @property
    def conditions(self) -> list[Where]:
        """The conditions that its rows meet."""
        lane = [] if self.lane is None else [Where("lane", "eq", self.lane)]
        return [Where("kind", "eq", self.kind), Where("tenant_id", "eq", self.tenant), *lane]


# Groups in one statement. With more they take turns.
_MOST_AT_ONCE = 64
# Backlogged groups whose lanes are looked up in one claim.
_MOST_LOOKED_UP = 4
# Among so many claims lanes are looked up once at least, and one goes by age alone: for what has no
# lane.
_BY_AGE = 4

_READY = Where("waiting_for", "eq", ItemWait.WORKER.value)
_NOBODY = Where("tenant_id", "eq", None)
_SOMEBODY = Where("tenant_id", "ne", None)
_LANED = Where("lane", "ne", None)
# The items of tenants and of nobody stand in an index each.
READY = (OUTBOX, (_READY, _NOBODY)), (OUTBOX, (_READY, _SOMEBODY))
"""The looks at what is ready to be claimed, for `Rows.found`."""


def ready_kinds(rows: Rows, kinds: Sequence[str] | None = None) -> list[str]:
    """Return the kinds, among *kinds* if given, that have an item ready to be claimed."""
    among = [] if kinds is None else [Where("kind", "in", list(kinds))]
    found = {
        kind for table, ready in READY for kind in rows.distinct(table, "kind", [*ready, *among])
    }
    return sorted(found)


def ready_groups(rows: Rows, kinds: Sequence[str] | None = None) -> list[Group]:
    """Return the groups that may have items ready, of *kinds* if given."""
    known = ready_kinds(rows) if kinds is None else sorted(kinds)
    groups = [Group(kind, None) for kind in known]
    return groups + _of_tenants(rows, known)


def _of_tenants(rows: Rows, kinds: Sequence[str]) -> list[Group]:
    groups: list[Group] = []
    # Most applications have no tenants, and one look shows it.
    if rows.select(OUTBOX, [_READY, _SOMEBODY], limit=1, columns=("id",)):
        for kind in kinds:
            its = [_READY, _SOMEBODY, Where("kind", "eq", kind)]
            groups += [Group(kind, tenant) for tenant in rows.distinct(OUTBOX, "tenant_id", its)]
    return groups


# So many groups that had nothing in a claim keep their turn.
_REMEMBERED = 1000


class FairShare:
    """
    Shares claims among groups, and remembers which of them are backlogged: had more than they got.

    While one is, its lanes are looked up at most every *refresh_seconds*; and so are the groups, if
    they are many or there are no tenants.
    """

    def __init__(self, refresh_seconds: float) -> None:
        self._refresh_seconds = refresh_seconds
        self._known: dict[tuple[str, ...] | None, tuple[float, list[Group]]] = {}
        # Never changed in place: another thread may be looking through it.
        self._backlogged: frozenset[Group] = frozenset()
        # The lanes of groups that were backlogged, and until when they need no other look.
        self._lanes: dict[Group, tuple[float, list[str]]] = {}
        # The groups of all lanes that are backlogged, and had items in lanes.
        self._laned: frozenset[Group] = frozenset()
        self._claims = 0
        self._tenants = False
        # The groups in the order of their turns; some may be gone by the next claim.
        self._turns: list[Group] = []

    def take(
        self,
        rows: Rows,
        kinds: Sequence[str] | None,
        limit: int,
        *,
        only: Sequence[Where] = (),
        **claim: Any,
    ) -> list[Row]:
        """
        Take up to *limit* ready rows, *only* those that match.

        *claim* holds the other arguments of `Rows.take`.
        """
        claim["where"] = [_READY, *only]
        if kinds is None or self._backlogged or self._tenants:
            groups = self._groups(rows, kinds)
            self._tenants = any(group.tenant is not None for group in groups)
            parts = self._in_lanes(rows, groups)
            taken = self._take(rows, parts, limit, claim)
            # Lanes that were looked up a moment ago may be empty, and others have come.
            return taken or (self._take(rows, groups, limit, claim) if parts != groups else [])
        taken = self._take(rows, [Group(kind, None) for kind in kinds], limit, claim)
        if taken:
            return taken  # who finds something asks again, and finds what tenants have too
        of_tenants = _of_tenants(rows, kinds)
        self._tenants = bool(of_tenants)
        return self._take(rows, of_tenants, limit, claim)

    def _take(
        self, rows: Rows, groups: list[Group], limit: int, claim: dict[str, Any]
    ) -> list[Row]:
        present = set(groups)
        # By its name and not by its number, which changes when others are gone.
        first = next((group for group in self._turns if group in present), None)
        turn = groups.index(first) if first is not None else 1 % max(1, len(groups))
        groups = [*groups[turn:], *groups[:turn]]
        served = 1
        taken: list[Row] = []
        for start in range(0, len(groups), _MOST_AT_ONCE):
            some = groups[start : start + _MOST_AT_ONCE]
            while some and (left := limit - len(taken)) > 0:
                shares = self.shares(some, left)
                parts = [Portion(group.conditions, share) for group, share in shares.items()]
                got = rows.take(
                    OUTBOX, limit=left, order_by=("sort_at", "id"), parts=parts, **claim
                )
                self._note(shares, got, cut=len(got) >= left)
                taken += got
                # Who had its fill leaves what it did not use to the others.
                some = [group for group in some if group in self._backlogged]
            if len(taken) >= limit:
                served += start
                break
        # Those of other kinds keep their order: each of a worker's pools claims its own kinds.
        others = [group for group in self._turns if group not in present]
        self._turns = [*groups[served:], *groups[:served], *others[:_REMEMBERED]]
        # One group's are in order already.
        return taken if len(groups) == 1 else sorted(taken, key=itemgetter("sort_at", "id"))

    def is_due_to_others(self, groups: Collection[Group]) -> bool:
        """Return True if other tenants' items of the kinds of *groups* wait for their turn."""
        return any(
            other.kind == group.kind and other.tenant != group.tenant
            for other in self._backlogged
            for group in groups
        )

    def shares(self, groups: Sequence[Group], limit: int) -> dict[Group, int]:
        """
        Return how much each of *groups* may take of *limit*, in the order in which they take it.

        First those without a backlog the last time, which are not likely to use an equal share.
        Altogether it may be more than *limit*, and what is beyond it the last ones don't get.
        """
        backlogged = [group for group in groups if group in self._backlogged]
        others = [group for group in groups if group not in self._backlogged]
        shares = dict.fromkeys(others, _share(limit, len(groups)))
        return {**shares, **dict.fromkeys(backlogged, _share(limit, len(backlogged)))}

    def _groups(self, rows: Rows, kinds: Sequence[str] | None) -> list[Group]:
        key, now = None if kinds is None else tuple(kinds), runtime.monotonic()
        until, groups = self._known.get(key, (0.0, []))
        # Without a backlog a claim takes all there is, so it must know of all. Few are looked up in
        # no time; but where nobody has tenants, that is no reason to ask for them at every claim.
        few = len(groups) <= _MOST_AT_ONCE and (kinds is None or self._tenants)
        if not self._backlogged or few or now >= until:
            groups = ready_groups(rows, kinds)
            self._known = {**self._known, key: (now + self._refresh_seconds, groups)}
        return groups

    def _in_lanes(self, rows: Rows, groups: list[Group]) -> list[Group]:
        """Return *groups*, with the lanes of those that are backlogged in their place."""
        self._claims += 1
        lines = self._laned
        if not lines or self._claims % _BY_AGE == 0:
            return groups
        now, left = runtime.monotonic(), _MOST_LOOKED_UP
        lanes = {line: self._lanes[line] for line in lines if line in self._lanes}
        for group in groups:
            old = self._claims % _BY_AGE == 1 or now >= lanes.get(group, (0.0,))[0]
            if group in lines and left and old:
                left -= 1
                ready = [_READY, *group.conditions, _LANED]
                lanes[group] = now + self._refresh_seconds, rows.distinct(OUTBOX, "lane", ready)
        self._lanes = lanes
        return [
            part
            for group in groups
            for part in [group._replace(lane=lane) for lane in lanes.get(group, (0.0, []))[1]]
            or [group]
        ]

    def _note(self, shares: dict[Group, int], taken: Sequence[Row], *, cut: bool) -> None:
        found = [Group(row["kind"], row["tenant_id"], row["lane"]) for row in taken]
        got = Counter(group if group in shares else group.line for group in found)
        if not cut:  # else nobody knows what the last ones would have taken
            lines = {group.line for group in shares}
            self._backlogged -= {each for each in self._backlogged if each.line in lines}
            self._laned -= lines
        self._backlogged |= {group for group, share in shares.items() if got[group] >= share}
        if self._backlogged:
            laned = {group.line for group in found if group.lane is not None}
            self._laned = (self._laned | laned) & {group.line for group in self._backlogged}


def _share(limit: int, groups: int) -> int:
    return -(-limit // max(1, groups))
