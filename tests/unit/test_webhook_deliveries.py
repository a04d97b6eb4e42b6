"""Deliveries that come again, and requests that start nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel import AutomateError, Connector, ConfigError, ErrorCodes, Kernel, TriggerSpec
from automate_kernel.base.errors import WebhookRejectedError
from automate_kernel.http.answers import HttpAnswer, answer_webhook
from automate_kernel.triggers.webhooks import (
    GitHubSignature,
    HmacSignature,
    Ignored,
    SlackSignature,
    StandardWebhooksSignature,
    StripeSignature,
    WebhookHeaders,
)
from defined import define

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "invoice.paid", "total": 7}'
SCHEMES = [
    GitHubSignature("HOOK"),
    HmacSignature("HOOK", header="X-Signature"),
    HmacSignature(
        "HOOK", header="X-Signature", timestamp_header="X-Time", signed="{timestamp}.{body}"
    ),
    SlackSignature("HOOK"),
    StripeSignature("HOOK"),
    StandardWebhooksSignature("HOOK"),
    StandardWebhooksSignature("HOOK", prefix="svix"),
]
by_scheme = pytest.mark.parametrize(
    "scheme", SCHEMES, ids=lambda each: f"{type(each).__name__}-{getattr(each, 'prefix', '')}"
)


def kernel_with(spec: TriggerSpec, **methods: Callable[..., Any]) -> Kernel:
    """A kernel with a connector ``hub`` that has this trigger, and these methods."""
    namespace = {"key": "hub", "triggers": classmethod(lambda cls: [spec]), **methods}
    connector = type("Hub", (Connector,), namespace)
    return Kernel(plugins=[connector], secrets={"HOOK": SECRET}, discover=False)


def send(kernel: Kernel, headers: Any, body: bytes = BODY) -> Any:
    return kernel.receive_webhook("hub", "push", headers, body)


def items(kernel: Kernel) -> int:
    return len(kernel.outbox.find())


# -- repetitions -----------------------------------------------------------------------------------


@by_scheme
@pytest.mark.parametrize("body", [BODY, b'{"id": "evt_1", "event_id": "Ev1"}', b"[]"])
def test_a_signed_request_that_is_sent_again_starts_one_thing(scheme: Any, body: bytes) -> None:
    """By default, for every scheme, whether or not the service gives deliveries an id."""
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    headers = scheme.sign(body, SECRET)
    receipts = [send(kernel, headers, body) for _ in range(3)]
    assert [each.duplicate for each in receipts] == [False, True, True]
    assert len({each.item_id for each in receipts}) == 1
    assert items(kernel) == 1


@by_scheme
def test_different_deliveries_are_different_events(scheme: Any) -> None:
    """Nothing is taken for a repetition because it has no id, or looks like another."""
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    for number in range(3):
        body = json.dumps({"number": number}).encode()
        assert not send(kernel, scheme.sign(body, SECRET), body).duplicate
    assert items(kernel) == 3


@pytest.mark.parametrize(
    ("scheme", "first", "second"),
    [
        (StripeSignature("HOOK"), {"id": "evt_1"}, {"id": "evt_2"}),
        (SlackSignature("HOOK"), {"event_id": "Ev1"}, {"event_id": "Ev2"}),
    ],
)
def test_what_the_service_signs_anew_and_sends_again_counts_once(
    scheme: Any, first: Any, second: Any
) -> None:
    """Stripe and Slack sign each attempt with its own time: the event's id tells them."""
    kernel, now = kernel_with(TriggerSpec("push", signature=scheme)), time.time()
    for wait, payload, duplicate in ((0, first, False), (60, first, True), (60, second, False)):
        body = json.dumps(payload).encode()
        headers = scheme.sign(body, SECRET, now=lambda wait=wait: now + wait)
        assert send(kernel, headers, body).duplicate is duplicate


def test_standard_webhooks_are_told_by_their_signed_id() -> None:
    """Sent again, with another time and signature, it is the same message."""
    scheme, now = StandardWebhooksSignature("HOOK"), time.time()
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    for wait, name, duplicate in ((0, "msg_1", False), (9, "msg_1", True), (9, "msg_2", False)):
        headers = scheme.sign(BODY, SECRET, message_id=name, now=lambda wait=wait: now + wait)
        assert send(kernel, headers).duplicate is duplicate


