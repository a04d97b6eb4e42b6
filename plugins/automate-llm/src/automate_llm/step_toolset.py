"""Toolsets whose calls are made in a step: they are entered there, and spend there."""

from __future__ import annotations

from typing import Any

from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset


class StepToolset(WrapperToolset[Any]):
    """A toolset that is entered for each call, on the event loop of the step that makes it."""

    @property
    def id(self) -> str | None:
        """The toolset's id."""
        return self.wrapped.id

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call a tool of the toolset, or of its copy for the run."""
        own = type(tool.toolset) is type(self.wrapped)
        toolset = tool.toolset if own else self.wrapped
        async with toolset:
            return await toolset.call_tool(name, tool_args, ctx, tool)
