"""Budgets: on every storage no order of calls passes one, whoever dies or waits in between."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError, Kernel
from automate_kernel.operations.budgets import SpendingLimit, Budgets, Reservation
from automate_kernel.operations.context import Call
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import BUDGET
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from hypothesis import given
from hypothesis import strategies as st
from waiting import at_once

pytestmark = pytest.mark.any_storage

ACME = SpendingLimit(name="llm", limits={"tokens": 1_000}, tenant_id="acme")


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), max_size=40))
def test_no_order_of_calls_passes_the_budget(calls: list[tuple[int, int]]) -> None:
    """Reservations stand side by side, and are settled in any order."""
    budgets = Budgets(MemoryStorage())
    spent, open_ = 0, list[tuple[Reservation, int, int]]()
    for most, percent in calls:
        if percent % 3 == 0 and open_:
            reservation, _, real = open_.pop(percent % len(open_))
            budgets.settle(reservation, {"tokens": real})
            spent += real
        fits = spent + sum(held for _, held, _ in open_) + most <= 1_000
        try:
            reservation = budgets.reserve([ACME], {"tokens": most})
        except AutomateError:
            assert not fits
            continue
        assert fits
        open_.append((reservation, most, most * percent // 100))


@pytest.mark.every_storage
def test_threads_that_ask_at_once_get_what_there_is_and_no_more(clocked_storage: Any) -> None:
    budgets, whole = (
        Budgets(clocked_storage),
        SpendingLimit(name="llm", limits={"US dollars": Decimal("1.0")}),
    )
    granted: list[Reservation] = []
    ready = threading.Barrier(8)

    def ask() -> None:
        ready.wait()
        for number in range(12):
            try:
                granted.append(budgets.reserve([ACME, whole], {"US dollars": Decimal("0.02")}))
            except AutomateError as error:
                assert error.code == "RESOURCE_EXHAUSTED", error
            if number % 4 == 3 and granted:
                budgets.settle(granted[-1], {"US dollars": Decimal("0.02")})

    at_once(*[ask] * 8)
    assert len(granted) == 50


@pytest.mark.parametrize(
    ("most", "again"),
    [
        ({"tokens": 500}, True),
        ({"tokens": 901}, False),
        ({"tokens": 500, "US dollars": Decimal("1.5")}, False),
    ],
)
def test_what_others_have_reserved_is_worth_another_attempt(
    most: dict[str, Any], again: bool
) -> None:
    """Two agents side by side each held what the other one needed, and failed for good."""
    limit = SpendingLimit(name="llm", limits={"tokens": 1_000, "US dollars": Decimal(1)})
    budgets = Budgets(MemoryStorage())
    budgets.settle(budgets.reserve([limit], {"tokens": 100}), {"tokens": 100})
    held = budgets.reserve([limit], {"tokens": 600})
    with pytest.raises(AutomateError, match="600 are reserved|US dollars") as refused:
        budgets.reserve([limit], most)
    assert refused.value.retryable is again
    budgets.settle(held, {"tokens": 5})
    if again:
        budgets.reserve([limit], most)


def test_a_refusal_reserves_nothing_and_says_what_is_spent(clocked_storage: Any) -> None:
    budgets = Budgets(clocked_storage)
    small = SpendingLimit(name="llm", limits={"tokens": 100}, tenant_id="beta")
    budgets.settle(budgets.reserve([ACME], {"tokens": 600}), {"tokens": 580})
    budgets.reserve([ACME], {"tokens": 100})
    for asked in ([small, ACME], [ACME, small]):
        with pytest.raises(AutomateError) as caught:
            budgets.reserve(asked, {"tokens": 350})
        assert caught.value.code == "RESOURCE_EXHAUSTED" and not caught.value.retryable
    with pytest.raises(AutomateError) as caught:
        budgets.reserve([ACME], {"tokens": 321})
    text = str(caught.value)
    assert "budget of 1,000 tokens for the tenant 'acme' today" in text
    assert "580 are spent, 100 are reserved" in text and "may take 321" in text
    budgets.reserve([ACME], {"tokens": 320})
    (acme,) = budgets.find("llm", tenant_id="acme")
    assert (acme.spent, acme.reserved) == ({"tokens": 580}, {"tokens": 420})
    assert acme.ends_at is not None and f"renews at {acme.ends_at:%Y-%m-%d} 00:00 UTC" in text


def test_who_looks_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    """On SQLite one writes at a time, and its turn may be long."""
    writing, looking = (
        SqlAlchemyStorage(
            sa.create_engine(f"sqlite:///{tmp_path}/x.sqlite3", connect_args={"timeout": 0.1})
        )
        for _ in range(2)
    )
    writing.create_tables()
    Budgets(writing).settle(Budgets(writing).reserve([ACME], {"tokens": 9}), {"tokens": 7})
    with writing.begin() as rows:
        rows.delete(BUDGET, [])
        (account,) = Budgets(looking).find(tenant_id="acme")
    assert account.spent == {"tokens": 7}


def test_a_refusal_tells_what_is_with_reservations_of_the_dead(clocked_storage: Any) -> None:
    """To wait until they have ended is no remedy: they count as spent then."""
    budgets = Budgets(clocked_storage)
    with pytest.raises(AutomateError) as alone:
        budgets.reserve([ACME], {"tokens": 1_001})
    budgets.reserve([ACME], {"tokens": 600})
    with pytest.raises(AutomateError) as beside:
        budgets.reserve([ACME], {"tokens": 600})
    dead = "what a process has reserved that died since is not given back"
    assert dead in str(beside.value) and dead not in str(alone.value)


def test_what_the_dead_have_reserved_counts_as_spent(
    clocked_storage: Any, clock: FakeClock
) -> None:
    """Nobody knows whether they have paid it, and no budget holds that counts less than was paid."""
    budgets = Budgets(clocked_storage)
    clock.advance(datetime(2126, 11, 26, 12, tzinfo=timezone.utc) - clock())
    late = budgets.reserve([ACME], {"tokens": 700}, seconds=60)
    budgets.reserve([ACME], {"tokens": 200}, seconds=60)
    clock.advance(59)
    with pytest.raises(AutomateError, match="0 are spent, 900 are reserved"):
        budgets.reserve([ACME], {"tokens": 200})
    clock.advance(2)
    with pytest.raises(AutomateError, match="900 are spent, 0 are reserved"):
        budgets.reserve([ACME], {"tokens": 200})
    own = budgets.reserve([ACME], {"tokens": 100})
    # One was not dead: what it says in the end counts in the place of what it might have spent.
    budgets.settle(late, {"tokens": 50})
    (account,) = budgets.find()
    assert (account.spent, account.reserved) == ({"tokens": 250}, {"tokens": 100})
    budgets.settle(own, {"tokens": 10})
    (account,) = budgets.find()
    assert (account.spent, account.reserved) == ({"tokens": 260}, {})


def test_a_new_day_begins_at_nothing_and_old_days_go(
    clocked_storage: Any, clock: FakeClock
) -> None:
    budgets = Budgets(clocked_storage)
    clock.advance(datetime(2126, 11, 26, 23, 59, tzinfo=timezone.utc) - clock())
    over_midnight = budgets.reserve([ACME], {"tokens": 900})
    with pytest.raises(AutomateError):
        budgets.reserve([ACME], {"tokens": 900})
    clock.advance(60)
    budgets.reserve([ACME], {"tokens": 900})
    budgets.settle(over_midnight, {"tokens": 800})
    new, old = budgets.find(tenant_id="acme")
    assert new.spent == {} and old.spent == {"tokens": 800}
    clock.advance(40 * 86_400)
    budgets.reserve([ACME], {"tokens": 900})
    assert len(budgets.find()) == 1
    # A call may end when nobody knows of its day any more.
    budgets.settle(over_midnight, {"tokens": 800})


def test_what_is_settled_twice_is_spent_once() -> None:
    """In a finally, say, after the call has settled it itself."""
    budgets = Budgets(MemoryStorage())
    held = budgets.reserve([ACME], {"tokens": 100})
    for _ in range(2):
        budgets.settle(held, {"tokens": 70})
    assert budgets.find()[0].spent == {"tokens": 70}


@pytest.mark.parametrize("amount", [-5, Decimal("NaN"), Decimal("Infinity"), 0.1, True])
def test_an_amount_that_would_make_room_or_break_the_sum_is_refused(amount: Any) -> None:
    """Less than nothing gave others more, and no sum of NaN could ever be compared again."""
    budgets = Budgets(MemoryStorage())
    held = budgets.reserve([ACME], {"tokens": 600})
    wrong = SpendingLimit(name="llm", limits={"tokens": amount})
    for attempt in (
        lambda: budgets.reserve([ACME], {"tokens": amount}),
        lambda: budgets.reserve([wrong], {"tokens": 1}),
        lambda: budgets.settle(held, {"tokens": amount}),
    ):
        with pytest.raises(AutomateError, match="no budget counts") as caught:
            attempt()
        assert caught.value.code == "INVALID_ARGUMENT"
    (account,) = budgets.find()
    assert (account.spent, account.reserved) == ({}, {"tokens": 600})
    budgets.settle(held, {"tokens": 10})


def test_an_execution_and_its_sub_workflows_have_one_budget() -> None:
    kernel = Kernel(discover=False)

    @kernel.action("spend")
    def spend(call: Call) -> None:
        budget = SpendingLimit(name="x", limits={"calls": 3}, execution_id=call.execution_id)
        kernel.budgets.settle(kernel.budgets.reserve([budget], {"calls": 1}), {"calls": 1})

    manual: dict[str, Any] = {"trigger": {"type": "manual"}}
    steps = [{"id": "a", "action": "spend"}, {"id": "b", "action": "spend"}]
    kernel.add_workflow({"name": "low", **manual, "steps": steps})
    steps = [{"id": "own", "action": "spend"}, *({"id": n, "workflow": "low"} for n in "xy")]
    kernel.add_workflow({"name": "high", **manual, "steps": steps})
    first, second = kernel.run("high"), kernel.run("low")
    assert first.error_code == "RESOURCE_EXHAUSTED" and second.status == "COMPLETED"
    assert f"the execution {first.id}" in str(first.error) and "not renew" in str(first.error)
    (account,) = kernel.budgets.find(execution_id=first.id)
    assert account.spent == {"calls": 3}
    for _ in range(3):  # sub-workflows go before those that wait for them
        kernel.executions.purge(older_than_seconds=0)
    assert kernel.budgets.find() == []


def test_a_transactional_step_spends_nothing_that_its_own_lock_keeps_from_being_counted(
    storage: Any,
) -> None:
    """With one lock for writing it waited for itself, in memory for ever: it is refused at once."""
    kernel = Kernel(storage, discover=False, secrets={})

    @kernel.action("spend")
    async def spend() -> str:
        held = await asyncio.to_thread(kernel.budgets.reserve, [ACME], {"tokens": 1})
        await asyncio.to_thread(kernel.budgets.settle, held, {"tokens": 1})
        return "spent"

    @kernel.action("book", transactional=True)
    def book(call: Call) -> str:
        kernel.emit("booked", transaction=call.transaction)
        return str(kernel.invoke("spend"))

    steps = [{"id": "book", "action": "book"}]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    done, seen = kernel.run("w"), kernel.budgets.find("llm")
    if storage.supports_skip_locked:
        assert done.step("book").output == "spent" and seen[0].spent == {"tokens": 1}
        return
    assert (done.error_code, seen) == ("FAILED_PRECONDITION", [])
    assert "the only lock for writing" in str(done.error) and "another step" in str(done.error)
    assert kernel.invoke("spend") == "spent"
    kernel.close()
