"""`AutomateDurability`: the kinds of runs and tools of Pydantic AI, and what it refuses."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncIterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic_ai
import pytest
from llm_support import SECRET, answering, told
from pydantic_ai import (
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    FunctionToolset,
    ModelRetry,
    RunContext,
    ToolReturn,
    UsageLimits,
)
from pydantic_ai.capabilities import AbstractCapability, SetToolMetadata, durable_operation
from pydantic_ai.exceptions import ModelHTTPError, UserError
from pydantic_ai.messages import BinaryContent, ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, ToolsetTool

from automate_kernel import AutomateError, ConfigError, Kernel, WorkflowContext
from automate_llm import AutomateDurability, DurableAgent, OperationToolset, run_agent
from automate_llm.step_codec import STEP_CODEC

HAS_TIMEOUTS = "timeout" in Agent.run.__annotations__
OLD = not HAS_TIMEOUTS  # 2.54, the last release for Python 3.10


def durable(kernel: Kernel, model: Any, *more: Any, **options: Any) -> Agent[Any, Any]:
    """An agent with durability: *options* are its own, or of the agent."""
    own = {key: options.pop(key) for key in ("toolsets", "output_type") if key in options}
    made = [*more, AutomateDurability(kernel, **options)]
    return Agent(model, name="a", capabilities=made, **own)


def steps_of(execution: Any) -> list[str]:
    return [run.step_id for run in execution.steps if not run.step_id.startswith("now")]


def ran(kernel: Kernel, work: Any, *, name: str = "work") -> Any:
    """
    The execution of a workflow that runs an agent by *work*, and whose function runs twice.

    It waits for a person afterwards, and is replayed then: nothing may happen again.
    """

    @kernel.workflow(name=name)
    async def flow(ctx: WorkflowContext) -> Any:
        output = await run_agent(ctx, work())
        await ctx.approve("Go on?", name="ok")
        return output

    execution = kernel.run(flow, patience=0)
    if execution.status == "FAILED":
        return execution
    assert execution.step("ok") is not None, execution.error
    kernel.approvals.approve(execution.id, "ok", by="ann")
    kernel.run_until_idle()
    execution = kernel.executions.get(execution.id)
    assert execution.status == "COMPLETED", execution.error
    return execution


async def output_of(agent: Agent[Any, Any], *given: Any, **options: Any) -> Any:
    return (await agent.run(*(given or ("go",)), **options)).output


def test_requests_and_calls_are_steps_and_are_not_repeated(kernel):
    model, asked = answering([("pack", {}), ("find", {})], "done")
    agent, done = durable(kernel, model), []

    @agent.tool_plain(metadata={"idempotent": True})
    def find() -> str:
        done.append("find")
        return "found"

    @agent.tool_plain
    async def pack() -> str:
        done.append("pack")
        return "packed"

    execution = ran(kernel, lambda: output_of(agent))
    assert execution.output == "done" and told(asked) == ["packed", "found"]
    assert len(asked) == 2 and sorted(done) == ["find", "pack"]
    names = [each.partition("@")[0] for each in steps_of(execution)]
    assert sorted(names) == ["a-find", "a-model", "a-model#2", "a-pack", "a-pack-begin", "ok"]


def test_outside_of_a_workflow_the_agent_runs_as_ever(kernel):
    model, asked = answering([("pay", {})], "done")
    agent, entered = durable(kernel, model, stream=True), []

    @agent.tool_plain
    def pay() -> str:
        return "paid"

    class Line(FunctionToolset[Any]):
        async def __aenter__(self) -> Any:
            entered.append("in")
            return self

    assert agent.run_sync("go", toolsets=[Line()]).output == "done"
    assert told(asked) == ["paid"] and entered == ["in"]

    @kernel.action("shop.ask")
    async def ask() -> str:
        return str(await output_of(agent))

    kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "s", "action": "shop.ask"}]}
    )
    execution = kernel.run("w")
    assert execution.status == "COMPLETED" and steps_of(execution) == ["s"]


# -- ways to run ------------------------------------------------------------------------------


def test_an_agent_may_be_iterated_and_streamed_in_a_workflow(kernel):
    agent = durable(kernel, TestModel(custom_output_text="one two"))

    async def iterated() -> Any:
        async with agent.iter("go") as run:
            async for _ in run:
                pass
        return run.result.output if run.result else None

    async def streamed() -> Any:
        async with agent.run_stream("go") as run:
            return [text async for text in run.stream_text()][-1]

    assert ran(kernel, iterated).output == "one two"
    execution = ran(kernel, streamed, name="streamed")
    assert execution.output == "one two" and steps_of(execution) == ["a-model", "ok"]


def test_the_handler_of_events_sees_each_event_once(kernel):
    seen: list[str] = []

    async def look(_: RunContext[Any], events: AsyncIterable[Any]) -> None:
        async for event in events:
            seen.append(event.event_kind)

    agent = durable(kernel, TestModel(), event_stream_handler=look, stream=True)

    @agent.tool_plain
    def pay() -> str:
        return "paid"

    execution = ran(kernel, lambda: output_of(agent))
    assert steps_of(execution) == [
        "a-model", "a-event", "a-pay-begin", "a-pay", "a-event#2", "a-model#2", "ok"
    ]  # fmt: skip
    assert seen.count("function_tool_call") == seen.count("function_tool_result") == 1
    assert seen.count("part_start") == 2 and "part_delta" in seen
    shown = execution.step("a-model#2").progress["value"]
    assert shown["text"] == execution.output == '{"pay":"paid"}'


def test_a_handler_that_reads_nothing_loses_nothing(kernel):
    async def look(_: RunContext[Any], events: AsyncIterable[Any]) -> None:
        return None

    agent = durable(kernel, TestModel(custom_output_text="hi"), event_stream_handler=look)
    assert ran(kernel, lambda: output_of(agent)).output == "hi"


def test_runs_have_ids_and_times_that_a_replay_has_too(kernel):
    agent, seen = durable(kernel, answering("done")[0]), []

    async def work() -> None:
        for _ in range(2):
            result = await agent.run("go")
            seen.append(result.all_messages_json())

    ran(kernel, work)
    assert len(seen) == 4 and seen[0] != seen[1]
    if not OLD:  # it draws the id of a conversation by itself
        assert seen[:2] == seen[2:]


def test_a_conversation_goes_on_in_another_run(kernel):
    model, asked = answering("one", "two")
    agent = durable(kernel, model)

    async def work() -> Any:
        first = await agent.run("go")
        return (await agent.run("on", message_history=first.all_messages())).output

    assert ran(kernel, work).output == "two" and len(asked) == 2


@pytest.mark.parametrize("given", ["name", "instance", "unknown instance", "override", "string"])
def test_a_run_may_take_another_model(kernel, given):
    other, asked = answering("other")
    agent = durable(kernel, answering("default")[0], models={"other": other})

    async def work() -> Any:
        if given == "override":
            with agent.override(model=answering("other")[0]):
                return await output_of(agent)
        if given == "string":
            return await output_of(agent, model="test")
        models = {"name": "other", "instance": other, "unknown instance": answering("other")[0]}
        return await output_of(agent, model=models[given])

    said = "success (no tool calls)" if given == "string" else "other"
    assert ran(kernel, work).output == said


@pytest.mark.skipif(OLD, reason="2.54 has no ModelFallback")
def test_another_model_is_asked_once_the_attempts_of_the_first_are_spent(kernel):
    from pydantic_ai.capabilities import ModelFallback

    def broken(messages: list[Any], _: Any) -> Any:
        raise ModelHTTPError(500, "broken")

    other, asked = answering("other")
    agent = durable(
        kernel, FunctionModel(broken), ModelFallback("other"), retry=1, models={"other": other}
    )
    execution = ran(kernel, lambda: output_of(agent))
    assert execution.output == "other" and len(asked) == 1
    assert steps_of(execution) == ["a-model", "a-model#2", "ok"]


def test_an_answer_that_a_service_finishes_later_is_waited_for_by_the_workflow(kernel):
    """No worker is held meanwhile, and what has come of it is in the record."""

    class Later(TestModel):
        def continuation_delay(self, response: Any) -> float:
            return 3_600.0

        async def request(self, *given: Any) -> Any:
            answer = await super().request(*given)
            answer.state, answer.provider_response_id = "suspended", "job-1"
            return answer

    agent = durable(kernel, Later())

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, output_of(agent))

    execution = kernel.run(work, patience=0)
    assert execution.status == "RUNNING" and steps_of(execution) == ["a-model", "agent-sleep"]


# -- kinds of tools ---------------------------------------------------------------------------


def functions(done: list[Any], **metadata: Any) -> FunctionToolset[Any]:
    tools: FunctionToolset[Any] = FunctionToolset()

    @tools.tool_plain(metadata=metadata or None)
    def pay(amount: int = 1) -> str:
        done.append(amount)
        return "paid"

    return tools


@pytest.mark.parametrize("kind", ["agent's", "run's", "override", "prefixed", "filtered"])
def test_a_toolset_is_durable_however_it_is_given(kernel, kind):
    done: list[Any] = []
    tools: AbstractToolset[Any] = functions(done)
    if kind == "prefixed":
        tools = tools.prefixed("x")
    elif kind == "filtered":
        tools = tools.filtered(lambda _, tool: tool.name == "pay")
    name = "x_pay" if kind == "prefixed" else "pay"
    own = [] if kind in ("run's", "override") else [tools]
    agent = durable(kernel, answering([(name, {"amount": 3})], "done")[0], toolsets=own)

    async def work() -> Any:
        if kind == "override":
            with agent.override(toolsets=[tools]):
                return await output_of(agent)
        return await output_of(agent, toolsets=[tools] if kind == "run's" else None)

    execution = ran(kernel, work)
    assert done == [3]
    assert steps_of(execution) == ["a-model", "a-pay-begin", "a-pay", "a-model#2", "ok"]


@pytest.mark.parametrize("per_run_step", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_a_dynamic_toolset_is_listed_and_called_in_steps(kernel, per_run_step, late):
    done: list[Any] = []
    agent = durable(
        kernel,
        answering([("pay", {"amount": "4"})], "done")[0],
        toolsets=[] if late else [DynamicToolset(lambda _: functions(done), id="made")],
    )
    if late:
        agent.toolset(per_run_step=per_run_step)(lambda _: functions(done))
    execution = ran(kernel, lambda: output_of(agent))
    assert done == [4]
    assert steps_of(execution) == [
        "a-tools", "a-model", "a-pay-begin", "a-pay", "a-tools#2", "a-model#2", "ok"
    ]  # fmt: skip


class Line(AbstractToolset[Any]):
    """A toolset of a user, with a connection."""

    def __init__(self, done: list[Any]) -> None:
        self.done = done
        self.open = 0

    @property
    def id(self) -> str | None:
        return None

    async def for_run(self, ctx: RunContext[Any]) -> Line:
        return Line(self.done)

    async def __aenter__(self) -> Line:
        self.open += 1
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.open -= 1

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        (tool,) = (await functions([]).get_tools(ctx)).values()
        return {"pay": replace(tool, toolset=self)}

    async def call_tool(self, name: str, args: Any, ctx: RunContext[Any], tool: Any) -> Any:
        assert self.open == 1
        self.done.append(args)
        return "paid"


def test_a_toolset_of_ones_own_is_entered_in_the_step_of_each_call(kernel):
    done: list[Any] = []
    model = answering([("pay", {}), ("pay", {"amount": 2})], "done")[0]
    agent = durable(kernel, model, toolsets=[Line(done)])
    execution = ran(kernel, lambda: output_of(agent))
    assert len(done) == 2
    assert sum("a-pay@" in each for each in steps_of(execution)) == 2


def test_the_tools_of_an_mcp_server_are_listed_and_called_in_steps(kernel, tmp_path):
    pytest.importorskip("fastmcp", reason="pydantic-ai-slim[mcp] is not installed here")
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai.mcp import MCPToolset

    script = Path(__file__).parent / "support" / "refund_desk.py"

    def server() -> Any:
        return MCPToolset(StdioTransport(sys.executable, [str(script)], cwd=str(tmp_path)), id="s")

    model, asked = answering([("find", {"number": 7})], [("refund", {"number": 7})], "done")
    agent = durable(kernel, model, toolsets=[server()])
    execution = ran(kernel, lambda: output_of(agent))
    assert "refunded 70" in told(asked)[0] and len(asked) == 3
    assert (tmp_path / "refund").read_text().split() == ["7"]
    names = steps_of(execution)
    assert names[:4] == ["a-tools", "a-model", "a-find-begin", "a-find"]
    assert "a-refund" in names
    twice = durable(kernel, model, toolsets=[server(), server()])
    assert "two MCP toolsets" in str(ran(kernel, lambda: output_of(twice), name="twice").error)


def test_operations_are_listed_once_for_a_run(kernel):
    kernel.action("shop.pay", read_only=True)(lambda: "paid")
    model, asked = answering([("shop_pay", {})], "done")
    agent = durable(kernel, model, toolsets=[OperationToolset(kernel, ["shop.pay"])])
    execution = ran(kernel, lambda: output_of(agent))
    assert steps_of(execution) == ["a-tools", "a-model", "a-shop_pay", "a-model#2", "ok"]
    assert told(asked) == ["paid"]


def test_a_tool_that_runs_in_the_workflow_may_run_another_durable_agent(kernel):
    inner, asked = answering([("pay", {})], "paid it")
    helper = Agent(
        inner, name="helper", toolsets=[functions(done := [])],
        capabilities=[AutomateDurability(kernel)],
    )  # fmt: skip
    agent = durable(kernel, answering([("ask", {})], "done")[0])

    @agent.tool(metadata={"automate": False})
    async def ask(ctx: RunContext[Any]) -> str:
        return str((await helper.run("go", usage=ctx.usage)).output)

    async def work() -> Any:
        result = await agent.run("go")
        usage: Any = result.usage
        return usage.requests

    execution = ran(kernel, work)
    assert execution.output == 4 and len(asked) == 2 and done == [1]
    assert steps_of(execution) == [
        "a-model", "helper-model", "helper-pay-begin", "helper-pay", "helper-model#2",
        "a-model#2", "ok",
    ]  # fmt: skip


def test_what_an_agent_in_a_tool_spends_counts_in_a_replay_too(kernel):
    """Else usage limits would be larger after a crash."""
    inner, asked = answering("inner")
    helper = Agent(inner, name="helper")
    agent = durable(kernel, answering([("ask", {}), ("ask", {})], "done")[0])
    spent = []

    @agent.tool
    async def ask(ctx: RunContext[Any]) -> str:
        return str((await helper.run("go", usage=ctx.usage)).output)

    async def work() -> Any:
        result = await agent.run("go")
        usage: Any = result.usage
        spent.append((usage.requests, usage.input_tokens, usage.output_tokens))

    ran(kernel, work)
    assert len(asked) == 2 and spent[0] == spent[1] and spent[0][0] == 4
    limited = ran(
        kernel,
        lambda: output_of(agent, usage_limits=UsageLimits(request_limit=3)),
        name="limited",
    )
    assert limited.error_code == "RESOURCE_EXHAUSTED"


def test_the_check_of_arguments_is_a_step(kernel):
    model, asked = answering([("pay", {"amount": 1})], [("pay", {"amount": 2})], "done")
    agent, checked = durable(kernel, model), []

    def check(ctx: RunContext[Any], amount: int) -> None:
        checked.append(amount)
        if amount < 2:
            raise ModelRetry("pay more")

    @agent.tool(args_validator=check)
    def pay(ctx: RunContext[Any], amount: int) -> str:
        return "paid"

    execution = ran(kernel, lambda: output_of(agent))
    assert checked == [1, 2] and told(asked) == ["paid"] and len(asked) == 3
    assert steps_of(execution) == [
        "a-model", "a-pay-validate", "a-model#2", "a-pay-validate#2", "a-pay-begin", "a-pay",
        "a-model#3", "ok",
    ]  # fmt: skip


def test_files_and_rich_results_of_tools_come_back_as_they_were(kernel):
    model, asked = answering([("look", {}), ("scan", {})], "done")
    agent = durable(kernel, model)

    @agent.tool_plain
    def look() -> BinaryContent:
        return BinaryContent(b"\x89PNG\0", media_type="image/png")

    @agent.tool_plain
    def scan() -> ToolReturn:
        return ToolReturn({"kind": "tool-return"}, content="seen", metadata={"own": 1})

    ran(kernel, lambda: output_of(agent))
    parts = asked[-1][0][-1].parts
    assert b"\x89PNG\0" in str(parts).encode() or "PNG" in repr(parts)
    assert any(getattr(each, "metadata", None) == {"own": 1} for each in parts)


def test_what_is_not_json_fails_with_a_remedy(kernel):
    agent, called = durable(kernel, answering([("make", {})], "done")[0]), []

    @agent.tool_plain(metadata={"idempotent": True})
    def make() -> object:
        called.append(1)
        return object()

    execution = ran(kernel, lambda: output_of(agent))
    assert "can't be recorded" in execution.error and "pydantic models" in execution.error
    assert called == [1]


def test_hints_of_a_toolset_or_a_capability_count(kernel):
    done: list[Any] = []
    agent = durable(
        kernel, answering([("pay", {})], "done")[0], SetToolMetadata(idempotent=True),
        toolsets=[functions(done)],
    )  # fmt: skip
    assert steps_of(ran(kernel, lambda: output_of(agent))) == [
        "a-model", "a-pay", "a-model#2", "ok"
    ]  # fmt: skip
    assert done == [1]


# -- people -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["toolset", "metadata", "capability"])
def test_a_call_waits_for_a_person_whichever_way_it_is_asked_for(kernel, way):
    done: list[Any] = []
    destructive = {"destructive": True} if way == "metadata" else {}
    tools: AbstractToolset[Any] = functions(done, **destructive)
    if way == "toolset":
        tools = tools.approval_required(lambda *_: True)
    more = [SetToolMetadata(destructive=True)] if way == "capability" else []
    model, asked = answering([("pay", {})], "done")
    agent = durable(kernel, model, *more, toolsets=[tools])

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, output_of(agent))

    execution = kernel.run(work, patience=0)
    assert done == []
    kernel.approvals.approve(execution.id, "a-pay-approve", by="ann")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done"
    assert done == [1] and told(asked) == ["paid"]


@pytest.mark.parametrize("approved", [True, False])
def test_a_workflow_may_decide_by_itself(kernel, approved):
    """With the run's own deferred requests, as elsewhere in Pydantic AI."""
    model, asked = answering([("wipe", {})], "done")
    agent = durable(kernel, model, approval=False, output_type=[str, DeferredToolRequests])
    wiped = []

    @agent.tool_plain(requires_approval=True)
    def wipe() -> str:
        wiped.append(1)
        return "wiped"

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> Any:
        first = await run_agent(ctx, agent.run("go"))
        assert isinstance(first.output, DeferredToolRequests)
        answer = await ctx.approve("Wipe?", name="mine", on_reject="continue")
        decided = {each.tool_call_id: answer.approved for each in first.output.approvals}
        results = DeferredToolResults(approvals=decided)
        history = first.all_messages()
        again = agent.run(message_history=history, deferred_tool_results=results)
        return (await run_agent(ctx, again)).output

    execution = kernel.run(work, patience=0)
    decide = kernel.approvals.approve if approved else kernel.approvals.reject
    decide(execution.id, "mine", by="ann")
    kernel.run_until_idle()
    execution = kernel.executions.get(execution.id)
    assert execution.output == "done", execution.error
    assert wiped == ([1] if approved else []) and len(asked) == 2
    assert steps_of(execution).count("a-wipe") == approved


