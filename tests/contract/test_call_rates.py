"""Rates of calls: on every storage each place in the line is given once, in any order of asking."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from automate_kernel import AutomateError
from automate_kernel.operations.budgets import SpendingLimit, Budgets
from automate_kernel.operations.call_rates import CallRate, CallRates
from automate_kernel.storage.tables import BUDGET
from automate_testing.clock import FakeClock
from waiting import at_once

pytestmark = pytest.mark.any_storage

RATE = CallRate(("limit", "crm"), interval=0.1)


@pytest.mark.every_storage
def test_threads_that_ask_at_once_get_each_place_once(clocked_storage: Any) -> None:
    """The clock stands still, so the places are those of one line."""
    rates, taken = CallRates(clocked_storage), list[float]()
    ready = threading.Barrier(6)

    def ask() -> None:
        ready.wait()
        for most in (1, 3, 2):
            taken.extend(rates.take(RATE, most, 60.0))

    at_once(*[ask] * 6)
    assert sorted(taken) == [pytest.approx(number / 10) for number in range(len(taken))]
    assert len(taken) == 36


def test_a_refusal_takes_no_place(clocked_storage: Any, clock: FakeClock) -> None:
    rates = CallRates(clocked_storage)
    assert rates.take(RATE, 9, 0.25) == pytest.approx([0.0, 0.1, 0.2])
    for _ in range(5):
        with pytest.raises(AutomateError) as refused:
            rates.take(RATE, 1, 0.25)
        assert (refused.value.code, refused.value.retryable) == ("RESOURCE_EXHAUSTED", True)
        assert refused.value.retry_after == pytest.approx(0.3)
    clock.advance(0.1)
    assert rates.take(RATE, 1, 0.25) == pytest.approx([0.2])


@pytest.mark.every_storage
def test_a_burst_is_there_after_a_lull_and_not_after_a_wait(
    clocked_storage: Any, clock: FakeClock
) -> None:
    rates, rate = CallRates(clocked_storage), CallRate(("limit", "b"), interval=0.1, burst=3)
    at_once = [rates.take(rate, 1, 60.0)[0] for _ in range(4)]
    assert at_once == pytest.approx([0.0, 0.0, 0.0, 0.1])
    clock.advance(60)
    rates.hold(rate, 30.0)
    assert rates.wait(CallRate(("limit", "other"))) == 0.0
    waits = [rates.take(rate, 1, 60.0)[0] for _ in range(3)]
    assert waits == pytest.approx([30.0, 30.1, 30.2])
    # No service holds up its callers for ever, nor does a clock's end stop them.
    rates.hold(rate, 1e12)
    assert 0 < rates.wait(rate) <= 367 * 86_400


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_clock_that_is_put_back_holds_nobody_for_longer_than_before(
    clocked_storage: Any, clock: FakeClock, hours: int
) -> None:
    """Neither a pace nor the wait of a service, of which each is as long as it was."""
    rates, asked = CallRates(clocked_storage), CallRate(("limit", "asked"))
    clock.advance(timedelta(hours=2 * hours))
    rates.hold(asked, 30.0)
    assert rates.take(RATE, 3, 60.0)
    clock.advance(timedelta(hours=-hours))
    assert rates.wait(asked) == pytest.approx(30.0)
    assert rates.take(RATE, 1, 60.0) == pytest.approx([0.3])
    clock.advance(20)
    assert rates.wait(asked) == pytest.approx(10.0)
    rates.hold(asked, 5.0)
    assert rates.wait(asked) == pytest.approx(10.0)
    clock.advance(10)
    assert rates.wait(asked) == 0.0


def test_a_rate_is_no_budget_and_goes_when_nobody_has_called_for_long(
    clocked_storage: Any, clock: FakeClock
) -> None:
    rates, budgets = CallRates(clocked_storage), Budgets(clocked_storage)
    clock.advance(timedelta(days=36_500))
    rates.take(RATE, 1, 0.0)
    assert budgets.find() == [] and budgets.find("limit") == []
    clock.advance(timedelta(days=29))
    rates.take(CallRate(("limit", "new"), interval=0.1), 1, 0.0)
    with clocked_storage.begin() as rows:
        assert len(rows.select(BUDGET)) == 2
    clock.advance(timedelta(days=2))
    budgets.reserve([SpendingLimit(name="llm", limits={"tokens": 9})], {"tokens": 1})
    with clocked_storage.begin() as rows:
        assert len(rows.select(BUDGET)) == 2
