"""A real small model behind a real OpenAI-compatible server."""

from __future__ import annotations

import pytest
from llm_support import scripted_model
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.settings import ModelSettings

from automate_kernel import WorkflowContext
from automate_llm import DurableAgent

# Half a minute each on a slow machine, and minutes on a busy one.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1_500)]
SHORT = ModelSettings(max_tokens=40, temperature=0.0)


class City(BaseModel):
    name: str
    large: bool


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_durable_agent_chats_with_it(kernel, small_model, stream):
    agent = Agent(scripted_model(small_model), name="small", model_settings=SHORT)
    durable = DurableAgent(agent, kernel, stream=stream)

    @kernel.workflow
    async def work(ctx: WorkflowContext, prompt: str) -> str:
        return (await durable.run(ctx, prompt)).output

    execution = kernel.run(work, "What is the capital of France?")
    # What it says is a model's of that size.
    assert execution.output and isinstance(execution.output, str), execution.error
    record = execution.step("small-model").output
    assert record["input_tokens"] > 5 and 1 < record["output_tokens"] <= 40
    assert record["response"]["parts"][0]["content"] == execution.output
    if stream:
        shown = kernel.executions.get(execution.id).step("small-model").progress["value"]
        assert shown["text"] == execution.output


def test_it_obeys_a_json_schema(kernel, small_model):
    agent = Agent(
        scripted_model(small_model), name="small", output_type=NativeOutput(City),
        model_settings=SHORT,
    )  # fmt: skip
    durable = DurableAgent(agent, kernel)

    @kernel.workflow
    async def work(ctx: WorkflowContext, prompt: str) -> City:
        return (await durable.run(ctx, prompt)).output

    execution = kernel.run(work, "Describe Paris as JSON.")
    assert execution.status == "COMPLETED", execution.error
    assert set(execution.output) == {"name", "large"}
