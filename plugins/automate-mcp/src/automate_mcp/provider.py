"""The provider ``mcp``: the tools of a server as capabilities."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from automate_kernel import BaseProvider, CapabilitySpec, ProviderContext, current_call
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.outputs import check_sendable
from automate_kernel.operations.spec import OperationSpec
from automate_mcp.config import McpConfig
from automate_mcp.signing import RequestSigning, accounts_of

if TYPE_CHECKING:
    from mcp import Client

    from automate_http import OAuth2, OAuthAccount
    from automate_mcp.connection import Connection
    from automate_mcp.tool_server import ToolServer

# Each has a session, on a thread of its own; the oldest that nobody uses makes room.
_MOST_ACCOUNTS = 50
_MOST_PROBLEMS = 20


class _Specs(dict[str, CapabilitySpec]):
    """The specs of a server's tools, and what is wrong with those that can't be read."""

    def __init__(self, specs: Mapping[str, CapabilitySpec], left_out: Mapping[str, str]) -> None:
        super().__init__(specs)
        self.left_out = left_out


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
        self._accounts: OAuth2 | None = None
        # By the keys of accounts, which are those of tenants.
        self._servers: dict[str, ToolServer] = {}

    @classmethod
    def config_schema(cls) -> type[McpConfig]:
        """Return the model of the config: the server, the allowed tools, bounds."""
        return McpConfig

    async def own_operations(self) -> Mapping[str, CapabilitySpec]:
        """Return the specs of the allowed tools, as the server listed them minutes ago at most."""
        tools = await (await self._server()).allowed()
        return _Specs({name: tool.spec for name, tool in tools.by_name.items()}, tools.left_out)

    def find_own(self, name: str, own: Mapping[str, OperationSpec]) -> OperationSpec:
        """Return the spec of a tool; one that is left out is told with what is wrong with it."""
        fault = own.left_out.get(name) if isinstance(own, _Specs) else None
        if fault is not None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the server of {self.ctx.key!r} describes its tool {name!r} in a way that nobody"
                f" can read: {fault}",
                hint="report it to the author of the server; its other tools work",
                retryable=False,
            )
        return super().find_own(name, own)

    async def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
        """Call a tool. Its progress is the step's, and a cancelled step cancels it."""
        server = await self._server()
        tool = (await server.allowed()).by_name.get(name)
        if tool is None:
            self.find_own(name, await self.own_operations())
            raise AssertionError(name)
        # In the session it would end that, for all who use it.
        check_sendable(input_data, f"input of {name!r}")
        call = current_call()

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            if call is not None:
                call.progress(progress / total if total else progress, message and message[:500])

        async def ask(client: Client) -> Any:
            return await client.call_tool(
                tool.name, input_data, tool.timeout_seconds, progress_callback=tell
            )

        try:
            result = await server.connection.use(ask, idempotent=tool.spec.idempotent, proves=True)
        except AutomateError:
            server.changed()  # perhaps: it may have refused a tool that it has no more
            raise
        from automate_mcp.results import failure_of, output_of

        if result.is_error:
            server.changed()  # servers say so in this way, too
            raise failure_of(result, tool.name)
        structured = result.structured_content
        if tool.typed and (structured is None or (tool.check and tool.check(structured))):
            raise AutomateError(
                ErrorCodes.DATA_LOSS,
                f"the result of the tool {tool.name!r} doesn't fit its own schema",
                hint="the tool has been called; report it to the author of the server",
                retryable=False,
            )
        return output_of(result, typed=tool.typed, most=self._settings.max_result_bytes)

    async def check(self) -> str:
        """Connect, list the tools, and say how many of them are allowed."""
        server = await self._server()

        async def ask(client: Client) -> str:
            from automate_mcp.tool_server import listed_tools

            found = await listed_tools(client)
            info = client.server_info
            named = f"{info.name} {info.version}".strip() if info else "the server"
            allowed = await asyncio.to_thread(server.allowed_of, found)
            said = f"{named} has {len(found.tools)} tool(s), {len(allowed.by_name)} of them allowed"
            return "; ".join([said, *allowed.problems[:_MOST_PROBLEMS]])

        return await server.connection.use(ask)

    def oauth(self) -> OAuth2 | None:
        """Return the account at the server's authorization server, if the config has ``oauth``."""
        settings, url = self._settings.oauth, self._settings.url
        if settings is None or url is None:
            return None
        if self._accounts is None:
            self._accounts = accounts_of(self.ctx.key, url, settings)
        return self._accounts

    def close(self) -> None:
        """End the sessions, and the process of the server."""
        with self._lock:
            servers, self._servers = self._servers, {}
        for server in servers.values():
            server.connection.close()

    async def _server(self) -> ToolServer:
        """Return the server as the account of the current call sees it."""
        accounts = self.oauth()
        account = None
        if accounts is not None:
            account = await asyncio.to_thread(accounts.for_call, self.ctx.secrets)
            # Here, where its error says how to connect the account, and not in a session.
            await account.credentials(self.ctx.secrets)
        # On a thread: the SDK takes its time to be imported, and a session to be closed.
        made = self._servers.get(account.key if account is not None else "")
        return made if made is not None else await asyncio.to_thread(self._made, account)

    def _made(self, account: OAuthAccount | None) -> ToolServer:
        from automate_kernel.operations.call_rates import ServiceWait
        from automate_mcp.connection import Connection
        from automate_mcp.tool_server import ToolServer

        key = account.key if account is not None else ""
        about = ("provider", self.ctx.key, self.ctx.tenant_id or "", key)

        def connect(changed: Callable[[], None]) -> Connection:
            return Connection(
                self.ctx.key,
                self._settings,
                environment=self._environment,
                changed=changed,
                log=self._log,
                logger=self.ctx.logger,
                signing=RequestSigning(account, self.ctx.secrets) if account is not None else None,
                wait=ServiceWait(about, self.ctx.call_rates),
            )

        ended: list[ToolServer] = []
        with self._lock:
            if key not in self._servers:
                idle = [name for name, one in self._servers.items() if not one.connection.busy]
                surplus = max(0, len(self._servers) - _MOST_ACCOUNTS + 1)
                ended = [self._servers.pop(name) for name in idle[:surplus]]
                self._servers[key] = ToolServer(self._settings, self.ctx.logger, connect)
            found = self._servers[key]
        for server in ended:
            server.connection.close()
        return found

    def _environment(self) -> dict[str, str]:
        inherited = {n: os.environ[n] for n in self._settings.inherit_env if n in os.environ}
        own = {name: value.get_secret_value() for name, value in self._settings.env.items()}
        return {**inherited, **own}

    def _log(self, line: str) -> None:
        self.ctx.logger.info("the server of %r: %s", self.ctx.key, self.ctx.redact(line))
