"""
The work of a refund desk, which is noted in files; run as a program, a server of MCP that does it.

It speaks over its standard input and output; with the argument ``http`` on a port, which it writes
to the file ``port``. With a tool's name as ``DEADLY`` in its environment the server kills the
process that calls it, once the work is done: its parent or, over HTTP, that of the file ``asking``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def note(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def find_order(folder: Path, number: int, then: Callable[[], None] | None = None) -> str:
    note(folder / "find", str(number))
    if then is not None:
        then()
    return f"order {number} costs {number * 10}"


def refund_order(folder: Path, number: int, then: Callable[[], None] | None = None) -> str:
    note(folder / "refund", str(number))
    if then is not None:
        then()
    return f"refunded {number * 10}"


def main() -> None:
    from mcp.server.mcpserver import MCPServer

    server, here, over_http = MCPServer("desk"), Path(), sys.argv[1:] == ["http"]

    def dies(tool: str) -> Callable[[], None] | None:
        file = here / "asking"
        if os.environ.get("DEADLY") != tool or (over_http and not file.exists()):
            return None
        pid = int(file.read_text()) if over_http else os.getppid()
        # Once: who finishes the work calls it too.
        file.unlink(missing_ok=True)
        return lambda: os.kill(pid, signal.SIGKILL)

    @server.tool()
    def find(number: int) -> str:
        """Find an order."""
        return find_order(here, number, dies("find"))

    @server.tool()
    def refund(number: int) -> str:
        """Pay an order back."""
        return refund_order(here, number, dies("refund"))

    if not over_http:
        server.run("stdio")
        return
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    (here / "port.new").write_text(str(listening.getsockname()[1]))
    os.replace("port.new", "port")
    config = uvicorn.Config(server.streamable_http_app(), log_config=None)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
