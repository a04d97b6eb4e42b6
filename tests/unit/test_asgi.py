"""Webhooks and events over HTTP: what is let in, and what the others are told."""

from __future__ import annotations

import asyncio
import json
import threading
from urllib.parse import unquote

import httpx
import pytest

from automate_kernel import Connector, Kernel, TriggerSpec
from automate_kernel.http import pages
from automate_kernel.http.app import metrics_app, webhook_app
from automate_kernel.base.errors import StorageError
from automate_kernel.triggers.webhooks import GitHubSignature, Ignored

SECRET, TOKEN = "a-webhook-secret", "an-events-token"
BODY = json.dumps({"ref": "refs/heads/main"}).encode()


class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec(
                "push", signature=GitHubSignature("HOOK"), delivery_id_header="X-GitHub-Delivery"
            )
        ]


@pytest.fixture
def kernel():
    with Kernel(plugins=[GitHub], secrets={"HOOK": SECRET}, discover=False) as kernel:
        yield kernel


def call(app, method: str, path: str, **options) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def push(app, body: bytes = BODY, path: str = "/webhooks/github/push", **changed) -> httpx.Response:
    headers = {"X-GitHub-Delivery": "d-1", **GitHubSignature("HOOK").sign(body, SECRET), **changed}
    return call(app, "POST", path, content=body, headers=headers)


def test_a_signed_webhook_becomes_an_event(kernel: Kernel) -> None:
    """The sender gets the event's id, and the outbox has it."""
    response = push(webhook_app(kernel))
    assert response.status_code == 202
    assert response.json()["duplicate"] is False
    item = kernel.outbox.get(response.json()["id"])
    assert item.payload["name"] == "github.push"
    assert item.payload["payload"] == {"ref": "refs/heads/main"}


def test_a_fault_of_our_own_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that answers with text: its sender did nothing wrong, and learns no remedies."""

    class Hub(GitHub):
        def parse_webhook(self, trigger, headers, raw_body):
            return Ignored("a test", "text")

    with Kernel(plugins=[Hub], secrets={"HOOK": SECRET}, discover=False) as kernel:
        response = push(webhook_app(kernel))
    assert response.status_code == 500
    assert response.json() == {"error": "it failed; the log says why"}
    assert "the answer is a JSON object" in caplog.text


def test_a_repeated_delivery_is_a_success_that_does_nothing(kernel: Kernel) -> None:
    """Its sender stops sending, and gets the first one's id."""
    app = webhook_app(kernel)
    first, second = push(app), push(app)
    assert second.status_code == 200
    assert second.json() == {"id": first.json()["id"], "duplicate": True}
    assert len(kernel.outbox.find()) == 1


def test_all_refusals_are_the_same_bytes(kernel: Kernel) -> None:
    """Nobody learns which connectors, triggers and secrets there are."""
    app = webhook_app(kernel)
    responses = [
        push(app, **{"X-Hub-Signature-256": "sha256=" + "0" * 64}),
        push(app, path="/webhooks/github/nope"),
        push(app, path="/webhooks/nope/push"),
        call(app, "POST", "/webhooks/github/push"),
    ]
    assert {(each.status_code, each.content, str(each.headers)) for each in responses} == {
        (401, responses[0].content, str(responses[0].headers))
    }
    assert kernel.outbox.find() == []


def test_a_proven_body_that_is_not_json_is_told_so(kernel: Kernel) -> None:
    """The sender is known, so it may know what is wrong."""
    response = push(webhook_app(kernel), b"ref=main")
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"]


def test_a_body_beyond_the_limit_is_not_read(kernel: Kernel) -> None:
    """Neither one that says how long it is, nor one that doesn't."""
    app = webhook_app(kernel, max_body_bytes=10)
    assert push(app).status_code == 413
    read = []

    async def endless():
        for _ in range(1000):
            read.append(1)
            yield b"x" * 5

    async def send() -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            return (await client.post("/webhooks/github/push", content=endless())).status_code

    assert asyncio.run(send()) == 413
    assert len(read) < 10


def emit(app, body, token: str | None = TOKEN, **headers) -> httpx.Response:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return call(app, "POST", "/events", content=json.dumps(body), headers=headers)


