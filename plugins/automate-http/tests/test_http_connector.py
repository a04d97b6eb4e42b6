"""The actions, against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
from automate_http import HttpConnector
from automate_kernel import Kernel
from automate_kernel.operations.context import ConnectorContext
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_testing.contracts.connectors import ConnectorContract
from automate_kernel.triggers.webhooks import StandardWebhooksSignature

Run = Callable[..., Any]
Connect = Callable[..., HttpConnector]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class TestContract(ConnectorContract):
    supports_webhooks: ClassVar[bool] = False
    example_inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pytest.fixture
    def connector(self) -> HttpConnector:
        return HttpConnector(
            {"base_url": "https://api.example.com", "headers": {"X-Key": "hunter2hunter2"}}
        )


def test_get_gives_json_that_steps_can_use(server: Any, connect: Connect, run: Run) -> None:
    """Parsed, with status and headers beside it."""
    server.answer("/a", body=b'{"id": 1}', Content_Type="application/json", X_Rate="9")
    output = run(connect(), "get", url=server.url("/a"), query={"q": ["ä", 2]})
    assert output["json"] == {"id": 1}
    assert (output["status"], output["ok"], output["text"]) == (200, True, None)
    assert output["headers"]["x-rate"] == "9"
    assert server.last.path == "/a?q=%C3%A4&q=2"
    assert server.last.headers["user-agent"].startswith("automate-http/")


@pytest.mark.parametrize(
    ("kind", "body", "field", "expected"),
    [
        ("text/plain; charset=iso-8859-1", b"\xe4", "text", "ä"),
        ("text/html", "ä".encode(), "text", "ä"),
        ("text/plain", b"\xff!", "text", "\ufffd!"),
        ("", b"plain", "text", "plain"),
        ("application/problem+json", b"[1]", "json", [1]),
        ("application/json", b"<html>", "text", "<html>"),
        ("application/json", b"[NaN]", "text", "[NaN]"),
        ("application/json", b"[" * 100_000, "text", "[" * 100_000),
        (
            "application/json",
            b"[" * 900 + b'"\\u0000"' + b"]" * 900,
            "text",
            "[" * 900 + '"\\u0000"' + "]" * 900,
        ),
        ("application/json", b"null", "json", None),
        ("application/json", b'{"a": ["\\u0000", "\\ud83d"]}', "json", {"a": ["\ufffd"] * 2}),
        ("image/png", b"\x89PNG\xff", "base64", base64.b64encode(b"\x89PNG\xff").decode()),
        # No database stores a NUL in text.
        ("text/plain", b"a\0b", "base64", base64.b64encode(b"a\0b").decode()),
        ("text/plain; charset=rot13", b"a", "text", "a"),
        ("text/plain; charset=unicode_escape", b"\\x41", "text", "\\x41"),
    ],
)
def test_every_body_is_json_text_or_base64(
    kind: str, body: bytes, field: str, expected: Any, server: Any, connect: Connect, run: Run
) -> None:
    """Whatever a server calls it, the output can be stored."""
    server.answer("/", body=body, Content_Type=kind)
    output = run(connect(), "get", url=server.url())
    assert output[field] == expected
    assert all(output[other] is None for other in {"json", "text", "base64"} - {field})


@pytest.mark.parametrize(
    ("data", "kind", "body"),
    [
        ({"json": {"ä": [1, None]}}, "application/json", '{"ä":[1,null]}'.encode()),
        ({"json": None}, "application/json", b"null"),
        ({"text": "hä"}, "text/plain; charset=utf-8", "hä".encode()),
        (
            {"form": {"a": "1 2", "b": [True, 3]}},
            "application/x-www-form-urlencoded",
            b"a=1+2&b=true&b=3",
        ),
        (
            {"text": "<a/>", "headers": {"Content-Type": "application/xml"}},
            "application/xml",
            b"<a/>",
        ),
        ({}, None, b""),
    ],
)
def test_post_sends_one_kind_of_body(
    data: dict[str, Any], kind: str | None, body: bytes, server: Any, connect: Connect, run: Run
) -> None:
    """With its content type, which the workflow can replace, and its length."""
    server.answer("/", 201)
    assert run(connect(), "post", url=server.url(), **data)["status"] == 201
    assert server.last.method == "POST"
    assert server.last.body == body
    assert server.last.headers.get("content-type") == kind
    assert server.last.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_request_takes_every_usual_method(
    method: str, server: Any, connect: Connect, run: Run
) -> None:
    """And an answer to HEAD has no body, whatever length it declares."""
    server.answer("/", body=b"0123456789")
    output = run(connect(), "request", method=method, url=server.url(), max_bytes=10)
    assert server.last.method == method
    assert output["text"] == (None if method == "HEAD" else "0123456789")
    run(connect(), "request", method="HEAD", url=server.url(), max_bytes=1)


@pytest.mark.parametrize(
    "data",
    [
        {"json": 1, "text": "a"},
        {"text": "a", "form": {}},
        {"method": "GET", "text": "a"},
        {"method": "CONNECT"},
        {"method": "GET\r\n"},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X": "1", "x": "2"}},
        {"json": "\ud800"},
        {"timeout_seconds": 0},
        {"timeout_seconds": 31},
        {"max_bytes": 10_000_000},
        {"follow_redirects": 6},
        {"verify": False},
        {"url": "/relative"},
    ],
)
def test_input_that_makes_no_sense_is_refused(
    data: dict[str, Any], server: Any, connect: Connect, run: Run
) -> None:
    """Before anything is sent; limits can be narrowed by an action and not widened."""
    with pytest.raises(AutomateError) as caught:
        run(connect(), "request", **{"method": "POST", "url": server.url(), **data})
    assert caught.value.code == "INVALID_ARGUMENT"
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "INVALID_ARGUMENT", False),
        (401, "UNAUTHENTICATED", False),
        (403, "PERMISSION_DENIED", False),
        (404, "NOT_FOUND", False),
        (422, "INVALID_ARGUMENT", False),
        (429, "RESOURCE_EXHAUSTED", True),
        (500, "INTERNAL", True),
        (502, "UNAVAILABLE", True),
        (503, "UNAVAILABLE", True),
        (504, "DEADLINE_EXCEEDED", True),
        (599, "UNAVAILABLE", True),
    ],
)
def test_a_status_says_whether_to_try_again(
    status: int, code: str, retryable: bool, server: Any, connect: Connect, run: Run
) -> None:
    """And with raise_for_status off it is an output like another."""
    server.answer("/", status, b'{"error": "too\\nbad"}', Content_Type="application/json")
    with pytest.raises(AutomateError) as caught:
        run(connect(), "get", url=server.url("/?token=hunter2"))
    error = caught.value
    assert (error.code, error.retryable, error.details) == (code, retryable, {"status": status})
    assert "too" in error.message
    assert "hunter2" not in str(error)
    output = run(connect(), "get", url=server.url(), raise_for_status=False)
    assert (output["status"], output["ok"]) == (status, False)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "120"}, 120),
        ({"Retry_After": "999999"}, 86_400),
        # By the server's own clock.
        (
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30,
        ),
        (
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT",
                "Date": "Wed, 21 Oct 2015 08:28:00 GMT",
            },
            0,
        ),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
def test_the_server_says_when_to_try_again(
    headers: dict[str, str], expected: float | None, server: Any, connect: Connect, run: Run
) -> None:
    """In seconds or as a date, and no longer than a day."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(429)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/"] = answer
    with pytest.raises(AutomateError) as caught:
        run(connect(), "get", url=server.url())
    assert caught.value.retry_after == expected


