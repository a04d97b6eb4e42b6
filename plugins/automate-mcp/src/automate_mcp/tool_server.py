"""A server as one account sees it: its session, and its list of tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_mcp.connection import Connection
from automate_mcp.tools import RemoteTool, remote_tools

if TYPE_CHECKING:
    import logging

    from mcp import Client
    from mcp.types import Tool

    from automate_mcp.config import McpConfig

_MOST_TOOLS = 2_000
_MOST_PAGES = 100


class ToolServer:
    """The allowed tools of a server over *connect*'s connection, read again when they change."""

    def __init__(
        self,
        config: McpConfig,
        logger: logging.Logger,
        connect: Callable[[Callable[[], None]], Connection],
    ) -> None:
        self._config, self._logger = config, logger
        self._tools: Mapping[str, RemoteTool] | None = None
        self._changes = 0
        self.connection: Connection = connect(self._changed)

    async def allowed(self) -> Mapping[str, RemoteTool]:
        """Return the allowed tools; the server is asked after it told of a change."""
        tools, changes = self._tools, self._changes
        if tools is None:
            tools = self.allowed_of(await self.connection.use(listed_tools))
            if changes == self._changes:  # none came while they were read
                self._tools = tools
        return tools

    def allowed_of(self, found: list[Tool]) -> Mapping[str, RemoteTool]:
        """Return the allowed ones of the tools *found*."""
        return remote_tools(found, self._config, self._logger)

    def _changed(self) -> None:
        self._changes += 1
        self._tools = None


async def listed_tools(client: Client) -> list[Tool]:
    """Return all tools of a server, page by page."""
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
        if len(found) > _MOST_TOOLS:
            break
    raise AutomateError(
        ErrorCodes.RESOURCE_EXHAUSTED,
        f"the server lists more than {_MOST_TOOLS:,} tools",
        hint="its list may have no end: ask its author",
        retryable=False,
    )
