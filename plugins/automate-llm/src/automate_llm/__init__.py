"""Language models: durable agents, chat, structured output and embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_llm.agent_run import run_agent
    from automate_llm.agent_workflow import add_agents
    from automate_llm.cassette import CassetteModel
    from automate_llm.durability import AutomateDurability
    from automate_llm.durable_agent import DurableAgent
    from automate_llm.operation_toolset import OperationToolset
    from automate_llm.provider import LlmProvider

__all__ = [
    "AutomateDurability",
    "CassetteModel",
    "DurableAgent",
    "LlmProvider",
    "OperationToolset",
    "add_agents",
    "run_agent",
]

_PLACES = {
    "AutomateDurability": "durability",
    "CassetteModel": "cassette",
    "DurableAgent": "durable_agent",
    "LlmProvider": "provider",
    "OperationToolset": "operation_toolset",
    "add_agents": "agent_workflow",
    "run_agent": "agent_run",
}


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        # A kernel that only lists its plugins does not wait for pydantic-ai.
        if name in _PLACES:
            return getattr(import_module(f"automate_llm.{_PLACES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
