"""
Budgets: what an execution, or a tenant in a day, may spend, counted in the application's database.

Who is about to spend reserves the most that it may take, and settles that by what it took. Both are
one transaction that locks the budget's row, so all workers on all machines share one count, and
a restart forgets nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, printed
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, has_only_lock, write
from automate_kernel.storage.tables import BUDGET, EXECUTION

__all__ = ["BudgetAccount", "Budgets", "Reservation", "SpendingLimit"]

_KEPT_SECONDS = 30 * 86_400.0
_MOST_ROWS = 1_000
CALL_RATE = "calls to a service"
"""The name of rows in the budgets' table that are no budget, but the rate of calls to a service."""
_DEAD = "; what a process has reserved that died since is not given back, for it may be paid"

Amounts = Mapping[str, "int | Decimal"]
"""Amounts by their units, as people read them: ``{"tokens": 500, "US dollars": 2}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingLimit:
    """
    The most that may be spent: *limits* by their units.

    *name* says whose it is: the key of a plugin. With *execution_id* it is for that execution and
    those that its steps wait for; it never renews. Without, it is for *tenant_id* and one day in
    UTC; all that has no tenant has one together.
    """

    name: str
    limits: Amounts
    execution_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """An amount that is reserved on several budgets until it is settled."""

    id: str
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAccount:
    """
    The amounts that were *spent* of one budget, and those that are *reserved* now.

    A reservation that was not settled in its time is spent.
    """

    name: str
    execution_id: str | None
    tenant_id: str | None
    ends_at: datetime | None
    """The end of its day; None for an execution."""
    spent: Mapping[str, Decimal] = field(hash=False)
    reserved: Mapping[str, Decimal] = field(hash=False)


class Budgets:
    """
    The budgets of all plugins, in the tables of *storage*.

    A reservation that nobody settles, because its process died, counts as spent when its time is
    over: nobody knows whether it was paid. Days and times are those of the database's clock.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def reserve(
        self, budgets: Sequence[SpendingLimit], most: Amounts, *, seconds: float = 3_600.0
    ) -> Reservation:
        """
        Reserve *most* on each of *budgets*, for so many *seconds* at the longest.

        Raises ``RESOURCE_EXHAUSTED`` if one of them could be passed; then nothing is reserved.
        Settle it whatever happens. Who spends must end before its time does. Raises
        ``INVALID_ARGUMENT`` for an amount below 0, or of another type than int and finite
        `Decimal`. Raises ``FAILED_PRECONDITION`` in a transactional call on SQLite and in memory,
        which holds the only lock for writing.
        """
        if has_only_lock(self._storage):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "a transactional step holds the only lock for writing here, so nothing that it"
                " spends can be counted against a budget",
                hint="make the call that spends in another step, without transactional=True",
                retryable=False,
            )
        _check(most)
        for each in budgets:
            _check(each.limits)
        work = partial(_reserved, budgets=budgets, most=most, seconds=seconds)
        reservation, opened = write(self._storage, None, work)
        if opened:
            make_room(self._storage)
        return reservation

    def settle(self, reservation: Reservation, spent: Amounts) -> None:
        """
        Replace what was reserved by what was *spent*, also if its time is over.

        The second call does nothing. Raises ``INVALID_ARGUMENT`` for an invalid amount; the
        reservation stays.
        """
        _check(spent)
        write(self._storage, None, partial(_settled, reservation=reservation, spent=spent))

    def find(
        self,
        name: str | None = None,
        *,
        execution_id: str | None = None,
        tenant_id: str | None = None,
    ) -> list[BudgetAccount]:
        """Return what was spent of the budgets that match, the newest first: a thousand at most."""
        # No transaction: who looks holds up nobody, nor waits for who writes.
        with self._storage.begin(atomic=False) as rows:
            root = None if execution_id is None else _root_of(rows, execution_id)
            asked = {"name": name, "execution_id": root, "tenant_id": tenant_id}
            where = [Where(key, "eq", value) for key, value in asked.items() if value is not None]
            where.append(Where("name", "ne", CALL_RATE))
            found = rows.select(BUDGET, where, order_by=("-created_at", "id"), limit=_MOST_ROWS)
            now = rows.now()
        return [_account_of(row, now) for row in found]