def test_events_need_the_token_and_without_one_configured_nobody_sends(kernel: Kernel) -> None:
    """It fails closed: an empty token is none."""
    event = {"name": "order.created", "payload": {"id": 7}}
    for app in (webhook_app(kernel), webhook_app(kernel, events_token="")):
        assert emit(app, event).status_code == 403
        assert emit(app, event, token="").status_code == 403
    app = webhook_app(kernel, events_token=TOKEN)
    for token in (None, "wrong", TOKEN[:-1], "ü"):
        headers = {"Authorization": f"Bearer {token}".encode()} if token == "ü" else {}
        response = emit(app, event, token=None if token == "ü" else token, **headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert kernel.outbox.find() == []
    accepted = emit(app, event)
    assert accepted.status_code == 202
    assert kernel.outbox.get(accepted.json()["id"]).payload["payload"] == {"id": 7}


def test_an_event_has_labels(kernel: Kernel) -> None:
    """By which it is found; what can't be one is refused."""
    app = webhook_app(kernel, events_token=TOKEN)
    answer = emit(app, {"name": "a", "labels": {"order": 4711}})
    assert [one.id for one in kernel.labelled("order=4711")] == [answer.json()["id"]]
    assert emit(app, {"name": "a", "labels": {"a b": "x"}}).status_code == 400
    assert emit(app, {"name": "a", "labels": ["x"]}).status_code == 400


def test_an_idempotency_key_makes_a_second_event_the_first_one(kernel: Kernel) -> None:
    """A client that never heard the answer can ask again."""
    app = webhook_app(kernel, events_token=TOKEN)
    first = emit(app, {"name": "a"}, **{"Idempotency-Key": "k"})
    second = emit(app, {"name": "a", "idempotency_key": "k"})
    assert first.json() == second.json()


@pytest.mark.parametrize(
    "body",
    ["x", [], {}, {"name": ""}, {"name": 3}, {"name": "a", "extra": 1}, {"name": "a", "source": 3},
     {"name": "a", "payload": float("nan")}, {"name": "a", "delay": "soon"},
     {"name": "a", "priority": 10**9}, {"name": "a", "payload": "\x00"}],
)  # fmt: skip
def test_an_event_that_cannot_be_stored_is_refused(kernel: Kernel, body) -> None:
    """With a 400 that says why; nothing of it is kept."""
    response = emit(webhook_app(kernel, events_token=TOKEN), body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert kernel.outbox.find() == []


def test_health_and_readiness(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive without its database, and ready only with it, until it winds down."""
    app = webhook_app(kernel)
    assert call(app, "GET", "/readyz").status_code == 200
    app.stopping = True
    assert call(app, "GET", "/readyz").status_code == 503
    app.stopping = False

    def broken(transaction=None, **options):
        raise StorageError("postgresql://u:***@h/d: down")

    monkeypatch.setattr(kernel.storage, "begin", broken)
    response = call(app, "GET", "/readyz")
    assert (response.status_code, "postgresql" in response.text) == (503, False)
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "HEAD", "/healthz").content == b""


def test_a_database_that_does_not_answer_makes_it_unready_in_time(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks gets an answer, and liveness asks nobody; served again, it answers again."""
    hang, app = threading.Event(), webhook_app(kernel)
    monkeypatch.setattr(pages, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(kernel.outbox, "next_due_seconds", lambda: hang.wait(10))
    for _ in range(2):
        assert call(app, "GET", "/readyz").json()["problems"] == ["no answer"]
    assert call(app, "GET", "/healthz").status_code == 200
    hang.set()
    monkeypatch.undo()
    asyncio.run(lifespan(app))
    assert call(app, "GET", "/readyz").status_code == 200


async def lifespan(app) -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message) -> None:
        assert message["type"].endswith(".complete")

    await app({"type": "lifespan"}, receive, send)


def test_while_the_database_is_down_senders_are_asked_to_come_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook is not lost: 503 with Retry-After makes the service send it once more."""

    def broken(transaction=None, **options):
        raise StorageError("down")

    monkeypatch.setattr(kernel.storage, "begin", broken)
    response = push(webhook_app(kernel))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks/github/push", 405),
        ("GET", "/events", 405),
        ("POST", "/healthz", 405),
        ("GET", "/", 404),
        ("POST", "/webhooks/github", 404),
        ("POST", "/webhooks/github/push/more", 404),
        ("POST", "/webhooks/github/push/", 404),
        ("POST", "//webhooks/github/push", 404),
        ("POST", "/webhooks//push", 401),
        ("POST", "/webhooks/github%2fpush", 404),
        ("POST", "/webhooks%2Fgithub/push", 404),
        ("POST", "/x/../webhooks/github/push", 404),
        ("POST", "/events/", 404),
        ("GET", "/readyz/", 404),
        ("GET", "//readyz", 404),
    ],
)
def test_other_requests_find_nothing(kernel: Kernel, method: str, path: str, status: int) -> None:
    """A wrong method is told apart from a wrong path, and no other spelling is a right one."""
    app = webhook_app(kernel)
    assert asyncio.run(raw(app, method, path)) == status
    if method == "POST":
        signed = GitHubSignature("HOOK").sign(BODY, SECRET)
        assert asyncio.run(raw(app, method, path, signed, BODY)) == status
    assert kernel.outbox.find() == []


async def raw(app, method: str, target: str, headers=None, body: bytes = b"") -> int:
    """The status for a request whose target is sent as it stands, as servers hand it over."""
    sent = []
    scope = {
        "type": "http", "method": method, "path": unquote(target), "root_path": "",
        "raw_path": target.encode(), "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("length", "more", "status"),
    [
        ("9" * 5_000, {}, 413),
        ("0" * 5_000, {}, 413),
        ("1_0", {}, 400),
        ("+10", {}, 400),
        ("-1", {}, 400),
        ("", {}, 400),
        (str(len(BODY)), {"Transfer-Encoding": "chunked"}, 400),
        (str(len(BODY)), {}, 202),
    ],
)
def test_a_length_is_a_number_or_no_request(kernel: Kernel, length: str, more, status) -> None:
    """One that two servers may read in two ways is refused, and none makes it fail."""
    headers = {**GitHubSignature("HOOK").sign(BODY, SECRET), **more, "Content-Length": length}
    app = webhook_app(kernel)
    assert asyncio.run(raw(app, "POST", "/webhooks/github/push", headers, BODY)) == status


def test_a_deep_body_or_a_long_number_is_told_to_be_one(kernel: Kernel) -> None:
    """With the reason that is so, for events and for webhooks."""
    app = webhook_app(kernel, events_token=TOKEN)
    long = b'{"name": "a", "payload": ' + b"9" * 5_000 + b"}"
    deep = b'{"name": "a", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body, why in ((long, "more than 4,300 digits"), (deep, "nested deeper")):
        token = {"Authorization": f"Bearer {TOKEN}"}
        for response in (
            call(app, "POST", "/events", content=body, headers=token),
            push(app, body),
        ):
            assert response.status_code == 400
            assert why in response.json()["error"]


class Others:
    """Workers of which a test says how they are."""

    def __init__(self) -> None:
        self.dead, self.idle = [], ["no process has begun"]

    def live(self):
        return self.dead

    def ready(self):
        return self.idle


def test_it_is_as_ready_as_its_workers(kernel: Kernel) -> None:
    """A receiver whose workers can't start would take webhooks that nobody works on."""
    workers = Others()
    app = webhook_app(kernel, workers=workers)
    response = call(app, "GET", "/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "problems": ["no process has begun"]}
    workers.idle = []
    assert call(app, "GET", "/readyz").status_code == 200
    assert call(app, "GET", "/healthz").status_code == 200
    workers.dead = ["process 7: the claimer is stuck"]
    assert call(app, "GET", "/healthz").json()["problems"] == workers.dead


def test_what_starts_nothing_is_a_success(kernel: Kernel) -> None:
    """GitHub's ping: 200, which it shows as delivered."""
    response = push(webhook_app(kernel), **{"X-GitHub-Event": "ping"})
    assert (response.status_code, response.json()) == (200, {"ignored": "a ping"})
    assert kernel.outbox.find() == []


@pytest.mark.parametrize("prefix", ["", "/hooks"])
def test_it_can_be_mounted_in_a_fastapi_application(kernel: Kernel, prefix: str) -> None:
    """Under any path, beside the host's own routes."""
    from fastapi import FastAPI

    host = FastAPI()

    @host.get("/own")
    def own() -> str:
        return "mine"

    host.mount(prefix, webhook_app(kernel))
    assert call(host, "GET", "/own").json() == "mine"
    assert push(host, path=f"{prefix}/webhooks/github/push").status_code == 202
    assert call(host, "GET", f"{prefix}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "allowed"), [("/approvals/x.y", "GET, HEAD, POST"), ("/events", "POST")]
)
def test_a_wrong_method_is_told_all_that_the_path_takes(path: str, allowed: str) -> None:
    """The link of an approval is read and decided, and only the last of the two was named."""
    kernel = Kernel(discover=False, signing_keys=["k" * 40], public_url="https://a.example")
    transport = httpx.ASGITransport(webhook_app(kernel))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.put(path)

    response = asyncio.run(ask())
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_a_server_that_is_stopped_at_once_leaves_no_traceback() -> None:
    """It cancels what waits for the end; what is open is closed all the same."""
    closed = []

    async def stopped_at_once() -> None:
        app = webhook_app(Kernel(discover=False))
        app.closing.append(lambda: closed.append(True))
        begun = asyncio.Event()

        async def receive() -> dict[str, str]:
            if not begun.is_set():
                begun.set()
                return {"type": "lifespan.startup"}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: object) -> None:
            pass

        task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
        await begun.wait()
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(stopped_at_once())
    assert closed == [True]


AMBIGUOUS = [
    [("content-length", "4"), ("transfer-encoding", "chunked")],
    [("content-length", "4"), ("content-length", "5")],
    [("content-length", "4, 5")],
    [("content-length", "4_0")],
    [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
    [("transfer-encoding", "gzip, chunked")],
    [("transfer-encoding", "identity")],
    [("transfer-encoding", "xchunked")],
    [("host", "a"), ("host", "b")],
]


@pytest.mark.parametrize("headers", AMBIGUOUS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"), ("HEAD", "/readyz"), ("GET", "/nowhere"), ("DELETE", "/events"),
        ("POST", "/events"), ("POST", "/webhooks/github/push"), ("GET", "/operations"), ("GET", "/"),
    ],
)  # fmt: skip
def test_a_request_whose_end_is_ambiguous_is_refused_on_every_route(
    kernel: Kernel, method: str, path: str, headers
) -> None:
    """And the connection ends: what follows on it may be another one's request."""
    for app in (webhook_app(kernel, events_token=TOKEN), metrics_app(kernel)):
        sent: list = []
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "root_path": "", "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message, sent=sent):
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 400
        assert (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.parametrize(
    "keys", [["a", "b"], ["a", "a"], ["a,b"], ["a, b"]], ids=["two", "same", "joined", "spaced"]
)
def test_two_idempotency_keys_are_refused(kernel: Kernel, keys) -> None:
    """Nobody knows which was meant; without either the event would be there twice."""
    headers = [("Authorization", f"Bearer {TOKEN}"), *(("Idempotency-Key", key) for key in keys)]
    app = webhook_app(kernel, events_token=TOKEN)
    response = call(app, "POST", "/events", json={"name": "a"}, headers=headers)
    assert response.status_code == 400
    assert "Idempotency-Key" in response.json()["error"]
    assert kernel.outbox.find() == []


CLOUD = {"specversion": "1.0", "id": "1", "source": "/them", "type": "order.paid", "data": {"n": 1}}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


def send_event(kernel: Kernel, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    app = webhook_app(kernel, events_token=TOKEN)
    return call(app, "POST", "/events", content=content, headers={**BEARER, **headers})


def test_a_cloud_event_is_an_event_once(kernel: Kernel) -> None:
    """In each mode of the HTTP binding: structured, binary and in a batch."""
    first = send_event(kernel, CLOUD, **STRUCTURED)
    again = send_event(kernel, CLOUD, **STRUCTURED)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    binary = {f"ce-{name}": value for name, value in CLOUD.items() if name != "data"}
    assert send_event(kernel, CLOUD["data"], **binary).status_code == 200
    other = {**binary, "ce-id": "2", "ce-type": "order%20paid", "Content-Type": "application/json"}
    assert send_event(kernel, CLOUD["data"], **other).status_code == 202
    batch = [CLOUD, {**CLOUD, "id": "3"}]
    kind = {"Content-Type": "application/cloudevents-batch+json"}
    answer = send_event(kernel, batch, **kind)
    assert answer.status_code == 202
    assert answer.json()["ids"][0] == first.json()["id"]
    names = [item.payload["name"] for item in kernel.outbox.find()]
    assert sorted(names) == ["order paid", "order.paid", "order.paid"]


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", {}, {**CLOUD, "specversion": "0.3"}, {**CLOUD, "id": ""},
        {**CLOUD, "type": None}, {**CLOUD, "data_base64": "AA=="}, {**CLOUD, "Odd-Name": "x"},
        {**CLOUD, "source": "x" * 2_000}, {**CLOUD, "a": {"b": 1}},
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_cloud_event_is_refused(kernel: Kernel, body: object) -> None:
    """With 400, and nothing is stored."""
    assert send_event(kernel, body, **STRUCTURED).status_code == 400
    assert kernel.outbox.find() == []


def test_without_a_secret_no_signature_opens(kernel: Kernel) -> None:
    """A signature of one's own is none."""
    signed = {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
    for options in ({"events_token": TOKEN}, {"events_secrets": ["HOOK"]}):
        app = webhook_app(kernel, **options)  # type: ignore[arg-type]
        answer = call(app, "POST", "/events", content=b"{}", headers={**STRUCTURED, **signed})
        assert answer.status_code == 401, options
    assert kernel.outbox.find() == []
