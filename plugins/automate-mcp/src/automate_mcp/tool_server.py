"""A server as one account sees it: its session, and its list of tools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mcp.connection import Connection
from automate_mcp.readable_tools import left_out_of
from automate_mcp.tools import RemoteTool, capability_name, is_allowed, remote_tools

if TYPE_CHECKING:
    import logging

    from mcp import Client
    from mcp.types import Tool

    from automate_mcp.config import McpConfig

_MOST_TOOLS = 2_000
_MOST_PAGES = 100
_MOST_TOLD = 20
# Many servers never tell of a change, or tell it to nobody.
_KEEP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ListedTools:
    """The tools that a server lists, and those that can't be read, each with what is wrong."""

    tools: Sequence[Tool]
    left_out: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class AllowedTools:
    """The tools that may be called, and the problems with them and others."""

    by_name: Mapping[str, RemoteTool]
    """The tools by the names of their capabilities."""
    left_out: Mapping[str, str]
    """The faults of tools that can't be read, by the names that they would have."""
    problems: Sequence[str]
    """Lines for people."""


class ToolServer:
    """
    The allowed tools of a server over *connect*'s connection.

    They are read again when the server tells of a change, when they are five minutes old by
    *clock*, and after a call that failed: its tool may be gone.
    """

    def __init__(
        self,
        config: McpConfig,
        logger: logging.Logger,
        connect: Callable[[Callable[[], None]], Connection],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._logger, self._clock = config, logger, clock
        self._listed: ListedTools | None = None
        self._allowed: AllowedTools | None = None
        # What the list that is kept was read at; None where it has to be read again.
        self._read_at: float | None = None
        self._changes = 0
        self.connection: Connection = connect(self.changed)

    async def allowed(self) -> AllowedTools:
        """Return the allowed tools."""
        allowed, read_at, changes = self._allowed, self._read_at, self._changes
        now = self._clock()
        if allowed is not None and read_at is not None and now - read_at < _KEEP_SECONDS:
            return allowed
        listed = await self.connection.use(listed_tools)
        # On a thread: of thousands of tools it takes seconds, and others are on this loop.
        allowed = await asyncio.to_thread(self.allowed_of, listed)
        if changes == self._changes:  # none came while they were read
            self._read_at = now
        return allowed

    def allowed_of(self, listed: ListedTools) -> AllowedTools:
        """Return the allowed tools of those *listed*; what is wrong is logged, once."""
        kept, before = self._allowed, self._listed
        if kept is not None and listed == before:
            return kept
        problems = []
        left_out = {}
        for name, fault in listed.left_out:
            # A tool without a name may be any of them.
            if is_allowed(name, self._config) or name.startswith("number "):
                problems.append(f"the tool {name!r} is left out, as it can't be read: {fault}")
                left_out[capability_name(name)] = fault
        by_name = remote_tools(listed.tools, self._config, problems.append)
        for problem in problems[:_MOST_TOLD] if kept is None or kept.problems != problems else ():
            self._logger.warning("the server of %r: %s", self.connection.key, problem)
        self._listed, self._allowed = listed, AllowedTools(by_name, left_out, problems)
        return self._allowed

    def changed(self) -> None:
        """Have the tools read before the next call."""
        self._changes += 1
        self._read_at = None


async def listed_tools(client: Client) -> ListedTools:
    """Return all tools of a server, page by page."""
    found: list[Tool] = []
    left_out: list[tuple[str, str]] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        left_out += left_out_of(page)
        cursor = page.next_cursor
        if cursor is None:
            return ListedTools(found, left_out)
        if len(found) + len(left_out) > _MOST_TOOLS:
            break
    raise AutomateError(
        ErrorCodes.RESOURCE_EXHAUSTED,
        f"the server lists more than {_MOST_TOOLS:,} tools",
        hint="its list may have no end: ask its author",
        retryable=False,
    )
