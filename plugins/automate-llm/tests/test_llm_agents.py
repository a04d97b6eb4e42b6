"""Durable agents: their steps, their tools, what people decide, and what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any

import pytest
from llm_support import (
    SECRET,
    answering,
    answers_given,
    calls,
    completion,
    says,
    scripted,
    told,
)
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ApprovalRequired,
    CallDeferred,
    DeferredToolRequests,
    ModelRetry,
    RunContext,
    UsageLimits,
)
from pydantic_ai.messages import ModelResponse, ToolCallPart, ToolReturn
from pydantic_ai.models.test import TestModel

from automate_kernel import (
    AutomateError,
    ConfigError,
    Connector,
    Kernel,
    MemoryStorage,
    WorkflowContext,
    action,
)
from automate_kernel.operations.context import Call
from automate_llm import DurableAgent, LlmProvider, OperationToolset, add_agents
from automate_llm.tool_call import ToolCall
from automate_llm.model_answers import recorded, response_of


def running(kernel: Kernel, agent: Agent[Any, Any], **options: Any) -> Any:
    """A workflow that runs *agent*, and gives its output."""
    run_options = options.pop("run", {})
    durable = DurableAgent(agent, kernel, **options)

    @kernel.workflow(name="work")
    async def work(ctx: WorkflowContext, prompt: str) -> Any:
        return (await durable.run(ctx, prompt, **run_options)).output

    return work


def test_each_answer_and_each_call_is_a_step_with_tokens_in_its_record(kernel):
    model, _ = answering([("double", {"x": 4})], "eight")
    agent = Agent(model, name="maths")

    @agent.tool_plain(metadata={"idempotent": True})
    def double(x: int) -> int:
        return 2 * x

    execution = kernel.run(running(kernel, agent), "twice four?")
    assert execution.output == "eight", execution.error
    names = [run.step_id for run in execution.steps if not run.step_id.startswith("now")]
    assert names == ["maths-model", "maths-double", "maths-model#2"]
    record = execution.step("maths-model").output
    assert record["input_tokens"] > 0 and record["output_tokens"] > 0
    assert record["cost_usd"] is None  # nobody knows the price of a function
    assert execution.step("maths-double").output["result"] == 8


def test_a_known_model_has_its_cost(kernel):
    priced = {**completion(says("hi")), "model": "gpt-4o"}
    with scripted(lambda _: priced) as service:
        execution = kernel.run(running(kernel, Agent(service.model, name="a")), "hi")
    record = execution.step("a-model").output
    assert record["model"] == "gpt-4o" and record["input_tokens"] == 20
    assert 0 < record["cost_usd"] < 0.01


def test_a_replay_asks_no_model_and_has_the_same_messages(kernel):
    """It waits for a person in between, so the function runs from its first line again."""
    model, asked = answering([("double", {"x": 4})], "eight")
    agent = Agent(model, name="maths")
    done = []

    @agent.tool_plain
    def double(x: int) -> int:
        done.append(x)
        return 2 * x

    durable = DurableAgent(agent, kernel)
    seen = []

    @kernel.workflow
    async def work(ctx: WorkflowContext, prompt: str) -> str:
        result = await durable.run(ctx, prompt)
        seen.append(result.all_messages_json())
        await ctx.approve("Go on?", name="ok")
        return result.output

    execution = kernel.run(work, "twice four?", patience=0)
    kernel.approvals.approve(execution.id, "ok", by="ann")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "eight"
    assert len(seen) == 2 and seen[0] == seen[1]
    assert len(asked) == 2 and done == [4]


def test_calls_of_one_answer_run_side_by_side(kernel):
    model, asked = answering([("a", {}), ("b", {})], "done")
    agent = Agent(model, name="two")
    together: list[str] = []
    import asyncio

    async def met(name: str) -> str:
        together.append(name)
        while len(together) < 2:
            await asyncio.sleep(0.01)
        return name

    @agent.tool_plain
    async def a() -> str:
        return await met("a")

    @agent.tool_plain
    async def b() -> str:
        return await met("b")

    execution = kernel.run(running(kernel, agent, tool_timeout="5s"), "go")
    assert execution.output == "done", execution.error
    assert told(asked) == ["a", "b"]


class Parcel(BaseModel):
    weight: float
    tags: list[str] = []


def test_dependencies_models_and_rich_results_pass(kernel):
    model, asked = answering([("pack", {"parcel": {"weight": 2.5}}), ("look", {})], "done")
    agent = Agent(model, name="packer", deps_type=dict)

    @agent.tool
    def pack(ctx: RunContext[dict], parcel: Parcel) -> Parcel:
        return parcel.model_copy(update={"tags": [ctx.deps["label"]]})

    @agent.tool_plain
    def look() -> ToolReturn:
        return ToolReturn("seen", content="a picture of it", metadata={"own": 1})

    execution = kernel.run(running(kernel, agent, run={"deps": {"label": "red"}}), "go")
    assert execution.output == "done", execution.error
    assert "red" in told(asked)[0] and told(asked)[1:] == ["seen", "a picture of it"]


def test_a_tool_may_ask_for_better_arguments(kernel):
    model, asked = answering([("half", {"x": 3})], [("half", {"x": 4})], "two")
    agent = Agent(model, name="maths")

    @agent.tool_plain
    def half(x: int) -> int:
        if x % 2:
            raise ModelRetry("give an even number")
        return x // 2

    execution = kernel.run(running(kernel, agent), "half")
    assert execution.output == "two", execution.error
    assert execution.step("maths-half").output["kind"] == "model_retry"


def test_structured_output_with_its_own_retries(kernel):
    model, asked = answering(
        [("final_result", {"weight": "heavy"})], [("final_result", {"weight": 2.0})]
    )
    agent = Agent(model, name="scales", output_type=Parcel)
    execution = kernel.run(running(kernel, agent), "weigh")
    assert execution.output == {"weight": 2.0, "tags": []}, execution.error
    assert len(asked) == 2


@pytest.mark.parametrize("approved", [True, False], ids=["approved", "refused"])
def test_a_destructive_tool_waits_for_a_person(kernel, approved):
    model, asked = answering([("wipe", {"table": "orders"})], "done")
    agent = Agent(model, name="ops")
    wiped = []

    @agent.tool_plain(requires_approval=True)
    def wipe(table: str) -> str:
        wiped.append(table)
        return "wiped"

    work = running(kernel, agent, approval={"by": ["ann"], "timeout": "3d"})
    execution = kernel.run(work, "clean up", patience=0)
    (waiting,) = kernel.approvals.pending().approvals
    assert waiting.title == "ops wants to call wipe" and "orders" in waiting.description
    with pytest.raises(AutomateError, match="for others|is for"):
        kernel.approvals.approve(execution.id, waiting.step_id, by="bob")
    decide = kernel.approvals.approve if approved else kernel.approvals.reject
    decide(execution.id, waiting.step_id, by="ann", comment="not on a Friday")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done"
    assert wiped == (["orders"] if approved else [])
    assert told(asked) == ["wiped" if approved else "ann refused this call: not on a Friday"]


def shop(kernel: Kernel) -> list[Any]:
    done: list[Any] = []

    @kernel.action("orders.find", read_only=True)
    def find(number: int) -> dict:
        """Find an order."""
        if number > 100:
            raise AutomateError("NOT_FOUND", "no such order")
        return {"number": number, "token": kernel.secrets.get("API_KEY")}

    @kernel.action("orders.refund", destructive=True)
    def refund(number: int) -> str:
        done.append(number)
        return "refunded"

    @kernel.action("orders.wipe", destructive=True)
    def wipe() -> None:
        """Delete everything."""

    return done


def test_operations_are_tools_with_their_schemas_and_without_secrets(kernel):
    shop(kernel)
    model, asked = answering(
        [("orders_find", {"number": 7}), ("orders_find", {"number": 101})],
        [("orders_find", {"number": "x"})],
        "done",
    )
    agent = Agent(model, name="desk", toolsets=[OperationToolset(kernel, ["orders.*"])])
    execution = kernel.run(running(kernel, agent), f"find it with {SECRET}")
    assert execution.output == "done", execution.error
    (tool,) = asked[0][1].function_tools  # destructive ones need their full name
    assert tool.name == "orders_find" and tool.description == "Find an order."
    assert tool.parameters_json_schema["properties"]["number"]["type"] == "integer"
    texts = str([messages for messages, _ in asked])
    assert "NOT_FOUND" in texts and "number" in told(asked)[0]
    assert SECRET not in texts and SECRET not in str([run.output for run in execution.steps])


def test_a_destructive_operation_needs_its_name_and_a_person(kernel):
    done = shop(kernel)
    model, asked = answering([("orders_refund", {"number": 7})], "done")
    toolset = OperationToolset(kernel, ["orders.*", "orders.refund"])
    work = running(kernel, Agent(model, name="desk", toolsets=[toolset]))
    execution = kernel.run(work, "refund", patience=0)
    assert done == []
    kernel.approvals.approve(execution.id, "desk-orders_refund-approve", by="ann")
    kernel.run_until_idle()
    assert done == [7] and told(asked) == ["refunded"]
    assert [t.name for t in asked[0][1].function_tools] == ["orders_find", "orders_refund"]


def test_a_pattern_that_names_nothing_is_an_error_that_says_so(kernel):
    model, _ = answering("done")
    toolset = OperationToolset(kernel, ["shop.*"])
    execution = kernel.run(running(kernel, Agent(model, name="desk", toolsets=[toolset])), "go")
    assert execution.status == "FAILED" and "shop.*" in execution.error
    with pytest.raises(ConfigError, match="list of names"):
        OperationToolset(kernel, "orders.*")


def test_usage_limits_end_the_run(kernel):
    model, asked = answering(*[[("again", {})]] * 9)
    agent = Agent(model, name="loop")

    @agent.tool_plain
    def again() -> str:
        return "once more"

    work = running(kernel, agent, run={"usage_limits": UsageLimits(request_limit=3)})
    execution = kernel.run(work, "go")
    assert execution.error_code == "RESOURCE_EXHAUSTED" and len(asked) == 3
    assert "request_limit" in execution.error


def test_an_error_of_a_tool_fails_the_run(kernel):
    model, _ = answering([("broken", {})], "done")
    agent = Agent(model, name="a")

    @agent.tool_plain
    def broken() -> str:
        raise KeyError(SECRET)

    execution = kernel.run(running(kernel, agent), "go")
    assert execution.status == "FAILED" and "a-broken" in execution.error
    assert SECRET not in execution.error


@pytest.mark.parametrize(
    ("status", "body", "code", "calls_made"),
    [
        (401, {"error": {"message": f"bad key {SECRET}"}}, "UNAUTHENTICATED", 1),
        (403, {"error": {"message": "no"}}, "PERMISSION_DENIED", 1),
        (404, {"error": {"message": "no model"}}, "NOT_FOUND", 1),
        (429, {"error": {"message": "slow down"}}, "RESOURCE_EXHAUSTED", 2),
        (429, {"error": {"code": "insufficient_quota"}}, "RESOURCE_EXHAUSTED", 1),
        (400, {"error": {"code": "context_length_exceeded"}}, "INVALID_ARGUMENT", 1),
        (400, {"error": {"code": "content_filter"}}, "FAILED_PRECONDITION", 1),
        (500, {"error": {"message": "oops"}}, "INTERNAL", 2),
        (503, {"error": {"message": "later"}}, "UNAVAILABLE", 2),
    ],
    ids=["401", "403", "404", "429", "quota", "too-long", "refused", "500", "503"],
)
def test_errors_of_a_service_have_their_code_and_retries(kernel, status, body, code, calls_made):
    from automate_kernel.workflows.definition.fields import RetryPolicy

    with scripted(lambda _: (status, {"Retry-After": "0"}, body)) as service:
        agent = Agent(service.model, name="a")
        work = running(kernel, agent, retry=RetryPolicy(attempts=2, delay=0.0))
        execution = kernel.run(work, "hi")
        assert (execution.step("a-model").error_code, len(service.requests)) == (code, calls_made)
    assert execution.status == "FAILED" and SECRET not in str(execution.error)


def test_retry_after_is_kept(kernel):
    from automate_llm.model_errors import normal_error
    from pydantic_ai.exceptions import ModelHTTPError

    error = ModelHTTPError(429, "m", {}, headers={"Retry-After": "7"})
    assert normal_error(error).retry_after == 7.0 and normal_error(error).retryable


def test_the_text_of_an_answer_is_progress_while_it_comes(kernel):
    agent = Agent(TestModel(custom_output_text="one two three " * 2_000), name="a")
    execution = kernel.run(running(kernel, agent, stream=True), "hi")
    run = execution.step("a-model")
    assert execution.output == "one two three " * 2_000, execution.error
    shown = kernel.executions.get(execution.id).step("a-model").progress["value"]
    assert shown["characters"] == 28_000 and shown["text"].endswith("three ")
    assert len(json.dumps(shown)) < 4_000


def test_two_agents_run_side_by_side_and_replay(kernel):
    model, asked = answering([("double", {"x": 4})], "done")
    agent = Agent(model, name="a")

    @agent.tool_plain
    def double(x: int) -> int:
        return 2 * x

    durable = DurableAgent(agent, kernel)

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> list[str]:
        runs = await ctx.gather(durable.run(ctx, "one"), durable.run(ctx, "two"))
        await ctx.approve("Go on?", name="ok")
        return [each.output for each in runs]

    execution = kernel.run(work, patience=0)
    kernel.approvals.approve(execution.id, "ok", by="ann")
    kernel.run_until_idle()
    execution = kernel.executions.get(execution.id)
    assert execution.output == ["done", "done"], execution.error
    assert len(asked) == 4


def test_a_cancelled_run_stops_and_leaves_no_thread(kernel):
    model, _ = answering([("wipe", {})], "done")
    agent = Agent(model, name="ops")

    @agent.tool_plain(requires_approval=True)
    def wipe() -> None:
        """Delete everything."""

    execution = kernel.run(running(kernel, agent), "go", patience=0)
    kernel.executions.cancel(execution.id)
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).status == "CANCELLED"
    for each in threading.enumerate():
        if each.name == "automate-agent":
            each.join(20)
            assert not each.is_alive()


def test_what_instructions_leave_running_ends_with_their_agent(kernel, caplog):
    """As with ``asyncio.run``: its `finally` runs, and no task is left in the middle."""
    agent, left, ended = Agent(TestModel(custom_output_text="done"), name="a"), [], []

    @agent.instructions
    async def look() -> str:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("look")

        left.append(asyncio.ensure_future(forever()))
        await asyncio.sleep(0)
        return "Be kind."

    assert kernel.run(running(kernel, agent), "go").output == "done"
    assert left and len(ended) == len(left)
    left.clear()
    gc.collect()
    assert [each for each in caplog.records if "destroyed" in each.getMessage()] == []


def test_a_tool_may_ask_for_an_approval_while_it_runs(kernel):
    model, asked = answering([("pay", {"amount": 5}), ("pay", {"amount": 500})], "done")
    agent = Agent(model, name="desk")
    paid = []

    @agent.tool
    def pay(ctx: RunContext[None], amount: int) -> str:
        if amount > 100 and not ctx.tool_call_approved:
            raise ApprovalRequired
        paid.append(amount)
        return f"paid {amount}"

    execution = kernel.run(running(kernel, agent), "pay", patience=0)
    assert paid == [5]
    (waiting,) = kernel.approvals.pending().approvals
    kernel.approvals.approve(execution.id, waiting.step_id, by="ann")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done" and paid == [5, 500]
    assert told(asked) == ["paid 5", "paid 500"]


def test_an_approval_waits_over_a_restart(tmp_path):
    """Another process has other objects: a kernel, an agent and a model of its own."""
    import sqlalchemy as sa

    from automate_sqlalchemy import SqlAlchemyStorage

    url, wiped = f"sqlite:///{tmp_path / 'x.sqlite3'}", []

    def process() -> tuple[Kernel, Any, list[Any]]:
        storage = SqlAlchemyStorage(sa.create_engine(url))
        storage.create_tables()
        model, asked = answering([("wipe", {})], "done")
        agent = Agent(model, name="ops")

        @agent.tool_plain(requires_approval=True)
        def wipe() -> str:
            wiped.append(1)
            return "wiped"

        kernel = Kernel(storage, discover=False)
        return kernel, running(kernel, agent), asked

    kernel, work, asked = process()
    execution = kernel.run(work, "go", patience=0)
    assert len(asked) == 1
    kernel.close()
    kernel, _, asked = process()
    (waiting,) = kernel.approvals.pending().approvals
    kernel.approvals.approve(execution.id, waiting.step_id, by="ann")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done"
    # The first answer came from the record.
    assert len(asked) == 1 and told(asked) == ["wiped"] and wiped == [1]
    kernel.close()


@pytest.mark.parametrize(
    ("idempotent", "times"), [(True, 3), (False, 1)], ids=["idempotent", "not"]
)
def test_only_an_idempotent_tool_is_tried_again(kernel, idempotent, times):
    from automate_kernel.workflows.definition.fields import RetryPolicy

    model, _ = answering([("flaky", {})], "done")
    agent = Agent(model, name="a")
    called = []

    @agent.tool_plain(metadata={"idempotent": idempotent})
    def flaky() -> str:
        called.append(1)
        raise ConnectionError("it hung up")

    work = running(kernel, agent, tool_retry=RetryPolicy(attempts=3, delay=0.0))
    execution = kernel.run(work, "go")
    assert execution.status == "FAILED" and len(called) == times


def test_nobody_who_decides_in_time_is_told(kernel):
    model, asked = answering([("wipe", {})], "done")
    agent = Agent(model, name="ops")

    @agent.tool_plain(requires_approval=True)
    def wipe() -> None:
        """Delete everything."""

    work = running(kernel, agent, approval={"timeout": 0.01})
    execution = kernel.run(work, "go", patience=5)
    assert execution.output == "done", execution.error
    assert told(asked) == ["Nobody decided on this call in time."]


def test_a_call_that_is_deferred_ends_the_run_as_ever(kernel):
    model, _ = answering([("later", {})], "done")
    agent = Agent(model, name="a", output_type=[str, DeferredToolRequests])

    @agent.tool_plain
    def later() -> str:
        raise CallDeferred

    durable = DurableAgent(agent, kernel)

    @kernel.workflow
    async def work(ctx: WorkflowContext) -> list[str]:
        result = await durable.run(ctx, "go")
        return [each.tool_name for each in result.output.calls]

    execution = kernel.run(work)
    assert execution.output == ["later"], execution.error


def test_each_call_of_an_agent_in_a_step_has_a_key_of_its_own(kernel):
    """The same in each attempt: a service that takes keys makes each of them once."""
    posts = [("notes_add", {"text": each}) for each in ("a", "b", "a")]
    model, _ = answering(posts, "done")
    keys: list[list[Any]] = []

    @kernel.action("notes.add")
    def add(text: str, call: Call) -> str:
        keys[-1].append((text, call.idempotency_key))
        return text

    agent = Agent(model, name="desk", toolsets=[OperationToolset(kernel, ["notes.add"])])

    @kernel.action("desk.answer")
    async def answer() -> str:
        keys.append([])
        output = (await agent.run("go")).output
        if len(keys) == 1:
            raise ConnectionError("the line is down")
        return output

    step = {"id": "a", "action": "desk.answer", "retry": {"attempts": 2, "delay": 0}}
    kernel.add_workflow({"name": "flow", "trigger": {"type": "manual"}, "steps": [step]})
    execution = kernel.run("flow")
    assert execution.status == "COMPLETED", execution.error
    first, second = map(sorted, keys)
    assert [text for text, _ in first] == ["a", "a", "b"]
    assert first == second and len({key for _, key in first}) == 3


def test_a_transactional_operation_commits_its_own_work(kernel):
    model, asked = answering([("orders_note", {"text": "x"})], "done")
    seen = []

    @kernel.action("orders.note", transactional=True)
    def note(text: str, call: Call) -> str:
        seen.append((text, call.idempotency_key is not None))
        return "noted"

    agent = Agent(model, name="desk", toolsets=[OperationToolset(kernel, ["orders.note"])])
    execution = kernel.run(running(kernel, agent), "go")
    assert execution.output == "done" and told(asked) == ["noted"], execution.error
    assert seen == [("x", True)]


def test_what_a_durable_agent_refuses(kernel):
    model, _ = answering("done")
    with pytest.raises(ConfigError, match="no option 'who'"):
        DurableAgent(Agent(model), kernel, approval={"who": "ann"})
    execution = kernel.run(running(kernel, Agent(name="bare")), "go")
    assert "has no model" in execution.error


WRITTEN = {"type": "string", "x-written": True}


def counting(kernel: Kernel, name: str, *required: str) -> list[dict[str, Any]]:
    """An operation with a text of its author's, and the inputs that it was called with."""
    called: list[dict[str, Any]] = []
    fields = {"table": {"type": "string"}, "where": WRITTEN}
    schema = {"type": "object", "properties": fields, "required": list(required)}

    @kernel.action(name, input_schema=schema, read_only=True)
    def count(given: dict[str, Any]) -> int:
        called.append(given)
        return 4

    return called


