"""Requests that Slack sends: the Events API, interactions and slash commands."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from automate_kernel import AutomateError, Kernel, WebhookRejectedError
from automate_kernel.http.app import webhook_app
from automate_kernel.triggers.webhooks import WebhookReceipt
from automate_slack.connector import SlackConnector
from automate_slack.forms import read_command, read_interaction
from automate_slack.fake_workspace import APP
from automate_slack.testing import FakeSlack, SlackRequest
from hypothesis import given
from hypothesis import strategies as st


def receive(kernel: Kernel, trigger: str, request: SlackRequest, **options: Any) -> WebhookReceipt:
    return kernel.receive_webhook("slack", trigger, request.headers, request.body, **options)


def answering(kernel: Kernel, trigger: str) -> None:
    """Echo what comes."""
    kernel.add_workflow({
        "name": f"on-{trigger}",
        "trigger": {"type": "webhook", "connector": "slack", "trigger": trigger},
        "steps": [{"id": "rest", "sleep": "0s"}],
        "output": "{{ event.payload }}",
    })  # fmt: skip


def payloads(kernel: Kernel, trigger: str) -> list[Any]:
    kernel.run_until_idle()
    found = kernel.executions.find(workflow=f"on-{trigger}")
    return [kernel.executions.get(each.id).output for each in found]


def over_http(kernel: Kernel, trigger: str, request: SlackRequest) -> tuple[int, Any]:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(webhook_app(kernel))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(
                f"/webhooks/slack/{trigger}", content=request.body, headers=dict(request.headers)
            )

    answer = asyncio.run(send())
    return answer.status_code, answer.json()


MENTION = {
    "type": "app_mention", "channel": "C0NEWS", "user": "U0ANN", "ts": "1.000001", "text": "<@U> hi",
}  # fmt: skip


def test_an_event_starts_a_workflow_once(slack: FakeSlack, kernel: Kernel) -> None:
    """Slack sends it again until it hears an answer: the event_id tells."""
    answering(kernel, "event")
    for event_id in ("Ev1", "Ev2", "Ev1"):
        # A retry is signed anew, and has headers that say why it comes.
        again = slack.event(MENTION, event_id=event_id)
        headers = {
            **again.headers,
            "X-Slack-Retry-Num": "1",
            "X-Slack-Retry-Reason": "http_timeout",
        }
        receive(kernel, "event", SlackRequest(headers, again.body))
    found = payloads(kernel, "event")
    assert sorted(each["event_id"] for each in found) == ["Ev1", "Ev2"]
    assert all(each["event"] == MENTION and "token" not in each for each in found)


# A request from the future ages into the five minutes while a busy machine gets to it.
@pytest.mark.parametrize("seconds", [-301, 360])
@pytest.mark.parametrize("trigger", ["event", "interaction", "command"])
def test_an_old_request_is_refused(
    slack: FakeSlack, kernel: Kernel, trigger: str, seconds: int
) -> None:
    """Five minutes, either way."""
    body = json.dumps({"type": "event_callback"}).encode()
    request = slack.signed(body, "application/json", now=time.time() + seconds)
    with pytest.raises(WebhookRejectedError):
        receive(kernel, trigger, request)


@pytest.mark.parametrize("change", ["body", "signature", "time", "none"])
def test_a_request_that_was_changed_is_refused(
    slack: FakeSlack, kernel: Kernel, change: str
) -> None:
    """Whatever of it was changed."""
    request = slack.event(MENTION)
    headers, body = dict(request.headers), request.body
    if change == "body":
        body += b" "
    elif change == "signature":
        headers["X-Slack-Signature"] = "v0=" + "0" * 64
    elif change == "time":
        # Earlier than it says, and not than now: a second later that is the time it was signed at.
        signed_at = int(headers["X-Slack-Request-Timestamp"])
        headers["X-Slack-Request-Timestamp"] = str(signed_at - 1)
    else:
        headers = {}
    assert over_http(kernel, "event", SlackRequest(headers, body))[0] == 401


def test_the_handshake_is_answered(slack: FakeSlack, kernel: Kernel) -> None:
    """With its challenge, if it is signed."""
    request = slack.url_verification("3eZbrw1aB")
    assert over_http(kernel, "event", request) == (200, {"challenge": "3eZbrw1aB"})
    assert over_http(kernel, "event", SlackRequest({}, request.body))[0] == 401


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message", "channel": "C1", "ts": "1.1", "text": "x", "app_id": APP},
        {"type": "message", "channel": "C1", "ts": "1.1", "bot_profile": {"app_id": APP}},
    ],
)
def test_what_the_app_has_written_starts_nothing(
    slack: FakeSlack, kernel: Kernel, event: Mapping[str, Any]
) -> None:
    """A workflow that answers messages would answer itself for ever."""
    assert receive(kernel, "event", slack.event(event)).ignored is not None
    other = {**event, "app_id": "A0OTHER", "bot_profile": {}}
    assert receive(kernel, "event", slack.event(other)).item_id is not None


def test_a_notice_about_limits_is_no_event(slack: FakeSlack, kernel: Kernel) -> None:
    """Slack wants 200 for it too."""
    body = json.dumps({"type": "app_rate_limited", "minute_rate_limited": 1}).encode()
    assert over_http(kernel, "event", slack.signed(body, "application/json"))[0] == 200


def test_an_event_of_the_wrong_shape_is_refused(slack: FakeSlack, kernel: Kernel) -> None:
    """A workflow can rely on the documented fields."""
    status, answer = over_http(kernel, "event", slack.event({"type": "app_mention"}))
    assert status == 400
    assert "channel" in answer["error"]


def test_an_event_that_has_no_model_comes_as_it_is(slack: FakeSlack, kernel: Kernel) -> None:
    """Slack has more events than anybody models."""
    answering(kernel, "event")
    receive(kernel, "event", slack.event({"type": "team_join", "user": {"id": "U9"}}))
    (found,) = payloads(kernel, "event")
    assert found["event"] == {"type": "team_join", "user": {"id": "U9"}}


def test_a_command_is_answered_with_200(slack: FakeSlack, kernel: Kernel) -> None:
    """Slack shows the answer; what its holder could act with is not kept."""
    answering(kernel, "command")
    request = slack.command("/deploy", "web & api", user="U0ANN", channel="C0NEWS")
    status, answer = over_http(kernel, "command", request)
    assert (status, answer["response_type"]) == (200, "ephemeral")
    assert over_http(kernel, "command", request)[0] == 200  # and starts nothing
    (found,) = payloads(kernel, "command")
    assert (found["command"], found["text"], found["user_id"]) == ("/deploy", "web & api", "U0ANN")
    assert not {"token", "response_url"} & set(found)


def test_an_interaction_is_an_event(slack: FakeSlack, kernel: Kernel) -> None:
    """Shortcuts and buttons of one's own too."""
    answering(kernel, "interaction")
    payload = {
        "type": "shortcut", "callback_id": "new", "user": {"id": "U0ANN"}, "token": "x",
        "response_url": "https://hooks.slack.com/actions/x",
    }  # fmt: skip
    assert over_http(kernel, "interaction", slack.interaction(payload)) == (200, {})
    (found,) = payloads(kernel, "interaction")
    assert (found["callback_id"], found["approval"]) == ("new", None)
    assert not {"token", "response_url"} & set(found)
    assert not kernel.executions.find(workflow="slack-approvals")