# -- secrets, other capabilities --------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_no_secret_reaches_a_model_or_a_record(kernel, stream):
    asked = []

    def answer(messages: list[Any], info: Any) -> Any:
        asked.append((messages, info))
        return answering([("look", {})], f"done {SECRET}")[0].function(messages, info)

    async def streamed(messages: list[Any], info: Any) -> Any:
        asked.append((messages, info))
        yield f"done {SECRET}"

    model = FunctionModel(answer, stream_function=streamed)
    agent = Agent(
        model, name="a", instructions=f"The key is {SECRET}", system_prompt=f"Again: {SECRET}",
        capabilities=[AutomateDurability(kernel, stream=stream)],
    )  # fmt: skip

    @agent.tool_plain
    def look() -> str:
        return SECRET

    execution = ran(kernel, lambda: output_of(agent, f"prompt {SECRET}"))
    assert asked and SECRET not in str(asked)
    assert SECRET not in str([(run.output, run.progress) for run in execution.steps])
    assert SECRET not in str(execution.output)


def test_operations_of_capabilities_are_steps(kernel):
    looked = []

    class Looking(AbstractCapability[Any]):
        id = "looking"

        @durable_operation(name="look")
        async def look(self, ctx: RunContext[Any], number: int) -> int:
            looked.append(number)
            return number + 1

        async def before_model_request(
            self, ctx: RunContext[Any], request_context: ModelRequestContext
        ) -> ModelRequestContext:
            assert await self.look(ctx, 3) == 4
            return request_context

    agent = durable(kernel, answering("done")[0], Looking())
    execution = ran(kernel, lambda: output_of(agent))
    assert looked == [3] and steps_of(execution) == ["a-looking-look", "a-model", "ok"]


