"""What ``automate serve`` does with connections: real sockets, its own server and settings."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from automate_kernel import Connector, Kernel, TriggerSpec
from automate_kernel.http.app import webhook_app
from automate_cli.commands.worker import bind
from automate_cli.patient_protocol import PatientProtocol
from automate_cli.serving import server_of
from automate_kernel.triggers.webhooks import GitHubSignature

SECRET, BODY = "a-webhook-secret", b'{"ref": "main"}'
# So little, where that is tested: everywhere else a busy machine may keep a client waiting.
SHORT_SECONDS = 0.5


class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("push", signature=GitHubSignature("HOOK"))]


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Where a receiver listens."""
    with Kernel(plugins=[GitHub], secrets={"HOOK": SECRET}, discover=False) as kernel:
        server = server_of(webhook_app(kernel), 1.0)
        listening = bind("127.0.0.1", 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(length: str | None = str(len(BODY)), more: str = "") -> bytes:
    signed = GitHubSignature("HOOK").sign(BODY, SECRET)
    lines = ["POST /webhooks/github/push HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in signed.items()]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, *([more] if more else []), "", ""]).encode()


def status(connection: socket.socket) -> int:
    """The status of the answer, which is read to its end."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    found, _, rest = answer.partition(b"\r\n\r\n")
    for line in found.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            while len(rest) < int(line.split(b":")[1]):
                rest += received(connection)
    return int(found.split()[1])


def received(connection: socket.socket) -> bytes:
    """What comes next, which is something."""
    more = connection.recv(65536)
    assert more, "the server has ended the connection"
    return more


def closes(connection: socket.socket) -> bool:
    """Whether the server ends the connection, sooner than its time runs out twenty times."""
    connection.settimeout(SHORT_SECONDS * 20)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_answers_on_a_kept_connection_come_at_once(address: tuple[str, int]) -> None:
    """Without TCP_NODELAY each would wait 40 ms for the acknowledgement of its head."""
    with connect(address) as connection:
        took = []
        for _ in range(20):
            began = time.perf_counter()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
            took.append(time.perf_counter() - began)
    # All but the first would; a busy machine keeps some waiting.
    assert min(took[1:]) < 0.03


@pytest.mark.parametrize(
    "sent", [b"", b"POST /webhooks/github/push HTTP/1.1\r\nHost: x\r\nX-Long: "]
)
def test_half_a_head_is_not_waited_for(
    address: tuple[str, int], sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that comes byte by byte; else a few clients would use up all sockets."""
    monkeypatch.setattr(PatientProtocol, "head_seconds", SHORT_SECONDS)
    with connect(address) as connection:
        connection.sendall(sent)
        if not sent:
            assert closes(connection)
            return
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(SHORT_SECONDS / 10):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        assert closes(connection)
        stop.set()
        thread.join()


def test_half_a_second_head_is_not_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an answer on the same connection, too."""
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(connection) == 200
        monkeypatch.setattr(PatientProtocol, "head_seconds", SHORT_SECONDS)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert closes(connection)


def test_a_slow_body_is_not_cut_off_by_the_clock_for_heads(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a clock of its own."""
    monkeypatch.setattr(PatientProtocol, "head_seconds", SHORT_SECONDS)
    in_time = False
    while not in_time:
        began = time.monotonic()
        with connect(address) as connection:
            connection.sendall(head())
            # Else its head came too late, which is no matter of its body.
            in_time = time.monotonic() - began < SHORT_SECONDS
            if in_time:
                time.sleep(SHORT_SECONDS * 2)  # the very thing: a client that takes its time
                connection.sendall(BODY)
                assert status(connection) == 202


def test_a_chunked_delivery_is_taken(address: tuple[str, int]) -> None:
    """Senders that stream know no length."""
    with connect(address) as connection:
        chunk = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
        connection.sendall(head(None, "Transfer-Encoding: chunked") + chunk)
        assert status(connection) == 202


@pytest.mark.parametrize(
    ("length", "more"),
    [
        ("15", "Transfer-Encoding: chunked"),
        ("15", "Content-Length: 16"),
        ("1_5", ""),
        ("+15", ""),
        (None, "Transfer-Encoding: gzip, chunked"),
        (None, "Transfer-Encoding: xchunked"),
    ],
)
def test_a_body_of_two_lengths_is_no_request(
    address: tuple[str, int], length: str | None, more: str
) -> None:
    """A proxy that went by the other one would take its end for the next request."""
    with connect(address) as connection:
        connection.sendall(head(length, more) + b"f\r\n" + BODY + b"\r\n0\r\n\r\n")
        assert status(connection) in (400, 501)
        assert closes(connection)


@pytest.mark.parametrize("length", ["9" * 5_000, "9" * 19])
def test_a_length_of_thousands_of_digits_is_too_long(address: tuple[str, int], length: str) -> None:
    """Or no request at all; the server lives on."""
    with connect(address) as connection:
        connection.sendall(head(length))
        assert status(connection) in (400, 413)
    with connect(address) as connection:
        connection.sendall(head() + BODY)
        assert status(connection) == 202


def test_a_path_is_taken_as_it_was_sent(address: tuple[str, int]) -> None:
    """Not as it may be read after decoding."""
    for path in ("//webhooks/github/push", "/webhooks/github/push/", "/webhooks%2fgithub/push"):
        with connect(address) as connection:
            connection.sendall(head().replace(b"/webhooks/github/push", path.encode()) + BODY)
            assert status(connection) == 404


@pytest.mark.parametrize("path", ["/webhooks/github/push", "/nothing"])
def test_who_sends_far_too_much_reads_why(address: tuple[str, int], path: str) -> None:
    """Most clients send all before they read; a connection that is closed takes the answer along."""
    with connect(address) as connection:
        length = 8_000_000
        connection.sendall(head(str(length)).replace(b"/webhooks/github/push", path.encode()))
        connection.sendall(b"x" * length)
        assert status(connection) == (404 if path == "/nothing" else 413)
        connection.sendall(head() + BODY)
        assert status(connection) == 202


@pytest.mark.parametrize(
    ("path", "length"), [("/nothing", 900_000), ("/webhooks/github/push", 2_000_000)]
)
def test_the_rest_of_an_answered_body_is_not_waited_for(
    address: tuple[str, int], path: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte after the answer, and then none: nobody reads it, and it would hold a socket."""
    monkeypatch.setattr(PatientProtocol, "rest_seconds", SHORT_SECONDS)
    with connect(address) as connection:
        connection.sendall(head(str(length)).replace(b"/webhooks/github/push", path.encode()))
        assert status(connection) in (404, 413)
        connection.sendall(b"x")
        assert closes(connection)


def test_who_reads_no_answer_is_not_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers fill all buffers then, and the connection would be there for ever."""
    monkeypatch.setattr(PatientProtocol, "read_seconds", SHORT_SECONDS)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.settimeout(SHORT_SECONDS * 20)
        connection.connect(address)
        asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                connection.sendall(asked)
