"""The provider ``mcp``: the tools of a server as capabilities."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from automate_kernel import BaseProvider, CapabilitySpec, ProviderContext, current_call
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_mcp.config import McpConfig

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import Tool

    from automate_mcp.connection import Connection
    from automate_mcp.tools import RemoteTool

_MOST_TOOLS = 2_000
_MOST_PAGES = 100


class McpProvider(BaseProvider):
    """
    The allowed tools of one server of MCP, each a capability.

    The server is started, or connected to, at the first call or when somebody asks for the schemas.
    Register the class under a key for each server: ``kernel.register(McpProvider, key="files")``.
    """

    key = "mcp"
    display_name = "MCP server"

    def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
        super().__init__(config, ctx=ctx)
        self._settings: McpConfig = self.parse_config(config)
        self._lock = threading.Lock()
        self._tools: Mapping[str, RemoteTool] | None = None
        self._changes = 0
        self._made: Connection | None = None

    @classmethod
    def config_schema(cls) -> type[McpConfig]:
        """Return the model of the config: the server, the allowed tools, bounds."""
        return McpConfig

    async def own_operations(self) -> Mapping[str, CapabilitySpec]:
        """Return the specs of the allowed tools; the server is asked after it told of a change."""
        return {name: tool.spec for name, tool in (await self._allowed()).items()}

    async def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
        """Call a tool. Its progress is the step's, and a cancelled step cancels it."""
        tools = await self._allowed()
        tool = tools.get(name)
        if tool is None:
            self.find_own(name, {each: known.spec for each, known in tools.items()})
            raise AssertionError(name)
        call = current_call()

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            if call is not None:
                call.progress(progress / total if total else progress, message and message[:500])

        async def ask(client: Client) -> Any:
            return await client.call_tool(
                tool.name, input_data, tool.timeout_seconds, progress_callback=tell
            )

        try:
            result = await (await self._connection()).use(
                ask, idempotent=tool.spec.idempotent, proves=True
            )
        except RuntimeError:
            # The SDK's, which quotes the result: it doesn't fit the schema that goes with it.
            raise AutomateError(
                ErrorCodes.DATA_LOSS,
                f"the result of the tool {tool.name!r} doesn't fit its own schema",
                hint="the tool has been called; report it to the author of the server",
                retryable=False,
            ) from None
        from automate_mcp.results import failure_of, output_of

        if result.is_error:
            raise failure_of(result, tool.name)
        return output_of(result, typed=tool.typed, most=self._settings.max_result_bytes)

    async def check(self) -> str:
        """Connect, list the tools, and say how many of them are allowed."""

        async def ask(client: Client) -> str:
            found = await _listed(client)
            info = client.server_info
            server = f"{info.name} {info.version}".strip() if info else "the server"
            allowed = len(self._remote(found))
            return f"{server} has {len(found)} tool(s), {allowed} of them allowed"

        return await (await self._connection()).use(ask)

    def close(self) -> None:
        """End the session, and the process of the server."""
        with self._lock:
            made, self._made, self._tools = self._made, None, None
        if made is not None:
            made.close()

    async def _allowed(self) -> Mapping[str, RemoteTool]:
        tools, changes = self._tools, self._changes
        if tools is None:
            tools = self._remote(await (await self._connection()).use(_listed))
            if changes == self._changes:  # none came while they were read
                self._tools = tools
        return tools

    def _remote(self, found: list[Tool]) -> Mapping[str, RemoteTool]:
        from automate_mcp.tools import remote_tools

        return remote_tools(found, self._settings, self.ctx.logger)

    def _tools_changed(self) -> None:
        self._changes += 1
        self._tools = None

    async def _connection(self) -> Connection:
        made = self._made
        # On a thread: the SDK takes its time to be imported.
        return made if made is not None else await asyncio.to_thread(self._connect)

    def _connect(self) -> Connection:
        from automate_mcp.connection import Connection

        with self._lock:
            if self._made is None:
                self._made = Connection(
                    self.ctx.key,
                    self._settings,
                    environment=self._environment,
                    changed=self._tools_changed,
                    log=self._log,
                    logger=self.ctx.logger,
                )
            return self._made

    def _environment(self) -> dict[str, str]:
        inherited = {n: os.environ[n] for n in self._settings.inherit_env if n in os.environ}
        own = {name: value.get_secret_value() for name, value in self._settings.env.items()}
        return {**inherited, **own}

    def _log(self, line: str) -> None:
        self.ctx.logger.info("the server of %r: %s", self.ctx.key, self.ctx.redact(line))


async def _listed(client: Client) -> list[Tool]:
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