def test_what_a_server_repeats_of_a_secret_is_redacted(
    server: Any, connect: Connect, run: Run
) -> None:
    """Some error messages quote the credentials that were sent."""
    server.answer("/", 401, b"bad token hunter2", Content_Type="text/plain")
    ctx = ConnectorContext(key="http", redact=lambda text: text.replace("hunter2", "[secret]"))
    with pytest.raises(AutomateError, match=r"bad token \[secret\]"):
        run(connect(ctx=ctx), "get", url=server.url())


def test_redirects_are_followed_up_to_a_number(server: Any, connect: Connect, run: Run) -> None:
    """Each one counts; with 0 the redirect is the response."""
    server.answer("/1", 302, Location="/2")
    server.answer("/2", 302, Location="/3")
    server.answer("/3", body=b"end")
    url = server.url("/1")
    assert run(connect(), "get", url=url)["text"] == "end"
    assert run(connect(), "get", url=url, follow_redirects=2)["text"] == "end"
    with pytest.raises(AutomateError, match="more than 1 times"):
        run(connect(), "get", url=url, follow_redirects=1)
    output = run(connect(), "get", url=url, follow_redirects=0)
    assert (output["status"], output["headers"]["location"]) == (302, "/2")
    # Where the operator allows none, a redirect is not taken for a success.
    with pytest.raises(AutomateError, match="302 Found"):
        run(connect(max_redirects=0), "get", url=url)


