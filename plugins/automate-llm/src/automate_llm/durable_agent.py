"""Agents that were made elsewhere, with durability for their runs in a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from automate_kernel import ConfigError, Kernel, WorkflowContext
from automate_llm.agent_run import run_agent
from automate_llm.durability import AutomateDurability

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")


class DurableAgent(Generic[DepsT, OutputT]):
    """
    An agent that gets `AutomateDurability` for a run, and stays as it is.

    It is for an agent that you don't make yourself. *options* are those of `AutomateDurability`;
    the names of its steps begin with "agent" if the agent has no name.
    """

    def __init__(self, agent: Agent[DepsT, OutputT], kernel: Kernel, **options: Any) -> None:
        self.agent: Agent[DepsT, OutputT] = agent
        self._name: str = options.pop("name", None) or agent.name or "agent"
        self._durability: AutomateDurability[Any] = AutomateDurability(
            kernel, name=self._name, **options
        )

    async def run(
        self,
        ctx: WorkflowContext,
        prompt: str | Sequence[Any] | None = None,
        *,
        deps: Any = None,
        message_history: Sequence[ModelMessage] | None = None,
        usage_limits: UsageLimits | None = None,
        model: Model | str | None = None,
        model_settings: ModelSettings | None = None,
    ) -> AgentRunResult[OutputT]:
        """
        Run the agent in the workflow of *ctx*, and return its result; raises as `run_agent` does.

        The arguments are those of the agent's own ``run``.
        """
        if model is None and self.agent.model is None:
            raise ConfigError(
                f"the agent {self._name!r} has no model",
                hint="give Agent or DurableAgent.run a model",
            )
        agent: Any = self.agent

        async def work() -> AgentRunResult[OutputT]:
            with nullcontext() if model is None else agent.override(model=model):
                result: AgentRunResult[OutputT] = await agent.run(
                    prompt,
                    deps=deps,
                    message_history=message_history,
                    usage_limits=usage_limits,
                    model_settings=model_settings,
                    infer_name=False,
                    capabilities=[self._durability],
                )
            return result

        return await run_agent(ctx, work())
