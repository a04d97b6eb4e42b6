"""Documents, and connectors of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automate_kernel.plugins.connectors import ConnectorContext
from automate_kernel.operations.portal import Portal
from automate_openapi import OpenApiConnector

HERE = Path(__file__).parent
PETSTORE = HERE / "petstore.yaml"
TOKEN = "token-never-to-be-seen-2718281828"


class Secrets:
    """Has one value under every key."""

    def get(self, key: str) -> str:
        return TOKEN

    async def aget(self, key: str) -> str:
        return TOKEN


def document(paths: Mapping[str, Any], *, version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    """Return a document with *paths*."""
    return {
        "openapi": version,
        "info": {"title": "Test", "version": "1"},
        "servers": [{"url": "https://api.example.com/v1"}],
        "paths": paths,
        **more,
    }


def operation(**more: Any) -> dict[str, Any]:
    """Return an operation that answers with anything."""
    return {"responses": {"200": {"description": "fine"}}, **more}


def connector(source: Mapping[str, Any] | Path, folder: Path, **config: Any) -> OpenApiConnector:
    """Return a connector of a document, which is written to *folder*."""
    if isinstance(source, Mapping):
        path = folder / "openapi.json"
        path.write_text(json.dumps(source))
    else:
        path = source
    return OpenApiConnector(
        {"document": str(path), **config},
        ctx=ConnectorContext(key="api", secrets=Secrets()),
    )


def specs(made: OpenApiConnector) -> Mapping[str, Any]:
    """Return the actions of a connector."""
    return asyncio.run(_own(made))


async def _own(made: OpenApiConnector) -> Mapping[str, Any]:
    return await made.own_operations()


def call(made: OpenApiConnector, name: str, values: Mapping[str, Any] | None = None) -> Any:
    """Call an action as the kernel does."""
    portal = Portal()
    try:
        return portal.run(made.call_action(name, dict(values or {})))
    finally:
        portal.close()