def test_a_loop_of_redirects_ends(server: Any, connect: Connect, run: Run) -> None:
    """After as many as are allowed."""
    server.answer("/", 302, Location="/")
    with pytest.raises(AutomateError, match="more than 5 times"):
        run(connect(), "get", url=server.url())
    assert len(server.requests) == 6


def test_credentials_stay_at_their_origin(server: Any, connect: Connect, run: Run) -> None:
    """Another host gets none of the headers, whatever they are called."""
    server.answer("/", 302, Location=server.url("/b", host="elsewhere.test"))
    server.answer("/b")
    connector = connect(allow_private_networks=["public.test", "elsewhere.test"])
    headers = {"Authorization": "Bearer x", "X-Api-Key": "y", "Cookie": "z", "Accept": "text/html"}
    run(connector, "get", url=server.url(), headers=headers)
    first, second = server.requests
    assert first.headers["x-api-key"] == "y"
    assert not {"authorization", "x-api-key", "cookie"} & set(second.headers)
    assert second.headers["accept"] == "text/html"


def test_the_configs_headers_go_to_its_own_origin_only(
    server: Any, connect: Connect, run: Run
) -> None:
    """A URL from an event gets no token, and neither does another port or scheme."""
    server.answer("/v1/users")
    server.answer("/x")
    connector = connect(
        base_url=server.url("/v1"),
        headers={"Authorization": "Bearer hunter2", "X-Team": "a"},
        allow_private_networks=["public.test", "elsewhere.test"],
        allow_plain_http=True,
    )
    run(connector, "get", url="users", headers={"x-team": "b"})
    assert server.last.headers["authorization"] == "Bearer hunter2"
    assert server.last.headers["x-team"] == "b"
    run(connector, "get", url=server.url("/x"))
    assert server.last.headers["authorization"] == "Bearer hunter2"
    run(connector, "get", url=server.url("/x", host="elsewhere.test"))
    assert "authorization" not in server.last.headers


def test_cookies_are_neither_kept_nor_shown(server: Any, connect: Connect, run: Run) -> None:
    """A session of one step is none of the next one's, and no output's."""
    server.answer("/", Set_Cookie="session=hunter2; Path=/")
    connector = connect()

    async def twice() -> Any:
        await connector.call_action("get", {"url": server.url()})
        return await connector.call_action("get", {"url": server.url()})

    assert "hunter2" not in json.dumps(asyncio.run(twice()))
    assert "cookie" not in server.last.headers


def test_idempotency_keys_go_with_what_changes_something(
    server: Any, connect: Connect, run: Run
) -> None:
    """The same for each attempt of a step; the workflow's own header comes first."""
    server.answer("/")
    run(connect(), "post", key="run:1", url=server.url())
    assert server.last.headers["idempotency-key"] == "run:1"
    run(connect(), "post", key="run\n1", url=server.url())
    assert len(server.last.headers["idempotency-key"]) == 64
    run(connect(), "post", key="run:1", url=server.url(), headers={"Idempotency-Key": "mine"})
    assert server.last.headers["idempotency-key"] == "mine"
    run(connect(), "get", key="run:1", url=server.url())
    assert "idempotency-key" not in server.last.headers
    run(connect(idempotency_header=None), "post", key="run:1", url=server.url())
    assert "idempotency-key" not in server.last.headers


def test_a_long_response_is_refused(server: Any, connect: Connect, run: Run) -> None:
    """By its declared length, or as soon as it gets too long."""
    server.answer("/", body=b"x" * 2_000)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not server.stopping.is_set():
            handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")

    server.answers["/endless"] = endless
    for path in ("/", "/endless"):
        with pytest.raises(AutomateError, match="longer than 1000 bytes") as caught:
            run(connect(max_response_bytes=1_000), "get", url=server.url(path))
        assert not caught.value.retryable


