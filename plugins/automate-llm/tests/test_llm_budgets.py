"""Budgets: a request that could pass one is refused before it is made."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_support import completion, says, scripted

from automate_kernel import AutomateError, Kernel
from automate_llm import LlmProvider
from automate_llm.budgets import Amount, Ledger
from automate_llm.config import LlmBudget, LlmBudgets

TOKENS = {"tenant_day": {"tokens": 1_000}}


def kernel_with(url: str, budgets: dict[str, Any], **service: Any) -> Kernel:
    main = {
        "model": "openai-chat:gpt-4o", "base_url": url, "api_key": "k", "max_tokens": 100, **service
    }  # fmt: skip
    config = {"llm": {"services": {"main": main}, "budgets": budgets}}
    return Kernel(discover=False, plugins=[LlmProvider], config=config)


def test_a_request_that_could_pass_the_budget_is_not_made():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, TOKENS)
        made = 0
        with pytest.raises(AutomateError) as caught:
            for _ in range(100):
                kernel.invoke("llm.chat", {"prompt": "x"}, tenant_id="acme")
                made += 1
    # Each has taken 25, and may have taken several hundred.
    assert made == len(service.requests) and 10 < made < 40
    assert caught.value.code == "RESOURCE_EXHAUSTED" and not caught.value.retryable
    assert "'acme'" in str(caught.value)


def test_tenants_have_their_own_and_structured_output_counts():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, {"tenant_day": {"tokens": 400}})
        kernel.invoke("llm.chat", {"prompt": "x"}, tenant_id="acme")
        with pytest.raises(AutomateError, match="budget"):
            kernel.invoke("llm.chat", {"prompt": "x" * 300}, tenant_id="acme")
        kernel.invoke("llm.chat", {"prompt": "x"}, tenant_id="other")
        with pytest.raises(AutomateError, match="budget"):
            schema = {"type": "object", "properties": {"text": {"type": "string"}}}
            kernel.invoke("llm.structured", {"prompt": "x" * 300, "output_schema": schema})
        with pytest.raises(AutomateError, match="budget"):
            kernel.invoke("llm.embed", {"texts": ["x" * 500]})
        assert len(service.requests) == 2


def test_an_execution_has_its_own():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, {"execution": {"tokens": 360}})
        step = {"action": "llm.chat", "input": {"prompt": "x"}}
        steps = [{"id": f"s{n}", **step} for n in range(9)]
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        for _ in range(2):
            service.requests.clear()
            execution = kernel.run("w")
            assert "for this execution" in execution.error
            assert 0 < len(service.requests) < 9


def test_a_budget_of_money_needs_a_price():
    with scripted(lambda _: {**completion(says("x")), "model": "gpt-4o"}) as service:
        kernel = kernel_with(service.url, {"tenant_day": {"usd": 0.002}})
        with pytest.raises(AutomateError, match="0.002 US dollars for today"):
            for _ in range(100):
                kernel.invoke("llm.chat", {"prompt": "x"})
        assert 2 < len(service.requests) < 50
        service.requests.clear()
        kernel = kernel_with(service.url, {"tenant_day": {"usd": 1}}, model="openai-chat:own")
        with pytest.raises(AutomateError, match="price of the model 'own' is unknown"):
            kernel.invoke("llm.chat", {"prompt": "x"})
        assert service.requests == []


def test_what_a_service_refused_costs_nothing():
    with scripted(lambda _: (503, {}, {})) as service:
        kernel = kernel_with(service.url, TOKENS)
        for _ in range(20):
            with pytest.raises(AutomateError) as caught:
                kernel.invoke("llm.chat", {"prompt": "x"})
            assert caught.value.code == "UNAVAILABLE"
        assert len(service.requests) == 20


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), max_size=40))
def test_no_order_of_requests_passes_the_budget(requests):
    """Reservations stand side by side, and are settled in any order."""
    ledger = Ledger(LlmBudgets(tenant_day=LlmBudget(tokens=1_000)))
    spent, open_ = 0, []
    for most, percent in requests:
        if percent % 3 == 0 and open_:
            accounts, reserved, real = open_.pop(percent % len(open_))
            ledger.settle(accounts, Amount(reserved), Amount(real))
            spent += real
        try:
            accounts = ledger.reserve(Amount(most))
        except AutomateError:
            continue
        open_.append((accounts, most, most * percent // 100))
        assert spent + sum(reserved for _, reserved, _ in open_) <= 1_000


def test_a_new_day_begins_at_nothing():
    now = [datetime(2026, 11, 26, 23, 59, tzinfo=timezone.utc)]
    ledger = Ledger(LlmBudgets(tenant_day=LlmBudget(tokens=100)), clock=lambda: now[0])
    ledger.reserve(Amount(90))
    with pytest.raises(AutomateError):
        ledger.reserve(Amount(90))
    now[0] = datetime(2026, 11, 27, tzinfo=timezone.utc)
    ledger.reserve(Amount(90))