@pytest.mark.parametrize("door", ["code", "yaml", "no workflow"])
def test_what_a_model_made_was_not_written_by_the_workflow(door):
    """A query is code: no agent makes one up, though it wasn't offered, whichever way it was begun."""
    config = {"llm": {"services": {"main": {"model": "test"}}}}
    kernel = Kernel(discover=False, plugins=[LlmProvider], config=config)
    called = counting(kernel, "sql.count")
    model, asked = answering([("sql_count", {"table": "item", "where": "1 = 1"})], "done")
    if door == "yaml":
        kernel.provider("llm")._models["main"] = model
        add_agents(kernel, ["sql.count"])
        task = {"prompt": "count all", "tools": ["sql.count"]}
        step = {"id": "a", "workflow": "llm.agent", "input": task}
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
        assert kernel.run("w").status == "COMPLETED"
    else:
        tools = OperationToolset(kernel, ["sql.count"])
        agent = Agent(model, name="desk", toolsets=[tools])
        if door == "code":
            assert kernel.run(running(kernel, agent), "count all").output == "done"
        else:
            agent.run_sync("count all")
    assert "must be written in the workflow" in told(asked)[0] and called == []


def test_what_an_author_has_to_write_is_offered_to_no_model(kernel):
    """A pattern passes over what no model can call; a list that names it is wrong."""
    called = counting(kernel, "sql.count", "table")
    counting(kernel, "sql.find", "where")
    model, asked = answering([("sql_count", {"table": "orders"})], "done")
    agent = Agent(model, name="a", toolsets=[OperationToolset(kernel, ["sql.*"])])
    assert kernel.run(running(kernel, agent), "go").output == "done"
    assert called == [{"table": "orders"}]
    (tool,) = asked[0][1].function_tools
    assert tool.name == "sql_count" and list(tool.parameters_json_schema["properties"]) == ["table"]
    with pytest.raises(ConfigError, match=r"'sql.find' can't be a tool.*'where'"):
        OperationToolset(kernel, ["sql.*", "sql.find"])
    with pytest.raises(ConfigError, match="can't be a tool"):
        add_agents(kernel, ["sql.find"])


