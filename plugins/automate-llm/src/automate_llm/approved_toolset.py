"""The tools of an agent, of which a person approves what destroys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset

from automate_kernel import ApprovalAnswer, WorkflowContext
from automate_llm.durable_run import DurableRun
from automate_llm.tool_call import ToolSteps, hints_of

_MOST_SHOWN = 3_000


@dataclass
class ApprovedToolset(WrapperToolset[Any]):
    """A toolset whose destructive tools wait for an approval: a step of the workflow of *run*."""

    run: DurableRun
    agent: str
    steps: ToolSteps
    approval: Mapping[str, Any]

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tools. Those that need an approval ask for it when they are called."""
        tools = await self.wrapped.get_tools(ctx)
        return {name: _asking(tool) for name, tool in tools.items()}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call a tool, after an approval if it needs one."""
        if hints_of(name, tool.tool_def).destructive and not ctx.tool_call_approved:
            ctx = await self._approved(name, tool_args, ctx)
        try:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        except ApprovalRequired:
            if ctx.tool_call_approved:
                raise
        ctx = await self._approved(name, tool_args, ctx)
        return await self.wrapped.call_tool(name, tool_args, ctx, tool)

    async def _approved(
        self, name: str, arguments: dict[str, Any], ctx: RunContext[Any]
    ) -> RunContext[Any]:
        """Ask a person; raises `ToolFailed` if the call is refused, or nobody decides in time."""
        shown = json.dumps(arguments, ensure_ascii=False, indent=1, default=str)
        cut = "" if len(shown) <= _MOST_SHOWN else "\n…"

        async def perform(workflow: WorkflowContext) -> ApprovalAnswer:
            return await workflow.approve(
                f"{self.agent} wants to call {name}",
                description=shown[:_MOST_SHOWN] + cut,
                name=self.steps.name(name) + "-approve",
                on_reject="continue",
                on_timeout="continue",
                **self.approval,
            )

        answer = await self.run.ask(perform)
        if answer.approved:
            return replace(ctx, tool_call_approved=True)
        if answer.timed_out:
            raise ToolFailed("Nobody decided on this call in time.")
        said = f": {answer.comment}" if answer.comment else "."
        raise ToolFailed(f"{answer.by} refused this call{said}")


def _asking(tool: ToolsetTool[Any]) -> ToolsetTool[Any]:
    known = tool.tool_def
    if known.kind != "unapproved":
        return tool
    metadata = {**(known.metadata or {}), "destructive": True}
    return replace(tool, tool_def=replace(known, kind="function", metadata=metadata))
