"""The messages of a server, as they come over its output or an answer of HTTP."""

from __future__ import annotations

import json

from mcp.types import JSONRPCMessage, jsonrpc_message_adapter


def parsed(text: bytes) -> JSONRPCMessage:
    """
    Return *text* as a message; raises `ValueError` or `RecursionError` if it is none.

    Half a character, where a description was cut, would hide a whole list of tools: it becomes one
    that says so.
    """
    try:
        return jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValueError:
        return jsonrpc_message_adapter.validate_python(json.loads(_whole(text)), by_name=False)


def readable(text: bytes) -> bytes | None:
    """Return the *text* of a message as any parser reads it; None if it is none."""
    for mend in (bytes, _whole):
        try:
            mended = mend(text)
            jsonrpc_message_adapter.validate_json(mended, by_name=False)
        except (ValueError, RecursionError):
            continue
        return mended
    return None


def answer_to(request_id: int | str | None, text: bytes) -> bytes:
    """
    Return the message *text*, with the id of the request that it came to in one HTTP answer.

    Servers that fail before they know the id say null. Nobody would wait for such an answer, and
    the request would seem to hang until its time is over.
    """
    message = json.loads(text)
    if request_id is None or "method" in message or message.get("id") == request_id:
        return text
    return json.dumps({**message, "id": request_id}).encode()


def _whole(text: bytes) -> bytes:
    read = json.loads(text.decode("utf-8", "replace"))
    return json.dumps(read, ensure_ascii=False).encode("utf-8", "replace")