def test_an_operation_that_no_model_can_call_is_found_though_it_comes_late(kernel):
    """It is looked for again when the tools are listed."""
    model, _ = answering("done")
    agent = Agent(model, name="a", toolsets=[OperationToolset(kernel, ["sql.late"])])
    counting(kernel, "sql.late", "where")
    assert "can't be a tool" in kernel.run(running(kernel, agent), "go").error


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_no_database_takes_is_kept_in_words_that_each_takes(kernel, stream):
    """NUL, and half a character: models write them, and the answer was paid for."""

    @kernel.action("notes.add")
    def add(text: str) -> int:
        return len(text)

    tools = OperationToolset(kernel, ["notes.add"])
    with scripted(
        lambda request: (
            says("a\0b\ud83d\ude00c\ud83d")
            if answers_given(request)
            else calls(("notes_add", {"text": "x"}), text="now\0")
        )
    ) as service:
        agent = Agent(service.model, name="desk", toolsets=[tools])
        execution = kernel.run(running(kernel, agent, stream=stream), "go")
    assert execution.status == "COMPLETED", execution.error
    assert execution.output == "a\ufffdb\U0001f600c\ufffd"


def test_arguments_with_half_a_character_can_be_recorded():
    """Else the request would be made, and paid, until its attempts are spent."""
    arguments = {"text": "x\ud83d", "\0": ["\ud83d\ude00"]}
    record = recorded(ModelResponse([ToolCallPart("notes_add", arguments)]))
    (part,) = response_of(record).parts
    assert part.args == {"text": "x\ufffd", "\ufffd": ["\U0001f600"]}