def test_redirects_and_look_ups_count_as_time(server: Any, connect: Connect, run: Run) -> None:
    """A resolver that hangs is no way around the limit."""

    async def hanging(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(AutomateError, match="took longer than 0.05 seconds") as caught:
        run(connect(hanging), "get", url=server.url(), timeout_seconds=0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"SSH-2.0-OpenSSH\r\n", b"\0" * 500],
)
def test_a_broken_answer_is_worth_another_attempt(
    answer: bytes, connect: Connect, run: Run
) -> None:
    """A connection that ends too early, or a server that speaks something else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://public.test:{listener.getsockname()[1]}/"
        with pytest.raises(AutomateError) as caught:
            run(connect(), "get", url=url)
        thread.join(5)
    assert caught.value.code == "UNAVAILABLE"


def test_a_closed_port_is_unavailable(connect: Connect, run: Run) -> None:
    """And the message shows the origin, and not the path."""
    with pytest.raises(
        AutomateError, match=r"GET http://public.test:1: it can't be reached"
    ) as caught:
        run(connect(), "get", url="http://public.test:1/services/hunter2")
    assert caught.value.retryable
    assert "hunter2" not in str(caught.value)


def test_connections_are_kept_within_a_loop_and_not_across(server: Any, connect: Connect) -> None:
    """A pool belongs to one event loop: that of the worker, and that of an async host."""
    ports: list[int] = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/"] = note
    connector = connect()

    async def twice() -> None:
        for _ in range(2):
            await connector.call_action("get", {"url": server.url()})

    asyncio.run(twice())
    asyncio.run(twice())
    assert ports[0] == ports[1] != ports[2] == ports[3]


def test_many_requests_run_at_once(server: Any, connect: Connect) -> None:
    """They wait together, not one after the other."""
    barrier = threading.Barrier(10)

    def meet(handler: BaseHTTPRequestHandler) -> None:
        barrier.wait(10)
        handler.send_response(204)
        handler.end_headers()

    server.answers["/"] = meet
    connector = connect()

    async def all_at_once() -> list[Any]:
        try:
            calls = (connector.call_action("get", {"url": server.url()}) for _ in range(10))
            return await asyncio.gather(*calls)
        finally:
            await connector.close()

    assert [output["status"] for output in asyncio.run(all_at_once())] == [204] * 10


def test_no_url_header_or_body_is_logged(
    server: Any, connect: Connect, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level: httpx would log each URL, and httpcore the headers of each answer."""
    server.answer("/hunter2", Location="https://example.com/hunter2", Set_Cookie="hunter2")
    with caplog.at_level(logging.DEBUG):
        run(
            connect(),
            "post",
            url=server.url("/hunter2?key=hunter2"),
            headers={"Authorization": "hunter2"},
            text="hunter2",
        )
    assert "hunter2" not in caplog.text


def test_a_webhook_can_be_verified_by_its_receiver(server: Any, connect: Connect, run: Run) -> None:
    """By the specification's own rules, on the bytes that arrived."""

    class Reader:
        def get(self, key: str) -> str:
            return SECRET

        async def aget(self, key: str) -> str:
            return SECRET

    server.answer("/", 204)
    output = run(connect(), "send_webhook", url=server.url(), payload={"a": "ä"}, secret=SECRET)
    received = server.last
    assert output == {"status": 204, "message_id": received.headers["webhook-id"]}
    assert json.loads(received.body) == {"a": "ä"}
    assert received.headers["content-type"] == "application/json"
    assert StandardWebhooksSignature("KEY").verify(received.headers, received.body, Reader())


def test_each_attempt_sends_the_same_message(server: Any, connect: Connect, run: Run) -> None:
    """So the receiver can tell that it has it already."""
    server.answer("/")
    for _ in range(2):
        run(connect(), "send_webhook", key="run/1.2", url=server.url(), payload=1, secret=SECRET)
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    run(
        connect(),
        "send_webhook",
        key="other",
        url=server.url(),
        payload=1,
        secret=[SECRET, "b3RoZXI="],
    )
    assert server.last.headers["webhook-id"] != first.headers["webhook-id"]
    assert server.last.headers["webhook-signature"].count("v1,") == 2


