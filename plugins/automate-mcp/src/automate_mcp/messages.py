"""The messages of a server, as they come over its output or an answer of HTTP."""

from __future__ import annotations

import json
import re

from mcp.types import JSONRPCMessage, jsonrpc_message_adapter

MARK = "automate"
"""The key of our own data in an error."""
_MARKS = re.compile(rb'["\\{}\[\]]')
_MOST_OUTLINE = 4_096


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


class Outline:
    """
    The outermost level of a message that is too long to be kept: it has the id of the request.

    Servers write the id first or last. What stands deeper is passed over as it comes.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._depth = 0
        self._in_text = self._escaped = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the message."""
        begin = 0
        for found in _MARKS.finditer(chunk):
            at, mark = found.start(), found[0]
            if self._escaped:
                self._escaped = False
                if at == begin:  # the escaped character itself
                    self._keep(chunk[begin : at + 1])
                    begin = at + 1
                    continue
            self._keep(chunk[begin:at])
            begin = at + 1
            if self._in_text:
                self._escaped = mark == b"\\"
                self._in_text = mark != b'"'
            elif mark == b'"':
                self._in_text = True
            elif mark in b"}]":
                self._depth -= 1
            self._keep(mark)
            if not self._in_text and mark in b"{[":
                self._depth += 1
        if begin < len(chunk):
            self._escaped = False
            self._keep(chunk[begin:])

    def _keep(self, part: bytes) -> None:
        if self._depth <= 1:
            self._kept += part[: _MOST_OUTLINE + 1 - len(self._kept)]

    @property
    def request_id(self) -> int | str | None:
        """The id of the request that the message answers, if it is an answer to be read."""
        if len(self._kept) > _MOST_OUTLINE:
            return None
        try:
            found = json.loads(self._kept)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or "method" in found:
            return None
        own = found.get("id")
        return own if isinstance(own, (int, str)) and not isinstance(own, bool) else None
