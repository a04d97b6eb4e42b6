"""Our client over HTTP: on our own server, and on one that fails in every way."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from automate_mcp import Caller, McpProvider, ServeSettings, mcp_app
from automate_mcp.messages import readable
from mcp_support import SECRET, Serving, Shop, until

from automate_kernel import AutomateError, Kernel
from automate_kernel.base.errors import ConfigError, ErrorCodes
from automate_testing.contracts.hostile_service import hostile_service

TOKEN = "token-of-the-client-" + "x" * 20


def client(url: str, **config: Any) -> Kernel:
    given = {"url": url, "token": "$secret:TOKEN", "tools": ["*"], **config}
    kernel = Kernel(discover=False, config={"far": given}, secrets={"TOKEN": TOKEN})
    kernel.register(McpProvider, key="far")
    return kernel


@pytest.fixture
def served(kernel: Kernel, shop: Shop) -> Iterator[Serving]:
    """The shop over HTTP, for the one who has the token."""
    settings = ServeSettings(operations=["shop.*"])
    caller = Caller("client", "acme", frozenset({"*"}))

    def find(token: str) -> Caller | None:
        return caller if token == TOKEN else None

    serving = Serving(lambda: mcp_app(kernel, settings, find_caller=find))
    serving.start()
    yield serving
    serving.stop()


def error_of(call: Callable[[], Any]) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        call()
    return caught.value


def test_our_client_on_our_server(served: Serving, shop: Shop) -> None:
    """Outputs, hints, errors and the tenant come through as they are."""
    with client(served.url, trust_annotations=True) as far:
        assert far.invoke("far.shop_find", {"number": 3}) == {"number": 3, "total": 40}
        spec = far.operation("far.shop_find")
        assert (spec.read_only, spec.idempotent, spec.destructive) == (True, True, False)
        assert far.invoke("far.shop_keyed")["structured"]["tenant"] == "acme"
        error = error_of(lambda: far.invoke("far.shop_fail", {"code": "UNAVAILABLE"}))
        assert (error.code, error.retryable, error.retry_after) == (ErrorCodes.UNAVAILABLE, True, 3)
        assert error.hint == "wait"
        assert SECRET not in str(error)


def test_a_step_is_cancelled_over_http(served: Serving, shop: Shop) -> None:
    """Its time is over here, and the operation stops there."""
    with client(served.url, timeout_seconds=3) as far:
        # A busy machine may let its time pass before it comes there.
        while not shop.begun:
            error = error_of(lambda: far.invoke("far.shop_slow", {"seconds": 60}))
            assert error.code is ErrorCodes.DEADLINE_EXCEEDED
        until(lambda: shop.cancelled == shop.begun)


@pytest.mark.parametrize(
    "manner",
    [
        "truncated",
        "empty",
        "no_text",
        "nested",
        "long_number",
        "other_shape",
        "redirect_to_nowhere",
    ],
)
def test_an_answer_that_is_no_message_is_not_quoted(
    manner: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the error nor in the log, where the SDK's words would stand with a traceback."""
    with hostile_service(lambda *_: {}) as service, client(f"{service.url}/mcp") as far:
        service.manner = manner
        error = error_of(lambda: far.invoke("far.any"))
    assert (error.code, error.retryable) == (ErrorCodes.DATA_LOSS, False)
    assert "its answer isn't one of the protocol" in str(error)
    # Those of its client: a server of an earlier test may still be ending.
    its = [each for each in caplog.records if each.name.startswith(("client", "mcp.client"))]
    assert not [each for each in its if each.levelno >= logging.ERROR]


def _events(*events: bytes) -> Callable[[Hostile], None]:
    body = b"".join(b"data: " + each + b"\n\n" for each in events)
    return lambda handler: handler.send(200, body, Content_Type="text/event-stream")


@pytest.mark.parametrize(
    "event", [b'{"token": "hunter2hunter2"}', b"hunter2hunter2 {", b'[{"x": "hunter2hunter2"}]']
)
def test_an_event_that_is_no_message_is_not_quoted(
    hostile: Callable[..., str], caplog: pytest.LogCaptureFixture, event: bytes
) -> None:
    """As little as an answer of one piece."""
    with client(hostile(_events(event))) as far:
        error = error_of(lambda: far.invoke("far.act"))
    assert (error.code, error.retryable) == (ErrorCodes.DATA_LOSS, False)
    assert "its answer isn't one of the protocol" in str(error)
    assert "hunter2" not in str(error) + caplog.text