def test_a_webhooks_signature_can_not_be_replaced(server: Any, connect: Connect, run: Run) -> None:
    """Headers of the workflow's go along, but not in the signature's place."""
    server.answer("/")
    headers = {"Webhook-Id": "forged", "X-Topic": "t"}
    run(connect(), "send_webhook", url=server.url(), payload=1, secret=SECRET, headers=headers)
    assert server.last.headers["webhook-id"].startswith("msg_")
    assert server.last.headers["x-topic"] == "t"


@pytest.mark.parametrize(
    ("status", "retryable"), [(302, True), (400, True), (404, True), (503, True), (410, False)]
)
def test_a_webhook_is_sent_again_unless_its_receiver_is_gone(
    status: int, retryable: bool, server: Any, connect: Connect, run: Run
) -> None:
    """A receiver in the middle of a deployment answers anything; a redirect is not followed."""
    server.answer("/", status, Location="/b")
    with pytest.raises(AutomateError) as caught:
        run(connect(), "send_webhook", url=server.url(), payload=1, secret=SECRET)
    assert caught.value.retryable is retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2!", []])
def test_a_webhook_is_not_signed_with_a_bad_secret(
    secret: Any, server: Any, connect: Connect, run: Run
) -> None:
    """Nor is the secret shown."""
    with pytest.raises(AutomateError) as caught:
        run(connect(), "send_webhook", url=server.url(), payload=1, secret=secret)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "hunter2" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"headers": {"X": "hunter2"}}, "base_url"),
        ({"base_url": "api.example.com"}, "base_url"),
        ({"base_url": "https://a.example", "headers": {"X": "hunter2\n"}}, "headers"),
        ({"base_url": "https://a.example", "headers": {"Host": "b.example"}}, "headers"),
        ({"allow_private_networks": ["10.0.0.0/99"]}, "allow_private_networks"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"max_response_bytes": -1}, "max_response_bytes"),
        ({"idempotency_header": "a b"}, "idempotency_header"),
        ({"verify": False}, "verify"),
    ],
)
def test_a_wrong_config_is_named_and_not_shown(config: dict[str, Any], field: str) -> None:
    """When the connector is made, not when a workflow runs."""
    with pytest.raises(ConfigError, match=field) as caught:
        HttpConnector(config)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_of_authorities_is_named(server: Any, connect: Connect, run: Run) -> None:
    """With its path."""
    with pytest.raises(ConfigError, match=r"/nowhere\.pem"):
        run(connect(ca_file="/nowhere.pem"), "get", url=server.url())


def test_check_looks_the_base_url_up(connect: Connect) -> None:
    """And sends nothing, since nobody knows which request is harmless."""
    assert asyncio.run(HttpConnector().check()) is None
    found = asyncio.run(connect(base_url="http://public.test").check())
    assert found is not None
    assert "http://public.test" in found
    with pytest.raises(AutomateError, match="loopback"):
        asyncio.run(connect(base_url="http://intern.test").check())
    with pytest.raises(AutomateError, match="not one of those"):
        asyncio.run(connect(base_url="http://public.test", allowed_hosts=["a.example"]).check())


def test_close_may_be_called_twice_and_the_connector_used_again(
    server: Any, connect: Connect, run: Run
) -> None:
    """Closing gives connections back; it is no end."""
    server.answer("/")
    connector = connect()
    for _ in range(2):
        run(connector, "get", url=server.url())
        asyncio.run(connector.close())


def test_a_kernel_uses_it_by_its_name(server: Any) -> None:
    """From synchronous code, with secrets in config and input, and none in the output."""
    server.answer("/me", body=b'{"you": "Bearer hunter2hunter2"}', Content_Type="application/json")
    kernel = Kernel(
        config={
            "http": {
                "base_url": f"http://127.0.0.1:{server.port}",
                "headers": {"Authorization": "Bearer $secret:TOKEN"},
                "allow_private_networks": ["127.0.0.1"],
            }
        },
        secrets={"TOKEN": "hunter2hunter2", "OTHER": "swordfishswordfish"},
    )
    try:
        output = kernel.invoke("http.get", {"url": "/me", "headers": {"X-B": "$secret:OTHER"}})
    finally:
        kernel.close()
    assert server.last.headers["authorization"] == "Bearer hunter2hunter2"
    assert server.last.headers["x-b"] == "swordfishswordfish"
    assert output["json"] == {"you": "Bearer [secret]"}
