"""The workflow ``llm.agent``: a durable agent for workflows in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.messages import ModelResponse
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import RunContext, ToolDefinition

from automate_kernel import AutomateError, ErrorCodes, Kernel, WorkflowContext
from automate_kernel.operations.exposure import check_tools
from automate_llm.agent_run import run_agent
from automate_llm.durability import AutomateDurability
from automate_llm.model_answers import usage_of_all
from automate_llm.operation_toolset import OperationToolset
from automate_llm.provider import LlmProvider
from automate_llm.structured import checking, structured_output

NAME = "llm.agent"


class AgentTask(BaseModel):
    """The input of ``llm.agent``."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(description="What the agent is to do.")
    instructions: str | None = Field(default=None, description="How it should do that.")
    tools: list[str] = Field(default=[], description="Operations that it may call, or patterns.")
    output_schema: dict[str, Any] | None = Field(
        default=None, description="The JSON Schema of its output; text without one."
    )
    service: str | None = Field(default=None, description="The service's name in the config.")
    most_requests: int = Field(default=20, ge=1, le=500, description="Requests at most.")
    most_tokens: int | None = Field(default=None, ge=1, description="Tokens in all, at most.")


def add_agents(
    kernel: Kernel,
    operations: Sequence[str] = (),
    *,
    approval: Mapping[str, Any] | None = None,
    provider: str = "llm",
) -> None:
    """
    Add the workflow ``llm.agent`` to *kernel*: a step with ``workflow: llm.agent`` runs an agent.

    *operations* names all that an agent may ever call, as for `OperationToolset`; a task chooses
    among them. *approval* is that of `AutomateDurability`. *provider* is the key of the
    `LlmProvider`. Raises `ConfigError` for an operation that no model can call.
    """
    allowed = tuple(operations)
    check_tools(kernel.operations, allowed)

    async def agent(ctx: WorkflowContext, task: AgentTask) -> dict[str, Any]:
        """Run an agent with instructions, tools, an output schema and bounds."""
        _check_tools(task.tools, allowed)
        made: LlmProvider = kernel.provider(provider)
        durability = AutomateDurability[Any](kernel, approval=approval)
        run = _agent_of(kernel, made, task, allowed, durability).run(
            task.prompt,
            usage_limits=UsageLimits(
                request_limit=task.most_requests, total_tokens_limit=task.most_tokens
            ),
            model_settings=made.model_settings(task.service),
        )
        result = await run_agent(ctx, run)
        return _outcome(result)

    kernel.workflow(name=NAME, title="An agent")(agent)


def _check_tools(chosen: Sequence[str], allowed: Sequence[str]) -> None:
    for name in chosen:
        if not any(name == each or fnmatchcase(name, each) for each in allowed):
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                f"an agent may not call {name!r}",
                hint="name it in add_agents(kernel, operations=[…]) of the application",
            )


def _agent_of(
    kernel: Kernel,
    provider: LlmProvider,
    task: AgentTask,
    allowed: Sequence[str],
    durability: AutomateDurability[Any],
) -> Agent[Any, Any]:
    def is_chosen(_: RunContext[Any], tool: ToolDefinition) -> bool:
        operation = str((tool.metadata or {}).get("operation"))
        return any(fnmatchcase(operation, each) for each in task.tools)

    toolsets = [OperationToolset(kernel, allowed).filtered(is_chosen)] if task.tools else []
    output: Any = str
    if task.output_schema is not None:
        output = structured_output(task.output_schema, provider.structured_by(task.service))
    agent: Agent[Any, Any] = Agent(
        provider.model(task.service),
        name="agent",
        output_type=output,
        instructions=task.instructions,
        toolsets=toolsets,
        capabilities=[durability],
    )
    if task.output_schema is not None:
        agent.output_validator(checking(task.output_schema))
    return agent


def _outcome(result: AgentRunResult[Any]) -> dict[str, Any]:
    answers = [each for each in result.new_messages() if isinstance(each, ModelResponse)]
    return {"output": result.output, **usage_of_all(answers)}
