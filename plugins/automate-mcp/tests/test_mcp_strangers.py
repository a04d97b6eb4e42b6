"""``automate mcp serve`` and clients without a token, that take their time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from automate_mcp.asgi import BearerApp
from automate_mcp.serving import server_of
from mcp_support import until

from automate_cli.patient_protocol import PatientProtocol

SECONDS = 0.3


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Where a server listens that knows nobody."""

    async def inner(scope, receive, send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    server = server_of(BearerApp(inner, lambda token: None))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until(lambda: server.started)
    yield listening.getsockname()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("clock", "sent"),
    [
        ("head_seconds", b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-Long: "),
        ("rest_seconds", b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx"),
    ],
)
def test_strangers_hold_no_connection(
    address: tuple[str, int], clock: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half a head, or by a body that nobody reads any more: a few would use up all sockets."""
    # That one alone: a busy machine may keep a client longer from all that it has to say.
    monkeypatch.setattr(PatientProtocol, clock, SECONDS)
    with socket.create_connection(address, timeout=SECONDS * 20) as connection:
        connection.sendall(sent)
        if b"\r\n\r\n" in sent:
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
            connection.sendall(b"x")
        with suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