def test_a_notification_that_is_none_is_not_quoted(
    hostile: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on."""
    params = {"progressToken": 1, "progress": "hunter2hunter2"}
    told = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
    events = _events(json.dumps(told).encode(), json.dumps(answer).encode())
    with client(hostile(events)) as far:
        assert far.invoke("far.act")["content"] == []
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("given", [None, 4711, "1"])
def test_an_answer_with_another_id_is_that_to_its_request(
    hostile: Callable[..., str], given: int | str | None
) -> None:
    """A server that failed before it knew the id says null; the call ends then, and not late."""
    failed = {"jsonrpc": "2.0", "id": given, "error": {"code": -32700, "message": "no JSON"}}
    url = hostile(lambda handler: handler.send(200, json.dumps(failed).encode()))
    with client(url, timeout_seconds=60) as far:
        error = error_of(lambda: far.invoke("far.act"))
    assert (error.code, "no JSON" in str(error)) == (ErrorCodes.DATA_LOSS, True)


def test_half_a_character_makes_no_message_unreadable() -> None:
    """A description was cut within one."""
    text = b'{"jsonrpc": "2.0", "id": 1, "result": {"tools": [], "x": "a\\ud83d \xff"}}'
    whole = readable(text)
    assert whole is not None and readable(whole) == whole
    assert json.loads(whole)["result"] == {"tools": [], "x": "a? \ufffd"}


def test_no_address_and_no_argument_is_logged(
    served: Serving, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level: the libraries write each address, and what is sent, with the tokens in it."""
    with caplog.at_level(logging.DEBUG), client(f"{served.url}?key=hunter2hunter2") as far:
        assert far.invoke("far.shop_find", {"number": 3})["total"] == 40
    ours = [each.getMessage() for each in caplog.records if not each.name.startswith("uvicorn")]
    assert not [each for each in ours if "hunter2" in each or TOKEN in each]
    assert not [each for each in ours if "number" in each]


def test_a_wrong_token_is_not_tried_again(served: Serving) -> None:
    """And isn't shown."""
    with client(served.url, token="wrong-token-0123456789") as far:
        error = error_of(lambda: far.invoke("far.shop_find", {"number": 3}))
    assert (error.code, error.retryable) == (ErrorCodes.UNAUTHENTICATED, False)
    assert "wrong-token" not in str(error)


def test_a_server_that_was_restarted_is_found_again(served: Serving) -> None:
    """While it is away a call is worth another attempt."""
    with client(served.url) as far:
        far.invoke("far.shop_find", {"number": 3})
        served.stop()
        error = error_of(lambda: far.invoke("far.shop_find", {"number": 3}))
        assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, True)
        served.start()
        end = time.monotonic() + 20
        while True:
            try:
                assert far.invoke("far.shop_find", {"number": 3})["number"] == 3
                break
            except AutomateError as again:
                assert again.retryable and time.monotonic() < end
                time.sleep(0.2)


class Older:
    """The application *app*, of which only the older protocol with its sessions is known."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        messages, body = [], b""
        if scope["type"] == "http" and scope["method"] == "POST":
            more = True
            while more:
                messages.append(await receive())
                body += messages[-1].get("body", b"")
                more = messages[-1].get("more_body", False)
        if b'"server/discover"' in body:
            error = {"code": -32601, "message": "no such method"}
            answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error}
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
            return

        async def again() -> Any:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


def test_a_session_that_a_server_forgot_is_opened_again(kernel: Kernel, shop: Shop) -> None:
    """The server was restarted; the call that meets it is made, whatever its tool does."""
    settings = ServeSettings(operations=["shop.*"])
    caller = Caller("client", "acme", frozenset({"*"}))
    serving = Serving(lambda: Older(mcp_app(kernel, settings, find_caller=lambda _: caller)))
    serving.start()
    with client(serving.url) as far:
        far.invoke("far.shop_keyed")
        for _ in range(2):
            serving.stop()
            serving.start()
            assert far.invoke("far.shop_keyed")["structured"]["tenant"] == "acme"
    serving.stop()


class Hostile(BaseHTTPRequestHandler):
    """Answers the handshake rightly, and a call as the test says."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[Hostile], None]
    everything = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = body.get("method")
        if self.everything or method == "tools/call":
            type(self).answer(self)
        elif method == "server/discover":
            self.error(body, -32601)
        elif method == "initialize":
            info = {"name": "hostile", "version": "1"}
            self.result(body, {
                "protocolVersion": "2025-06-18", "serverInfo": info, "capabilities": {"tools": {}},
            })  # fmt: skip
        elif method == "tools/list":
            tool = {"name": "act", "inputSchema": {"type": "object"}}
            self.result(body, {"tools": [tool]})
        elif method == "ping":
            self.result(body, {})
        else:
            self.send(202, b"")

    def do_GET(self) -> None:
        self.send(405, b"")

    do_DELETE = do_GET

    def result(self, request: dict[str, Any], result: Any) -> None:
        self.send(
            200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
        )

    def error(self, request: dict[str, Any], code: int) -> None:
        error = {"code": code, "message": "no"}
        self.send(200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode())

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        named = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
        for name, value in named.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []
    stopping = threading.Event()

    def start(answer: Callable[[Hostile], None], *, everything: bool = False) -> str:
        own = {"answer": staticmethod(answer), "everything": everything, "stopping": stopping}
        handler = type("Own", (Hostile,), own)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return f"http://127.0.0.1:{server.server_address[1]}/mcp"

    yield start
    stopping.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def _status(status: int, **headers: str) -> Callable[[Hostile], None]:
    return lambda handler: handler.send(status, b'{"secret": "' + TOKEN.encode() + b'"}', **headers)