@pytest.mark.parametrize(
    "more",
    [[], [("X-GitHub-Delivery", "")], [("X-GitHub-Delivery", "  ")],
     [("X-GitHub-Delivery", "a"), ("x-github-delivery", "b")], [("X-GitHub-Delivery", "é")]],
)  # fmt: skip
def test_without_the_header_the_signature_tells_a_repetition(more: Any) -> None:
    """Missing, blank, repeated or no such text: it is no way around the guard, nor one id for all."""
    scheme = GitHubSignature("HOOK")
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    for body in (b'{"n": 1}', b'{"n": 2}'):
        headers = [*scheme.sign(body, SECRET).items(), *more]
        assert [send(kernel, headers, body).duplicate for _ in range(2)] == [False, True]
    required = kernel_with(TriggerSpec("push", signature=scheme, replay_guard="required"))
    with pytest.raises(AutomateError, match="has no delivery id") as caught:
        send(required, [*scheme.sign(BODY, SECRET).items(), *more])
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert items(required) == 0
    good = {**scheme.sign(BODY, SECRET), "X-GitHub-Delivery": "d-1"}
    assert send(required, good).item_id


def test_an_id_that_is_not_signed_can_be_done_without() -> None:
    """Who copied a request can't send it with another id, where only what is signed counts."""
    scheme = GitHubSignature("HOOK", delivery_id_header=None)
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    signed = scheme.sign(BODY, SECRET)
    for number in range(3):
        send(kernel, {**signed, "X-GitHub-Delivery": f"d-{number}"})
    assert items(kernel) == 1


def test_the_guard_can_be_left_off() -> None:
    """For a service whose requests mean something each time, though they are the same."""
    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(TriggerSpec("push", signature=scheme, replay_guard="off"))
    for _ in range(2):
        assert not send(kernel, scheme.sign(BODY, SECRET)).duplicate
    assert items(kernel) == 2


