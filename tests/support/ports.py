"""Ports for servers that have to be told theirs before they begin."""

from __future__ import annotations

import contextlib
import secrets
import socket

# Below those that Linux, macOS and Windows give out by themselves: a connection of another test,
# or its server on port 0, takes none of these before the server has begun.
_FIRST, _END = 10_000, 32_768


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            # Not of `random`, which processes of a test run may have seeded alike.
            port = _FIRST + secrets.randbelow(_END - _FIRST)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
