"""Budgets: a request that could pass one is refused before it is made."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from llm_support import answers_given, calls, completion, says, scripted, streamed
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from automate_kernel import AutomateError, Kernel
from automate_kernel.operations.budgets import Budgets
from automate_kernel.base.errors import StorageError
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_llm import LlmProvider, add_agents
from automate_llm.budgets import Amount, BudgetedModel, Ledger
from automate_llm.config import LlmBudget, LlmBudgets
from automate_sqlalchemy import SqlAlchemyStorage

TOKENS = {"tenant_day": {"tokens": 1_000}}


def kernel_with(url: str, budgets: dict[str, Any], storage: Any = None, **service: Any) -> Kernel:
    main = {
        "model": "openai-chat:gpt-4o", "base_url": url, "api_key": "k", "max_tokens": 100, **service
    }  # fmt: skip
    config = {"llm": {"services": {"main": main}, "budgets": budgets}}
    # One day for the whole test, whenever it runs.
    storage = storage or MemoryStorage(clock=FakeClock(datetime.now(timezone.utc)))
    return Kernel(storage, discover=False, plugins=[LlmProvider], config=config)


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
            assert f"for the execution {execution.id}" in execution.error
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


@pytest.mark.parametrize("begun", [True, False])
def test_an_error_inside_a_stream_is_no_refusal(begun):
    """What came before it was made, and is paid: nobody says how much it was."""
    whole = streamed(completion(says("Once upon a time"))).split(b"\n\n")[: 2 * begun]
    error = b'data: {"error": {"message": "overloaded", "code": 503}}'
    stream = b"\n\n".join([*whole, error, b""])
    headers = {"Content-Type": "text/event-stream"}
    with scripted(lambda _: (200, headers, stream)) as service:
        kernel = kernel_with(service.url, TOKENS)
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("llm.chat", {"prompt": "x"})
    assert caught.value.code == "UNAVAILABLE" and caught.value.retryable
    (account,) = kernel.budgets.find()
    assert (account.spent["tokens"] > 100) is begun and not account.reserved


def test_a_refusal_in_the_midst_of_an_answer_is_none():
    """Some clients raise a status there, as they do for a refusal: what came before is paid."""

    async def overloaded(messages: Any, info: Any) -> Any:
        yield "Once upon a time"
        raise ModelHTTPError(529, "small", {"error": "overloaded"})

    kernel = kernel_with("http://127.0.0.1:1", TOKENS)
    ledger = Ledger(LlmBudgets(**TOKENS), kernel.budgets, "llm")
    model = BudgetedModel(FunctionModel(stream_function=overloaded), ledger, max_tokens=100)

    async def ask() -> None:
        async with model.request_stream([ASKED], None, ModelRequestParameters()) as stream:
            async for _ in stream:
                pass

    with pytest.raises(ModelHTTPError):
        asyncio.run(ask())
    (account,) = kernel.budgets.find()
    assert account.spent["tokens"] > 100 and not account.reserved


ASKED = ModelRequest([UserPromptPart("x")])
LONG = "x" * 2_000
SCHEMA = {"type": "object", "description": LONG}


@pytest.mark.parametrize(
    "sent",
    [
        {"function_tools": [ToolDefinition(name="look", parameters_json_schema=SCHEMA)]},
        {"function_tools": [ToolDefinition(name="look", description=LONG)]},
        {"function_tools": [ToolDefinition(name=LONG)]},
        {"function_tools": [ToolDefinition(name="look", return_schema=SCHEMA)]},
        {"output_tools": [ToolDefinition(name="say", parameters_json_schema=SCHEMA)]},
        {"output_mode": "native", "output_object": OutputObjectDefinition(json_schema=SCHEMA)},
        {"output_mode": "prompted", "prompted_output_template": LONG},
    ],
    ids=["schema", "description", "name", "returns", "output tool", "output object", "template"],
)
@pytest.mark.parametrize("streams", [False, True])
def test_all_that_is_sent_beside_the_messages_counts(sent: Any, streams: bool):
    """A tool's schema is longer than most prompts, and is sent with each of them."""
    kernel = kernel_with("http://127.0.0.1:1", TOKENS)
    ledger = Ledger(LlmBudgets(**TOKENS), kernel.budgets, "llm")
    made: list[Any] = []
    model = BudgetedModel(FunctionModel(lambda *given: made.append(given)), ledger, max_tokens=100)

    async def ask() -> None:
        given = ([ASKED], None, ModelRequestParameters(**sent))
        if not streams:
            await model.request(*given)
        else:
            async with model.request_stream(*given):
                pass

    with pytest.raises(AutomateError, match="budget") as caught:
        asyncio.run(ask())
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert made == []