@pytest.mark.parametrize("plugin", [False, True])
@pytest.mark.parametrize("value", [float("nan"), {1: 2}, {1}], ids=["NaN", "a key", "a set"])
def test_an_output_that_json_has_not_is_told_as_that(kernel, value, plugin):
    """Not as null, and not as a wrong input, which a model would call again with another."""
    done = []

    class Shop(Connector):
        key = "shop"
        display_name = "Shop"

        @action
        def total(self):
            done.append(1)
            return value

    if plugin:
        kernel.register(Shop)
    else:
        kernel.action("shop.total")(lambda: done.append(1) or value)
    model, asked = answering([("shop_total", {})], "done")
    agent = Agent(model, name="desk", toolsets=[OperationToolset(kernel, ["shop.total"])])
    assert kernel.run(running(kernel, agent), "go").output == "done"
    assert "It was done, but the output of" in told(asked)[0]
    assert done == [1]


@pytest.mark.parametrize(
    ("allowed", "destructive", "says", "effects"),
    [
        (["shop.read"], False, "may not be called any more", []),
        (["shop.*"], True, "may not be called any more", []),
        (["shop.*", "shop.wipe"], True, "wiped", ["wiped by ann"]),
        (["shop.*"], False, "wiped", ["wiped"]),
    ],
)
def test_what_was_deployed_since_an_agent_began_counts(allowed, destructive, says, effects):
    """An operation that is allowed no more isn't called, and one that destroys now needs a person."""
    storage, done = MemoryStorage(), []
    model, asked = answering([("shop_gate", {})], [("shop_wipe", {})], "done")

    def deployed(names: list[str], *, destructive: bool) -> tuple[Kernel, Any]:
        kernel = Kernel(storage, discover=False)
        kernel.action("shop.read", read_only=True)(lambda: None)
        kernel.action("shop.gate", destructive=True)(lambda: "open")

        @kernel.action("shop.wipe", destructive=destructive)
        def wipe() -> str:
            done.append("wiped by ann" if destructive else "wiped")
            return "wiped"

        tools = OperationToolset(kernel, [*names, "shop.gate"])
        return kernel, running(kernel, Agent(model, name="desk", toolsets=[tools]))

    before, work = deployed(["shop.*"], destructive=False)
    execution = before.run(work, "go", patience=0)
    after, _ = deployed(allowed, destructive=destructive)
    for _ in range(2):
        for each in after.approvals.pending().approvals:
            after.approvals.approve(each.execution_id, each.step_id, by="ann")
        after.run_until_idle()
    assert after.executions.get(execution.id).output == "done"
    assert says in told(asked)[0] and done == effects