def forget_budgets(rows: Rows, execution_ids: Sequence[str]) -> None:
    """Delete the counts of executions that are deleted."""
    its = [Where("execution_id", "in", list(execution_ids))]
    # By their keys, which lock nothing beside them.
    ids = sorted(row["id"] for row in rows.select(BUDGET, its, columns=("id",)))
    rows.delete(BUDGET, [Where("id", "in", ids)])


@dataclass(frozen=True, slots=True)
class _Claim:
    """One budget, with the execution and the day that it is for."""

    budget: SpendingLimit
    execution_id: str | None
    day: datetime | None

    @classmethod
    def of(cls, rows: Rows, budget: SpendingLimit, now: datetime) -> _Claim:
        if budget.execution_id is not None:
            return cls(budget, _root_of(rows, budget.execution_id), None)
        return cls(budget, None, now.replace(hour=0, minute=0, second=0, microsecond=0))

    @property
    def id(self) -> str:
        day = None if self.day is None else f"{self.day:%Y-%m-%d}"
        tenant = None if self.day is None else self.budget.tenant_id
        # JSON keeps the parts apart.
        parts = json.dumps([self.budget.name, self.execution_id, day, tenant])
        return hashlib.sha256(parts.encode("ascii")).hexdigest()

    def row(self) -> Row:
        """Return the row of a budget of which nothing was spent yet."""
        return {
            "id": self.id,
            "name": self.budget.name,
            "tenant_id": self.budget.tenant_id,
            "execution_id": self.execution_id,
            "spent": {},
            "reserved": {},
            "created_at": Now(),
            "updated_at": Now(),
            "ends_at": None if self.day is None else self.day + timedelta(days=1),
        }

    def refusals(self, row: Row, most: Amounts, now: datetime) -> Iterator[AutomateError]:
        """
        Yield ``RESOURCE_EXHAUSTED`` for each limit that *most* beside what is in *row* passes.

        It is worth another attempt if calls that go on hold what is missing: most of them take
        less than they have reserved.
        """
        account = _account_of(row, now)
        for unit, limit in self.budget.limits.items():
            spent = account.spent.get(unit, Decimal(0))
            reserved = account.reserved.get(unit, Decimal(0))
            more = Decimal(most.get(unit, 0))
            if spent + reserved + more > limit:
                yield AutomateError(
                    ErrorCodes.RESOURCE_EXHAUSTED,
                    f"the budget of {_shown(limit)} {unit} for {self._whose()} would be passed:"
                    f" {_shown(spent)} are spent, {_shown(reserved)} are reserved by calls that"
                    f" go on, and this call may take {_shown(more)}; {self._renewal()}",
                    hint="raise the budget, or let the call take less"
                    + (_DEAD if reserved else ""),
                    retryable=spent + more <= limit,
                )

    def _whose(self) -> str:
        if self.day is None:
            return f"the execution {self.execution_id}"
        tenant = self.budget.tenant_id
        return f"the tenant {tenant!r} today" if tenant else "today"

    def _renewal(self) -> str:
        if self.day is None:
            return "it does not renew"
        return f"it renews at {self.day + timedelta(days=1):%Y-%m-%d %H:%M} UTC"


def _reserved(
    rows: Rows, *, budgets: Sequence[SpendingLimit], most: Amounts, seconds: float
) -> tuple[Reservation, bool]:
    """Reserve *most*; return the reservation, and True if a budget was opened for it."""
    now = rows.now()
    claims = {claim.id: claim for claim in (_Claim.of(rows, each, now) for each in budgets)}
    found = _locked(rows, claims)
    refused = [
        each for key, claim in claims.items() for each in claim.refusals(found[key], most, now)
    ]
    if refused:
        # A refusal that no other call's end helps against decides, if there is such.
        raise min(refused, key=lambda each: each.retryable)
    reservation = Reservation(str(runtime.uuid4()), tuple(sorted(claims)))
    until = (now + timedelta(seconds=seconds)).isoformat()
    for key in reservation.accounts:
        held = dict(found[key]["reserved"])
        held[reservation.id] = {"until": until, "most": _texts(most)}
        rows.update(BUDGET, [Where("id", "eq", key)], {"reserved": held, "updated_at": Now()})
    opened = any(not row["spent"] and not row["reserved"] for row in found.values())
    return reservation, opened