def test_a_refusal_says_what_was_spent_and_when_it_renews():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, {"tenant_day": {"tokens": 500}})
        kernel.invoke("llm.chat", {"prompt": "x"}, tenant_id="acme")
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("llm.chat", {"prompt": "x" * 400}, tenant_id="acme")
    told = str(caught.value)
    assert "budget of 500 tokens for the tenant 'acme' today" in told and "25 are spent" in told
    (account,) = kernel.budgets.find("llm", tenant_id="acme")
    assert f"{account.ends_at:%Y-%m-%d} 00:00 UTC" in told
    assert account.spent["tokens"] == 25 and not account.reserved


def test_a_new_process_goes_on_where_the_last_one_was(tmp_path):
    def process(url: str) -> Kernel:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.sqlite3'}")
        storage = SqlAlchemyStorage(engine)
        storage.create_tables()
        return kernel_with(url, {"tenant_day": {"tokens": 400}}, storage=storage)

    with scripted(lambda _: says("x")) as service:
        made = 0
        with pytest.raises(AutomateError, match="budget"):
            for _ in range(50):
                with process(service.url) as kernel:
                    kernel.invoke("llm.chat", {"prompt": "x"})
                made += 1
    assert 0 < made < 10 and len(service.requests) == made


_DYING = """
import sys
sys.path.insert(0, sys.argv[3])
from test_llm_budgets import stored_kernel
stored_kernel(sys.argv[1], sys.argv[2]).invoke("llm.chat", {"prompt": "x"})
"""


def stored_kernel(url: str, path: str, clock: Any = None) -> Kernel:
    storage = SqlAlchemyStorage(sa.create_engine(f"sqlite:///{path}"), clock=clock)
    storage.create_tables()
    return kernel_with(url, TOKENS, storage=storage)


def test_what_a_process_may_have_paid_before_it_was_killed_is_never_given_back(tmp_path):
    """It dies while its answer is on the way; hours later that answer still counts."""
    path, pids, known = str(tmp_path / "x.sqlite3"), list[int](), threading.Event()

    def kill(_: dict[str, Any]) -> dict[str, Any]:
        assert known.wait(60)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return says("x")

    with scripted(kill) as service:
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", _DYING, service.url, path, here]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": f"{here}/support"})
        pids.append(process.pid)
        known.set()
        assert process.wait(60) == -signal.SIGKILL and len(service.requests) == 1
        pids.clear()
        clock = FakeClock(datetime.now(timezone.utc))
        with stored_kernel(service.url, path, clock) as kernel:
            (account,) = kernel.budgets.find("llm")
            reserved = account.reserved["tokens"]
            assert reserved > 100 and not account.spent
            clock.advance(2 * 3_600)
            (account,) = kernel.budgets.find("llm")
            assert account.spent["tokens"] == reserved and not account.reserved
            # Another attempt counts beside it.
            kernel.invoke("llm.chat", {"prompt": "x"})
            assert sum(each.spent["tokens"] for each in kernel.budgets.find("llm")) == reserved + 25


def test_an_agent_in_a_sub_workflow_spends_of_the_budget_of_the_whole():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, {"execution": {"tokens": 500}})
        add_agents(kernel)
        agent = {"workflow": "llm.agent", "input": {"prompt": "x"}}
        steps = [{"id": f"s{n}", **agent} for n in range(9)]
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        execution = kernel.run("w")
        assert execution.error_code == "RESOURCE_EXHAUSTED", execution.error
        assert 0 < len(service.requests) < 9
        (account,) = kernel.budgets.find(execution_id=execution.id)
        assert account.spent["tokens"] == 25 * len(service.requests)
        kernel.executions.purge(older_than_seconds=0)
        kernel.executions.purge(older_than_seconds=0)
        assert kernel.budgets.find(execution_id=execution.id) == []


