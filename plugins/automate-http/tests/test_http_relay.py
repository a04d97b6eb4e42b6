"""The relay to an address: to another installation, through answers of each kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import uvicorn
from automate_http import HttpRelay
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.http.app import webhook_app
from automate_kernel.relays import CloudEvent, Relay
from automate_testing.contracts.relay import Connect, Received, RelayContract, event, run, sent

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS1yZWxheQ=="
OTHER = "whsec_" + "YW5vdGhlci1zZWNyZXQtb25l"


class Installation:
    """Another host that takes events at ``/events``, as ``automate serve`` does."""

    def __init__(self, **options: Any) -> None:
        self.kernel = Kernel(discover=False, secrets={"RELAY": SECRET, "OLD": OTHER})
        app = webhook_app(self.kernel, max_body_bytes=2_000_000, **options)
        config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive()
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/events"

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(20)

    def events(self) -> Sequence[CloudEvent]:
        """Return its events, the oldest first, with the ids that they came with."""
        found = reversed(self.kernel.outbox.find(kind="automate.event", limit=1_000))
        return [
            CloudEvent(
                id=item.headers["automate-relayed"]["id"], source=item.payload["source"],
                type=item.payload["name"], data=item.payload["payload"],
                time=item.payload["occurred_at"],
                tenant_id=item.tenant_id, partition_key=item.ordering_key, labels=item.labels,
                trace={k: v for k, v in item.headers.items() if k == "traceparent"},
            )
            for item in found
            if "automate-relayed" in item.headers
        ]  # fmt: skip


@pytest.fixture
def installation() -> Iterator[Installation]:
    """Another installation that takes what is signed."""
    made = Installation(events_secrets=["RELAY"])
    yield made
    made.stop()


class TestHttpRelay(RelayContract):
    """Each connection is another client of one installation."""

    @pytest.fixture
    def connect(self, installation: Installation) -> Connect:
        """Return a function that connects."""
        return lambda: HttpRelay(installation.url, secret=SECRET)

    @pytest.fixture
    def received(self, installation: Installation) -> Received:
        """Return a function that reads the other outbox."""
        return installation.events

    @pytest.fixture
    def cut(self, installation: Installation) -> Callable[[], None]:
        """Return a function that stops the other installation."""
        return installation.stop


def send(relay: Relay) -> None:
    run(sent(relay, event({"a": 1})))


def test_who_may_not_send_is_no_fault_of_the_event(installation: Installation) -> None:
    """Another secret, none, and a token where there is none: the event waits, and says why."""
    for options in ({"secret": OTHER}, {}, {"token": "t"}):
        with pytest.raises(AutomateError, match="answered 401") as caught:
            send(HttpRelay(installation.url, **options))  # type: ignore[arg-type]
        assert caught.value.code is ErrorCodes.UNAVAILABLE
    assert installation.events() == []


def test_a_token_does_too_and_secrets_are_rotated() -> None:
    """Several secrets sign; one of them that the other side knows is enough."""
    made = Installation(events_token="a-token", events_secrets=["OLD", "RELAY"])
    try:
        send(HttpRelay(made.url, token="a-token"))
        send(HttpRelay(made.url, secret=["whsec_bmV3", SECRET]))
        assert len(made.events()) == 2
    finally:
        made.stop()


def test_a_changed_body_is_refused(installation: Installation) -> None:
    """The signature is of all that is sent."""
    import httpx
    from automate_kernel.triggers.webhooks import StandardWebhooksSignature

    body = event({"a": 1}).to_text().encode()
    headers = StandardWebhooksSignature("RELAY").sign(body, SECRET)
    kind = {"Content-Type": "application/cloudevents+json"}
    changed = body.replace(b'"a": 1', b'"a": 2').replace(b'"a":1', b'"a":2')
    assert changed != body
    answer = httpx.post(installation.url, content=changed, headers={**headers, **kind})
    assert answer.status_code == 401
    assert installation.events() == []


ANSWERS = {
    200: None, 204: None, 400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT", 301: "UNAVAILABLE", 401: "UNAVAILABLE", 403: "UNAVAILABLE",
    404: "UNAVAILABLE", 429: "UNAVAILABLE", 500: "UNAVAILABLE", 503: "UNAVAILABLE",
}  # fmt: skip


@pytest.mark.parametrize(("status", "code"), ANSWERS.items())
def test_an_answer_ends_an_event_only_if_it_will_never_be_taken(
    server: Any, status: int, code: str | None
) -> None:
    """What another configuration or a moment may mend is tried again; no text of it is shown."""
    server.answer("/hook", status, b"s3cr3t text", Retry_After="7", Location="/x")
    relay = HttpRelay(server.url("/hook?key=s3cr3t", host="127.0.0.1"), secret=SECRET)
    if code is None:
        send(relay)
        return
    with pytest.raises(AutomateError) as caught:
        send(relay)
    assert caught.value.code == code
    assert "s3cr3t" not in str(caught.value)
    if code == "UNAVAILABLE":
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "ftp://a"}, "begins with https"),
        ({"url": "https://u:p4ssw0rd@a/"}, "has a password in it"),
        ({"url": "http://a.example/", "token": "t"}, "in the clear"),
        ({"url": "https://a/", "timeout": 60}, "below 30"),
        ({"url": "https://a/", "secret": "not base64 !"}, "Standard Webhooks"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], text: str) -> None:
    """And no secret is in the error."""
    with pytest.raises(AutomateError, match=text) as caught:
        HttpRelay(**options)
    assert "p4ssw0rd" not in str(caught.value)
    assert isinstance(caught.value, ConfigError) or "secret" in options


def test_two_installations_exchange_events_and_none_goes_round() -> None:
    """Each relays all that it emits to the other; each event is there once on both sides."""
    one, two = (Installation(events_secrets=["RELAY"]) for _ in range(2))
    kernels = [
        Kernel(
            each.kernel.storage, discover=False,
            relays={"other": HttpRelay(other.url, secret=SECRET)},
        )
        for each, other in ((one, two), (two, one))
    ]  # fmt: skip
    try:
        kernels[0].emit("a", {"n": 1}, labels={"order": 7}, ordering_key="7")
        kernels[1].emit("b", {"n": 2})
        for _ in range(3):
            for kernel in kernels:
                kernel.run_until_idle()
        for each in (one, two):
            found = each.kernel.outbox.find(kind="automate.event", limit=50)
            assert sorted(item.payload["name"] for item in found) == ["a", "b"]
        (came,) = [each for each in two.events() if each.type == "a"]
        assert (came.labels, came.partition_key) == ({"order": "7"}, "7")
    finally:
        for kernel in kernels:
            kernel.close()
        one.stop()
        two.stop()