@pytest.mark.parametrize("beside", [False, True])
def test_a_tool_that_has_failed_is_told_as_that_after_a_resume(kernel, beside):
    """Not as interrupted: its error is known. It isn't made again, for it may have done its work."""
    done = []
    asked_for = [("close", {}), ("shop_pay", {})] if beside else [("close", {})]
    model, asked = answering(asked_for, "done")

    @kernel.action("shop.pay")
    def pay() -> None:
        done.append("pay")
        raise AutomateError("PERMISSION_DENIED", "the bank says no")

    agent = Agent(model, name="desk", toolsets=[OperationToolset(kernel, ["shop.pay"])])

    @agent.tool_plain
    def close() -> str:
        done.append("close")
        raise OSError("the disk is full")

    execution = kernel.run(running(kernel, agent), "go")
    assert execution.status == "FAILED" and "the disk is full" in execution.error
    kernel.executions.resume(execution.id)
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done"
    texts = told(asked)
    assert "It failed: " in texts[0] and "the disk is full" in texts[0]
    assert "not been made again" in texts[0]
    if beside:
        assert "the bank says no" in texts[1]
    assert sorted(done) == ["close", "pay"][: 1 + beside] and len(asked) == 2


def test_a_call_that_is_made_again_on_purpose_and_cut_is_told_as_interrupted(kernel, monkeypatch):
    """What the one before it has failed with is not its error."""
    model, asked = answering([("close", {})], "done")
    agent = Agent(model, name="desk")

    @agent.tool_plain
    def close() -> str:
        raise OSError("the disk is full")

    execution = kernel.run(running(kernel, agent), "go")
    begin = ToolCall._begin

    async def of_a_process_that_dies_then(call: ToolCall) -> Any:
        noted = await begin(call)
        call.begun = False
        return noted

    monkeypatch.setattr(ToolCall, "_begin", of_a_process_that_dies_then)
    kernel.executions.resume(execution.id, step_id="desk-close-begin")
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == "done"
    assert "interrupted before its result was known" in told(asked)[0]
