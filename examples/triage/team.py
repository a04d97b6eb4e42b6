"""A server of the Model Context Protocol with one tool: who looks after a repository."""

from __future__ import annotations

from mcp import types
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

server = MCPServer("team")


class Owner(BaseModel):
    """Who looks after a repository."""

    name: str
    email: str


OWNERS = {"shop/tea": Owner(name="Ann", email="ann@shop.example")}
ANYBODY = Owner(name="Bob", email="bob@shop.example")


@server.tool(annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True))
def owner_of(repository: str) -> Owner:
    """Return the name and the address of who looks after a repository."""
    return OWNERS.get(repository, ANYBODY)


if __name__ == "__main__":
    server.run()