# -- refusals ---------------------------------------------------------------------------------


def failing(kernel: Kernel, function: Any) -> str:
    execution = kernel.run(kernel.workflow(function))
    assert execution.status == "FAILED", execution.output
    return str(execution.error)


def test_a_durable_agent_that_would_not_be_durable_is_refused(kernel):
    """Before its model is asked."""
    model, asked = answering("done")
    agent = durable(kernel, model)

    async def direct(ctx: WorkflowContext) -> Any:
        return await output_of(agent)

    async def synchronous(ctx: WorkflowContext) -> Any:
        return agent.run_sync("go").output

    def plain(ctx: Any) -> Any:
        return agent.run_sync("go", run_id="mine").output

    async def awaited(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, await agent.run("go"))  # type: ignore[arg-type]

    for each in (synchronous, plain, *(() if OLD else (direct, awaited))):
        error = failing(kernel, each)
        assert "would not be durable" in error and "run_agent(ctx, agent.run(" in error
    assert asked == []


def test_an_agent_without_durability_is_refused_in_run_agent(kernel):
    model, asked = answering("done")
    agent = Agent(model, name="bare")

    async def known(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, agent.run("go"))

    async def none(ctx: WorkflowContext) -> Any:
        async def nothing() -> int:
            return 3

        return await run_agent(ctx, nothing())

    async def value(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, 3)  # type: ignore[arg-type]

    async def elsewhere(ctx: WorkflowContext) -> Any:
        return await run_agent(None, agent.run("go"))  # type: ignore[arg-type]

    assert "'bare' is not durable" in failing(kernel, known)
    assert "AutomateDurability" in failing(kernel, none)
    assert "takes a coroutine" in failing(kernel, value)
    assert "async def workflow" in failing(kernel, elsewhere)
    assert asked == []