@pytest.mark.parametrize("found", ["", "  ", None, b"", KeyError("id"), 1.5, ["a"], True])
def test_a_connector_that_knows_no_id_loses_and_doubles_nothing(
    found: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheme guards in its place; one that fails, or gives what is no id, is logged."""

    def delivery_id(self: Any, trigger: str, headers: Any, raw_body: bytes) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(TriggerSpec("push", signature=scheme), delivery_id=delivery_id)
    for body in (b'{"n": 1}', b'{"n": 2}'):
        headers = scheme.sign(body, SECRET)
        assert [send(kernel, headers, body).duplicate for _ in range(2)] == [False, True]
    assert items(kernel) == 2
    wrong = not (found is None or isinstance(found, (str, bytes)))
    assert ("delivery_id failed for 'push'" in caplog.text) == wrong


@pytest.mark.parametrize(("found", "same"), [(b"d-1", "d-1"), (7, "7")])
def test_an_id_as_bytes_or_a_number_is_an_id(found: Any, same: str) -> None:
    """As a header of ASGI or a number of JSON gives it."""
    given = iter([found, same])
    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(
        TriggerSpec("push", signature=scheme), delivery_id=lambda *arguments: next(given)
    )
    first, second = (send(kernel, scheme.sign(body, SECRET), body) for body in (b"1", b"2"))
    assert (second.duplicate, second.item_id) == (True, first.item_id)


@pytest.mark.parametrize("found", [KeyError("id"), ["a"]])
def test_without_a_scheme_a_failing_connector_lets_nothing_in(found: Any) -> None:
    """Nothing else could tell a repetition; and it is no fault of the sender's."""

    def delivery_id(self: Any, *arguments: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    kernel = kernel_with(
        TriggerSpec("push"), delivery_id=delivery_id, verify_webhook=lambda *arguments: True
    )
    with pytest.raises(AutomateError) as caught:
        send(kernel, {})
    assert caught.value.code is not ErrorCodes.INVALID_ARGUMENT
    assert items(kernel) == 0


@by_scheme
@given(
    headers=st.lists(st.tuples(st.sampled_from(
        ["X-Signature", "X-Time", "webhook-id", "svix-id", "Stripe-Signature", "X-GitHub-Event"]
    ), st.text(max_size=20)), max_size=4),
    body=st.one_of(st.binary(max_size=40), st.just(b"[" * 100_000), st.just(b'{"id": 5}')),
)  # fmt: skip
def test_no_request_makes_a_scheme_raise(scheme: Any, headers: Any, body: bytes) -> None:
    """Whatever it is asked about a request, it answers with text or nothing."""
    for found in (scheme.delivery_id(headers, body), scheme.event_name(headers, body)):
        assert found is None or (isinstance(found, str) and found.strip())
    scheme.handshake(headers, body)


# -- what starts nothing ---------------------------------------------------------------------------


def github(event: str, **headers: str) -> dict[str, str]:
    return {**GitHubSignature("HOOK").sign(BODY, SECRET), "X-GitHub-Event": event, **headers}


def test_githubs_ping_is_accepted_and_starts_nothing() -> None:
    """GitHub shows a webhook as broken until its ping was answered."""
    kernel = kernel_with(TriggerSpec("push", signature=GitHubSignature("HOOK")))
    receipt = send(kernel, github("ping"))
    assert (receipt.accepted, receipt.item_id, receipt.ignored.reason) == (True, None, "a ping")
    assert items(kernel) == 0
    asked = kernel_with(TriggerSpec("push", signature=GitHubSignature("HOOK"), events="ping"))
    assert send(asked, github("ping")).item_id


def test_slacks_challenge_is_answered_and_starts_nothing() -> None:
    """Only if Slack signed it: else anybody's text would be sent back."""
    scheme = SlackSignature("HOOK")
    kernel = kernel_with(TriggerSpec("push", signature=scheme))
    body = json.dumps({"type": "url_verification", "challenge": "3eZb"}).encode()
    receipt = send(kernel, scheme.sign(body, SECRET), body)
    assert receipt.ignored.answer == {"challenge": "3eZb"}
    assert items(kernel) == 0
    with pytest.raises(AutomateError, match="refused"):
        send(kernel, {}, body)


@pytest.mark.parametrize("answer", [{}, {"text": "Got it."}])
def test_an_event_is_answered_as_its_trigger_says(answer: dict[str, str]) -> None:
    """Also one that comes again; what starts nothing is answered as ever."""
    scheme = SlackSignature("HOOK")
    kernel = kernel_with(TriggerSpec("push", signature=scheme, answer=answer))

    def answered(body: bytes) -> HttpAnswer:
        headers = scheme.sign(body, SECRET)
        return answer_webhook(kernel.receive_webhook, "hub", "push", headers, body)

    event = b'{"event_id": "Ev1"}'
    assert [answered(event) for _ in range(2)] == [HttpAnswer(200, answer)] * 2
    challenge = b'{"type": "url_verification", "challenge": "3eZb"}'
    assert answered(challenge) == HttpAnswer(200, {"challenge": "3eZb"})
    assert items(kernel) == 1


def test_a_request_is_proved_as_the_connector_says_and_goes_where_it_says() -> None:
    """The key of the secret is in its config, and one address takes all kinds of events."""
    specs = [TriggerSpec("push", signature=GitHubSignature("OTHER")), TriggerSpec("paid")]
    kernel = kernel_with(
        specs[0],
        triggers=classmethod(lambda cls: specs),
        signature_for=lambda self, trigger: GitHubSignature("HOOK"),
        route_webhook=lambda self, trigger, headers, body: json.loads(body)["kind"],
    )
    for kind, name in (("push", "hub.push"), ("paid", "hub.paid")):
        body = json.dumps({"kind": kind}).encode()
        receipt = send(kernel, GitHubSignature("HOOK").sign(body, SECRET), body)
        (item,) = kernel.outbox.find(ids=[receipt.item_id])
        assert item.payload["name"] == name
    body = b'{"kind": "nosuch"}'
    with pytest.raises(AutomateError, match="no trigger 'nosuch'"):
        send(kernel, GitHubSignature("HOOK").sign(body, SECRET), body)
    for trigger in ("push", "nosuch"):  # the proof comes first, and so does the trigger
        with pytest.raises(WebhookRejectedError):
            kernel.receive_webhook("hub", trigger, {}, b'{"kind": "paid"}')
    assert items(kernel) == 2


@pytest.mark.parametrize(
    "events",
    [
        "push",
        ["release", "push"],
        "pu*",
        {"X-GitHub-Event": "push"},
        {"x-github-event": ["a", "p*"]},
    ],
)
def test_a_trigger_takes_the_events_that_it_names(events: Any) -> None:
    """One address for all of a service's events: the others are accepted, and start nothing."""
    spec = TriggerSpec("push", signature=GitHubSignature("HOOK"), events=events)
    kernel = kernel_with(spec)
    assert send(kernel, github("push", **{"X-GitHub-Delivery": "1"})).item_id
    for event in ("issues", "xpush", "", "PUSH"):
        receipt = send(kernel, github(event, **{"X-GitHub-Delivery": f"2{event}"}))
        assert (receipt.accepted, receipt.item_id) == (True, None)
        assert receipt.ignored.reason
    repeated = [*github("push").items(), ("X-GitHub-Event", "issues")]
    assert send(kernel, repeated).ignored
    assert items(kernel) == 1


@pytest.mark.parametrize(
    "scheme", [StripeSignature("HOOK"), SlackSignature("HOOK"), StandardWebhooksSignature("HOOK")]
)
def test_a_scheme_knows_what_its_service_calls_an_event(scheme: Any) -> None:
    """By the body's type."""
    kernel = kernel_with(TriggerSpec("push", signature=scheme, events="invoice.*"))
    for body, count in ((b'{"type": "customer.new"}', 0), (b"{}", 0), (b"[", 0), (BODY, 1)):
        send(kernel, scheme.sign(body, SECRET), body)
        assert items(kernel) == count


def test_a_connector_can_accept_and_start_nothing() -> None:
    """Its parse_webhook returns Ignored; a null in the body is a payload all the same."""

    def parse_webhook(self: Any, trigger: str, headers: Any, raw_body: bytes) -> Any:
        payload = Connector.parse_webhook(self, trigger, headers, raw_body)
        return Ignored("a test", {"ok": True}) if payload == {"test": True} else payload

    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(TriggerSpec("push", signature=scheme), parse_webhook=parse_webhook)
    test = b'{"test": true}'
    for _ in range(2):
        receipt = send(kernel, scheme.sign(test, SECRET), test)
        assert receipt.ignored == Ignored("a test", {"ok": True})
        assert not receipt.duplicate
    assert items(kernel) == 0
    assert send(kernel, scheme.sign(b"null", SECRET), b"null").item_id


@pytest.mark.parametrize("answer", ["ok", [1], {"at": object()}, {"n": float("nan")}])
def test_an_answer_that_is_no_json_object_is_the_connectors_slip(answer: Any) -> None:
    """The service would get the text of an object, and a success."""

    def parse_webhook(self: Any, trigger: str, headers: Any, raw_body: bytes) -> Any:
        return Ignored("a test", answer)

    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(TriggerSpec("push", signature=scheme), parse_webhook=parse_webhook)
    with pytest.raises(ConfigError, match="JSON object") as caught:
        send(kernel, scheme.sign(b"{}", SECRET), b"{}")
    assert caught.value.hint


def test_what_a_connector_tells_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """It knows the secret, and its words go to the log and to the sender."""

    def parse_webhook(self: Any, trigger: str, headers: Any, raw_body: bytes) -> Any:
        value = self.ctx.secrets.get("HOOK")
        return Ignored(f"signed with {value}", {"key": value})

    scheme = HmacSignature("HOOK", header="X-Signature")
    kernel = kernel_with(TriggerSpec("push", signature=scheme), parse_webhook=parse_webhook)
    with caplog.at_level("INFO"):
        receipt = send(kernel, scheme.sign(BODY, SECRET))
    assert "starts nothing: signed with" in caplog.text
    assert SECRET not in f"{caplog.text} {receipt}"


def test_what_is_told_is_told_of_proven_requests_only() -> None:
    """Filters come after the signature: a stranger learns nothing of them."""
    spec = TriggerSpec("push", signature=GitHubSignature("HOOK"), events="push")
    with pytest.raises(AutomateError, match="refused"):
        send(kernel_with(spec), {"X-GitHub-Event": "ping"})


def test_workflows_see_the_headers_that_a_trigger_keeps() -> None:
    """In conditions and in templates, by their names in lower case; no other header is stored."""
    spec = TriggerSpec(
        "push", signature=GitHubSignature("HOOK"), keep_headers=["X-GitHub-Event", "X-Absent"]
    )
    kernel = kernel_with(spec)
    seen: list[str] = []

    @kernel.action("note.it")
    def note(event: str) -> None:
        seen.append(event)

    define(
        kernel,
        {
            "id": "a",
            "action": "note.it",
            "input": {"event": "{{ event.headers['x-github-event'] }}"},
        },
        name="on-push",
        trigger={
            "type": "webhook",
            "connector": "hub",
            "trigger": "push",
            "if": "{{ event.headers['x-github-event'] == 'push' }}",
        },
    )
    for event in ("push", "issues"):
        send(kernel, github(event, **{"X-GitHub-Delivery": event}))
    kernel.run_until_idle()
    assert seen == ["push"]
    (execution,) = kernel.executions.find()
    assert execution.event.headers == {"x-github-event": "push"}
    assert "sha256=" not in json.dumps(execution.event.to_json())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"keep_headers": ["Authorization"]}, "can't be kept"),
        ({"keep_headers": ["X-Hub-Signature-256"]}, "can't be kept"),
        ({"keep_headers": ["x-api-key"]}, "can't be kept"),
        ({"keep_headers": "X-Event"}, "is text"),
        ({"replay_guard": "yes"}, "can't be 'yes'"),
        ({"events": ["push"]}, "doesn't tell what an event is called"),
        ({"answer": "ok"}, "can't be a str"),
        ({"answer": {"seen": {1}}}, "JSON doesn't have"),
    ],
)
def test_a_trigger_that_can_not_be_meant_is_refused(options: Any, why: str) -> None:
    """At once, with the remedy."""
    with pytest.raises(ConfigError, match=why) as caught:
        TriggerSpec("push", **options)
    assert caught.value.hint


