"""A server of the official SDK that does, on demand, what servers should not do."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

# The SDK diverts the real one while it serves.
WIRE = os.dup(1)
server = MCPServer("misbehaving", version="6.6.6")
with open("starts", "a") as starts:
    starts.write("x")
if "SLOW_START" in os.environ:
    import time

    time.sleep(60)
if "DEAD_ON_ARRIVAL" in os.environ:
    sys.exit(3)


class Sum(BaseModel):
    total: int


def annotated(**hints: Any) -> Any:
    return server.tool(annotations=types.ToolAnnotations(**hints))


@annotated(read_only_hint=True)
def add(a: int, b: int) -> Sum:
    """Add two numbers."""
    return Sum(total=a + b)


@annotated(destructive_hint=False, idempotent_hint=True)
def die_once() -> str:
    """Die in the first call."""
    with open("starts") as file:
        if len(file.read()) == 1:
            os._exit(9)
    return "alive"


@server.tool()
def die() -> str:
    """Die in each call."""
    os._exit(9)


@annotated(read_only_hint=True)
async def hang() -> str:
    """Never answer, and say so if the call is cancelled."""
    try:
        with open("hangs", "w"):
            pass
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        with open("cancelled", "w"):
            pass
        raise
    return "never"


@server.tool()
async def steps(ctx: Context) -> str:
    """Report progress."""
    for number in range(1, 5):
        await ctx.report_progress(number, 4, f"step {number}")
        await asyncio.sleep(0.02)
    return "done"


@server.tool()
async def hold(folder: str) -> str:
    """Run until the folder has a file ``go``; the file ``held`` says that it runs."""
    (Path(folder) / "held").touch()
    while not (Path(folder) / "go").exists():
        await asyncio.sleep(0.02)
    return "released"


@server.tool()
def flood(lines: int) -> str:
    """Write to standard output what is no message."""
    for number in range(lines):
        os.write(WIRE, b"this is no message %d\n" % number)
    return "done"


@server.tool()
def endless_line() -> str:
    """Write a line that doesn't end."""
    try:
        while True:
            os.write(WIRE, b"x" * 65_536)
    except OSError:
        return "closed"


@server.tool()
def huge(size: int) -> str:
    """Return much."""
    return "x" * size


@server.tool()
def fail(text: str) -> str:
    """Fail."""
    raise ToolError(text)


@server.tool()
def environment() -> dict[str, str]:
    """Return the variables that the process sees."""
    return dict(os.environ)


@server.tool()
def log(text: str, lines: int = 1) -> str:
    """Write to standard error."""
    for _ in range(lines):
        print(text, file=sys.stderr, flush=True)
    return "logged"


@server.tool()
def picture() -> list[types.ImageContent | types.TextContent]:
    """Return an image beside a text."""
    return [
        types.TextContent(type="text", text="a picture"),
        types.ImageContent(type="image", data="aGk=", mime_type="image/png"),
    ]


@server.tool()
async def change(ctx: Context) -> str:
    """Have one more tool from now on."""

    def later() -> str:
        return "new"

    server.add_tool(later, name="later", description="Came later.")
    await ctx.notify_tools_changed()
    await ctx.request_context.session.send_tool_list_changed()
    return "changed"


@server.tool(name="odd name/with ünicode")
def odd() -> str:
    """Have a name that no workflow can write."""
    return "odd"


@server.tool()
def wrong() -> Sum:
    """Return what its own schema refuses."""
    return Sum(total=4711)


@server.tool()
def patterned(code: str) -> Sum:
    """Have a pattern in both schemas that takes very long to refuse a text."""
    return Sum(total=len(code))


for tool in server._tool_manager.list_tools():
    if tool.name == "wrong":
        # What it tells of itself, not what it checks.
        tool.fn_metadata.output_schema = {
            "type": "object", "properties": {"total": {"type": "string"}}, "required": ["total"]
        }  # fmt: skip
    if tool.name == "patterned":
        slow = {"type": "string", "pattern": "^(a+)+$"}
        tool.parameters = {"type": "object", "properties": {"code": slow}}
        tool.fn_metadata.output_schema = {
            "type": "object", "properties": {"total": {"type": "integer"}},
            "patternProperties": {"^(t|ta|o|to|al?)+x$": {}}, "additionalProperties": False,
        }  # fmt: skip


if __name__ == "__main__":
    server.run()
