"""Runs of durable agents in a workflow."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability

from automate_kernel import AutomateError, ConfigError, ErrorCodes, WorkflowContext
from automate_llm.durability import AutomateDurability
from automate_llm.durable_run import DurableRun

T = TypeVar("T")

_HINT = (
    "give it the capability AutomateDurability: Agent(…, capabilities=[AutomateDurability(kernel)])"
)


async def run_agent(ctx: WorkflowContext, work: Coroutine[Any, Any, T]) -> T:
    """
    Await *work*, which runs agents, in the workflow of *ctx*, and return its result.

    ``await run_agent(ctx, agent.run("…"))`` is the usual way. *work* may be a coroutine of your own
    too, with several agents, ``agent.iter`` or ``agent.run_stream``. Each agent needs the
    capability `AutomateDurability`. A replay takes recorded answers and results, and goes on where
    they end. Raises `AutomateError` for what goes wrong: `StepFailedError` if the model or a tool
    of the agent's own fails for good, and ``RESOURCE_EXHAUSTED`` if usage limits are reached.
    """
    if not inspect.iscoroutine(work):
        raise ConfigError(
            "run_agent takes a coroutine that runs an agent",
            hint='await run_agent(ctx, agent.run("…")), without await in front of agent.run',
        )
    try:
        if not isinstance(ctx, WorkflowContext):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "a durable agent runs in an async def workflow",
                hint="pass the context that the workflow gets as its first argument",
            )
        _check_durable(work)
        run = DurableRun(ctx.uuid())
        result: T = await run.result_of(ctx, work)
    finally:
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            work.close()
    if not run.agents:
        raise ConfigError("no durable agent ran in run_agent", hint=_HINT)
    return result


def _check_durable(work: Coroutine[Any, Any, Any]) -> None:
    """Refuse the run of an agent that has no durability, before it asks a model."""
    given = inspect.getcoroutinelocals(work)
    agent, more = given.get("self"), given.get("capabilities")
    if isinstance(agent, AbstractAgent) and not more and not _is_durable(agent.root_capability):
        name = repr(agent.name) if agent.name else "without a name"
        raise ConfigError(f"the agent {name} is not durable", hint=_HINT)


def _is_durable(root: AbstractCapability[Any]) -> bool:
    found: list[bool] = []
    root.apply(lambda each: found.append(isinstance(each, AutomateDurability)))
    return any(found)