def test_an_agent_whose_budget_was_used_up_goes_on_once_that_is_raised():
    """Its parent is resumed: what was answered before is not paid again."""

    def desk(request: dict[str, Any]) -> Any:
        return says("done") if answers_given(request) == 2 else calls(("orders_find", {"n": 7}))

    storage = MemoryStorage()

    def deployed(url: str, tokens: int) -> Kernel:
        kernel = kernel_with(url, {"execution": {"tokens": tokens}}, storage)

        @kernel.action("orders.find", read_only=True)
        def find(n: int) -> int:
            return n

        add_agents(kernel, ["orders.find"])
        task = {"prompt": "x", "tools": ["orders.find"]}
        agent = {"id": "a", "workflow": "llm.agent", "input": task}
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [agent]})
        return kernel

    with scripted(desk) as service:
        execution = deployed(service.url, 1_000).run("w")
        assert execution.error_code == "RESOURCE_EXHAUSTED", execution.error
        assert "raise the budget" in execution.error
        before = len(service.requests)
        assert 0 < before < 3
        raised = deployed(service.url, 10_000)
        raised.executions.resume(execution.id)
        raised.run_until_idle()
        execution = raised.executions.get(execution.id)
        assert execution.step("a").output["output"] == "done", execution.error
        assert len(service.requests) == 3
        (account,) = raised.budgets.find(execution_id=execution.id)
        assert account.spent["tokens"] == 75 == execution.step("a").output["input_tokens"] + 15


def test_an_agent_of_ones_own_asks_for_no_longer_answer_than_was_reserved():
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, TOKENS)
        Agent(kernel.provider("llm").model()).run_sync("x")
        assert service.requests[0]["max_completion_tokens"] == 100
        with pytest.raises(AutomateError, match="BinaryContent"):
            Agent(kernel.provider("llm").model()).run_sync(["x", ImageUrl("https://example.com/a")])
        assert len(service.requests) == 1


def test_a_request_whose_answer_was_lost_counts_in_full():
    with scripted(lambda _: (200, {}, b"{")) as service:
        kernel = kernel_with(service.url, TOKENS)
        with pytest.raises(AutomateError):
            kernel.invoke("llm.structured", {"prompt": "x", "output_schema": {"type": "object"}})
    (account,) = kernel.budgets.find()
    assert account.spent["tokens"] > 100 and not account.reserved


def test_an_answer_that_was_paid_stands_though_the_database_is_away(monkeypatch, caplog):
    """A step that failed for it would ask again. What was reserved counts as spent in the end."""
    clock = FakeClock(datetime.now(timezone.utc))

    def away(*_: Any) -> None:
        raise StorageError("the database is away")

    with scripted(lambda _: says("x")) as service:
        kernel = kernel_with(service.url, TOKENS, MemoryStorage(clock=clock))
        with monkeypatch.context() as patch:
            patch.setattr(Budgets, "settle", away)
            assert kernel.invoke("llm.chat", {"prompt": "x"})["text"] == "x"
        assert len(service.requests) == 1 and "the database is away" in caplog.text
    (account,) = kernel.budgets.find()
    assert account.reserved["tokens"] > 100 and not account.spent
    clock.advance(2 * 3_600)
    assert sum(each.spent["tokens"] for each in kernel.budgets.find()) > 100


def test_a_call_that_is_cancelled_before_its_request_has_spent_nothing():
    """The database lets it wait, and reserves when nobody waits any more."""
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(Budgets):
        def reserve(self, *given: Any, **named: Any) -> Any:
            begun.set()
            assert goes_on.wait(30)
            return super().reserve(*given, **named)

    budgets = Slow(MemoryStorage())
    limits = LlmBudgets(tenant_day=LlmBudget(tokens=1_000))
    ledger = Ledger(limits, budgets, "llm")

    async def spend() -> None:
        async with ledger.spending(Amount(900)):
            pytest.fail("it was cancelled before")

    async def cancelled() -> None:
        task = asyncio.create_task(spend())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    (account,) = budgets.find()
    assert (account.spent.get("tokens", 0), account.reserved) == (0, {})