@pytest.mark.parametrize(
    "body",
    [b"", b"payload=", b"payload=%7B", b"payload=[]", b"payload=%7B%7D&payload=%7B%7D", b"\xff",
     b"payload=%FF", b"payload=" + b"%5B" * 5000, b"&".join([b"a=b"] * 200)],
)  # fmt: skip
def test_a_form_that_can_not_be_read_is_refused(
    slack: FakeSlack, kernel: Kernel, body: bytes
) -> None:
    """For good: it stays so."""
    request = slack.signed(body, "application/x-www-form-urlencoded")
    for trigger in ("interaction", "command"):
        assert over_http(kernel, trigger, request)[0] == 400


@given(st.binary(max_size=200))
def test_no_form_raises_anything_else(body: bytes) -> None:
    """Whatever it holds."""
    for read in (read_interaction, read_command):
        with pytest.raises(AutomateError):
            read(body)


@given(st.text(), st.text(max_size=40))
def test_a_form_comes_back_as_it_was_sent(text: str, name: str) -> None:
    """Of any script."""
    text = text.encode("utf-8", "replace").decode()
    name = name.encode("utf-8", "replace").decode()
    fields = {"command": "/x", "user_id": "U1", "text": text, "user_name": name}
    assert read_command(urlencode(fields).encode()) == fields
    payload = {"type": "shortcut", "user": {"id": "U1", "name": name}, "text": text}
    assert read_interaction(urlencode({"payload": json.dumps(payload)}).encode()) == payload


def test_the_triggers_say_what_comes() -> None:
    """For forms, documents and the catalogue."""
    assert [each.name for each in SlackConnector.triggers()] == ["event", "interaction", "command"]
