"""A server without the SDK, whose answers are not those of the protocol, or are not usual."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOL = {"name": "work", "inputSchema": {"type": "object", "properties": {}}}
ANSWERS: dict[str, dict[str, Any]] = {
    "no-content": {"result": {}},
    "strange-content": {"result": {"content": [{"type": "hologram", "depth": 3}]}},
    "own-error": {"error": {"code": -32000, "message": "the disk is full"}},
}


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
            said["result"] = {} if answer == "no-list" else {"tools": [TOOL]}
        elif asked.get("method") == "tools/call":
            with open("calls", "a") as calls:
                calls.write("x")
            said = ANSWERS[answer]
        if "id" in asked:
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)


main(sys.argv[1])