def test_headers_of_an_event_that_are_no_object_are_no_event() -> None:
    """Stored by whom ever, they don't reach a template."""
    from automate_kernel.base.errors import PayloadError
    from automate_kernel.workflows.execution import Event

    with pytest.raises(PayloadError, match="headers"):
        Event.from_json({"id": "1", "name": "a", "headers": ["x"]})
    assert WebhookHeaders({}) == {}


# -- another id of the same signed body --------------------------------------------------------------


def _github(body: bytes, delivery: str, event: str = "push") -> dict[str, str]:
    headers = GitHubSignature("HOOK").sign(body, SECRET)
    return headers | {"X-GitHub-Delivery": delivery, "X-GitHub-Event": event}


def test_an_id_that_nobody_signed_makes_no_second_event() -> None:
    """Who recorded a request can send it with an id of their own, and with another event's name."""
    kernel = kernel_with(TriggerSpec("push", signature=GitHubSignature("HOOK")))
    first = send(kernel, _github(BODY, "1"))
    for delivery, event in (
        ("2", "push"),
        ("3", "workflow_dispatch"),
        ("3", "repository_dispatch"),
    ):
        again = send(kernel, _github(BODY, delivery, event))
        assert (again.duplicate, again.item_id) == (True, first.item_id)
    assert items(kernel) == 1
    other = b'{"type": "invoice.paid", "total": 8}'
    # The same delivery comes again, as GitHub sends it for days.
    for duplicate in (False, True):
        assert send(kernel, _github(other, "4"), other).duplicate is duplicate
    assert items(kernel) == 2


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("workflow_dispatch", b'{"inputs": {"to": "live"}, "ref": "main", "workflow": "x"}'),
        ("repository_dispatch", b'{"action": "go", "client_payload": {"n": 1}}'),
    ],
)
def test_two_dispatches_may_be_alike(event: str, body: bytes) -> None:
    """A person presses the same button twice: each counts, and a redelivery does not."""
    kernel = kernel_with(TriggerSpec("push", signature=GitHubSignature("HOOK")))
    assert not send(kernel, _github(body, "1", event), body).duplicate
    assert not send(kernel, _github(body, "2", event), body).duplicate
    assert send(kernel, _github(body, "2", event), body).duplicate
    assert items(kernel) == 2


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("workflow_dispatch", b"payload=%7B%22inputs%22%3A1%7D"),
        ("repository_dispatch", b'["inputs"]'),
        ("workflow_dispatch", b'{"ref": "main"}'),
        ("push", b'{"inputs": {}, "ref": "main"}'),
    ],
    ids=["form", "list", "no inputs", "no dispatch"],
)
def test_a_body_that_is_no_dispatch_counts_once(event: str, body: bytes) -> None:
    """Whatever its header says, which nobody has signed, and whatever it holds."""
    scheme = GitHubSignature("HOOK")
    ids = {scheme.second_id(_github(body, delivery, event), body) for delivery in ("1", "2")}
    assert len(ids) == 1 and None not in ids
