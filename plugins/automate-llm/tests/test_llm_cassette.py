"""Recorded answers: given again without a service, and without secrets in the file."""

from __future__ import annotations

from typing import Any

from llm_support import SECRET, answers_given, calls, says, scripted, scripted_model
from pydantic_ai import Agent
from pydantic_ai.models import Model

from automate_kernel import Kernel, WorkflowContext
from automate_llm import CassetteModel, DurableAgent


def script(request: dict[str, Any]) -> dict[str, Any]:
    if answers_given(request) == 0:
        return calls(("find", {"number": 7}))
    return says(f"It costs 40, and the token is {SECRET}")


def run(kernel: Kernel, model: Model, prompt: str, name: str) -> Any:
    agent = Agent(model, name="desk")

    @agent.tool_plain(metadata={"idempotent": True})
    def find(number: int) -> str:
        return f"order {number} costs 40"

    durable = DurableAgent(agent, kernel)

    @kernel.workflow(name=name)
    async def work(ctx: WorkflowContext, prompt: str) -> str:
        return (await durable.run(ctx, prompt)).output

    return kernel.run(work, prompt)


def test_a_recorded_run_is_played_without_the_service(kernel, tmp_path):
    path = tmp_path / "answers.json"
    with scripted(script) as service:
        model = CassetteModel(service.model, path, record=True, redactor=kernel.redactor)
        recorded = run(kernel, model, f"order 7 with {SECRET}?", "record")
        assert recorded.output.startswith("It costs 40"), recorded.error
        url = service.url
    assert SECRET not in path.read_text() and "tool_name" in path.read_text()
    model = CassetteModel(scripted_model(url), path, redactor=kernel.redactor)
    played = run(kernel, model, f"order 7 with {SECRET}?", "play")
    assert played.output == recorded.output, played.error
    assert len(service.requests) == 2


def test_a_request_that_was_not_recorded_is_an_error(kernel, tmp_path):
    path = tmp_path / "answers.json"
    with scripted(script) as service:
        execution = run(kernel, CassetteModel(service.model, path), "new?", "new")
        assert execution.error_code == "FAILED_PRECONDITION" and "record=True" in execution.error
        assert service.requests == [] and not path.exists()


def test_the_same_request_twice_has_two_answers(tmp_path):
    path = tmp_path / "answers.json"
    answers = iter(["one", "two"])
    with scripted(lambda _: says(next(answers))) as service:
        agent = Agent(CassetteModel(service.model, path, record=True))
        assert [agent.run_sync("go").output for _ in range(2)] == ["one", "two"]
        agent = Agent(CassetteModel(service.model, path))
        assert [agent.run_sync("go").output for _ in range(2)] == ["one", "two"]
        assert len(service.requests) == 2
