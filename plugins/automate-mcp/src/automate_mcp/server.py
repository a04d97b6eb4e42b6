"""The server: which tools a caller has, and the bounds around their calls."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol

from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, did_you_mean
from automate_kernel.operations.exposure import (
    allowed_operations,
    check_tools,
    model_schema,
    tool_name,
)
from automate_kernel.secrets.logs import get_logger
from automate_mcp.answers import failed
from automate_mcp.approved_calls import ApprovedCalls
from automate_mcp.executions import Executions
from automate_mcp.operation_tools import OperationTool
from automate_mcp.progress import Send
from automate_mcp.settings import Caller, ServeSettings
from automate_mcp.workflow_tools import StartTool, approval_tools, execution_tools

logger: logging.Logger = get_logger(__name__)

# What is offered may change: plugins ask their servers, files of workflows are read again.
_KEPT_SECONDS = 5.0
_MOST_TENANTS = 1_000
IDEMPOTENCY_KEY = "automate/idempotency-key"
"""The key in ``_meta`` of a call: a second call with the same value is the first one."""
_LONGEST_KEY = 200
_INSTRUCTIONS = """\
Operations and workflows of an application. A tool that deletes, pays or sends may answer with an \
execution that waits for a person's approval: ask for its state by execution_status, and don't \
call it again. A failed tool says in "error" whether a retry can help."""


class Offer(Protocol):
    """One tool: the scope that its callers need, what they see of it, and its call."""

    @property
    def scope(self) -> str: ...  # noqa: D102
    def definition(self, name: str) -> types.Tool: ...  # noqa: D102
    async def call(  # noqa: D102
        self, caller: Caller, arguments: dict[str, Any], key: str | None, send: Send
    ) -> types.CallToolResult: ...


class Offers:
    """
    The tools that *settings* offer of *kernel*.

    Raises `ConfigError` if they name an operation that no client can call.
    """

    def __init__(self, kernel: Kernel, settings: ServeSettings) -> None:
        check_tools(kernel.operations, settings.operations)
        self._kernel = kernel
        self._settings = settings
        self._executions = Executions(kernel, settings)
        self._approved = ApprovedCalls(kernel, settings, self._executions)
        self._kept: dict[str | None, tuple[float, dict[str, Offer]]] = {}

    def of(self, caller: Caller) -> dict[str, Offer]:
        """
        Return the tools of a caller by their names. Others are not there for it.

        A plugin may have to ask its server: call it on a thread.
        """
        at, offers = self._kept.get(caller.tenant_id, (0.0, {}))
        if not offers or time.monotonic() - at > _KEPT_SECONDS:
            offers = self._found(caller.tenant_id)
            if len(self._kept) >= _MOST_TENANTS:
                self._kept = {}
            self._kept[caller.tenant_id] = (time.monotonic(), offers)
        return {name: offer for name, offer in offers.items() if caller.allows(offer.scope)}

    def _found(self, tenant_id: str | None) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        for tools in (execution_tools, approval_tools):
            for tool in tools(self._executions, self._settings):
                found[tool.tool.name] = tool
        for workflow in self._kernel.workflows.entries(tenant_id=tenant_id):
            name = workflow.workflow.name
            if workflow.error is None and self._settings.offers_workflow(name):
                tool_of_it = StartTool(
                    self._kernel, self._executions, self._settings, workflow.workflow
                )
                found[tool_name(f"start_{name}", found)] = tool_of_it
        for name, spec in allowed_operations(
            self._kernel.operations, self._settings.operations
        ).items():
            if (schema := model_schema(spec)) is not None:
                found[tool_name(name, found)] = OperationTool(
                    self._kernel, self._settings, self._approved, name, spec, schema
                )
        return found


def mcp_server(
    kernel: Kernel,
    settings: ServeSettings,
    caller_of: Callable[[ServerRequestContext[Any, Any]], Caller],
) -> Server[Any]:
    """Return the server of *settings*; *caller_of* says who sent a request."""
    offers = Offers(kernel, settings)
    calls = _Calls(settings)

    async def list_tools(
        ctx: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        mine = await asyncio.to_thread(offers.of, caller_of(ctx))
        return types.ListToolsResult(tools=[each.definition(name) for name, each in mine.items()])

    async def call_tool(
        ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        caller = caller_of(ctx)
        mine = await asyncio.to_thread(offers.of, caller)
        offer = mine.get(params.name)
        if offer is None:
            # One and the same for a tool that is not there and one that isn't for this caller.
            near = did_you_mean(params.name, mine)
            text = f"there is no tool {params.name[:80]!r}" + (f" ({near})" if near else "")
            raise MCPError(types.INVALID_PARAMS, text)
        return await calls.make(offer, caller, params, ctx)

    return Server(
        settings.name,
        version=version("automate-kernel-mcp"),
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


class _Calls:
    """The calls that run, of which there are only so many at once."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._running = 0

    async def make(
        self,
        offer: Offer,
        caller: Caller,
        params: types.CallToolRequestParams,
        ctx: ServerRequestContext[Any, Any],
    ) -> types.CallToolResult:
        if self._running >= self._settings.most_calls:
            return failed(
                AutomateError(
                    ErrorCodes.RESOURCE_EXHAUSTED, "too many calls run at once", retry_after=1.0
                )
            )
        self._running += 1
        try:
            return await self._make(offer, caller, params, ctx)
        except MCPError:
            raise
        except Exception as error:
            return failed(error, f"tool {params.name!r}, called by {caller.name!r},")
        finally:
            self._running -= 1

    async def _make(
        self,
        offer: Offer,
        caller: Caller,
        params: types.CallToolRequestParams,
        ctx: ServerRequestContext[Any, Any],
    ) -> types.CallToolResult:
        arguments = params.arguments or {}
        size = len(json.dumps(arguments).encode())
        if size > self._settings.max_input_bytes:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"the input takes {size:,} bytes, more than {self._settings.max_input_bytes:,}",
            )
        logger.info("%r calls the tool %r", caller.name, params.name)

        async def send(progress: float, total: float | None, message: str | None) -> None:
            await ctx.session.report_progress(progress, total, message)

        return await offer.call(caller, arguments, _key_in(ctx), send)


def _key_in(ctx: ServerRequestContext[Any, Any]) -> str | None:
    key: Any = dict(ctx.meta or {}).get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"{IDEMPOTENCY_KEY} is printable text of at most {_LONGEST_KEY} characters",
        )
    return key
