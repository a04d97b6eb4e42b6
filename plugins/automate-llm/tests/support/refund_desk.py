"""
The work of a refund desk, which is noted in files; run as a program, a server of MCP that does it.

With ``DEADLY`` in its environment the server kills the process that has asked for a refund.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def note(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def find_order(folder: Path, number: int) -> str:
    note(folder / "find", str(number))
    return f"order {number} costs {number * 10}"


def refund_order(folder: Path, number: int, then: Callable[[], None] | None = None) -> str:
    note(folder / "refund", str(number))
    if then is not None:
        then()
    return f"refunded {number * 10}"


def main() -> None:
    from mcp.server.mcpserver import MCPServer

    server, here = MCPServer("desk"), Path()
    asking = os.getppid()

    @server.tool()
    def find(number: int) -> str:
        """Find an order."""
        return find_order(here, number)

    @server.tool()
    def refund(number: int) -> str:
        """Pay an order back."""
        deadly = "DEADLY" in os.environ
        return refund_order(
            here, number, (lambda: os.kill(asking, signal.SIGKILL)) if deadly else None
        )

    server.run("stdio")


if __name__ == "__main__":
    main()