def _cut(handler: Hostile) -> None:
    handler.send(200, b'{"jsonrpc": "2.0", ', Content_Length="5000")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def _hang(handler: Hostile) -> None:
    handler.stopping.wait()


def _huge(handler: Hostile) -> None:
    handler.send(200, b"[" + b" " * 3_000_000 + b"]")


def _stream(handler: Hostile) -> None:
    handler.send(
        200, b"data: " + b"x" * 3_000_000, Content_Type="text/event-stream",
    )  # fmt: skip


CASES = {
    "401": (_status(401), ErrorCodes.UNAUTHENTICATED, False),
    "403": (_status(403), ErrorCodes.PERMISSION_DENIED, False),
    "429": (_status(429, Retry_After="7"), ErrorCodes.RESOURCE_EXHAUSTED, True),
    "500": (_status(500), ErrorCodes.INTERNAL, False),
    "503": (_status(503, Retry_After="7"), ErrorCodes.UNAVAILABLE, False),
    "redirect": (
        _status(307, Location="http://169.254.169.254/mcp"), ErrorCodes.FAILED_PRECONDITION, False
    ),
    "cut": (_cut, ErrorCodes.UNAVAILABLE, False),
    "no JSON": (lambda handler: handler.send(200, b"<html>"), ErrorCodes.DATA_LOSS, False),
    "hang": (_hang, ErrorCodes.DEADLINE_EXCEEDED, False),
    "huge": (_huge, ErrorCodes.RESOURCE_EXHAUSTED, False),
    "huge stream": (_stream, ErrorCodes.RESOURCE_EXHAUSTED, False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_call_that_fails_has_a_code_and_the_right_retry(
    hostile: Callable[..., str], case: str
) -> None:
    """A tool that may have done its work is not called again; its session lives on."""
    answer, code, retryable = CASES[case]
    url, seconds = hostile(answer), 3 if case == "hang" else 20
    with client(url, timeout_seconds=seconds, max_result_bytes=100_000) as far:
        error = error_of(lambda: far.invoke("far.act"))
        assert (error.code, error.retryable) == (code, retryable), str(error)
        assert TOKEN not in str(error)
        if case == "429":
            assert error.retry_after == 7
        if case in {"429", "503"}:
            # The server has asked to wait, so it is asked nothing else until then.
            error = error_of(lambda: far.operation("far.act"))
            assert error.code is ErrorCodes.RESOURCE_EXHAUSTED and 0 < error.retry_after <= 7
        else:
            far.operation("far.act")
    idempotent = {"act": {"idempotent": True}}
    with client(url, timeout_seconds=seconds, max_result_bytes=100_000, hints=idempotent) as far:
        error = error_of(lambda: far.invoke("far.act"))
        never = {"401", "403", "redirect", "no JSON", "huge", "huge stream"}
        assert error.retryable == (case not in never), str(error)


@pytest.mark.parametrize(
    ("status", "code"), [(401, ErrorCodes.UNAUTHENTICATED), (503, ErrorCodes.UNAVAILABLE)]
)
def test_a_session_that_is_refused_has_the_reason(
    hostile: Callable[..., str], status: int, code: ErrorCodes
) -> None:
    """As a call would."""
    with client(hostile(_status(status), everything=True)) as far:
        error = error_of(lambda: far.invoke("far.act"))
    assert error.code is code
    assert error.retryable == code.retryable


def test_nobody_listens() -> None:
    """It is worth another attempt."""
    with client("http://127.0.0.1:9/mcp") as far:
        error = error_of(lambda: far.invoke("far.act"))
    assert (error.code, error.retryable) == (ErrorCodes.UNAVAILABLE, True)


def test_a_server_without_tokens_is_refused(kernel: Kernel) -> None:
    """Nobody could use it."""
    with pytest.raises(ConfigError, match="no tokens"):
        mcp_app(kernel, ServeSettings())