def test_what_a_replay_could_not_repeat_is_refused(kernel):
    model, _ = answering([("add", {})], "done")
    agent = durable(kernel, model)

    @agent.tool
    def add(ctx: RunContext[Any]) -> str:
        ctx.enqueue("more")
        return "added"

    async def enqueued(ctx: WorkflowContext) -> Any:
        return await run_agent(ctx, output_of(agent))

    async def cancelled(ctx: WorkflowContext) -> Any:
        token = pydantic_ai.CancellationToken()
        return await run_agent(ctx, output_of(agent, cancellation_token=token))

    assert "enqueue" in failing(kernel, enqueued)
    assert "cancellation_token" in failing(kernel, cancelled)
    if HAS_TIMEOUTS:

        async def timed(ctx: WorkflowContext) -> Any:
            return await run_agent(ctx, output_of(agent, timeout=3.0))

        assert "AutomateDurability(timeout" in failing(kernel, timed)


def test_a_wrong_agent_is_refused_when_it_is_made(kernel):
    durability: Any = AutomateDurability(kernel)
    with pytest.raises(UserError, match="unique `name`"):
        Agent(TestModel(), capabilities=[durability])
    with pytest.raises(UserError, match="`model`"):
        Agent(name="a", capabilities=[durability])
    with pytest.raises(ConfigError, match="no option 'who'"):
        AutomateDurability(kernel, approval={"who": "ann"})
    with pytest.raises(UserError, match="only one|at most one|2"):
        Agent(TestModel(), name="a", capabilities=[durability, AutomateDurability(kernel)])


