"""The workflow ``llm.agent``, as a step of a workflow in YAML."""

from __future__ import annotations

from typing import Any

import yaml
from llm_support import CITY, answers_given, calls, kernel_for, says, scripted

from automate_kernel import Kernel
from automate_llm import add_agents

FLOW = """
name: desk
trigger: {type: manual}
steps:
  - id: agent
    workflow: llm.agent
    input:
      prompt: "{{ event.payload.text }}"
      instructions: Look the order up first.
      tools: ["orders.find", "orders.refund"]
      most_requests: 5
output: "{{ steps.agent.output.output }}"
"""


def shop(kernel: Kernel) -> list[int]:
    refunds: list[int] = []

    @kernel.action("orders.find", read_only=True)
    def find(number: int) -> dict:
        return {"number": number, "total": 40}

    @kernel.action("orders.refund", destructive=True)
    def refund(number: int) -> str:
        refunds.append(number)
        return "refunded"

    @kernel.action("orders.list", read_only=True)
    def every() -> list[int]:
        return [7]

    return refunds


def desk(request: dict[str, Any]) -> dict[str, Any]:
    given = answers_given(request)
    if given < 2:
        return calls(("orders_find" if given == 0 else "orders_refund", {"number": 7}))
    return says("Done: " + request["messages"][-1]["content"])


def test_a_step_in_yaml_runs_an_agent_that_asks_a_person(tmp_path):
    with scripted(desk) as service:
        kernel = kernel_for(service.url, max_tokens=99)
        refunds = shop(kernel)
        add_agents(kernel, ["orders.*", "orders.refund"], approval={"by": ["ann"]})
        (tmp_path / "desk.yaml").write_text(FLOW)
        kernel.add_workflow(tmp_path / "desk.yaml")
        execution = kernel.run("desk", {"text": "order 7 is broken"}, patience=0)
        (waiting,) = kernel.approvals.pending().approvals
        assert waiting.title == "agent wants to call orders_refund" and refunds == []
        kernel.approvals.approve(waiting.execution_id, waiting.step_id, by="ann")
        kernel.run_until_idle()
        execution = kernel.executions.get(execution.id)
        assert execution.output == "Done: refunded", execution.error
        assert refunds == [7] and len(service.requests) == 3
        assert execution.step("agent").output["input_tokens"] == 60
    request = service.requests[0]
    # Of what may be called at all, the task has chosen two.
    assert [each["function"]["name"] for each in request["tools"]] == [
        "orders_find", "orders_refund"
    ]  # fmt: skip
    assert request["messages"][0]["content"] == "Look the order up first."
    assert request["max_completion_tokens"] == 99


def test_a_task_chooses_only_among_what_the_application_allows():
    with scripted(desk) as service:
        kernel = kernel_for(service.url)
        refunds = shop(kernel)
        add_agents(kernel, ["orders.find"])
        for tools in (["orders.refund"], ["orders.*"], ["*"]):
            execution = kernel.run("llm.agent", {"prompt": "refund 7", "tools": tools})
            assert execution.error_code == "PERMISSION_DENIED", execution.error
        assert refunds == [] and service.requests == []


def test_its_output_fits_a_schema_and_its_requests_are_bounded():
    answers = [{"name": "Paris"}, {"name": "Paris", "large": True}]
    with scripted(lambda _: calls(("final_result", answers[len(service.requests) - 1]))) as service:
        kernel = kernel_for(service.url)
        add_agents(kernel)
        execution = kernel.run("llm.agent", {"prompt": "Paris?", "output_schema": CITY})
        assert execution.output["output"] == answers[1], execution.error
        assert execution.output["requests"] == 2
        service.requests.clear()
        task = {"prompt": "Paris?", "output_schema": CITY, "most_requests": 1}
        execution = kernel.run("llm.agent", task)
        assert execution.error_code == "RESOURCE_EXHAUSTED" and len(service.requests) == 1


def test_a_resumed_parent_pays_for_no_answer_twice():
    """Its step goes on with the agent's own execution, which failed at its third request."""
    broken = [True]

    def desk_of_a_service_that_fails(request: dict[str, Any]) -> Any:
        if answers_given(request) == 2 and broken:
            return 401, {}, {"error": {"message": "the key is no more"}}
        return desk(request)

    with scripted(desk_of_a_service_that_fails) as service:
        kernel = kernel_for(service.url)
        refunds = shop(kernel)
        add_agents(kernel, ["orders.*", "orders.refund"])
        kernel.add_workflow(yaml.safe_load(FLOW))
        execution = kernel.run("desk", {"text": "order 7 is broken"}, patience=0)
        (waiting,) = kernel.approvals.pending().approvals
        kernel.approvals.approve(waiting.execution_id, waiting.step_id, by="ann")
        kernel.run_until_idle()
        execution = kernel.executions.get(execution.id)
        assert execution.error_code == "UNAUTHENTICATED", execution.error
        broken.clear()
        kernel.executions.resume(execution.id)
        kernel.run_until_idle()
        execution = kernel.executions.get(execution.id)
        assert execution.output == "Done: refunded", execution.error
    assert [answers_given(each) for each in service.requests] == [0, 1, 2, 2]
    assert refunds == [7] and len(kernel.executions.find(workflow="llm.agent")) == 1
    assert execution.step("agent").output["input_tokens"] == 60