def _settled(rows: Rows, *, reservation: Reservation, spent: Amounts) -> None:
    chosen = [Where("id", "in", reservation.accounts)]
    for row in rows.select(BUDGET, chosen, order_by=("id",), lock=True):
        held = dict(row["reserved"])
        if held.pop(reservation.id, None) is None:
            continue
        changes = {
            "spent": _texts(_sum(_amounts(row["spent"]), spent)),
            "reserved": held,
            "updated_at": Now(),
        }
        rows.update(BUDGET, [Where("id", "eq", row["id"])], changes)


def _locked(rows: Rows, claims: Mapping[str, _Claim]) -> dict[str, Row]:
    """Lock the rows of *claims*, in the order of their ids, and return them."""
    wanted = sorted(claims)
    found: dict[str, Row] = {}
    # Again if another transaction has deleted a row in between.
    while len(found) < len(wanted):
        its = [Where("id", "in", wanted)]
        found = {row["id"]: row for row in rows.select(BUDGET, its, order_by=("id",), lock=True)}
        rows.ensure(BUDGET, [claims[key].row() for key in wanted if key not in found])
    return found


def _root_of(rows: Rows, execution_id: str) -> str:
    """Return the execution that waits for this one through others, or itself."""
    while True:
        chosen = [Where("id", "eq", execution_id)]
        found = rows.select(EXECUTION, chosen, columns=("parent_id",))
        if not found or found[0]["parent_id"] is None:
            return execution_id
        execution_id = found[0]["parent_id"]


def make_room(storage: Storage) -> None:
    """Delete a thousand rows whose day has ended long ago: who has added one calls it."""
    write(storage, None, _purge)


def _purge(rows: Rows) -> None:
    ended = [Where("ends_at", "lt", Now(-_KEPT_SECONDS))]
    found = rows.select(
        BUDGET, ended, order_by=("ends_at",), limit=_MOST_ROWS, lock=True, skip_locked=True,
        columns=("id",),
    )  # fmt: skip
    rows.delete(BUDGET, [Where("id", "in", sorted(row["id"] for row in found))])


def _check(amounts: Amounts) -> None:
    """Raise ``INVALID_ARGUMENT`` for what would make room in a budget, or break its sums."""
    for unit, amount in amounts.items():
        exact = isinstance(amount, (int, Decimal)) and not isinstance(amount, bool)
        if not exact or not Decimal(amount).is_finite() or amount < 0:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"no budget counts {printed(amount)} {unit}",
                hint='an amount is an int, or a Decimal as Decimal("0.25"), of 0 or more',
            )


def _account_of(row: Row, now: datetime) -> BudgetAccount:
    spent = _amounts(row["spent"])
    reserved: dict[str, Decimal] = {}
    for each in row["reserved"].values():
        most = _amounts(each["most"])
        if datetime.fromisoformat(each["until"]) > now:
            reserved = _sum(reserved, most)
        else:
            # Its process has died, or settles it late. It is kept apart for that.
            spent = _sum(spent, most)
    return BudgetAccount(
        name=row["name"],
        execution_id=row["execution_id"],
        tenant_id=row["tenant_id"],
        ends_at=row["ends_at"],
        spent=spent,
        reserved=reserved,
    )


def _sum(one: Amounts, other: Amounts) -> dict[str, Decimal]:
    return {unit: Decimal(one.get(unit, 0)) + other.get(unit, 0) for unit in {**one, **other}}


# As text: JSON's numbers are floats, of which no sum is exact.
def _texts(amounts: Amounts) -> dict[str, str]:
    return {unit: str(amount) for unit, amount in amounts.items()}


def _amounts(texts: Mapping[str, str]) -> dict[str, Decimal]:
    return {unit: Decimal(text) for unit, text in texts.items()}


def _shown(amount: int | Decimal) -> str:
    exact = Decimal(amount)
    return f"{int(exact):,}" if exact == int(exact) else f"{exact:,.6f}".rstrip("0")