def test_a_durability_serves_several_agents(kernel):
    durability: Any = AutomateDurability(kernel)
    one = Agent(answering("one")[0], name="one", capabilities=[durability])
    two = Agent(answering("two")[0], name="two", capabilities=[durability])

    async def work() -> Any:
        return [await output_of(one), await output_of(two)]

    execution = ran(kernel, work)
    assert execution.output == ["one", "two"]
    assert steps_of(execution) == ["one-model", "two-model", "ok"]


def test_an_agent_that_was_made_elsewhere_is_durable_for_a_run(kernel):
    agent = Agent(answering("done")[0])
    wrapped = DurableAgent(agent, kernel)

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> Any:
        return (await wrapped.run(ctx, "go")).output

    assert steps_of(kernel.run(work)) == ["agent-model"]
    assert agent.run_sync("go").output == "done"


@pytest.mark.parametrize(
    "record",
    [
        {
            "response": {"parts": [{"part_kind": "of-later", "content": "canary"}]},
            "output_tokens": 1,
        },
        {"response": ["canary"], "output_tokens": 1},
        "canary",
        None,
    ],
)
def test_a_record_of_another_form_is_an_error_that_quotes_nothing(record):
    with pytest.raises(AutomateError, match="form that this release") as caught:
        STEP_CODEC.load(ModelResponse, record)
    shown = "".join(traceback.format_exception(caught.value))
    assert (caught.value.code, "canary" in shown) == ("FAILED_PRECONDITION", False)
