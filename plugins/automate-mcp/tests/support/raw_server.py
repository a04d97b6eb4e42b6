"""A server without the SDK, whose answers are not those of the protocol, or are not usual."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TOOL = {"name": "work", "inputSchema": {"type": "object", "properties": {}}}
ANSWERS: dict[str, dict[str, Any]] = {
    "no-content": {"result": {}},
    "strange-content": {"result": {"content": [{"type": "hologram", "depth": 3}]}},
    "own-error": {"error": {"code": -32000, "message": "the disk is full"}},
}


def nested(levels: int) -> dict[str, Any]:
    """Return a schema of so many levels."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


DEEP, TOO_DEEP = nested(60), nested(300)
LISTS: dict[str, list[Any]] = {
    "bad-schema": [{"name": "broken", "inputSchema": "none"}, TOOL],
    "no-schema": [TOOL, {"name": "broken"}],
    "bad-output": [TOOL, {**TOOL, "name": "broken", "outputSchema": [1]}],
    "bad-name": [{**TOOL, "name": 7}, {**TOOL, "name": None}, TOOL],
    "no-object": [None, "broken", 5, [], TOOL],
    "no-type": [{"name": "broken", "inputSchema": {}}, TOOL],
    "twice": [TOOL, {**TOOL, "description": "Another one."}],
    "bad-icons": [{**TOOL, "icons": "x", "annotations": 1, "_meta": 3, "title": "Work"}],
    "too-deep": [{**TOOL, "name": "broken", "inputSchema": TOO_DEEP}, TOOL],
    "deep": [{**TOOL, "name": "deep", "inputSchema": DEEP}, TOOL],
    "odd-names": [
        {**TOOL, "name": each} for each in ("", " ", "a\n\x1b[31mb", "\ud800", "x" * 5_000)
    ] + [TOOL],
}  # fmt: skip


def listed(answer: str) -> list[Any]:
    """Return the list of tools, which gets shorter where there is a file called gone."""
    if answer == "gone":
        other = {**TOOL, "name": "other"}
        return [other] if os.path.exists("gone") else [TOOL, other]
    return LISTS.get(answer, [TOOL])


def main(answer: str) -> None:
    """Answer each request, and count the calls in a file."""
    for line in sys.stdin:
        asked = json.loads(line)
        said: dict[str, Any] = {"result": {}}
        if asked.get("method") == "initialize":
            said["result"] = {
                "protocolVersion": "1999-01-01"
                if answer == "old"
                else asked["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        elif asked.get("method") == "tools/list":
            said["result"] = {} if answer == "no-list" else {"tools": listed(answer)}
        elif asked.get("method") == "tools/call":
            with open("calls", "a") as calls:
                calls.write("x")
            said = ANSWERS.get(answer, {"result": {"content": []}})
            if os.path.exists("gone"):
                text = {"type": "text", "text": "unknown tool"}
                said = {"result": {"content": [text], "isError": True}}
        if "id" in asked:
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)


main(sys.argv[1])
