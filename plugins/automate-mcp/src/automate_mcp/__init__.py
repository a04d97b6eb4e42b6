"""
MCP both ways: the tools of any server as capabilities, and operations and workflows as tools.

`McpProvider` is the client. ``automate mcp serve`` is the server, and `mcp_app` the same as an ASGI
application. The SDK of MCP is imported at their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_mcp.config import McpConfig, OAuthSettings, ToolHints
from automate_mcp.provider import McpProvider
from automate_mcp.settings import Authorization, Caller, ServeSettings, Token

if TYPE_CHECKING:
    from automate_mcp.asgi import mcp_app

__all__ = [
    "Authorization",
    "Caller",
    "McpConfig",
    "McpProvider",
    "OAuthSettings",
    "ServeSettings",
    "Token",
    "ToolHints",
    "mcp_app",
]


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        if name == "mcp_app":
            from automate_mcp.asgi import mcp_app

            return mcp_app
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
